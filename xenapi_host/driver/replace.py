"""A server whose host is dead and has taken its disks along: made anew from its image on another host.

What is left of the old one is set aside: renamed, so that nothing takes it for the server, and blocked from starting,
so that there are never two. Its disk stays for whoever wants to save something, until `leftovers` removes it.
"""

from collections.abc import Mapping

from cells.errors import Permanent, Refusal, Temporary
from cells.ports import Journal
from xenapi_host import tags
from xenapi_host.driver import root_disk, vms
from xenapi_host.driver.build import make, started_on
from xenapi_host.driver.destroy import remove_vm
from xenapi_host.driver.errors import telling, told, told_to_stop
from xenapi_host.driver.evacuate import fence_checked, halted
from xenapi_host.driver.power import power_off
from xenapi_host.driver.resize import Resized
from xenapi_host.plan import BuildPlan
from xenapi_host.session import Session, XenFailure

_WHY = "its host died; the server was made anew on another host"


@telling("set aside what is left of the server")
def set_aside(session: Session, server: bytes, serial: int, *, dead: str = "") -> int:
    """Put every VM of a server on this pool out of use but the one of `serial`; how many there were. `dead`: the host
    (a uuid) that they were on: Permanent while the pool still hears from it. Without it the host is back, and the time
    for which their disks are kept begins."""
    others = [vm for vm in vms.current(session, server) if vm.serial != serial]
    if others and dead:
        fence_checked(session, dead)
    for vm in others:
        if dead:
            halted(session, vm)
        else:
            power_off(session, vm, clean_seconds=0)
        session.call("VM.set_blocked_operations", vm.ref, {"start": _WHY, "start_on": _WHY})
        session.call("VM.set_name_label", vm.ref, tags.vm_name(server) + tags.LOST_SUFFIX)
    for vm in () if dead else vms.lost(session, server):
        session.call("VM.remove_from_other_config", vm.ref, tags.LEFTOVER)
    return len(others)


@telling("make the server anew on another host")
def replace_lost(
    session: Session,
    plan: BuildPlan,
    journal: Journal,
    *,
    start: bool,
    headers: Mapping[str, str] | None = None,
) -> Resized:
    """Make the server as the plan says, started if `start`; what was set aside is asked no more than how its
    interfaces were guarded. After a Permanent error or a refusal nothing of it is left; after Temporary this is to be
    called again, or `remove_copy`."""
    journal.check()
    vms.refuse_others(vms.current(session, plan.server), plan.owner)
    try:
        lost = vms.lost(session, plan.server)
        before = _copies(session, plan.server, plan.serial)
        made = make(session, plan, before, journal, headers or {}, like=lost[0] if lost else None)
    except XenFailure as failure:
        if not isinstance(told("make the server anew", failure), Temporary):
            remove_copy(session, plan.server, plan.serial)
        raise
    except (Permanent, Refusal) as error:
        if not told_to_stop(error):
            remove_copy(session, plan.server, plan.serial)
        raise
    journal.check()
    vm = vms.read(session, made)
    if vm is None:
        raise Temporary("the server's virtual machine has changed meanwhile; looking again")
    if start:
        vm = started_on(session, vm, plan.host)
    return Resized(
        vm_uuid=vm.uuid, power_state=vm.power_state, domid=int(vm.record["domid"]), note=root_disk.note(journal)
    )


@telling("take back a copy of the server")
def remove_copy(session: Session, server: bytes, serial: int) -> None:
    """Remove the VM of this serial with its disks; nothing there is success."""
    for vm in _copies(session, server, serial):
        remove_vm(session, server, vm)


def _copies(session: Session, server: bytes, serial: int) -> list[vms.Vm]:
    return [vm for vm in vms.current(session, server) if vm.serial == serial]
