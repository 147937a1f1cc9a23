"""What was asked of a server, by whom and when: written with each wish, shown as OpenStack's instance actions."""

from api_cell.rows import ServerRow
from api_cell.service.api import Api, Caller
from cells.ports import View, Where
from cells.rows import StoryRow

_ASKED = "asked."


def asked(api: Api, caller: Caller, row: ServerRow, action: str, request: str, line: bytes = b"") -> StoryRow:
    """The story's line for a request of a tenant; `line` is its id, where that was chosen before."""
    return StoryRow(
        id=line or api.ids(),
        server=row.id,
        request=request,
        at=api.clock(),
        cell=api.settings.cell,
        event=_ASKED + action,
        detail={"user": caller.user, "project": caller.project, "number": row.number},
    )


def action_of(line: StoryRow) -> str:
    """The action a line of the story is about; empty when nobody asked for it."""
    return line.event.removeprefix(_ASKED) if line.event.startswith(_ASKED) else ""


def actions(view: View, server: bytes) -> tuple[StoryRow, ...]:
    """What was asked of a server, newest first."""
    lines = view.find(StoryRow, Where(column="server", op="=", value=server), order=("id",), descending=True)
    return tuple(line for line in lines if action_of(line))


def of_request(view: View, server: bytes, request: str) -> tuple[StoryRow, ...]:
    """Every line of a server's story that belongs to one request, in order."""
    lines = view.find(StoryRow, Where(column="request", op="=", value=request), order=("id",))
    return tuple(line for line in lines if line.server == server)
