"""Volumes: disks that an administrator keeps in a storage repository of the pool, for one project's servers to attach.

Whose a volume is says its VDI's other_config `celltree_project`. It never gets a claim of ours, so nothing destroys it;
what is ours is the attachment, which is marked from VBD.create on and found again by that mark.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cells.errors import Permanent
from cells.model import Volume
from xenapi_host import tags
from xenapi_host.driver import disks, vms
from xenapi_host.driver.disks import Disk
from xenapi_host.driver.errors import telling
from xenapi_host.driver.vms import Vm
from xenapi_host.session import Session, XenFailure

_DATA_TYPES = ("user", "system")


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeFacts:
    """A volume as its project may see it; size in bytes. `attached`: whether some VM has it."""

    id: str
    name: str
    size: int
    attached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a volume is attached: the number of the disk; the host (a uuid) where the server is or starts; its share of
    the storage's time (guests.disk_shares)."""

    device: int
    host: str
    shares: Mapping[str, str] = field(default_factory=dict)


@telling("look for the volume")
def find_volume(session: Session, volume: str, project: str) -> VolumeFacts | None:
    """A volume (the uuid of a VDI) that this project may attach; None for any other disk, and for none."""
    disk = _of_project(session, volume, project)
    if disk is None:
        return None
    return _facts(disk)


@telling("attach the volume")
def attach_volume(session: Session, server: bytes, volume: str, project: str, place: Place) -> None:
    """Give a server this volume, at once if it runs. Permanent when the volume is another's, in use or out of the
    host's reach, and then nothing has changed. After Temporary this is to be called again, or `detach_volume` to give
    up."""
    vm = vms.the_one(session, server)
    disk = _of_project(session, volume, project)
    if disk is None:
        raise Permanent("there is no such volume of this project in the server's pool")
    for ref, vbd in attachments(session, vm):
        if _volume_of(vbd) == disk.uuid:
            return _plug(session, vm, ref, attached=bool(vbd["currently_attached"]))
    if disk.record["VBDs"] and not disk.record["sharable"]:
        raise Permanent(f"volume {volume} is in use; detach it there first")
    refuse_out_of_reach(session, session.handle("host", place.host), [disk])
    _plug(session, vm, _attach(session, vm.ref, disk.ref, str(place.device), disk.uuid, place.shares))


@telling("detach the volume")
def detach_volume(session: Session, server: bytes, volume: str) -> None:
    """Take a volume from a server, at once if it runs. Not attached is success. Temporary while the guest uses it."""
    for vm in vms.every(session, server):
        for ref, vbd in attachments(session, vm):
            if _volume_of(vbd) == volume:
                _detach(session, ref, attached=bool(vbd["currently_attached"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolVolume:
    """A volume as its administrator sees it; `servers`: the names of the VMs that have it."""

    facts: VolumeFacts
    project: str
    servers: tuple[str, ...]


@telling("list the volumes")
def volumes_of_pool(session: Session) -> tuple[PoolVolume, ...]:
    """Every disk of the pool that a project may attach."""
    found = []
    for ref, record in session.call("VDI.get_all_records").items():
        project = record["other_config"].get(tags.PROJECT, "")
        disk = Disk(ref=ref, record=record)
        if project and _is_volume(disk):
            vbds = [vms.record_of(session, "VBD", vbd) for vbd in record["VBDs"]]
            names = {str(session.call("VM.get_name_label", vbd["VM"])) for vbd in vbds if vbd is not None}
            found.append(PoolVolume(facts=_facts(disk), project=project, servers=tuple(sorted(names))))
    return tuple(sorted(found, key=lambda each: (each.project, each.facts.name, each.facts.id)))


@telling("allow the volume")
def allow_volume(session: Session, volume: str, project: str) -> None:
    """Let a project attach this disk (the uuid of a VDI), and no other project. Permanent for what is no volume: a
    server's own disk, a cached image, a snapshot."""
    disk = disks.by_uuid(session, volume)
    if disk is None or not _is_volume(disk):
        raise Permanent(f"{volume} is no disk that could be a volume; make one with xe vdi-create")
    now = disk.record["other_config"].get(tags.PROJECT)
    if now == project:
        return
    if now is not None:
        _refuse_attached(disk)
        session.call("VDI.remove_from_other_config", disk.ref, tags.PROJECT)
    with disks.claimed_is_fine():
        session.call("VDI.add_to_other_config", disk.ref, tags.PROJECT, project)


@telling("withdraw the volume")
def withdraw_volume(session: Session, volume: str) -> None:
    """Let no project attach this disk any more. Permanent while one has it."""
    disk = disks.by_uuid(session, volume)
    if disk is not None and tags.PROJECT in disk.record["other_config"]:
        _refuse_attached(disk)
        session.call("VDI.remove_from_other_config", disk.ref, tags.PROJECT)


def _refuse_attached(disk: Disk) -> None:
    if disk.record["VBDs"]:
        raise Permanent(f"volume {disk.uuid} is attached; detach it first")


def carry(session: Session, old: Vm, new: str, shares: Mapping[str, str]) -> None:
    """Attach a server's volumes to its new VM (a reference), too, which is halted; the old one is halted or goes. Of
    two VMs that have a disk, XAPI starts one only."""
    found = list(attachments(session, old))
    have = disks.attached(session, new) if found else {}
    for _, vbd in found:
        device = int(vbd["userdevice"])
        if device not in have:
            _attach(session, new, vbd["VDI"], str(device), _volume_of(vbd), shares)


def refuse_unless_carried(session: Session, vm: Vm, host: str) -> None:
    """Permanent when a VM has a volume that this host (a uuid) does not reach."""
    found = [disks.read(session, vbd["VDI"]) for _, vbd in attachments(session, vm)]
    if found:
        refuse_out_of_reach(session, session.handle("host", host), [disk for disk in found if disk is not None])


def refuse_out_of_reach(session: Session, host: str, volumes: list[Disk]) -> None:
    """Permanent when a volume lies in an SR that this host (a reference) has not plugged in."""
    for disk in volumes:
        if not reaches(session, host, disk.storage):
            raise Permanent(f"volume {disk.uuid} is out of the host's reach; detach it or use a host with its storage")


def reaches(session: Session, host: str, storage: str) -> bool:
    """Whether a host has an SR plugged in (references)."""
    for ref in session.call("SR.get_PBDs", storage):
        pbd = vms.record_of(session, "PBD", ref)
        if pbd is not None and pbd["host"] == host and pbd["currently_attached"]:
            return True
    return False


def attached(session: Session, vm: Vm) -> tuple[Volume, ...]:
    """The volumes of a VM, by device."""
    found = [Volume(id=_volume_of(vbd), device=int(vbd["userdevice"])) for _, vbd in attachments(session, vm)]
    return tuple(sorted(found, key=lambda volume: volume.device))


def attachments(session: Session, vm: Vm) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Reference and record of every attachment by which a VM has a volume."""
    for ref in vm.record["VBDs"]:
        vbd = vms.record_of(session, "VBD", ref)
        if vbd is not None and _volume_of(vbd):
            yield ref, vbd


def _attach(session: Session, vm: str, disk: str, device: str, volume: str, shares: Mapping[str, str]) -> str:
    return disks.attach(session, vm, disk, device, unpluggable=True, volume=volume, shares=shares)


def _volume_of(vbd: Mapping[str, Any]) -> str:
    return str(vbd["other_config"].get(tags.VOLUME, ""))


def _of_project(session: Session, volume: str, project: str) -> Disk | None:
    disk = disks.by_uuid(session, volume)
    if disk is None:
        return None
    whose = disk.record["other_config"].get(tags.PROJECT)
    return disk if project and whose == project and _is_volume(disk) else None


def _is_volume(disk: Disk) -> bool:
    """Whether a disk could be a volume: data, and none of ours."""
    record = disk.record
    ours = tags.CLAIM in record["other_config"] or tags.IMAGE_ID in record["other_config"]
    return record["managed"] and not record["is_a_snapshot"] and record["type"] in _DATA_TYPES and not ours


def _facts(disk: Disk) -> VolumeFacts:
    name, attached = str(disk.record["name_label"]), bool(disk.record["VBDs"])
    return VolumeFacts(id=disk.uuid, name=name, size=disk.size, attached=attached)


def _plug(session: Session, vm: Vm, ref: str, *, attached: bool = False) -> None:
    """Show a running VM the disk of an attachment. Where that cannot be, there is no attachment afterwards."""
    if vm.halted or attached:
        return
    try:
        session.call("VBD.plug", ref)
    except XenFailure as failure:
        if failure.code == "DEVICE_ALREADY_ATTACHED":
            return
        _detach(session, ref, attached=False)
        raise


def _detach(session: Session, ref: str, *, attached: bool) -> None:
    if attached:
        try:
            session.call("VBD.unplug", ref)
        except XenFailure as failure:
            if failure.code not in ("DEVICE_ALREADY_DETACHED", "HANDLE_INVALID"):
                raise
    with disks.gone_is_fine():
        session.call("VBD.destroy", ref)
