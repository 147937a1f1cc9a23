"""What a role answers to a record: rows to save, records to send, jobs to start, wakes to set.

A Decision is a value. The node writes the rows, the inbox mark and the outbox in one transaction, commits, then
sends and starts; nothing else changes a cell's state.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from cells.names import CellName, Id, Instant
from cells.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """Delete the row of this type with this key."""

    row: type
    key: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Slow work to start after the commit: `kind` names it to the role's `work`, `body` is its argument (wire
    form), `lane` is what it loads (a host, a pool): jobs of a lane have a common limit."""

    id: Id
    kind: str
    server: Id
    lane: str
    body: bytes
    request: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """Decide on this record again, at or soon after `due`. The record is one to ourselves."""

    due: Instant
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Tell the origin of a report which version of the server is now saved here."""

    destination: CellName
    server: Id
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The whole answer to one record. `stop`: jobs to end between two of their steps. `notes` go to the log.
    `unanswered`: cells to which some of it was sent before in vain, so that another way is better. `taken`: False where
    the record could not have its effect yet; it is neither marked nor acknowledged, so its origin sends it again."""

    save: tuple[Any, ...] = ()
    send: tuple[Record, ...] = ()
    do: tuple[Job, ...] = ()
    wake: tuple[Wake, ...] = ()
    stop: tuple[Id, ...] = ()
    seen: tuple[Seen, ...] = ()
    notes: tuple[str, ...] = field(default=())
    unanswered: frozenset[CellName] = frozenset()
    taken: bool = True

    def __add__(self, other: "Decision") -> "Decision":
        return Decision(
            save=self.save + other.save,
            send=self.send + other.send,
            do=self.do + other.do,
            wake=self.wake + other.wake,
            stop=self.stop + other.stop,
            seen=self.seen + other.seen,
            notes=self.notes + other.notes,
            unanswered=self.unanswered | other.unanswered,
            taken=self.taken and other.taken,
        )

    def but(self, **changes: Any) -> "Decision":
        return replace(self, **changes)


NOTHING = Decision()
