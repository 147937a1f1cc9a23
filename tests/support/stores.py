"""Stores for tests: each test that asks for one runs on SQLite and on MariaDB.

`any_url()` gives the URL of a new, empty database, `open_store(url, row_types)` opens a store on it that is closed at
the test's end, `any_store(row_types)` is both at once, with its tables made.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Protocol

import pytest

from cells.store.sql import SqlStore

NewUrl = Callable[[], str]


class OpenStore(Protocol):
    def __call__(self, url: str, row_types: Iterable[type] = (), *, lock_wait: int = 5) -> SqlStore: ...


class AnyStore(Protocol):
    def __call__(self, row_types: Iterable[type] = ()) -> SqlStore: ...


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.services)])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> NewUrl:
    if request.param == "mariadb":
        made: NewUrl = request.getfixturevalue("new_schema")
        return made
    numbers = count()
    return lambda: f"sqlite:///{tmp_path}/{next(numbers)}.db"


@pytest.fixture
def open_store() -> Iterator[OpenStore]:
    stores: list[SqlStore] = []

    def opened(url: str, row_types: Iterable[type] = (), *, lock_wait: int = 5) -> SqlStore:
        store = SqlStore(url, row_types, lock_wait=lock_wait)
        stores.append(store)
        return store

    yield opened
    for store in stores:
        store.close()


@pytest.fixture
def any_store(any_url: NewUrl, open_store: OpenStore) -> AnyStore:
    def made(row_types: Iterable[type] = ()) -> SqlStore:
        store = open_store(any_url(), row_types)
        store.create_all()
        return store

    return made
