"""Moving a running server to another host while it runs: within its pool, or into another pool of the same leaf.

Where the new host reaches the server's disks only the memory is moved; else the disks are copied along. A move that is
over is told by where the VM runs, one under way by its task in the journal. If XAPI gives a move up, the VM runs on
where it was and XAPI takes the half-made copies away.
"""

from collections.abc import Mapping

from cells.errors import Permanent, Temporary
from cells.model import PowerState
from cells.ports import Journal
from xenapi_host import tags
from xenapi_host.driver import disks, vms, volumes
from xenapi_host.driver.backup import drop_base
from xenapi_host.driver.build import RunningFacts, running_facts
from xenapi_host.driver.data_disks import device_of
from xenapi_host.driver.errors import telling
from xenapi_host.driver.tasks import earlier, run_noted
from xenapi_host.driver.vms import Vm
from xenapi_host.facts import HostFacts
from xenapi_host.session import NULL, Session

MOVE_SECONDS = 12 * 3600.0
_MOVE = "move"
_LIVE = {"live": "true"}


@telling("move the server")
def migrate(session: Session, server: bytes, to: HostFacts, journal: Journal) -> RunningFacts:
    """Move a running server to another host of its pool without stopping it; one that is there already is left.
    Raises Temporary (also while another operation is under way), Permanent (the server goes on where it was),
    Refusal(no_room), and what journal.check() raises."""
    vm = vms.the_one(session, server)
    host = session.handle("host", to.uuid)
    if vm.record["resident_on"] != host:
        earlier(session, journal, _MOVE, limit=MOVE_SECONDS)
        vm = vms.the_one(session, server)
    if vm.record["resident_on"] != host:
        _refuse_unless_running(vm)
        journal.check()
        _move(session, vm, host, to, journal)
        vm = vms.the_one(session, server)
        if vm.record["resident_on"] != host:
            raise Temporary("the server is not on its new host yet; looking again", retry_after=5.0)
    _put_right(session, vm, to)
    return running_facts(vm)


def _move(session: Session, vm: Vm, host: str, to: HostFacts, journal: Journal) -> None:
    storages = {ref: str(session.call("VDI.get_SR", ref)) for ref in disks.attached(session, vm.ref).values()}
    volumes.refuse_unless_carried(session, vm, to.uuid)
    apart = {sr for sr in set(storages.values()) if not volumes.reaches(session, host, sr)}
    if not apart:
        run_noted(session, journal, _MOVE, "Async.VM.pool_migrate", vm.ref, host, _LIVE, limit=MOVE_SECONDS)
        return
    if not to.storage:
        raise Permanent("the new host has no storage for the server's disks")
    target = session.handle("SR", to.storage)
    disk_map = {ref: target if sr in apart else sr for ref, sr in storages.items()}
    drop_base(session, vm)
    receiver = session.call("host.migrate_receive", host, session.handle("network", to.network), {})
    _carry(session, vm, receiver, disk_map, {}, journal)  # within a pool the interfaces keep their networks


@telling("move the server")
def migrate_to_pool(session: Session, target: Session, server: bytes, to: HostFacts, journal: Journal) -> RunningFacts:
    """Move a running server into another pool, `target`, with its disks, without stopping it. As migrate."""
    left = vms.current(session, server)
    if left:
        earlier(session, journal, _MOVE, limit=MOVE_SECONDS)
        left = vms.current(session, server)
    if left:
        _refuse_unless_running(left[0])
        journal.check()
        _send(session, target, left[0], to, journal)
    vm = vms.the_one(target, server)
    if vm.power_state is not PowerState.RUNNING:
        raise Temporary("the server does not run in its new pool yet; looking again", retry_after=5.0)
    _put_right(target, vm, to)
    return running_facts(vm)


def _send(session: Session, target: Session, vm: Vm, to: HostFacts, journal: Journal) -> None:
    if not to.storage:
        raise Permanent("the new host has no storage for the server's disks")
    storage, network = target.handle("SR", to.storage), target.handle("network", to.network)
    found = disks.attached(session, vm.ref).values()
    if any(_is_foreign(session, ref) for ref in found):
        raise Permanent("the server has a volume, which cannot go to another pool; detach it first")
    server = tags.server_of(vm.tags)
    assert server is not None
    vms.refuse_others(vms.every(target, server), vm.tags.get(tags.OWNER, ""))
    drop_base(session, vm)
    disk_map = dict.fromkeys(found, storage)
    interfaces = dict.fromkeys(vm.record["VIFs"], network)
    receiver = target.call("host.migrate_receive", target.handle("host", to.uuid), network, {})
    _carry(session, vm, receiver, disk_map, interfaces, journal)


def _carry(
    session: Session,
    vm: Vm,
    receiver: Mapping[str, str],
    disk_map: Mapping[str, str],
    interfaces: Mapping[str, str],
    journal: Journal,
) -> None:
    """Send a running VM and its disks to the host that has said how it is to be reached (host.migrate_receive)."""
    options: dict[str, str] = {}
    session.call("VM.assert_can_migrate", vm.ref, receiver, True, disk_map, interfaces, options)
    asked = (vm.ref, receiver, True, disk_map, interfaces, options)
    run_noted(session, journal, _MOVE, "Async.VM.migrate_send", *asked, limit=MOVE_SECONDS)


def _refuse_unless_running(vm: Vm) -> None:
    if vm.power_state is not PowerState.RUNNING:
        raise Permanent(
            f"the server is {vm.power_state.value.lower()}, and only a running one is moved live; start it, or migrate "
            "it while it is off"
        )


def _is_foreign(session: Session, disk: str) -> bool:
    """Whether a disk (a reference) has no claim of ours: an administrator's own."""
    return not session.call("VDI.get_other_config", disk).get(tags.CLAIM)


def _put_right(session: Session, vm: Vm, to: HostFacts) -> None:
    """What a copy may have lost or kept too much of: the claims and names of its disks, the VM's storage, and the
    mirror's note, which would block the next move (XenServer's bug CA-98606)."""
    server = tags.server_of(vm.tags)
    assert server is not None
    names = {device_of(name): name for name in disks.names_of(vm)}
    for device, ref in disks.attached(session, vm.ref).items():
        disk = disks.read(session, ref)
        if disk is None:
            raise Temporary("the server's disks are being changed by someone else; looking again")
        if "base_mirror" in disk.record["sm_config"]:
            session.call("VDI.remove_from_sm_config", ref, "base_mirror")
        name = names.get(device)
        if name is None:
            continue
        if not disk.claim:
            with disks.claimed_is_fine():
                session.call("VDI.add_to_other_config", ref, tags.CLAIM, vm.claim_of(name))
        if disk.record["name_label"] != disks.label(server, name):
            session.call("VDI.set_name_label", ref, disks.label(server, name))
        if name == "root":
            _note_storage(session, vm, disk.storage, to)


def _note_storage(session: Session, vm: Vm, storage: str, to: HostFacts) -> None:
    if storage == NULL or vm.tags.get(tags.STORAGE) == to.storage or storage != session.handle("SR", to.storage):
        return
    session.call("VM.remove_from_other_config", vm.ref, tags.STORAGE)
    with disks.claimed_is_fine():
        session.call("VM.add_to_other_config", vm.ref, tags.STORAGE, to.storage)
