"""Taking a server away: its VMs, their disks, whatever a try that was cut short has left. Nothing else is touched.

Order: power, disks, and the VM record last, because the rest is found by it.
"""

from collections.abc import Callable, Sequence

from cells.model import PowerState
from xenapi_host import tags
from xenapi_host.driver import disks, host_snapshots, vms
from xenapi_host.driver.errors import telling
from xenapi_host.driver.power import power_off
from xenapi_host.driver.vms import Vm
from xenapi_host.session import Session, XenFailure


@telling("delete the server")
def destroy(session: Session, server: bytes, *, attempt: int | None = None, owner: str = "") -> None:
    """Remove a server of this owner, or one attempt to build it, from the pool with all its disks, at once and by
    force. Disks that are not ours (volumes) are only detached. Nothing there is success. Raises Temporary, to be called
    again then, or Permanent; BelongsToAnother before anything is touched, if all there is of it is another owner's."""
    there = vms.every(session, server)
    own = [vm for vm in there if vms.is_of(vm, owner)]
    if not own:
        vms.refuse_others(there, owner)
    found = [vm for vm in own if attempt is None or vm.attempt == attempt]
    for vm in found:
        power_off(session, vm, clean_seconds=0)
    mine = "" if attempt is None else tags.attempt_prefix(server, attempt)
    _remove_disks(session, server, found, lambda claim: claim.startswith(mine))
    for vm in found:
        _remove(session, server, vm)


def remove_vm(session: Session, server: bytes, vm: Vm) -> None:
    """Remove one VM of a server with its own disks, by force."""
    power_off(session, vm, clean_seconds=0)
    claims = {vm.claim_of(name) for name in disks.names_of(vm)}
    _remove_disks(session, server, [vm], lambda claim: claim in claims)
    _remove(session, server, vm)


def _remove_disks(session: Session, server: bytes, found: Sequence[Vm], mine: Callable[[str], bool]) -> None:
    """Destroy the server's disks whose claim is meant, attached to these VMs or to nothing. Those that hang on
    another VM are an administrator's copies or snapshots, which have our names and tags, too."""
    ours = {ref for vm in found for ref in vm.record["VBDs"]}
    for name in dict.fromkeys(["root", *(name for vm in found for name in disks.names_of(vm))]):
        for disk in disks.named(session, disks.label(server, name)):
            if not mine(disk.claim):
                continue
            if ours.issuperset(disk.record["VBDs"]):
                disks.destroy(session, disk)
            elif disks.is_free(session, disk, ours):
                disks.unplug(session, disk.ref)
                disks.destroy(session, disk)


def _remove(session: Session, server: bytes, vm: Vm) -> None:
    """Remove a halted VM whose named disks are gone: those not yet named, then the VM itself. `vm` is as it was before
    its disks were taken."""
    now = vms.read(session, vm.ref)
    if now is None:
        return
    host_snapshots.drop_all(session, server, now)
    root = disks.root(session, now)
    if root is not None and tags.claimed_by(root.claim, server):
        disks.destroy(session, root)
    elif not vm.record["VBDs"]:
        _sweep_clones(session, now)
    if now.power_state is not PowerState.HALTED:
        power_off(session, now, clean_seconds=0)
    with disks.gone_is_fine():
        session.call("VM.destroy", now.ref)


def _sweep_clones(session: Session, vm: Vm) -> None:
    """A VM that never got a disk may have been about to get one: destroy the clones that nobody else has claimed.
    Taking another build's clone in the instant before it is claimed costs that build one more clone."""
    storage, image = vm.tags.get(tags.STORAGE, ""), vm.tags.get(tags.IMAGE, "")
    if not storage or not image:
        return
    cache = tags.image_uuids(storage, image, 1)
    try:
        at = session.handle("SR", storage)
    except XenFailure as failure:
        if failure.code == "UUID_INVALID":
            return  # the SR is gone, and its disks with it
        raise
    while ref := disks.adopt(session, tags.image_name(image), at, vm.claim, not_these=cache):
        disks.discard(session, ref)
