"""Rescue: the server is switched off and kept from starting; another VM, made from a rescue image, runs in its place
and has the server's disk as its second one. Unrescue takes that VM away and starts the server again.

The rescue VM is found by its name (`-rescue`) and its tags, as any VM of ours; the server's own VM keeps its name.
"""

from collections.abc import Mapping

from cells.errors import Permanent, Refusal, Temporary
from cells.model import PowerState
from cells.ports import Journal
from xenapi_host.driver import disks, vms
from xenapi_host.driver.build import RunningFacts, make, running_facts, started_on
from xenapi_host.driver.destroy import remove_vm
from xenapi_host.driver.errors import telling, told, told_to_stop
from xenapi_host.driver.power import CLEAN_SECONDS, power_off
from xenapi_host.driver.vms import Vm
from xenapi_host.plan import BuildPlan
from xenapi_host.session import Session, XenFailure

SECOND_DEVICE = "1"
_WAS = "power state"
_LOCK = dict.fromkeys(("start", "start_on"), "the server is being rescued; unrescue it")


@telling("rescue the server")
def rescue(
    session: Session,
    plan: BuildPlan,
    journal: Journal,
    *,
    headers: Mapping[str, str] | None = None,
    clean_seconds: float = CLEAN_SECONDS,
) -> RunningFacts:
    """Run the plan's rescue VM (plan.plan_rescue) in the server's place. `headers` go with the image's download.

    After a Permanent error or a refusal the server is as it was; after Temporary this is to be called again, or
    `unrescue` to give up."""
    journal.check()
    server = vms.the_one(session, plan.server)
    was = journal.get(_WAS)
    if was is None:
        was = server.power_state.value
        journal.put(_WAS, was)
    try:
        return _rescue(session, plan, server, journal, headers or {}, clean_seconds)
    except XenFailure as failure:
        if not isinstance(told("rescue the server", failure), Temporary):
            unrescue(session, plan.server, plan.host, start=was != PowerState.HALTED)
        raise
    except (Permanent, Refusal) as error:
        if not told_to_stop(error):
            unrescue(session, plan.server, plan.host, start=was != PowerState.HALTED)
        raise


def _rescue(
    session: Session,
    plan: BuildPlan,
    server: Vm,
    journal: Journal,
    headers: Mapping[str, str],
    clean_seconds: float,
) -> RunningFacts:
    root = disks.root(session, server)
    if root is None:
        raise Permanent("the server has no root disk")
    rescuer = make(session, plan, vms.rescuers(session, plan.server), journal, headers, like=server)
    journal.check()
    power_off(session, server, clean_seconds=clean_seconds)
    if server.record["blocked_operations"] != _LOCK:
        session.call("VM.set_blocked_operations", server.ref, _LOCK)
    if int(SECOND_DEVICE) not in disks.attached(session, rescuer):
        disks.attach(session, rescuer, root.ref, SECOND_DEVICE)
    return running_facts(started_on(session, _again(session, rescuer), plan.host))


def _again(session: Session, ref: str) -> Vm:
    vm = vms.read(session, ref)
    if vm is None:
        raise Temporary("the rescue has changed meanwhile; looking again")
    return vm


@telling("unrescue the server")
def unrescue(session: Session, server: bytes, host: str, *, start: bool = True) -> RunningFacts:
    """Take the rescue VM and its own disk away, and start the server on its host (a uuid), or leave it off. No rescue
    there is success."""
    for rescuer in vms.rescuers(session, server):
        remove_vm(session, server, rescuer)
    own = vms.the_one(session, server)
    if own.record["blocked_operations"]:
        session.call("VM.set_blocked_operations", own.ref, {})
    return running_facts(started_on(session, own, host) if start else own)
