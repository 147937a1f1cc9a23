"""The store's twin on dicts, for simulations: the same View, Unit and Store (cells.ports), held to by the same contract
suite, in memory only. `dict://` is a database of its own, `dict://NAME` is shared by every store of that name in this
process for as long as one of them lives.

A unit writes into a draft that is laid over the tables when it ends well: one that dies leaves nothing. Units that
lock are alone, as SQLite's writers are. A unit that does not lock is told Conflict at its end when a row it writes
has changed since it read it.
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from operator import attrgetter
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from cells.decision import Remove
from cells.errors import BadInput, Conflict, Permanent, Temporary
from cells.names import Instant
from cells.ports import After, Where
from cells.rows import CounterRow, InboxRow
from cells.store import partitions
from cells.store.failures import UPGRADE
from cells.store.stats import Stats
from cells.store.tables import BLOB, ENUM, ID, STRING, TEXT, Column, Key, RowTable, row_tables

SCHEME = "dict"
LOCK_WAIT_SECONDS = 5
R = TypeVar("R")
_ABSENT: Final = object()
_LARGEST = 2**63

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda found, asked: found == asked,
    "!=": lambda found, asked: found != asked,
    "<": lambda found, asked: found < asked,
    "<=": lambda found, asked: found <= asked,
    ">": lambda found, asked: found > asked,
    ">=": lambda found, asked: found >= asked,
    "in": lambda found, asked: found in asked,
}


class DictDatabase:
    """What outlives its stores: the tables, and who may write."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[Key, Any]] = {}
        self.writer = threading.Lock()

    def copy(self) -> dict[str, dict[Key, Any]]:
        """All rows as they are now: a backup."""
        with self.writer:
            return {name: dict(rows) for name, rows in self.tables.items()}

    def put_back(self, backup: dict[str, dict[Key, Any]]) -> None:
        """The rows become those of a backup."""
        with self.writer:
            for name, rows in self.tables.items():
                rows.clear()
                rows.update(backup[name])


_shared: WeakValueDictionary[str, DictDatabase] = WeakValueDictionary()


def open_database(url: str) -> DictDatabase:
    """The database a URL means; BadInput when it means none."""
    parts = urlsplit(url)
    if parts.scheme != SCHEME or parts.path.strip("/"):
        raise BadInput(f"{url!r} is no database in memory; write dict:// or dict://NAME")
    if not parts.netloc:
        return DictDatabase()
    return _shared.setdefault(parts.netloc, DictDatabase())


class DictStore:
    """The Store of cells.ports on dicts. Thread-safe."""

    unit_class: "type[DictUnit]"

    def __init__(self, url: str, row_types: Iterable[type] = (), *, lock_wait: int = LOCK_WAIT_SECONDS) -> None:
        self.database = open_database(url)
        self.lock_wait = lock_wait
        self.commits = 0
        self._tables, self._checks = _tables(tuple(row_types))

    @contextmanager
    def unit(self, *, lock: bool = True) -> Iterator["DictUnit"]:
        """One transaction, kept when the block ends well."""
        unit = self.unit_class(self, self._tables, lock=lock)
        try:
            yield unit
            unit.commit()
        finally:
            unit.abandon()

    def create_all(self) -> None:
        """Make the tables that are not there."""
        for table in self._tables.values():
            self.database.tables.setdefault(table.name, {})

    def check(self, row: Any) -> None:
        """Permanent, naming the field, when a value would not fit its column in SQL."""
        for name, check in self._checks[type(row)]:
            value = getattr(row, name)
            try:
                check(value)
            except (TypeError, ValueError) as error:
                table = self._tables[type(row)]
                raise Permanent(f"{table.name}.{name} of row {table.key_of(row)!r}: {error}") from error

    def roll(self, now: Instant, keep: Instant = 30 * partitions.DAY) -> None:
        """Let go of expired inbox marks and of story lines and parked messages older than `keep`."""
        with self.database.writer:
            for row in partitions.DAILY:
                table = self.database.tables[self._tables[row].name]
                oldest = partitions.first_id(now - keep)
                old = [
                    key
                    for key, value in table.items()
                    if (value.expires < now if row is InboxRow else value.id < oldest)
                ]
                for key in old:
                    del table[key]

    def ping(self) -> None:
        """A database in memory is always in reach."""

    def stats(self) -> Stats:
        """What commits have cost so far."""
        return Stats(commits=self.commits, commit_seconds=0.0)

    def close(self) -> None:
        """The rows stay for as long as another store, or its owner, holds the database."""


class _Draft:
    """What a unit knows of one table: `known` are rows read or saved (_ABSENT: none), `read` what they were when
    read, and three disjoint sets of keys still to be written."""

    __slots__ = ("complete", "inserts", "known", "read", "removes", "rows", "saves", "table")

    def __init__(self, table: RowTable, rows: dict[Key, Any]) -> None:
        self.table = table
        self.rows = rows
        self.known: dict[Key, Any] = {}
        self.read: dict[Key, Any] = {}
        self.inserts: dict[Key, None] = {}
        self.saves: dict[Key, None] = {}
        self.removes: dict[Key, None] = {}
        self.complete = False


class DictUnit:
    """The Unit of cells.ports. Belongs to one thread; of no use after an error or after its end."""

    def __init__(self, store: DictStore, tables: dict[type, RowTable], *, lock: bool) -> None:
        self._store = store
        self._tables = tables
        self._lock = lock
        self._drafts: dict[type, _Draft] = {}
        self._failed: Exception | None = None
        self._is_writer = False

    def written(self) -> tuple[type, ...]:
        """The row types of which there is anything to commit."""
        return tuple(row for row, draft in self._drafts.items() if draft.inserts or draft.saves or draft.removes)

    # --- reading ---

    def get(self, row: type[R], *key: Any) -> R | None:
        found: R | None = self._get(self._use(row), key)
        return found

    def get_many(self, row: type[R], keys: Sequence[tuple[Any, ...]]) -> dict[tuple[Any, ...], R]:
        draft = self._use(row)
        return {key: found for key in keys if (found := self._get(draft, key)) is not None}

    def all(self, row: type[R]) -> tuple[R, ...]:
        draft = self._use(row)
        if not draft.complete:
            for key in draft.rows:
                self._get(draft, key)
            draft.complete = True
        return tuple(found for _, found in sorted(draft.known.items(), key=_first) if found is not _ABSENT)

    def find(
        self,
        row: type[R],
        *where: Where,
        order: tuple[str, ...] = (),
        descending: bool = False,
        after: After | None = None,
        limit: int | None = None,
    ) -> tuple[R, ...]:
        draft = self._use(row)
        for name in order:
            draft.table.column(name)
        found = self._meeting(draft, where)
        if order:
            sort_key = _sort_key(order)
            found.sort(key=sort_key, reverse=descending)
            if after is not None:
                mark = tuple(map(_sortable, after.values))
                found = [each for each in found if (sort_key(each) < mark if descending else sort_key(each) > mark)]
        found = found[:limit]
        for each in found:
            self._get(draft, draft.table.key_of(each))
        return tuple(found)

    def count(self, row: type[Any], *where: Where) -> int:
        return len(self._meeting(self._use(row), where))

    # --- writing ---

    def save(self, *rows: Any) -> None:
        for row in rows:
            if isinstance(row, Remove):
                self._remove(row)
                continue
            draft = self._use(type(row))
            key = draft.table.key_of(row)
            if key in draft.removes:
                del draft.removes[key]
                draft.saves[key] = None
            elif key not in draft.inserts:
                before = draft.known.get(key, _ABSENT if draft.complete else None)
                (draft.inserts if before is _ABSENT else draft.saves)[key] = None
            draft.known[key] = row

    def insert(self, *rows: Any) -> None:
        for row in rows:
            draft = self._use(type(row))
            key = draft.table.key_of(row)
            if draft.known.get(key, _ABSENT) is not _ABSENT:
                raise self._fail(Conflict(f"{draft.table.name} {key!r} is there already", retry_after=0.0))
            if key in draft.removes:
                del draft.removes[key]
                draft.saves[key] = None
            else:
                draft.inserts[key] = None
            draft.known[key] = row

    def count_up(self, name: str, by: int = 1) -> int:
        if not self._is_writer:
            self._begin_writing()
            draft = self._use(CounterRow)
            if (name,) not in draft.saves and (name,) not in draft.inserts:
                draft.known.pop((name,), None)
                draft.read.pop((name,), None)
        counter = self.get(CounterRow, name)
        value = (counter.value if counter is not None else 0) + by
        self.save(CounterRow(name=name, value=value))
        return value

    def commit(self) -> None:
        """Lay the draft over the tables. Called by the store when the `with` block ends well."""
        if self._failed is not None:
            raise self._failed
        changed = [draft for draft in self._drafts.values() if draft.inserts or draft.saves or draft.removes]
        if not changed:
            return
        if not self._is_writer:
            self._begin_writing()
        for draft in changed:
            self._check(draft)
        for draft in changed:
            for key in draft.removes:
                draft.rows.pop(key, None)
            for keys in (draft.inserts, draft.saves):
                for key in keys:
                    draft.rows[key] = draft.known[key]
        self._store.commits += 1

    def abandon(self) -> None:
        """Let others write. May be called again."""
        if self._is_writer:
            self._is_writer = False
            self._store.database.writer.release()

    # --- inside ---

    def _use(self, row: type) -> _Draft:
        if self._failed is not None:
            raise self._failed
        draft = self._drafts.get(row)
        if draft is None:
            if row not in self._tables:
                raise TypeError(f"{row.__name__} is no row of this store: name it among the store's row types")
            table = self._tables[row]
            rows = self._store.database.tables.get(table.name)
            if rows is None:
                raise self._fail(Temporary(f"the database schema has no table {table.name}; {UPGRADE}"))
            draft = self._drafts[row] = _Draft(table, rows)
        return draft

    def _get(self, draft: _Draft, key: Key) -> Any:
        found = draft.known.get(key)
        if found is None:
            if self._lock and not self._is_writer:
                self._begin_writing()
            found = draft.known[key] = draft.read[key] = draft.rows.get(key, _ABSENT)
        return None if found is _ABSENT else found

    def _meeting(self, draft: _Draft, where: tuple[Where, ...]) -> list[Any]:
        tests = [_test(draft.table, each) for each in where]
        if self._lock and not self._is_writer:
            self._begin_writing()
        for key in draft.inserts:
            self._refuse_clash(draft, key)
        known, found = draft.known, []
        for key, row in draft.rows.items():
            now = known.get(key, row)
            if now is not _ABSENT and all(test(now) for test in tests):
                found.append(now)
        new = (*draft.inserts, *(key for key in draft.saves if key not in draft.rows))
        found += [known[key] for key in new if all(test(known[key]) for test in tests)]
        return found

    def _remove(self, asked: Remove) -> None:
        draft = self._use(asked.row)
        if asked.key in draft.inserts:
            self._refuse_clash(draft, asked.key)
            del draft.inserts[asked.key]
        draft.saves.pop(asked.key, None)
        draft.removes[asked.key] = None
        draft.known[asked.key] = _ABSENT

    def _check(self, draft: _Draft) -> None:
        for key in draft.inserts:
            self._refuse_clash(draft, key)
        for keys in (draft.inserts, draft.saves):
            for key in keys:
                try:
                    self._store.check(draft.known[key])
                except Permanent as error:
                    raise self._fail(error) from error.__cause__
        if self._lock:
            return
        for key in (*draft.saves, *draft.removes):
            if draft.read.get(key, draft.rows.get(key, _ABSENT)) is not draft.rows.get(key, _ABSENT):
                raise self._fail(Conflict(f"{draft.table.name} {key!r} has changed since it was read", retry_after=0.0))

    def _refuse_clash(self, draft: _Draft, key: Key) -> None:
        if key in draft.rows:
            raise self._fail(Conflict(f"{draft.table.name} {key!r} is there already", retry_after=0.0))

    def _begin_writing(self) -> None:
        if not self._store.database.writer.acquire(timeout=self._store.lock_wait):
            raise self._fail(Conflict("waited too long for the unit that is writing", retry_after=0.0))
        self._is_writer = True

    def _fail(self, error: Exception) -> Exception:
        self._failed = error
        self.abandon()
        return error


DictStore.unit_class = DictUnit


def _first(item: tuple[Key, Any]) -> Key:
    return item[0]


# --- conditions ---


def _test(table: RowTable, asked: Where) -> Callable[[Any], bool]:
    column = table.column(asked.column)
    value_of = attrgetter(column.name)
    value = asked.value
    if value is None and asked.op in ("=", "!="):
        return (lambda row: value_of(row) is None) if asked.op == "=" else (lambda row: value_of(row) is not None)
    if asked.op == "like":
        pattern = _pattern(value)
        return lambda row: (text := value_of(row)) is not None and pattern.fullmatch(text.lower()) is not None
    compare = _COMPARE.get(asked.op)
    if compare is None:
        raise ValueError(f"no such comparison: {asked.op!r}; use one of {' '.join(_COMPARE)} like")
    if asked.op == "in":
        value = set(value)
    # As in SQL, a comparison with what is not there is not true.
    return lambda row: (found := value_of(row)) is not None and compare(found, value)


def _pattern(text: str) -> re.Pattern[str]:
    parts = re.findall(r"\\.|.", text.lower(), re.DOTALL)
    words = {"%": ".*", "_": "."}
    return re.compile("".join(words.get(part) or re.escape(part[-1]) for part in parts), re.DOTALL)


def _sortable(value: Any) -> tuple[bool, Any]:
    return (value is not None, value)


def _sort_key(order: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda row: tuple(_sortable(getattr(row, name)) for name in order)


# --- what fits a column ---

_Checks = tuple[tuple[str, Callable[[Any], Any]], ...]


@cache
def _tables(row_types: tuple[type, ...]) -> tuple[dict[type, RowTable], dict[type, _Checks]]:
    """Worked out once for every store of these rows."""
    _, tables = row_tables(row_types)
    return tables, {row: _checks(table) for row, table in tables.items()}


def _checks(table: RowTable) -> _Checks:
    return tuple((column.name, check) for column in table.columns.values() if (check := _check_of(column)))


def _check_of(column: Column) -> Callable[[Any], Any] | None:
    check: Callable[[Any], Any] | None = None
    if column.packed or column.type is BLOB or column.type is ENUM:
        return None
    if column.type is ID:
        check = column.write
    elif column.type is STRING:
        check = _fits_string
    elif column.type is TEXT:
        check = str.encode
    elif column.read is None and column.write is None:
        check = _fits_number
    if check is None or not column.nullable:
        return check
    given = check
    return lambda value: value is None or given(value)


def _fits_string(value: str) -> None:
    value.encode()
    if len(value) > 255:
        raise ValueError(f"takes at most 255 long, not {len(value)}")


def _fits_number(value: float) -> None:
    if not -_LARGEST <= value < _LARGEST:
        raise ValueError("takes 64 bits")
