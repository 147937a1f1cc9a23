"""The posting endpoint: how programs beside an API cell ask for servers without HTTP, over oslo.messaging RPC on the
cell's own broker (exchange celltree, topic celltree.posting), or in place when embedded.

The same service functions as REST. The caller chooses the request id: an answer that got lost is asked for again with
the same id, and gives the server that the first one made. Whoever may log in to the cell's broker may post, for any
project: it is meant for the operator's own programs.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from api_cell.rows import FlavorRow, ServerRow
from api_cell.service import servers
from api_cell.service.api import Api, Caller
from api_cell.service.servers import NewServer
from cells.errors import BadInput
from cells.names import id_from_text, id_text

_MOST = {"request": 64, "project": 255, "user": 255, "name": 255, "image": 36, "flavor": 255}


def endpoint(api: Api) -> Mapping[str, Callable[..., Any]]:
    """The methods offered, by name. Arguments and answers are what JSON can carry."""

    def build(
        request: str,
        project: str,
        user: str,
        name: str,
        flavor: str,
        image: str,
        metadata: Mapping[str, str] | None = None,
        hints: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Ask for a server; gives its id and status at once. `flavor` is a flavor's name or id."""
        given = {"request": request, "project": project, "user": user, "name": name, "flavor": flavor, "image": image}
        for field, value in given.items():
            _check_text(field, value, _MOST[field])
        new = NewServer(
            name=name,
            flavor=_flavor_id(api, flavor),
            image=image,
            metadata=_texts("metadata", metadata),
            hints=_texts("hints", hints),
        )
        once = f"{hashlib.sha256(project.encode()).hexdigest()[:32]}/posted/{request}"
        made = servers.create(api, Caller(user=user, project=project), new, request, once)
        return _shown(made[0])

    def show(server: str) -> dict[str, Any]:
        """A server as its owner sees it now; an empty status when there is none."""
        key = id_from_text(server, "server")
        row = api.read(lambda unit: unit.get(ServerRow, key))
        return {"server": server, "status": ""} if row is None else _shown(row)

    return {"build": build, "show": show}


def _shown(row: ServerRow) -> dict[str, Any]:
    return {
        "server": id_text(row.id),
        "name": row.name,
        "project": row.project,
        "request": row.request,
        "status": row.status,
        "task_state": row.task_state,
        "leaf": row.leaf,
        "fault": row.fault,
    }


def _flavor_id(api: Api, word: str) -> str:
    flavors = api.read(lambda unit: unit.all(FlavorRow))
    for row in flavors:
        if word in (row.id, row.name):
            return row.id
    raise BadInput(
        f"flavor {word!r} is not one of this cell; there are: {', '.join(sorted(row.name for row in flavors))}"
    )


def _check_text(field: str, value: object, most: int) -> None:
    if not isinstance(value, str) or not value.strip() or len(value) > most:
        raise BadInput(f"{field} must be a text of 1 to {most} characters")


def _texts(field: str, value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or len(value) > 128:
        raise BadInput(f"{field} must be a mapping of at most 128 texts")
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str) or not 1 <= len(key) <= 255 or len(text) > 255:
            raise BadInput(f"{field}: keys and values must be texts of at most 255 characters")
    return dict(value)
