"""/servers/{id}/os-volume_attachments, and the one question of Cinder's that clients ask before they attach a volume:
parse -> api_cell.service.volumes -> view."""

import uuid
from typing import Any

from api_cell.errors import Invalid, NotFound
from api_cell.http.call import Answer, Call
from api_cell.http.servers import asking
from api_cell.service import volumes
from api_cell.settings import GIB
from api_cell.volumes import device_name, device_number
from cells.model import Volume


def names(call: Call) -> Answer:
    found = volumes.attached(call.api, asking(call))
    first, most = call.query.number("offset", 0), call.query.number("limit", len(found))
    return Answer(body={"volumeAttachments": [_view(call, each) for each in found[first : first + most]]})


def show(call: Call) -> Answer:
    return Answer(body={"volumeAttachment": _view(call, volumes.one(call.api, asking(call), _volume(call)))})


def attach(call: Call) -> Answer:
    wanted = call.body["volumeAttachment"]
    if wanted.get("tag"):
        raise Invalid("volumeAttachment.tag: guests are not told tags of devices here; leave it out")
    made = volumes.attach(call.api, asking(call), wanted["volumeId"].lower(), _device(wanted.get("device")))
    return Answer(body={"volumeAttachment": _view(call, made)})


def detach(call: Call) -> Answer:
    volumes.detach(call.api, asking(call), _volume(call))
    return Answer(code=202)


def find(call: Call) -> Answer:
    """As Cinder shows a volume, as far as a pool knows it."""
    found = volumes.find(call.api, call.caller, _volume(call), call.request_id)
    view = {
        "id": found["id"],
        "name": found["name"],
        "size": -(-found["size"] // GIB),
        "status": "in-use" if found["attached"] else "available",
    }
    return Answer(body={"volume": view})


def find_by_name(call: Call) -> Answer:
    """What clients ask next when there is no volume of that id."""
    raise NotFound("No such volume: a volume is found by its id, where the project has a server, not by its name")


def block_storage(call: Call) -> Answer:
    links = [{"rel": "self", "href": f"{call.base}/volume/v3/"}]
    version = {"id": "v3.0", "status": "CURRENT", "version": "3.0", "min_version": "3.0", "links": links}
    return Answer(body={"versions": [version]})


def _device(name: str | None) -> int | None:
    if not name:
        return None
    number = device_number(name)
    if number is None:
        raise Invalid(
            f"volumeAttachment.device: {name[:40]!r} is none that a volume can be; use {device_name(8)} to "
            f"{device_name(15)}, or leave it out"
        )
    return number


def _volume(call: Call) -> str:
    text = call.params["volume"]
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise NotFound(f"volume_id not found: {text[:255]}") from None


def _view(call: Call, volume: Volume) -> dict[str, Any]:
    server = call.params["server"]
    return {"id": volume.id, "volumeId": volume.id, "serverId": server, "device": device_name(volume.device)}
