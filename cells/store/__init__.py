"""A cell's database: rows to tables, units of work, and the check that the schema fits this version. The URL chooses:
SQLite and MariaDB (cells.store.sql), or dicts in memory for simulations (cells.store.dicts)."""

from collections.abc import Iterable

from cells.store.dicts import SCHEME, DictStore
from cells.store.sql import SqlStore

AnyStore = SqlStore | DictStore


def open_store(url: str, row_types: Iterable[type] = (), *, lock_wait: int = 5) -> AnyStore:
    """The store at this URL. `lock_wait` (seconds): how long a unit waits for another one. BadInput for a URL of no
    known kind."""
    if url.startswith(f"{SCHEME}:"):
        return DictStore(url, row_types, lock_wait=lock_wait)
    return SqlStore(url, row_types, lock_wait=lock_wait)
