"""Who may hand a cell messages: its neighbours, each known by the user it publishes as, which the broker has checked.

An edge is made, and taken away, at one end before the other, and messages are on their way meanwhile: a neighbour of a
moment ago is still let in, and who seems a stranger may be one of a moment from now (see `Node`).
"""

from collections.abc import Iterable

from cells.names import SECOND, CellName, Instant
from cells.rows import EdgeRow

GRACE = 300 * SECOND


class Callers:
    """The neighbours of one cell."""

    def __init__(self) -> None:
        self._users: dict[CellName, str] = {}
        self._former: dict[CellName, tuple[str, Instant]] = {}

    def take(self, edges: Iterable[EdgeRow], now: Instant) -> None:
        """These are the edges now."""
        users = {edge.neighbour: edge.user for edge in edges}
        gone = {name: (user, now + GRACE) for name, user in self._users.items() if name not in users}
        kept = {name: (user, until) for name, (user, until) in self._former.items() if until >= now}
        self._former = {name: found for name, found in (kept | gone).items() if name not in users}
        self._users = users

    def __contains__(self, name: object) -> bool:
        return name in self._users

    def may_bring(self, neighbour: CellName, user: str, now: Instant) -> bool:
        """Whether this broker user is that neighbour. An edge without a user (its broker knows none) lets any in."""
        if neighbour in self._users:
            return self._users[neighbour] in ("", user)
        known, until = self._former.get(neighbour, ("", 0))
        return now <= until and known in ("", user)
