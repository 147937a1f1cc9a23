"""/servers/{id}/os-volume_attachments: parse -> api_cell.service.volumes -> view."""

import uuid
from typing import Any

from api_cell.errors import Invalid, NotFound
from api_cell.http.call import Answer, Call
from api_cell.http.servers import asking
from api_cell.service import volumes
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
