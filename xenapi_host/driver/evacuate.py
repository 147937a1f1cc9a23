"""A server whose host is dead, brought up on another host that reaches its disks.

Called only when the host is fenced or confirmed to be off. The pool's own view is asked once more: while it hears from
the host nothing is done, because the server would run twice and its disks would be written by both.
"""

from cells.errors import Permanent, Temporary
from cells.model import PowerState
from cells.ports import Journal
from xenapi_host.driver import vms
from xenapi_host.driver.build import RunningFacts, running_facts, started_on
from xenapi_host.driver.errors import telling
from xenapi_host.driver.vms import Vm
from xenapi_host.facts import HostFacts
from xenapi_host.session import Session, XenFailure

# The pool cannot declare it, or has done so by itself: the VM's own state is put right below.
_NOT_DECLARED = {"HA_IS_ENABLED", "MESSAGE_METHOD_UNKNOWN", "NOT_IMPLEMENTED", "HANDLE_INVALID"}


@telling("bring the server up on another host")
def evacuate(
    session: Session, server: bytes, dead: str, to: HostFacts, journal: Journal, *, start: bool
) -> RunningFacts | None:
    """Start a server of the host `dead` (a uuid) on another host of the pool, if `start`; else only make sure that the
    pool does not take it to be running any more. Permanent while the pool still hears from the dead host."""
    vm = vms.the_one(session, server)
    gone = _reference(session, dead)
    if gone and vm.record["resident_on"] == gone:
        journal.check()
        fence_checked(session, dead)
        vm = halted(session, vm)
    if not start:
        return None
    journal.check()
    return running_facts(started_on(session, vm, to.uuid))


def fence_checked(session: Session, dead: str) -> None:
    """Make sure that the pool takes a host (a uuid) to be dead; Permanent while it still hears from it."""
    gone = _reference(session, dead)
    if not gone:
        return
    if _is_live(session, gone):
        raise Permanent("the server's host still answers its pool, so it is not dead; nothing was done")
    _declare_dead(session, gone)


def _reference(session: Session, host: str) -> str:
    """The host's reference; "" if the pool has forgotten it."""
    try:
        return session.handle("host", host)
    except XenFailure as failure:
        if failure.code != "UUID_INVALID":
            raise
        return ""


def _is_live(session: Session, host: str) -> bool:
    return bool(session.call("host_metrics.get_live", session.call("host.get_metrics", host)))


def _declare_dead(session: Session, host: str) -> None:
    """The pool takes every VM of the host to be off and lets go of its locks on their disks."""
    try:
        session.call("host.declare_dead", host)
    except XenFailure as failure:
        if failure.code == "HOST_IS_LIVE":
            raise Permanent("the server's host answers its pool again; nothing was done") from failure
        if failure.code not in _NOT_DECLARED:
            raise


def halted(session: Session, vm: Vm) -> Vm:
    """The VM of a dead host, as the pool is to take it from now on: off, or suspended if it was."""
    now = vms.read(session, vm.ref)
    if now is not None and now.power_state not in (PowerState.HALTED, PowerState.SUSPENDED):
        session.call("VM.power_state_reset", vm.ref)
        now = vms.read(session, vm.ref)
    if now is None:
        raise Temporary("the server's virtual machine has changed meanwhile; looking again")
    return now
