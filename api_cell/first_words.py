"""A daemon that has just started does not know whether its database was put back to a backup. The cell's children know:
each keeps the newest that this cell has said of itself, and shows it where it now says older things. Until every child
has answered once since the start, or is mute, nothing is placed and nothing granted, so that no server that a leaf has
already gets a second VM. An answer takes a round trip; what comes sooner is decided on again. Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from cells.decision import Decision, Wake
from cells.messages import Accepted, AttemptDue, Intent, Refused
from cells.names import SECOND, CellName, Id, Instant
from cells.record import Received
from cells.rows import EdgeRow
from routing.neighbours import is_spoken_to

AGAIN = SECOND // 4
ASK_EVERY = SECOND


@dataclass(slots=True, kw_only=True)
class FirstWords:
    """What one daemon asks since its start, at `began`. `is_recent`: some child was heard not long before it, as after
    an ordinary restart; then a child that was not is dead, and no answer of it is waited for."""

    question: Id
    began: Instant
    is_recent: bool
    is_known: bool = False
    next_ask: Instant = 0

    def awaited(self, edges: Iterable[EdgeRow], now: Instant, mute_after: Instant) -> tuple[CellName, ...]:
        """The children that have to answer yet."""
        return tuple(
            edge.neighbour
            for edge in edges
            if not edge.parent
            and is_spoken_to(edge)
            and edge.answered != self.question
            and now - (edge.heard if self.is_recent else max(edge.heard, self.began)) <= mute_after
        )


def begun(question: Id, edges: Iterable[EdgeRow], now: Instant, mute_after: Instant) -> FirstWords:
    """At a daemon's start."""
    is_recent = any(not edge.parent and now - edge.heard <= mute_after for edge in edges)
    return FirstWords(question=question, began=now, is_recent=is_recent)


def may_wait(received: Received) -> bool:
    """Whether a record may place a server or grant one."""
    body = received.record.body
    return isinstance(body, Accepted | Refused | AttemptDue) or (isinstance(body, Intent) and body.action == "place")


def waits(received: Received, awaited: Iterable[CellName], new_id: Id, now: Instant) -> Decision:
    """Not now: a leaf's words are sent again by the leaf, our own are put off."""
    record = received.record
    notes = (f"waits until {', '.join(awaited)} has answered",)
    if isinstance(record.body, Accepted | Refused):
        return Decision(taken=False, notes=notes)
    return Decision(wake=(Wake(due=now + AGAIN, record=replace(record, id=new_id)),), notes=notes)
