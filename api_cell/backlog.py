"""How many builds may wait for a leaf: of a project, so that who asks too much is told so, and of the cell, so that
what was accepted is served in its time. Pure but for the view it reads."""

from api_cell.errors import Busy, TooMany
from api_cell.rows import Phase, ServerRow
from api_cell.settings import Limits
from cells.ports import View, Where

# Placing takes milliseconds where there is room; what waits longer waits for leaves.
RETRY_AFTER = 5.0
_WAITING = Where(column="phase", op="in", value=[Phase.PLACING, Phase.OFFERED])


def room_for(view: View, limits: Limits, project: str, least: int, most: int) -> int:
    """How many of a project's builds may come in now, at most so many; TooMany or Busy when not even the least."""
    room = most
    if limits.waiting:
        waiting = view.count(ServerRow, _WAITING, Where(column="project", op="=", value=project))
        room = min(room, limits.waiting - waiting)
        if room < least:
            text = f"{waiting} builds of this project wait for a cell, and {limits.waiting} may; ask again later"
            raise TooMany(text, retry_after=RETRY_AFTER)
    if limits.waiting_in_all:
        waiting = view.count(ServerRow, _WAITING)
        room = min(room, limits.waiting_in_all - waiting)
        if room < least:
            raise Busy("More builds wait for a cell than can be served soon; ask again later", retry_after=RETRY_AFTER)
    return room
