"""A simulated cell's database: a store on dicts whose units may fail, and in which its process may die at a commit."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from cells.errors import AmbiguousCommit, Conflict, Temporary
from cells.store.dicts import DictStore, DictUnit

Step = Callable[[str], None]


class SimulatedStore(DictStore):
    """`step(name)` is told before and after each commit, and may raise Killed; `committed` which rows have changed.
    `fails()` gives what the next unit that writes ends in: "" (well), "conflict", "out of reach", "lost" or "unknown"
    (AmbiguousCommit, undone or done)."""

    def __init__(self, url: str, row_types: Iterable[type] = ()) -> None:
        super().__init__(url, row_types)
        self.step: Step = lambda _: None
        self.fails: Callable[[], str] = lambda: ""
        self.begun: Callable[[], None] = lambda: None
        self.committed: Callable[[tuple[type, ...]], None] = lambda written: None

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


def _fail(failure: str) -> None:
    if failure == "conflict":
        raise Conflict("deadlock (simulated)", retry_after=0.0)
    if failure == "out of reach":
        raise Temporary("the database is out of reach (simulated)")
    if failure == "lost":
        raise AmbiguousCommit("the connection was lost before committing (simulated)")
