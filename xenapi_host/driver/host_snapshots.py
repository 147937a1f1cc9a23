"""Snapshots that stay on the host: an administrator's way back from a risky change, made at once and sent nowhere.

XAPI's VM.snapshot takes no tag, so they are told by their name: `celltree-SERVER-snapshot-NUMBER`, the number being the
command's. They hold the server's own disks, not its volumes, and go with the VM that they were taken of.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from cells.errors import Permanent
from xenapi_host import tags
from xenapi_host.driver import disks, vms, volumes
from xenapi_host.driver.errors import telling
from xenapi_host.driver.vms import Vm
from xenapi_host.session import NULL, Session, XenFailure, run_task

_SNAPSHOT_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSnapshot:
    """`id`: the snapshot's uuid. `taken`: when, as ISO 8601 in UTC."""

    id: str
    name: str
    taken: str


@telling("take a snapshot on the host")
def take_host_snapshot(session: Session, server: bytes, number: int, name: str) -> HostSnapshot:
    """Keep the server's disks as they are now; it may run. Asked again with the same number it is the same snapshot."""
    vm = vms.the_one(session, server)
    label = f"{_prefix(server)}{number}"
    found = [str(ref) for ref in session.call("VM.get_by_name_label", label)]
    if not found:
        left_out = [vbd["VDI"] for _, vbd in volumes.attachments(session, vm)]
        params = (vm.ref, label, left_out) if left_out else (vm.ref, label)
        found = [str(run_task(session, "Async.VM.snapshot", *params, limit=_SNAPSHOT_SECONDS))]
    for double in found[1:]:  # the answer to an earlier call was lost while it went on
        _drop(session, double, server)
    if session.call("VM.get_name_description", found[0]) != name:
        session.call("VM.set_name_description", found[0], name)
    taken = vms.read(session, found[0])
    if taken is None:
        raise Permanent("the snapshot has been removed meanwhile")
    return _facts(taken)


@telling("look for the server's snapshots")
def host_snapshots(session: Session, server: bytes) -> tuple[HostSnapshot, ...]:
    """Every snapshot of the server that its host keeps, oldest first. Those of one number are one: a second comes of a
    daemon that was frozen in its call, and was never given the snapshot's name in place of the server's."""
    found: dict[str, Vm] = {}
    for vm in vms.current(session, server):
        for taken in snapshots_of(session, server, vm):
            label = str(taken.record["name_label"])
            if label not in found or taken.record["name_description"] != vm.record["name_description"]:
                found[label] = taken
    return tuple(sorted(map(_facts, found.values()), key=lambda each: (each.taken, each.name)))


@telling("remove the snapshot from the host")
def drop_host_snapshot(session: Session, server: bytes, snapshot: str) -> None:
    """Remove one snapshot (a uuid), and others of its number, with their disks. Already gone is success; Permanent for
    what is none of this server's."""
    try:
        ref = str(session.call("VM.get_by_uuid", snapshot))
    except XenFailure as failure:
        if failure.code == "UUID_INVALID":
            return
        raise
    taken = vms.read(session, ref)
    if taken is None:
        return
    if not _is_ours(taken, server):
        raise Permanent("the server has no such snapshot; look at those it has")
    for each in _of_label(session, server, str(taken.record["name_label"])):
        _drop(session, each, server)


def drop_all(session: Session, server: bytes, vm: Vm) -> None:
    """Remove every snapshot of a VM that is itself to go."""
    for taken in list(snapshots_of(session, server, vm)):
        _drop(session, taken.ref, server)


def snapshots_of(session: Session, server: bytes, vm: Vm) -> Iterator[Vm]:
    """The snapshots that we have taken of a VM; an administrator's own have other names."""
    for ref in vm.record["snapshots"]:
        taken = vms.read(session, ref)
        if taken is not None and _is_ours(taken, server):
            yield taken


def _of_label(session: Session, server: bytes, label: str) -> list[str]:
    """The references of our snapshots of this name."""
    found = [vms.read(session, ref) for ref in session.call("VM.get_by_name_label", label)]
    return [taken.ref for taken in found if taken is not None and _is_ours(taken, server)]


def _drop(session: Session, ref: str, server: bytes) -> None:
    for vbd in session.call("VM.get_VBDs", ref):
        record = vms.record_of(session, "VBD", vbd)
        disk = disks.read(session, record["VDI"]) if record is not None and record["VDI"] != NULL else None
        if disk is not None and disk.record["is_a_snapshot"] and tags.claimed_by(disk.claim, server):
            disks.destroy_ref(session, disk.ref)
    with disks.gone_is_fine():
        session.call("VM.destroy", ref)


def _prefix(server: bytes) -> str:
    return f"{tags.vm_name(server)}-snapshot-"


def _is_ours(vm: Vm, server: bytes) -> bool:
    return bool(vm.record["is_a_snapshot"]) and str(vm.record["name_label"]).startswith(_prefix(server))


def _facts(taken: Vm) -> HostSnapshot:
    return HostSnapshot(
        id=taken.uuid, name=str(taken.record["name_description"]), taken=str(taken.record["snapshot_time"])
    )
