"""Building a server: the image into the SR once, a copy-on-write disk of it, the VM; started only when told to.

Called by the leaf's jobs: `prepare_build` while the owner decides, `start_build` when the owner has granted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cells.errors import Temporary
from cells.model import PowerState
from cells.ports import Journal
from xenapi_host import tags
from xenapi_host.driver import data_disks, disks, images, root_disk, vms
from xenapi_host.driver.errors import telling
from xenapi_host.driver.vms import Vm
from xenapi_host.plan import BuildPlan
from xenapi_host.session import Session, XenFailure, run_task

START_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A VM with its disks and interface, not started. `note`: what the tenant should know, such as why the disk's
    partition was left as it is."""

    vm_uuid: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningFacts:
    """A VM as it is after it was started. `domid` changes at every start and reboot."""

    vm_uuid: str
    power_state: PowerState
    domid: int


@telling("build the server")
def prepare_build(
    session: Session, plan: BuildPlan, journal: Journal, *, headers: Mapping[str, str] | None = None
) -> Prepared:
    """Make the VM of a build with all it has, not started; what an earlier try has made is used.

    `headers` go with the image's download (a token); they are kept nowhere. Raises Temporary, Permanent (of which
    BelongsToAnother), Refusal(no_room), and what journal.check() raises between two steps; `destroy` undoes a part-made
    build."""
    journal.check()
    vm = make(session, plan, made_before(session, plan), journal, headers or {})
    return Prepared(vm_uuid=str(session.call("VM.get_uuid", vm)), note=root_disk.note(journal))


def made_before(session: Session, plan: BuildPlan) -> list[Vm]:
    """What earlier tries have made of the plan's VM. More than one only where the answer to VM.create was lost."""
    there = vms.current(session, plan.server)
    vms.refuse_others(there, plan.owner)
    return [vm for vm in there if (vm.attempt, vm.serial) == (plan.attempt, plan.serial)]


def without_doubles(session: Session, found: Sequence[Vm]) -> Vm | None:
    """The first of a plan's VMs, the only one then."""
    for double in found[1:]:
        with disks.gone_is_fine():
            session.call("VM.destroy", double.ref)
    return found[0] if found else None


Along = Callable[[str], Mapping[str, str]]


def make(
    session: Session,
    plan: BuildPlan,
    found: Sequence[Vm],
    journal: Journal,
    headers: Mapping[str, str],
    along: Along | None = None,
    like: Vm | None = None,
) -> str:
    """The plan's VM (its reference) with all it has, not started. `found`: what earlier tries have made of it; `along`
    gives the disks that need not be made: name -> reference; `like` is the VM in whose place it comes, if any."""
    before = without_doubles(session, found)
    if before is not None:
        return _resumed(session, plan, before, journal, headers, along, like)
    image = images.cached(session, plan, headers)
    journal.check()
    vm = str(session.call("VM.create", dict(plan.vm)))
    disk = _clone_of_image(session, plan, image, headers)
    _give_root(session, plan, vm, disk, image.size, journal)
    data_disks.give(session, plan, vm, journal, along(vm) if along is not None else None)
    _create_interfaces(session, plan, vm, frozenset(), like)
    return vm


def _resumed(
    session: Session,
    plan: BuildPlan,
    vm: Vm,
    journal: Journal,
    headers: Mapping[str, str],
    along: Along | None,
    like: Vm | None,
) -> str:
    """Go on with a VM that an earlier try has made."""
    if vm.record["VBDs"]:
        _finish_root(session, plan, vm)
    else:
        image = images.cached(session, plan, headers)
        name = tags.image_name(plan.image.id)
        ref = disks.adopt(session, name, image.storage, plan.root_claim, not_these=[image.uuid])
        disk = disks.read(session, ref or _clone_of_image(session, plan, image, headers))
        if disk is None:
            raise Temporary("a disk of the build has gone meanwhile; looking again")
        _give_root(session, plan, vm.ref, disk.ref, disk.size, journal)
    data_disks.give(session, plan, vm.ref, journal, along(vm.ref) if along is not None else None)
    add_interfaces(session, plan, vm, like)
    return vm.ref


def _clone_of_image(session: Session, plan: BuildPlan, image: images.CachedImage, headers: Mapping[str, str]) -> str:
    try:
        return disks.clone(session, image.ref, plan.root_claim)
    except XenFailure as failure:
        if failure.code != "HANDLE_INVALID":
            raise
    images.forget(session, plan)  # what we remembered of the cache has been cleared away
    return disks.clone(session, images.cached(session, plan, headers).ref, plan.root_claim)


def _give_root(session: Session, plan: BuildPlan, vm: str, disk: str, size: int, journal: Journal) -> None:
    """Grow a claimed disk of `size` bytes to the plan's, attach it, name it."""
    root_disk.grow(session, plan, disk, size, journal)
    journal.check()
    disks.attach_root(session, vm, disk, plan.disk_shares)
    disks.rename(session, disk, plan.server)


def _finish_root(session: Session, plan: BuildPlan, vm: Vm) -> None:
    """The root disk is attached, hence claimed and grown; only its name may be missing."""
    disk = disks.root(session, vm)
    if disk is None:
        raise Temporary("the build's disk is being changed by someone else; looking again")
    if disk.record["name_label"] != disks.label(plan.server):
        disks.rename(session, disk.ref, plan.server)


def add_interfaces(session: Session, plan: BuildPlan, vm: Vm, like: Vm | None = None) -> None:
    """Give a VM the plan's interfaces, if it has not got them, guarded as those of the VM in whose place it comes."""
    have = [vms.record_of(session, "VIF", ref) for ref in vm.record["VIFs"]]
    _create_interfaces(session, plan, vm.ref, frozenset(int(vif["device"]) for vif in have if vif is not None), like)


# What an operator sets on an interface of a server: which addresses it may use, how much it may send.
_GUARDS = ("locking_mode", "ipv4_allowed", "ipv6_allowed", "qos_algorithm_type", "qos_algorithm_params")


def _guards(session: Session, vm: Vm) -> Mapping[str, Mapping[str, Any]]:
    """Of each interface of a VM, by its device."""
    found = (vms.record_of(session, "VIF", ref) for ref in vm.record["VIFs"])
    return {vif["device"]: {name: vif[name] for name in _GUARDS if name in vif} for vif in found if vif is not None}


def _create_interfaces(session: Session, plan: BuildPlan, vm: str, have: frozenset[int], like: Vm | None) -> None:
    missing = any(vif.device not in have for vif in plan.vifs)
    guards = _guards(session, like) if like is not None and missing else {}
    for vif in plan.vifs:
        if vif.device in have:
            continue
        session.call(
            "VIF.create",
            {
                "VM": vm,
                "network": session.handle("network", vif.network),
                "device": str(vif.device),
                "MAC": vif.mac,
                "MTU": "1500",
                "other_config": {},
                "qos_algorithm_type": "",
                "qos_algorithm_params": {},
                **guards.get(str(vif.device), {}),
            },
        )


@telling("start the server")
def start_build(session: Session, server: bytes, attempt: int, host: str) -> RunningFacts:
    """Start a prepared build on its host (a uuid); one that runs already is left as it is. Waits until it runs.
    Raises Temporary, Permanent, Refusal(no_room)."""
    vm = vms.the_one(session, server, attempt)
    return running_facts(started_on(session, vm, host))


def started_on(session: Session, vm: Vm, host: str) -> Vm:
    """The VM, running: started on this host (a uuid, or "" for any that can) if it was halted."""
    if vm.halted:
        try:
            if host:
                at = session.handle("host", host)
                run_task(session, "Async.VM.start_on", vm.ref, at, False, False, limit=START_SECONDS)
            else:
                run_task(session, "Async.VM.start", vm.ref, False, False, limit=START_SECONDS)
        except XenFailure as failure:
            if failure.code != "VM_BAD_POWER_STATE":  # another try has started it meanwhile
                raise
        vm = vms.read(session, vm.ref) or vm
    if vm.power_state is not PowerState.RUNNING:
        raise Temporary(f"the server is {vm.power_state.value.lower()} and not running yet", retry_after=2.0)
    return vm


def running_facts(vm: Vm) -> RunningFacts:
    """What is so of a VM that runs."""
    return RunningFacts(vm_uuid=vm.uuid, power_state=vm.power_state, domid=int(vm.record["domid"]))
