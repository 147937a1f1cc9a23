"""Volumes of servers: the leaf is asked whether the project has such a volume, then told to attach it."""

import json
from typing import Any

from api_cell.errors import Invalid, NotAllowedNow, NotFound
from api_cell.service import servers
from api_cell.service.actions import Asking, may, open_wish, wish
from api_cell.service.api import Api, Caller
from api_cell.service.questions import ask
from api_cell.service.servers import Wanted, get
from api_cell.volumes import ATTACH, DETACH, detail_of, device_name, free_devices, leaving, volumes_of
from cells.messages import AttachVolume, DetachVolume, Question
from cells.model import VmState, Volume
from cells.ports import Unit


def attach(api: Api, asking: Asking, volume: str, device: int | None) -> Volume:
    """Attach a volume at this device, or at the first that is free. NotFound unless it is in the server's pool and of
    its project."""
    api.read(lambda unit: may(unit, asking, ATTACH))
    found = json.loads(ask(api, asking, Question.VOLUME, about=volume))
    if found is None:
        raise NotFound(f"Volume {volume} could not be found.")
    made: list[Volume] = []

    def act(unit: Unit, line: bytes) -> None:
        row = may(unit, asking, ATTACH)
        if any(each.id == volume for each in volumes_of(row)):
            raise Invalid(f"volumeAttachment.volumeId: volume {volume} is attached to this server already")
        free = free_devices(row)
        if not free:
            raise Invalid("volumeAttachment: the server has as many volumes as it can have; detach one first")
        at = free[0] if device is None else device
        if at not in free:
            raise Invalid(f"volumeAttachment.device: {device_name(at)} is taken; leave it out, and a free one is used")
        made[:] = [Volume(id=volume, device=at)]
        command = AttachVolume(volume=volume, device=at)
        open_wish(api, unit, asking, line, row, "attach_volume", command, detail_of(made[0]))

    wish(api, act)
    return made[0]


_MOST_LEAVES = 8


def find(api: Api, caller: Caller, volume: str, request: str) -> dict[str, Any]:
    """A volume of the caller's project, as one of the leaves that hold its servers knows it. NotFound where none does:
    a project can attach a volume only where it has a server."""
    rows = servers.find(api, Wanted(project=caller.project, limit=1000))
    of_leaf = {row.leaf: row for row in rows if row.leaf and row.vm_state in (VmState.ACTIVE, VmState.STOPPED)}
    for row in list(of_leaf.values())[:_MOST_LEAVES]:
        asking = Asking(caller=caller, server=row.id, request=request)
        found: dict[str, Any] | None = json.loads(ask(api, asking, Question.VOLUME, about=volume))
        if found is not None:
            return found
    raise NotFound(f"Volume {volume} could not be found.")


def detach(api: Api, asking: Asking, volume: str) -> None:
    """Take a volume from a server."""

    def act(unit: Unit, line: bytes) -> None:
        row = may(unit, asking, DETACH)
        if all(each.id != volume for each in volumes_of(row)):
            raise _not_attached(volume)
        if leaving(row, volume):
            raise NotAllowedNow(f"Volume {volume} is being detached already; wait until that is over")
        open_wish(api, unit, asking, line, row, "detach_volume", DetachVolume(volume=volume), volume)

    wish(api, act)


def attached(api: Api, asking: Asking) -> tuple[Volume, ...]:
    """Every volume of a server."""
    return volumes_of(api.read(lambda unit: get(unit, asking.caller, asking.server)))


def one(api: Api, asking: Asking, volume: str) -> Volume:
    """One volume of a server."""
    for each in attached(api, asking):
        if each.id == volume:
            return each
    raise _not_attached(volume)


def _not_attached(volume: str) -> NotFound:
    return NotFound(f"volume_id not found: {volume}")
