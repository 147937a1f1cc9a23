"""Wishes about a server that is there: checked against its state, saved with the next number, left to the daemon."""

from dataclasses import replace
from typing import Any

from api_cell import allowed, quota
from api_cell.errors import Invalid, NotAllowedNow
from api_cell.rows import OpenIntent, Phase, ServerRow
from api_cell.service import story
from api_cell.service.api import Api, Caller
from api_cell.service.flavors import flavor_seen
from api_cell.service.servers import get
from api_cell.service.wish import wake_for
from api_cell.status import flavor_of, settle
from cells.messages import (
    ConfirmResize,
    DeleteServer,
    RebootServer,
    ResizeServer,
    RevertResize,
    SnapshotServer,
    StartServer,
    StopServer,
    kind_of,
)
from cells.names import id_text
from cells.ports import Unit


def start(api: Api, caller: Caller, server: bytes, request: str) -> None:
    _wish(api, caller, server, request, "start", StartServer())


def stop(api: Api, caller: Caller, server: bytes, request: str) -> None:
    _wish(api, caller, server, request, "stop", StopServer())


def reboot(api: Api, caller: Caller, server: bytes, request: str, *, hard: bool) -> None:
    _wish(api, caller, server, request, "reboot", RebootServer(hard=hard))


def confirm_resize(api: Api, caller: Caller, server: bytes, request: str) -> None:
    _wish(api, caller, server, request, "confirmResize", ConfirmResize())


def revert_resize(api: Api, caller: Caller, server: bytes, request: str) -> None:
    _wish(api, caller, server, request, "revertResize", RevertResize())


def resize(api: Api, caller: Caller, server: bytes, request: str, flavor_id: str) -> None:
    """Room for the larger of both flavors is charged until the resize is confirmed or reverted."""

    def act(unit: Unit) -> None:
        row = _may(unit, caller, server, "server.resize")
        found = flavor_seen(unit, caller, flavor_id)
        if found is None:
            raise Invalid(f"resize.flavorRef: flavor {flavor_id} could not be found; GET /flavors for those there are")
        flavor = found.flavor
        if flavor.id == flavor_of(row).id:
            raise Invalid("resize.flavorRef: when resizing, instances must change flavor; choose another one")
        if flavor.disk_gib < flavor_of(row).disk_gib:
            raise Invalid(
                f"resize.flavorRef: a disk cannot shrink from {flavor_of(row).disk_gib} to {flavor.disk_gib} GiB; "
                "choose a flavor with at least as much disk"
            )
        after = replace(row, resize_to=flavor)
        was, will = quota.held(row), quota.held(after)
        usage = quota.usage_of(unit, row.project)
        limits = quota.quota_of(unit, row.project, api.settings.quota)
        more = quota.Held(vcpus=will.vcpus - was.vcpus, ram_mib=will.ram_mib - was.ram_mib)
        quota.refuse_over(usage, limits, more)
        unit.save(quota.charge(usage, row, after))
        _open(api, unit, caller, after, request, "resize", ResizeServer(flavor=flavor))

    api.change(act)
    api.poke()


def create_image(api: Api, caller: Caller, server: bytes, request: str, name: str, properties: dict[str, str]) -> str:
    """Gives the id of the new image, queued until the leaf has uploaded its data."""
    # Looked at first without a lock, so that no image is made for a wish that cannot be; decided below.
    row = api.read(lambda unit: _may(unit, caller, server, "server.snapshot"))
    base = row.spec.image
    image_id = api.images.create(
        name=name,
        owner=row.project,
        disk_format="vhd",
        container_format="ovf",
        min_disk=flavor_of(row).disk_gib,
        properties={
            **base.properties,
            "base_image_ref": base.id,
            "image_type": "snapshot",
            "instance_uuid": id_text(server),
            **properties,
        },
    )

    def act(unit: Unit) -> None:
        row = _may(unit, caller, server, "server.snapshot")
        command = SnapshotServer(image=api.images.ref(image_id))
        # The image's id, so that the role can remove it when no data will come.
        _open(api, unit, caller, row, request, "createImage", command, detail=image_id)

    try:
        api.change(act)
    except BaseException:
        api.images.delete(image_id)
        raise
    api.poke()
    return image_id


def delete(api: Api, caller: Caller, server: bytes, request: str) -> None:
    """Allowed in any state; overtakes whatever goes on. Asked again while it goes on, it changes nothing."""

    def act(unit: Unit) -> None:
        row = _unlocked(get(unit, caller, server), caller)
        if row.phase is Phase.DELETING:
            return
        command = DeleteServer(build_deadline=row.deadline)
        _open(api, unit, caller, replace(row, phase=Phase.DELETING), request, "delete", command)

    api.change(act)
    api.poke()


def _wish(api: Api, caller: Caller, server: bytes, request: str, action: str, command: Any) -> None:
    hard = isinstance(command, RebootServer) and command.hard
    rule = kind_of(command).name + (".hard" if hard else "")

    def act(unit: Unit) -> None:
        row = _may(unit, caller, server, rule)
        _open(api, unit, caller, row, request, action, command, detail="HARD" if hard else "")

    api.change(act)
    api.poke()


def _may(unit: Unit, caller: Caller, server: bytes, rule: str) -> ServerRow:
    row = _unlocked(get(unit, caller, server), caller)
    allowed.check(row, rule)
    return row


def _unlocked(row: ServerRow, caller: Caller) -> ServerRow:
    if row.locked and not caller.admin:
        raise NotAllowedNow(f"Instance {id_text(row.id)} is locked; unlock it first")
    return row


def _open(
    api: Api, unit: Unit, caller: Caller, row: ServerRow, request: str, action: str, command: Any, detail: str = ""
) -> None:
    now = api.clock()
    wish = OpenIntent(number=row.number + 1, action=kind_of(command).name, at=now, request=request, detail=detail)
    row = settle(replace(row, number=wish.number, intents=(*row.intents, wish), updated=max(row.updated, now)))
    unit.save(row, wake_for(api, row, wish, command), story.asked(api, caller, row, action, request))
