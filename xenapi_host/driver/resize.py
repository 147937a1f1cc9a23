"""Resizing: a second VM with the new flavor and a copy of the disk, beside the first, which is kept until the owner
confirms or reverts.

At each step at least one whole disk exists: the original's is never written, and it goes only after the new VM has
been made. The original is told by its tag ORIGINAL (with the power state it had) and by the suffix of its name.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cells.errors import Permanent, Refusal, Temporary
from cells.model import PowerState
from cells.ports import Journal
from xenapi_host import tags
from xenapi_host.driver import data_disks, disks, root_disk, vms, volumes
from xenapi_host.driver.build import add_interfaces, running_facts, started_on
from xenapi_host.driver.destroy import remove_vm
from xenapi_host.driver.disks import Disk
from xenapi_host.driver.errors import telling, told, told_to_stop
from xenapi_host.driver.power import CLEAN_SECONDS, power_off
from xenapi_host.driver.tasks import earlier, run_noted
from xenapi_host.driver.vms import Vm
from xenapi_host.plan import BuildPlan
from xenapi_host.session import NULL, Session, XenFailure

COPY_SECONDS = 12 * 3600.0
_COPY = "copy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resized:
    """The new VM. A server that was off stays off (domid -1)."""

    vm_uuid: str
    power_state: PowerState
    domid: int
    note: str = ""


@telling("resize the server")
def resize(session: Session, plan: BuildPlan, journal: Journal, *, clean_seconds: float = CLEAN_SECONDS) -> Resized:
    """Move a server to the plan's host, SR and flavor; the plan's `serial` is the command's number.

    The server is off while its disks are copied (at once within one SR). A root disk smaller than the server's is made
    only with auto-disk-config; smaller ephemeral disks are refused.
    After a Permanent error or a refusal the server is as it was, running if it ran; after
    Temporary this is to be called again, or `revert_resize` to give up."""
    journal.check()
    original = _original(session, plan)
    source = _root(session, original)
    root_disk.refuse_shrink(plan, source)
    data = data_disks.of_vm(session, original)
    _refuse_smaller_ephemerals(plan, data)
    volumes.refuse_unless_carried(session, original, plan.host)
    try:
        return _resize(session, plan, original, source, data, journal, clean_seconds)
    except XenFailure as failure:
        error = told("resize the server", failure)
        if not isinstance(error, Temporary):
            revert_resize(session, plan.server)
        raise
    except (Permanent, Refusal) as error:
        if not told_to_stop(error):
            revert_resize(session, plan.server)
        raise


def _refuse_smaller_ephemerals(plan: BuildPlan, data: Mapping[str, Disk]) -> None:
    wanted = {disk.name: disk.size for disk in plan.disks}
    for name, disk in data.items():
        if name.startswith("ephemeral") and wanted.get(name, 0) < disk.size:
            raise Permanent(
                f"flavor {plan.flavor.name} has less ephemeral disk than the server, and ephemeral disks cannot "
                "shrink; choose a flavor with at least as much"
            )


def _original(session: Session, plan: BuildPlan) -> Vm:
    kept = vms.originals(session, plan.server)
    if kept:
        if any(vm.serial != plan.serial for vm in vms.current(session, plan.server)):
            raise Permanent("an earlier resize waits: confirm or revert it first")
        return kept[0]
    vm = vms.the_one(session, plan.server)
    if vm.serial == plan.serial:
        raise Permanent("the server has this size already")
    return vm


def _root(session: Session, vm: Vm) -> Disk:
    root = disks.root(session, vm)
    if root is None:
        raise Permanent("the server has no root disk")
    return root


def _resize(
    session: Session,
    plan: BuildPlan,
    original: Vm,
    source: Disk,
    data: Mapping[str, Disk],
    journal: Journal,
    clean_seconds: float,
) -> Resized:
    was = _set_aside(session, plan, original)
    journal.check()
    power_off(session, vms.read(session, original.ref) or original, clean_seconds=clean_seconds)
    new = _new_vm(session, plan, source)
    if disks.root(session, new) is None:
        journal.check()
        if plan.root_bytes and plan.root_bytes < source.size:
            disk = root_disk.shrunk(session, plan, source, journal)
        else:
            disk = _copied(session, plan, source, "root", journal)
            root_disk.grow(session, plan, disk.ref, disk.size, journal)
        journal.check()
        disks.attach_root(session, new.ref, disk.ref, plan.disk_shares)
    data_disks.give(session, plan, new.ref, journal, taken_along(session, plan, new.ref, data, journal))
    add_interfaces(session, plan, new, original)
    volumes.carry(session, original, new.ref, plan.disk_shares)
    if was is not PowerState.HALTED:
        new = started_on(session, new, plan.host)
    facts = running_facts(new)
    return Resized(
        vm_uuid=facts.vm_uuid, power_state=facts.power_state, domid=facts.domid, note=root_disk.note(journal)
    )


def taken_along(
    session: Session, plan: BuildPlan, new: str, data: Mapping[str, Disk], journal: Journal
) -> Mapping[str, str]:
    """Copies of these of the tenant's disks that the new VM (a reference) has not got yet, grown to the flavor: name ->
    reference."""
    wanted = [disk for disk in plan.disks if disk.kept and disk.name in data]
    if not wanted:
        return {}
    have = disks.attached(session, new)
    taken = {}
    for disk in wanted:
        if disk.device in have:
            continue
        copy = _copied(session, plan, data[disk.name], disk.name, journal)
        disks.grow(session, copy.ref, copy.size, disk.size)
        taken[disk.name] = copy.ref
    return taken


def _set_aside(session: Session, plan: BuildPlan, original: Vm) -> PowerState:
    """Mark the original and rename it, so that the server's name is free for the new VM."""
    was = original.tags.get(tags.ORIGINAL)
    if was is None:
        was = original.power_state.value
        session.call("VM.add_to_other_config", original.ref, tags.ORIGINAL, was)
    if original.record["name_label"] == plan.name:
        session.call("VM.set_name_label", original.ref, plan.name + tags.ORIGINAL_SUFFIX)
    return vms.power_state(was)


def _new_vm(session: Session, plan: BuildPlan, source: Disk) -> Vm:
    made = [vm for vm in vms.current(session, plan.server) if vm.serial == plan.serial]
    for double in made[1:]:  # the answer to an earlier VM.create was lost, and another was made
        with disks.gone_is_fine():
            session.call("VM.destroy", double.ref)
    if made:
        return made[0]
    record = {**plan.vm, "other_config": {**plan.vm["other_config"], tags.SOURCE: source.uuid}}
    new = vms.read(session, str(session.call("VM.create", record)))
    if new is None:
        raise Temporary("the new virtual machine has gone meanwhile; looking again")
    return new


def _copied(session: Session, plan: BuildPlan, source: Disk, name: str, journal: Journal) -> Disk:
    """A whole copy of one of the original's disks in the plan's SR, claimed for the new VM."""
    storage, claim = session.handle("SR", plan.storage), plan.claim(name)
    step = _COPY if name == "root" else f"{_COPY} {name}"
    if source.storage == storage:
        ref = disks.adopt(
            session,
            source.record["name_label"],
            storage,
            claim,
            not_these=[source.uuid],
            inherited=source.claim,
        )
        if not ref:
            ref = disks.clone(session, source.ref, claim, inherited=bool(source.claim))
        return _whole(session, ref)
    for disk in disks.named(session, disks.label(plan.server, name)):
        if disk.claim == claim and disks.is_free(session, disk):
            if earlier(session, journal, step, limit=COPY_SECONDS) == disk.ref:
                return disk
            disks.discard(session, disk.ref)  # an earlier copy that was cut short
    image = plan.image.id if name == "root" else ""
    ref = disks.create(session, plan.server, name, claim, storage, source.size, image)
    run_noted(session, journal, step, "Async.VDI.copy", source.ref, NULL, NULL, ref, limit=COPY_SECONDS)
    return _whole(session, ref)


def _whole(session: Session, ref: str) -> Disk:
    disk = disks.read(session, ref)
    if disk is None:
        raise Temporary("the copy of the disk has gone meanwhile; looking again")
    return disk


@telling("confirm the resize")
def confirm_resize(session: Session, server: bytes) -> None:
    """Keep the new VM, remove the original with its disk. No original there is success. Permanent when the new VM is
    not whole: then the original is all there is."""
    for original in vms.originals(session, server):
        new = vms.the_one(session, server)
        if disks.root(session, new) is None:
            raise Permanent("the resized server is not complete; revert the resize")
        remove_vm(session, server, original)


@telling("revert the resize")
def revert_resize(session: Session, server: bytes) -> None:
    """Remove the new VM with its disk, give the original its name back and start it if it ran when the resize began.
    Nothing to revert is success."""
    kept = vms.originals(session, server)
    if kept:
        for new in vms.current(session, server):
            if tags.ORIGINAL not in new.tags:
                remove_vm(session, server, new)
        session.call("VM.set_name_label", kept[0].ref, tags.vm_name(server))
    for original in vms.current(session, server):
        was = original.tags.get(tags.ORIGINAL)
        if was is None:
            continue
        _sweep_copies(session, original, server)
        if was != PowerState.HALTED.value:
            started_on(session, original, "")
        session.call("VM.remove_from_other_config", original.ref, tags.ORIGINAL)


def _sweep_copies(session: Session, original: Vm, server: bytes) -> None:
    """Copies of the original's disks that a resize had begun."""
    for name in disks.names_of(original):
        for disk in disks.named(session, disks.label(server, name)):
            if disks.is_free(session, disk):
                disks.discard(session, disk.ref)
