"""/os-classic-migrations: an administrator has a guest of a classic Xen host made into a server."""

from api_cell.http import views
from api_cell.http.call import Answer, Call
from api_cell.service import servers
from api_cell.service.servers import NewServer
from cells.model import ClassicGuest
from cells.names import id_text


def create(call: Call) -> Answer:
    """The server of the caller's project that the guest becomes; its status tells how far that is."""
    body = call.body["classic_migration"]
    new = NewServer(
        name=body["name"],
        flavor=str(body["flavorRef"]),
        image=body["imageRef"],
        metadata=body.get("metadata", {}),
        key_name=body.get("key_name", ""),
        classic=ClassicGuest(source=body["source"], name=body["guest"]),
    )
    (made,) = servers.create(call.api, call.caller, new, call.request_id)
    server = id_text(made.id)
    view = {"id": server, "links": views.links(call.base, f"servers/{server}")}
    return Answer(code=202, body={"server": view}, headers={"Location": f"{call.base}/v2.1/servers/{server}"})
