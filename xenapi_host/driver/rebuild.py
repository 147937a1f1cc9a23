"""Rebuild: the server anew from another image, with its id, name, size and addresses.

The new VM is made whole beside the old one; only then the old one goes with all its disks. So an image that cannot be
used costs the tenant nothing: the old server is still there, and runs if it ran.
"""

from collections.abc import Mapping

from cells.errors import Permanent, Refusal, Temporary
from cells.model import PowerState
from cells.ports import Journal
from xenapi_host.driver import data_disks, root_disk, vms, volumes
from xenapi_host.driver.build import make, running_facts, started_on
from xenapi_host.driver.destroy import remove_vm
from xenapi_host.driver.errors import telling, told, told_to_stop
from xenapi_host.driver.resize import Resized, taken_along
from xenapi_host.plan import BuildPlan
from xenapi_host.session import Session, XenFailure

_WAS = "power state"


@telling("rebuild the server")
def rebuild(
    session: Session,
    plan: BuildPlan,
    journal: Journal,
    *,
    headers: Mapping[str, str] | None = None,
    keep_config: bool = True,
) -> Resized:
    """Make the server as the plan says; its `serial` is the command's number. A server that was off stays off. Its
    config drive goes along as it is (`keep_config`), because what the tenant once gave is nowhere else.

    After a Permanent error or a refusal the server is as it was; after Temporary this is to be called again."""
    journal.check()
    found = vms.current(session, plan.server)
    old = [vm for vm in found if vm.serial != plan.serial]
    was = journal.get(_WAS)
    if was is None:
        was = (old or [vms.the_one(session, plan.server)])[0].power_state.value
        journal.put(_WAS, was)

    def along(new: str) -> Mapping[str, str]:
        had = data_disks.of_vm(session, old[0]) if old and keep_config else {}
        config = {name: disk for name, disk in had.items() if name == "config"}
        return taken_along(session, plan, new, config, journal)

    try:
        before = [vm for vm in found if vm.serial == plan.serial]
        made = make(session, plan, before, journal, headers or {}, along, old[0] if old else None)
    except XenFailure as failure:
        if not isinstance(told("rebuild the server", failure), Temporary):
            _undo(session, plan)
        raise
    except (Permanent, Refusal) as error:
        if not told_to_stop(error):
            _undo(session, plan)
        raise
    journal.check()
    for vm in old:
        volumes.carry(session, vm, made, plan.disk_shares)
        remove_vm(session, plan.server, vm)
    new = vms.read(session, made)
    if new is None:
        raise Temporary("the server's virtual machine has changed meanwhile; looking again")
    if was not in (PowerState.HALTED, PowerState.UNKNOWN):
        new = started_on(session, new, plan.host)
    facts = running_facts(new)
    return Resized(
        vm_uuid=facts.vm_uuid, power_state=facts.power_state, domid=facts.domid, note=root_disk.note(journal)
    )


def _undo(session: Session, plan: BuildPlan) -> None:
    """Take away what was made of the new VM; the old one was not touched yet, or is gone and then this is all."""
    found = vms.current(session, plan.server)
    if all(vm.serial == plan.serial for vm in found):
        return
    for vm in found:
        if vm.serial == plan.serial:
            remove_vm(session, plan.server, vm)
