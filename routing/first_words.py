"""A daemon that has just started does not know whether its database was put back to a backup. Its neighbours do: the
children of an API cell, the parents of a compute cell, keep the newest that it has said of itself, and show it where it
now says older things. Until each has answered once since the start, or is mute, nothing begins that could be wrong over
an old database: an API cell places and grants nothing, so that no server that a leaf has already gets a second VM; a
leaf does nothing to its hosts, so that it does not go on with what is over. An answer takes a round trip; what comes
sooner is decided on again. Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from cells.decision import Decision, Wake
from cells.messages import Direction
from cells.names import SECOND, CellName, Id, Instant
from cells.ports import View
from cells.record import Received
from cells.rows import EdgeRow
from routing.neighbours import is_spoken_to

AGAIN = SECOND // 4


@dataclass(slots=True, kw_only=True)
class FirstWords:
    """What one daemon asks since its start, at `began`: its parents, or its children. `is_recent`: some of them was
    heard not long before it, as after an ordinary restart; then one that was not is dead, and no answer of it is waited
    for."""

    question: Id
    began: Instant
    mute_after: Instant
    of_parents: bool
    is_recent: bool
    is_known: bool = False

    def awaited(self, edges: Iterable[EdgeRow], now: Instant) -> tuple[CellName, ...]:
        """Those that have to answer yet."""
        return tuple(
            edge.neighbour
            for edge in edges
            if edge.parent is self.of_parents
            and is_spoken_to(edge)
            and edge.answered != self.question
            and now - self._since(edge) <= self.mute_after
        )

    def still(self, view: View, now: Instant) -> tuple[CellName, ...]:
        """The same, by the rows; nobody any more once all have answered."""
        if self.is_known:
            return ()
        awaited = self.awaited(view.all(EdgeRow), now)
        self.is_known = not awaited
        return awaited

    def _since(self, edge: EdgeRow) -> Instant:
        heard = edge.heard if self.is_recent else max(edge.heard, self.began)
        # A parent that speaks and does not answer is of a version that knows no questions from below.
        return min(heard, self.began) if self.of_parents else heard


def begun(
    question: Id, edges: Iterable[EdgeRow], now: Instant, mute_after: Instant, *, of_parents: bool = False
) -> FirstWords:
    """At a daemon's start."""
    is_recent = any(edge.parent is of_parents and now - edge.heard <= mute_after for edge in edges)
    return FirstWords(question=question, began=now, mute_after=mute_after, of_parents=of_parents, is_recent=is_recent)


def waits(received: Received, awaited: Iterable[CellName], new_id: Id, now: Instant) -> Decision:
    """Not now: another cell's words are sent again by it, our own are put off."""
    record = received.record
    notes = (f"waits until {', '.join(awaited)} has answered",)
    if record.kind.direction is not Direction.LOCAL:
        return Decision(taken=False, notes=notes)
    return Decision(wake=(Wake(due=now + AGAIN, record=replace(record, id=new_id)),), notes=notes)
