"""Parked messages: what a cell could not use, with the reason, until an administrator lets it be decided again or drops
it.

Deciding again makes the record a wake of the cell's own, due at once. A wake is believed without a look at signatures,
so only a record that was believed when it came may become one: such a record was parked by a decision that failed, or
by the role. What was parked at the door (no valid bundle, certificate, signature, or right to send this) is never
replayed; whoever sent it sends it again once the cause is mended, because nobody acknowledged it as done.

The inbox mark is saved with the wake: a late copy of the same record then does nothing.
"""

from cells import codec
from cells.decision import Remove
from cells.errors import BadInput, Permanent
from cells.names import Instant, id_text
from cells.ports import Unit
from cells.record import NO_SERVER, Record
from cells.rows import InboxRow, ParkedRow, WakeRow, shard_of

BELIEVED = ("could not be decided on", "reports a server this cell never made")
"""How the node and the API cell's role word the reasons of records that passed every check at the door."""
INBOX_KEPT = 25 * 3600 * 1_000_000


def record_of(row: ParkedRow) -> Record | None:
    """The record parked, where the bytes are one."""
    try:
        return codec.unpack_record(row.data)
    except BadInput:
        return None


def why_not_replay(row: ParkedRow) -> str:
    """Why this one cannot be decided again; empty when it can."""
    if record_of(row) is None:
        return "its bytes are no record"
    if not any(words in row.reason for words in BELIEVED):
        return "it was refused at the door, before anything vouched for it"
    return ""


def replay(unit: Unit, row: ParkedRow, now: Instant) -> None:
    """Let the cell decide on a parked record again, at its next look for wakes."""
    if reason := why_not_replay(row):
        raise Permanent(f"{id_text(row.id)} cannot be replayed: {reason}; drop it, its sender may send it again")
    wake = WakeRow(id=row.id, shard=shard_of(row.server or NO_SERVER), due=now, server=row.server, data=row.data)
    unit.save(Remove(row=ParkedRow, key=(row.id,)), wake, InboxRow(id=row.id, expires=now + INBOX_KEPT))


def drop(unit: Unit, row: ParkedRow) -> None:
    """Forget a parked message."""
    unit.save(Remove(row=ParkedRow, key=(row.id,)))
