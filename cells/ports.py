"""The seams of a cell: store, broker, role, clock. Each has two real things behind it that pass one contract suite.

Store: SQLAlchemy on SQLite and on MariaDB. Broker: memory and RabbitMQ. Role: an API cell and a compute cell.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from cells.audit import Audit
from cells.decision import Decision, Job
from cells.names import CellName, Instant
from cells.record import Received

R = TypeVar("R")
Clock = Callable[[], Instant]
NewId = Callable[[], bytes]


# --- the store ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """One condition on a column: `op` is one of = != < <= > >= in like (SQL's, case-insensitive)."""

    column: str
    op: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """Only rows that come after this row in the order asked for: a marker by value. `values` match the
    order's columns."""

    values: tuple[Any, ...]


class View(Protocol):
    """Reading rows, within a unit: what the unit has saved so far is seen. May block; may be called again; raises
    Conflict when the database ended the transaction (deadlock, lock wait), Temporary when it is out of reach."""

    def get(self, row: type[R], *key: Any) -> R | None:
        """The row with this primary key."""

    def get_many(self, row: type[R], keys: Sequence[tuple[Any, ...]]) -> dict[tuple[Any, ...], R]:
        """The rows with these primary keys, by key; absent ones are left out."""

    def all(self, row: type[R]) -> tuple[R, ...]:
        """Every row of a small table, read at most once a unit."""

    def find(
        self,
        row: type[R],
        *where: Where,
        order: tuple[str, ...] = (),
        descending: bool = False,
        after: After | None = None,
        limit: int | None = None,
    ) -> tuple[R, ...]:
        """Rows that meet every condition, in order."""

    def count(self, row: type[Any], *where: Where) -> int:
        """How many rows meet every condition."""


class Unit(View, Protocol):
    """A transaction. Nothing is seen by others until the `with` block ends well; then all of it, durably."""

    def save(self, *rows: Any) -> None:
        """Insert each row, or replace the one with the same key. Remove(...) values delete."""

    def insert(self, *rows: Any) -> None:
        """Insert each row; Conflict when one is there already."""

    def count_up(self, name: str, by: int = 1) -> int:
        """Raise a counter and give its new value; the counter's row is locked until the unit ends."""


class Store(Protocol):
    """A cell's database."""

    def unit(self, *, lock: bool = True) -> AbstractContextManager[Unit]:
        """Begin a transaction. `lock`: rows read by key are locked until the end, so that what was decided on them
        stays true (SELECT ... FOR UPDATE, or SQLite's one writer). On any error the whole unit is rolled back."""

    def roll(self, now: Instant) -> None:
        """Let go of rows that have served their time: expired inbox marks, old story lines and parked messages."""

    def close(self) -> None:
        """Let go of every connection."""


# --- the broker ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message from our inbox queue. `user` is the broker-checked identity of its publisher, empty where the broker
    knows none."""

    tag: Any
    data: bytes
    user: str = ""
    redelivered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an offered message: confirmed by the neighbour's broker, or not, with the reason."""

    ref: Any
    ok: bool
    reason: str = ""


class Inbox(Protocol):
    """Our own queue. Deliveries not acked are delivered again, to this daemon or another."""

    def poll(self, most: int) -> list[Delivery]:
        """What has come, at once, at most so many; never waits (the bell rings when something comes)."""

    def ack(self, tags: Iterable[Any]) -> None:
        """Done with these, for good. May be called after a lost connection: then it does nothing and they come back."""


class Link(Protocol):
    """The way to one neighbour's inbox. Messages are persistent, mandatory, confirmed in windows, with a time limit."""

    def offer(self, ref: Any, data: bytes) -> bool:
        """Take a message for publishing, without waiting; False when the window is full or the link is down."""

    def outcomes(self) -> list[Outcome]:
        """What has become of offered messages since the last call."""

    def close(self) -> None:
        """Stop; what is not confirmed has no outcome any more."""


class Broker(Protocol):
    """A cell's side of its message brokers."""

    def inbox(self) -> Inbox:
        """Declare our queue and begin to consume it. Called once."""

    def link(self, neighbour: CellName, url: str) -> Link:
        """A link to a neighbour's inbox. Does not wait for the connection; BadInput for a URL of no known kind."""

    def close(self) -> None:
        """Close everything; unacknowledged deliveries go back to the queue."""


# --- the role ---


class Journal(Protocol):
    """Where a job notes the steps that looking at the host cannot redo. `put` raises LeaseLost when another daemon has
    taken the job over: then the job must stop at once."""

    def get(self, step: str) -> Any:
        """What the step gave, or None if it is not done."""

    def put(self, step: str, value: Any) -> None:
        """The step is done and gave this (any value the codec can carry); durable when it returns."""

    def check(self) -> None:
        """Raise LeaseLost if this job is no longer ours, or Refusal('deleted') if it shall stop early."""


class Role(Protocol):
    """What a cell is for. `decide` and `next_hops` touch nothing but the view and the role's own memory of the tree.
    `of_server`: the rows, with a server's id as their key, that records about a server are decided on; the node reads
    those of a whole batch at once."""

    name: str
    rows: tuple[type, ...]
    of_server: tuple[type, ...]

    def load(self, view: View, now: Instant) -> None:
        """Fill memory from rows, at start and now and then (other daemons of the cell change them too)."""

    def is_sure(self, view: View, now: Instant) -> bool:
        """Whether jobs that lie in the database may be gone on with: not before the neighbours have said that it was
        not put back to a backup. Until then each daemon is told `Started`."""

    def decide(self, view: View, received: Received, now: Instant) -> Decision:
        """What to do about one record."""

    def next_hops(self, destination: CellName, now: Instant) -> tuple[CellName, ...]:
        """The neighbours a packet for this cell may go to next, best first; empty when it cannot be reached."""

    def audit(self, view: View) -> Audit:
        """What this cell says of its servers, its hosts and the capacity it knows of."""

    def work(self, job: Job, journal: Journal) -> Any:
        """Do slow work, in a thread of its own; the result is what JobEnded carries. Raises Temporary, Permanent."""

    def close(self) -> None:
        """The daemon ends, its jobs are over: let go of what is open outside."""
