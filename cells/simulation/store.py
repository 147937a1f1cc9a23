"""A simulated cell's database: a store whose units may fail, and in which its process may die at a commit. On dicts;
on SQLite for a sample of the runs.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from cells.decision import Remove
from cells.errors import AmbiguousCommit, Conflict, Temporary
from cells.rows import MACHINERY, key_of
from cells.store.dicts import DictStore, DictUnit
from cells.store.sql import SqlStore
from cells.store.unit import SqlUnit

Step = Callable[[str], None]


class _Watched:
    """What a world hears of a cell's units, and does to them. `step(name)` is told before and after each commit, and
    may raise Killed; `committed` which rows have changed. `fails()` gives what the next unit that writes ends in: ""
    (well), "conflict", "out of reach", "lost" or "unknown" (AmbiguousCommit, undone or done)."""

    def __init__(self) -> None:
        self.step: Step = lambda _: None
        self.fails: Callable[[], str] = lambda: ""
        self.begun: Callable[[], None] = lambda: None
        self.committed: Callable[[tuple[type, ...]], None] = lambda written: None


class SimulatedStore(_Watched, DictStore):
    """On dicts."""

    def __init__(self, url: str, row_types: Iterable[type] = ()) -> None:
        _Watched.__init__(self)
        DictStore.__init__(self, url, row_types)

    @contextmanager
    def unit(self, *, lock: bool = True) -> Iterator[DictUnit]:
        failure: str = ""
        written: tuple[type, ...] = ()
        if lock:
            self.begun()
        with super().unit(lock=lock) as unit:
            yield unit
            written = unit.written()
            if written:
                self.step("before commit")
                failure = self.fails()
                _fail(failure)
        if written:
            self.committed(written)
            self.step("after commit")
        if failure == "unknown":
            raise AmbiguousCommit("the connection was lost while committing (simulated)")

    def backup(self) -> Any:
        """All rows as they are now."""
        return self.database.copy()

    def put_back(self, backup: Any) -> None:
        """The rows become those of a backup."""
        self.database.put_back(backup)


class SimulatedSqlStore(_Watched, SqlStore):
    """On SQLite. What a unit has written is not known: every one that locks counts as one that has."""

    def __init__(self, url: str, row_types: Iterable[type] = ()) -> None:
        _Watched.__init__(self)
        SqlStore.__init__(self, url, row_types)
        self._kinds = tuple(dict.fromkeys((*MACHINERY, *row_types)))

    @contextmanager
    def unit(self, *, lock: bool = True) -> Iterator[SqlUnit]:
        failure: str = ""
        if lock:
            self.begun()
        with super().unit(lock=lock) as unit:
            yield unit
            if lock:
                self.step("before commit")
                failure = self.fails()
                _fail(failure)
        if lock:
            self.committed(self._kinds)
            self.step("after commit")
        if failure == "unknown":
            raise AmbiguousCommit("the connection was lost while committing (simulated)")

    def backup(self) -> Any:
        with super().unit(lock=False) as unit:
            return self._all(unit)

    def put_back(self, backup: Any) -> None:
        with super().unit() as unit:
            unit.save(*(Remove(row=type(row), key=key_of(row)) for row in self._all(unit)))
            unit.save(*backup)

    def _all(self, unit: SqlUnit) -> tuple[Any, ...]:
        found: list[Any] = []
        for kind in self._kinds:
            found += unit.find(kind)
        return tuple(found)


def _fail(failure: str) -> None:
    if failure == "conflict":
        raise Conflict("deadlock (simulated)", retry_after=0.0)
    if failure == "out of reach":
        raise Temporary("the database is out of reach (simulated)")
    if failure == "lost":
        raise AmbiguousCommit("the connection was lost before committing (simulated)")
