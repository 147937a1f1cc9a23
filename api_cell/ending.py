"""The end of a server. Pure."""

from dataclasses import replace

from api_cell import quota, unfilled
from api_cell.here import Here, forgotten, saved
from api_cell.rows import GoneServerRow, ServerRow
from cells.decision import Decision, Remove
from cells.names import Instant
from cells.ports import View


def gone(here: Here, view: View, row: ServerRow, now: Instant) -> Decision:
    """The server is no more: it moves to the deleted ones, its project's usage falls, and images that it was to fill
    are given up."""
    last = replace(saved(row, now), status="DELETED", vm_state="deleted", task_state="", intents=())
    usage = quota.charge(quota.usage_of(view, row.project), row, None)
    kept = GoneServerRow(id=row.id, project=row.project, updated=last.updated, server=last)
    secret = forgotten(last)[1]
    decision = Decision(save=(Remove(row=ServerRow, key=(row.id,)), kept, usage, *secret), notes=("gone",))
    return decision + unfilled.given_up(here, row, *row.intents)
