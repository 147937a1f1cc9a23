"""Ways to die, and a database that fails: what stands between a cell and its store, hosts or broker and strikes at one
step."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cells.errors import AmbiguousCommit, Conflict, Temporary
from cells.names import CellName
from cells.ports import Broker, Delivery, Inbox, Link, Outcome

PUBLISH, CONFIRM, ACKNOWLEDGE = "publish", "confirm", "acknowledge"
OF_THE_BROKER = frozenset({PUBLISH, CONFIRM, ACKNOWLEDGE})


class Killed(BaseException):
    """The process ends here, whatever it was doing."""


@dataclass
class Steps:
    """The steps of a cell while `counting`: its commits and calls of a host, or those `of_the_broker`, which are many
    and mostly of no operation. `act` is called before or after the one that `where` tells, once."""

    counting: bool = False
    of_the_broker: bool = False
    done: list[str] = field(default_factory=list)
    before: Callable[[int, str], bool] | None = None
    after: Callable[[int, str], bool] | None = None
    act: Callable[[], None] | None = None

    def kill(self, *, before: int = -1, after: int = -1) -> None:
        """Raise Killed around the step of this number."""
        self.strike(die, before=before, after=after)

    def strike(self, act: Callable[[], None], *, before: int | str = -1, after: int | str = -1) -> None:
        """Do this around the next step of this number or name."""
        self.before, self.after, self.act = _is(before), _is(after), act
        self.counting = True

    def stop(self) -> None:
        self.counting = False
        self.act = None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        if not self.counting or (name in OF_THE_BROKER) is not self.of_the_broker:
            yield
            return
        number = len(self.done)
        self.done.append(name)
        self._strike(self.before, number, name)
        yield
        self._strike(self.after, number, name)

    def _strike(self, where: Callable[[int, str], bool] | None, number: int, name: str) -> None:
        if self.act is not None and where is not None and where(number, name):
            act, self.act = self.act, None
            act()


def die() -> None:
    raise Killed


def _is(step: int | str) -> Callable[[int, str], bool]:
    return lambda number, name: step in (number, name)


class Face:
    """Light hosts whose calls are steps."""

    def __init__(self, inner: Any, steps: Steps) -> None:
        self._inner = inner
        self._steps = steps

    def call(self, method: str, *params: Any) -> Any:
        with self._steps.step(method):
            return self._inner.call(method, *params)

    def log_in_again(self) -> None:
        self._inner.log_in_again()

    def close(self) -> None:
        self._inner.close()


class WatchedBroker:
    """A cell's side of the brokers, whose publishing, hearing of what became of it and acknowledging are steps."""

    def __init__(self, inner: Broker, steps: Steps) -> None:
        self._inner = inner
        self._steps = steps

    def inbox(self) -> Inbox:
        return _WatchedInbox(self._inner.inbox(), self._steps)

    def link(self, neighbour: CellName, url: str) -> Link:
        return _WatchedLink(self._inner.link(neighbour, url), self._steps)

    def close(self) -> None:
        self._inner.close()


class _WatchedInbox:
    def __init__(self, inner: Inbox, steps: Steps) -> None:
        self._inner = inner
        self._steps = steps

    def poll(self, most: int) -> list[Delivery]:
        return self._inner.poll(most)

    def ack(self, tags: Iterable[Any]) -> None:
        with self._steps.step(ACKNOWLEDGE):
            self._inner.ack(tags)


class _WatchedLink:
    def __init__(self, inner: Link, steps: Steps) -> None:
        self._inner = inner
        self._steps = steps
        self._offered = False

    def offer(self, ref: Any, data: bytes) -> bool:
        with self._steps.step(PUBLISH):
            taken = self._inner.offer(ref, data)
            self._offered = self._offered or taken
        return taken

    def outcomes(self) -> list[Outcome]:
        if not self._offered:  # a look that finds nothing is no step
            return self._inner.outcomes()
        self._offered = False
        with self._steps.step(CONFIRM):
            return self._inner.outcomes()

    def close(self) -> None:
        self._inner.close()


class _Watched:
    """A unit that knows whether anything was written in it."""

    def __init__(self, unit: Any) -> None:
        self._unit = unit
        self.wrote = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._unit, name)

    def save(self, *rows: Any) -> None:
        self.wrote = self.wrote or bool(rows)
        self._unit.save(*rows)

    def insert(self, *rows: Any) -> None:
        self.wrote = True
        self._unit.insert(*rows)

    def count_up(self, name: str, by: int = 1) -> int:
        self.wrote = True
        count: int = self._unit.count_up(name, by)
        return count


class WatchedStore:
    """A store whose commits are steps, and that may fail: each of `failing` is what the next unit that writes ends in.
    Conflict and Temporary undo it; "lost" and "ambiguous" are AmbiguousCommit, undone or done."""

    def __init__(self, inner: Any, steps: Steps | None = None) -> None:
        self.inner = inner
        self.steps = steps or Steps()
        self.failing: deque[str] = deque()
        self.failed = 0

    @contextmanager
    def unit(self, *, lock: bool = True) -> Iterator[Any]:
        failure = ""
        with self.inner.unit(lock=lock) as unit:
            watched = _Watched(unit)
            yield watched
            if watched.wrote:
                with self._commit():
                    failure = self.failing.popleft() if self.failing else ""
                    self._fail(failure)
                    unit.commit()
        if failure == "ambiguous":
            raise AmbiguousCommit("the connection was lost while committing")

    @contextmanager
    def _commit(self) -> Iterator[None]:
        with self.steps.step("commit"):
            yield

    def _fail(self, failure: str) -> None:
        self.failed += bool(failure)
        if failure == "conflict":
            raise Conflict("deadlock", retry_after=0.0)
        if failure == "temporary":
            raise Temporary("the database is out of reach")
        if failure == "lost":
            raise AmbiguousCommit("the connection was lost before committing")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
