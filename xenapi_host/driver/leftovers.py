"""What nobody uses any more, found and removed. Since when a thing is unused is noted on the thing itself at each look,
because no call tells it.
"""

from contextlib import suppress
from dataclasses import dataclass

from cells.errors import Permanent, Temporary
from xenapi_host import tags
from xenapi_host.driver import disks, images, vms
from xenapi_host.driver.destroy import remove_vm
from xenapi_host.driver.errors import telling
from xenapi_host.driver.plugin import call_plugin
from xenapi_host.driver.vms import Vm
from xenapi_host.leftovers import SWEPT, Age, Held, Leftover, Records, unused
from xenapi_host.session import Session, TaskTimedOut, XenFailure

_ON_FILES = ("ext", "nfs", "file")
_STAGING_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """`removed`: the names of clones that are gone now. `servers`: those that have something nobody has used for long
    enough; whether it may go, the leaf knows."""

    removed: tuple[str, ...]
    servers: tuple[bytes, ...]


@telling("look for leftovers")
def find_leftovers(session: Session, age: Age) -> Swept:
    """Note on everything unused that it is, take the note off what is used again, remove the clones and the abandoned
    staging folders that are nobody's for long enough, and tell the servers that have more."""
    machines, virtual_disks, storages = _all(session)
    found = unused(machines, virtual_disks, storages)
    _take_off_notes(session, machines, virtual_disks, {leftover.ref for leftover in found})
    removed, servers = [], []
    for leftover in found:
        if not age.is_over(leftover.seen):
            _write_note(session, leftover, age)
        elif leftover.server is not None:
            _write_note(session, leftover, age)
            servers.append(leftover.server)
        elif _swept(session, leftover.ref):
            removed.append(leftover.name)
    _sweep_staging(session, virtual_disks, storages)
    return Swept(removed=tuple(removed), servers=tuple(dict.fromkeys(servers)))


@telling("remove what nobody uses")
def tidy(session: Session, server: bytes, held: Held, age: Age, owner: str = "") -> tuple[str, ...]:
    """Remove what a server has on this pool without using it, for long enough; the names of what went. To be called
    while nothing else is done with the server. Nothing goes of a server that is to be here and has no VM with disks; of
    one that nobody knows only VMs without disks go: a disk may hold what somebody misses. BelongsToAnother if the
    server is here and not this owner's."""
    machines, virtual_disks, storages = _all(session)
    own = {ref: vm for ref, vm in machines.items() if tags.server_of(vm["other_config"]) == server}
    vms.refuse_others((Vm(ref=ref, record=vm) for ref, vm in own.items()), owner)
    its = [leftover for leftover in unused(machines, virtual_disks, storages) if leftover.server == server]
    lost = {leftover.ref for leftover in its if leftover.is_lost}
    has_disks = any(vm["VBDs"] and ref not in lost for ref, vm in own.items())
    removed = []
    for leftover in its:
        may_go = leftover.is_lost or (has_disks if held is Held.HERE else held is Held.GONE or leftover.of == "VM")
        if not may_go or not age.is_over(leftover.seen):
            continue
        with disks.gone_is_fine():
            if leftover.is_lost:
                remove_vm(session, server, Vm(ref=leftover.ref, record=own[leftover.ref]))
            else:
                session.call(f"{leftover.of}.destroy", leftover.ref)
        removed.append(leftover.name)
    return tuple(removed)


def _all(session: Session) -> tuple[Records, Records, Records]:
    return (
        session.call("VM.get_all_records"),
        session.call("VDI.get_all_records"),
        session.call("SR.get_all_records"),
    )


def _write_note(session: Session, leftover: Leftover, age: Age) -> None:
    with disks.gone_is_fine(), disks.claimed_is_fine():
        session.call(f"{leftover.of}.remove_from_other_config", leftover.ref, tags.LEFTOVER)
        note = f"{age.since(leftover.seen)} {age.now}"
        session.call(f"{leftover.of}.add_to_other_config", leftover.ref, tags.LEFTOVER, note)


def _take_off_notes(session: Session, machines: Records, virtual_disks: Records, but: set[str]) -> None:
    """A clone or snapshot inherits the note of what it was made from, and what was unused may be used again."""
    for of, records in (("VM", machines), ("VDI", virtual_disks)):
        for ref, record in records.items():
            if tags.LEFTOVER in record["other_config"] and ref not in but:
                with disks.gone_is_fine():
                    session.call(f"{of}.remove_from_other_config", ref, tags.LEFTOVER)


def _swept(session: Session, ref: str) -> bool:
    """Claim a clone, so that no build takes it any more, and destroy it."""
    with disks.gone_is_fine(), disks.claimed_is_fine():
        session.call("VDI.add_to_other_config", ref, tags.CLAIM, SWEPT)
    disk = disks.read(session, ref)
    if disk is None or disk.claim != SWEPT:
        return False
    disks.destroy_ref(session, ref)
    return True


def _sweep_staging(session: Session, virtual_disks: Records, storages: Records) -> None:
    """Staging folders of plugin runs that were killed, in every SR that holds images of ours."""
    used = {str(record["SR"]) for record in virtual_disks.values() if tags.IMAGE_ID in record["other_config"]}
    for ref in sorted(used):
        if storages.get(ref, {}).get("type") not in _ON_FILES:
            continue
        # What is plugged in nowhere, or on a host that is off, waits for a later look: the rest counts today.
        with suppress(Temporary, Permanent, XenFailure, TaskTimedOut):
            host, path = images.folder(session, ref)
            call_plugin(session, host, images.PLUGIN, "sweep", {"sr_path": path}, limit=_STAGING_SECONDS)
