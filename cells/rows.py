"""Rows as frozen dataclasses, and the rows that every cell's machinery has. The store makes tables of them.

A row type is a dataclass with @row: its table's name, primary key and indexes. Column types follow the annotations:
Id -> 16 bytes, str -> 255 characters, Text -> unbounded text, int -> 64 bits, float, bool, bytes -> blob, anything
else (dataclasses, tuples, dicts) -> packed by the codec. Roles declare their own rows in their own packages.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from cells.messages import SignedCellRecord
from cells.model import CellState, Generation
from cells.names import CellName, Id, Instant
from cells.record import NO_SERVER

Text = Annotated[str, "text"]
SHARDS = 16

_R = TypeVar("_R", bound=type)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What @row said of a row type."""

    name: str
    key: tuple[str, ...]
    indexes: tuple[tuple[str, ...], ...]


TABLES: dict[type, Table] = {}


def row(table: str, *, key: tuple[str, ...], indexes: tuple[tuple[str, ...], ...] = ()) -> Callable[[_R], _R]:
    """Register a frozen dataclass as the rows of a table."""

    def register(cls: _R) -> _R:
        TABLES[cls] = Table(name=table, key=key, indexes=indexes)
        return cls

    return register


def key_of(value: Any) -> tuple[Any, ...]:
    """The primary key of a row."""
    return tuple(getattr(value, name) for name in TABLES[type(value)].key)


def shard_of(server: bytes) -> int:
    """The shard that looks after a server's waiting work; the last byte of a UUIDv7 is random."""
    return server[-1] % SHARDS


@row("inbox", key=("id",), indexes=(("expires",),))
@dataclass(frozen=True, slots=True, kw_only=True)
class InboxRow:
    """A record that has had its effect here. Kept until its deadline + 1 h; later copies are expired by definition."""

    id: Id
    expires: Instant


@row("outbox", key=("id",), indexes=(("shard", "next_try"),))
@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """A record that its destination has not acknowledged yet. `data` is its wire form (cells.codec.pack_record)."""

    id: Id
    shard: int
    destination: CellName
    next_try: Instant
    attempts: int
    deadline: Instant
    data: bytes


@row("wakes", key=("id",), indexes=(("shard", "due"),))
@dataclass(frozen=True, slots=True, kw_only=True)
class WakeRow:
    """A record to ourselves that is due at some time. Waiting is a row, never a held thread."""

    id: Id
    shard: int
    due: Instant
    server: Id = NO_SERVER
    data: bytes


@row("jobs", key=("id",), indexes=(("shard",), ("server",)))
@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """Slow work that has not ended. `journal` holds the steps that looking at the host cannot redo."""

    id: Id
    shard: int
    kind: str
    server: Id
    lane: str
    request: str
    started: Instant
    body: bytes


@row("journal", key=("job", "step"))
@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRow:
    """One finished step of a job, with what it gave."""

    job: Id
    step: str
    value: bytes


@row("leases", key=("shard",))
@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRow:
    """Which daemon of the cell looks after a shard, until when. The epoch rises with each change of holder."""

    shard: int
    holder: str
    epoch: int
    expires: Instant


@row("daemons", key=("name",))
@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonRow:
    """A daemon of this cell and when it was last seen; shards are shared out among the living. `signer`: the
    fingerprint of the key it signs with."""

    name: str
    seen: Instant
    signer: str = ""


@row("parked", key=("id",), indexes=(("at",),))
@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedRow:
    """A message or record that could not be used, with the reason; `celltree messages` lists and replays them."""

    id: Id
    at: Instant
    neighbour: CellName
    kind: str
    server: Id
    reason: Text
    data: bytes


@row("edges", key=("neighbour",))
@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeRow:
    """A link to a parent or a child. `url` is the neighbour's broker as we may use it, sealed with this cell's own key.
    `heard` is when its hello last came; `above` (of a parent) is who it says is above us: (name, hops, is API).
    `user` is who the neighbour is at our broker, empty where that is not known.
    `said`: the newest record that a parent which is an API cell gave of itself, to be shown to it should it forget.
    `answered`: the last question of ours (`asks` of a hello) that this neighbour has answered."""

    neighbour: CellName
    parent: bool
    uuid: Id
    state: CellState
    url: bytes
    user: str = ""
    heard: Instant = 0
    refused: Text = ""
    above: tuple[tuple[CellName, int, bool], ...] = ()
    said: SignedCellRecord | None = None
    answered: Id = bytes(16)


@row("roster", key=("name",), indexes=(("updated",),))
@dataclass(frozen=True, slots=True, kw_only=True)
class RosterRow:
    """The newest cell record of a cell below this one, as it came, signature and all."""

    name: CellName
    uuid: Id
    generation: Generation
    updated: Instant
    certificate: bytes
    payload: bytes
    signature: bytes


@row("counters", key=("name",))
@dataclass(frozen=True, slots=True, kw_only=True)
class CounterRow:
    """A number that only grows: generations, serials."""

    name: str
    value: int


@row("settings", key=("name",))
@dataclass(frozen=True, slots=True, kw_only=True)
class SettingRow:
    """A setting that is changed while the cell runs: its state, its weight offset."""

    name: str
    value: Text


@row("story", key=("id",), indexes=(("server", "id"), ("request", "id")))
@dataclass(frozen=True, slots=True, kw_only=True)
class StoryRow:
    """One line of a server's story: what happened where. `trail`: the way of the message that told it, if any."""

    id: Id
    server: Id
    request: str
    at: Instant
    cell: CellName
    event: str
    text: Text = ""
    trail: tuple[tuple[CellName, int], ...] = ()
    detail: dict[str, Any] | None = None


MACHINERY: tuple[type, ...] = (
    InboxRow,
    OutboxRow,
    WakeRow,
    JobRow,
    JournalRow,
    LeaseRow,
    DaemonRow,
    ParkedRow,
    EdgeRow,
    RosterRow,
    CounterRow,
    SettingRow,
    StoryRow,
)
