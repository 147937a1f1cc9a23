"""Stores for tests: each test that asks for one runs on dicts, on SQLite and on MariaDB.

`any_url()` gives the URL of a new, empty database, `open_store(url, row_types)` opens a store on it that is closed at
the test's end, `any_store(row_types)` is both at once, with its tables made. `emptied_store(row_types)` is the same but
faster where making tables takes long: on MariaDB the tests of a worker share a schema, and each finds it empty.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Protocol

import pytest

from cells.decision import Remove
from cells.lab.mariadb import MariaServer
from cells.rows import MACHINERY, key_of
from cells.store import AnyStore as Store
from cells.store import open_store as open_by_url
from cells.store.sql import SqlStore

NewUrl = Callable[[], str]


class OpenStore(Protocol):
    def __call__(self, url: str, row_types: Iterable[type] = (), *, lock_wait: int = 5) -> Store: ...


class AnyStore(Protocol):
    def __call__(self, row_types: Iterable[type] = ()) -> Store: ...


@pytest.fixture(params=["dict", "sqlite", pytest.param("mariadb", marks=pytest.mark.services)])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> NewUrl:
    return new_urls(request, tmp_path)


def new_urls(request: pytest.FixtureRequest, tmp_path: Path) -> NewUrl:
    """Addresses of empty databases of the kind the fixture's parameter names."""
    if request.param == "mariadb":
        made: NewUrl = request.getfixturevalue("new_schema")
        return made
    numbers = count()
    if request.param == "dict":
        return lambda: f"dict://test-{secrets.token_hex(8)}"
    return lambda: f"sqlite:///{tmp_path}/{next(numbers)}.db"


@pytest.fixture
def open_store() -> Iterator[OpenStore]:
    stores: list[Store] = []

    def opened(url: str, row_types: Iterable[type] = (), *, lock_wait: int = 5) -> Store:
        store = open_by_url(url, row_types, lock_wait=lock_wait)
        stores.append(store)
        return store

    yield opened
    for store in stores:
        store.close()


@pytest.fixture
def any_store(any_url: NewUrl, open_store: OpenStore) -> AnyStore:
    def made(row_types: Iterable[type] = ()) -> Store:
        store = open_store(any_url(), row_types)
        store.create_all()
        return store

    return made


@pytest.fixture(scope="session")
def shared_schema(request: pytest.FixtureRequest) -> Iterator[Callable[[tuple[type, ...]], str]]:
    """Gives the URL of this worker's schema for these rows, with tables."""
    made: list[tuple[MariaServer, str]] = []

    @cache
    def url_for(row_types: tuple[type, ...]) -> str:
        server: MariaServer = request.getfixturevalue("mariadb")
        name, password = f"s_{secrets.token_hex(5)}", secrets.token_urlsafe(9)
        server.create_schema(name, name, password)
        made.append((server, name))
        url = server.url(name, name, password)
        store = SqlStore(url, row_types)
        store.create_all()
        store.close()
        return url

    yield url_for
    for server, name in made:
        server.drop_schema(name, name)


@pytest.fixture(params=["dict", "sqlite", pytest.param("mariadb", marks=pytest.mark.services)])
def emptied_store(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    open_store: OpenStore,
    shared_schema: Callable[[tuple[type, ...]], str],
) -> AnyStore:
    def made(row_types: Iterable[type] = ()) -> Store:
        rows = tuple(row_types)
        if request.param != "mariadb":
            url = "dict://" if request.param == "dict" else f"sqlite:///{tmp_path}/emptied.db"
            store = open_store(url, rows)
            store.create_all()
            return store
        store = open_store(shared_schema(rows), rows)
        with store.unit() as unit:
            for row in (*MACHINERY, *rows):
                left: tuple[object, ...] = unit.find(row)
                unit.save(*(Remove(row=row, key=key_of(each)) for each in left))
        return store

    return made
