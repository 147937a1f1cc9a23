"""Start, stop, reboot, pause, suspend. Each may be asked again at any time: what is so already is left alone."""

from cells.errors import Temporary
from cells.model import PowerState
from cells.ports import Journal
from xenapi_host.driver import vms
from xenapi_host.driver.build import RunningFacts, running_facts, started_on
from xenapi_host.driver.errors import telling
from xenapi_host.driver.vms import Vm
from xenapi_host.session import Session, TaskTimedOut, XenFailure, run_task

CLEAN_SECONDS = 60.0
HARD_SECONDS = 120.0
_MEMORY_SECONDS = 900.0  # a server's whole memory is written or read

# The guest cannot, or does not, shut itself down.
_NOT_CLEANLY = {
    "OPERATION_NOT_ALLOWED",
    "VM_BAD_POWER_STATE",
    "VM_LACKS_FEATURE",
    "VM_LACKS_FEATURE_SHUTDOWN",
    "VM_MISSING_PV_DRIVERS",
    "VM_SHUTDOWN_TIMEOUT",
    "VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT",
    "INTERNAL_ERROR",
}


@telling("start the server")
def start(session: Session, server: bytes, *, host: str = "") -> RunningFacts:
    """Power on, on this host (a uuid) or on any that can; a paused or suspended server goes on from where it was."""
    vm = vms.the_one(session, server)
    match vm.power_state:
        case PowerState.PAUSED:
            session.call("VM.unpause", vm.ref)
        case PowerState.SUSPENDED:
            _resume(session, vm, host)
        case _:
            return running_facts(started_on(session, vm, host))
    return running_facts(started_on(session, vms.read(session, vm.ref) or vm, host))


@telling("stop the server")
def stop(session: Session, server: bytes, *, clean_seconds: float = CLEAN_SECONDS) -> None:
    """Power off: the guest is asked and given `clean_seconds` (0: not asked), then the power is cut."""
    power_off(session, vms.the_one(session, server), clean_seconds=clean_seconds)


@telling("reboot the server")
def reboot(
    session: Session,
    server: bytes,
    journal: Journal,
    *,
    host: str = "",
    hard: bool = False,
    clean_seconds: float = CLEAN_SECONDS,
) -> RunningFacts:
    """Reboot once, however often this is called with one journal: a reboot gives a new domain id. A soft reboot that
    the guest does not do in `clean_seconds` becomes a hard one; a server that is off is started, on this host (a uuid)
    or on any that can."""
    vm = vms.the_one(session, server)
    before = journal.get("domid")
    if before is None:
        before = int(vm.record["domid"])
        journal.put("domid", before)
    if vm.halted:
        return running_facts(started_on(session, vm, host))
    if int(vm.record["domid"]) != before:
        return running_facts(started_on(session, vm, host))
    if not hard and vm.power_state is PowerState.RUNNING and _rebooted_cleanly(session, vm, clean_seconds):
        return running_facts(started_on(session, _again(session, vm), host))
    if vm.power_state is PowerState.SUSPENDED:
        power_off(session, vm, clean_seconds=0)
        return running_facts(started_on(session, _again(session, vm), host))
    try:
        run_task(session, "Async.VM.hard_reboot", vm.ref, limit=HARD_SECONDS)
    except XenFailure as failure:
        if failure.code != "VM_BAD_POWER_STATE":
            raise
    return running_facts(started_on(session, _again(session, vm), host))


@telling("pause the server")
def pause(session: Session, server: bytes) -> None:
    """Stop the server's processors; its memory stays. Permanent unless it runs or is paused."""
    _bring(session, server, PowerState.PAUSED, "Async.VM.pause")


@telling("unpause the server")
def unpause(session: Session, server: bytes) -> None:
    """Let a paused server go on. Permanent unless it is paused or runs."""
    _bring(session, server, PowerState.RUNNING, "Async.VM.unpause")


@telling("suspend the server")
def suspend(session: Session, server: bytes) -> None:
    """Save the server's memory on disk and free its host's. Permanent unless it runs or is suspended."""
    _bring(session, server, PowerState.SUSPENDED, "Async.VM.suspend")


@telling("resume the server")
def resume(session: Session, server: bytes, *, host: str = "") -> None:
    """Let a suspended server go on, on this host (a uuid) or on any that can. Permanent unless it is suspended or
    runs; Refusal(no_room) when there is no memory for it."""
    vm = vms.the_one(session, server)
    if vm.power_state is not PowerState.RUNNING:
        _resume(session, vm, host)


def _bring(session: Session, server: bytes, wanted: PowerState, method: str) -> None:
    vm = vms.the_one(session, server)
    if vm.power_state is not wanted:
        run_task(session, method, vm.ref, limit=_MEMORY_SECONDS)


def _resume(session: Session, vm: Vm, host: str) -> None:
    if host:
        at = session.handle("host", host)
        run_task(session, "Async.VM.resume_on", vm.ref, at, False, False, limit=_MEMORY_SECONDS)
    else:
        run_task(session, "Async.VM.resume", vm.ref, False, False, limit=_MEMORY_SECONDS)


def _again(session: Session, vm: Vm) -> Vm:
    found = vms.read(session, vm.ref)
    if found is None:
        raise Temporary("the server's virtual machine has changed meanwhile; looking again")
    return found


def _rebooted_cleanly(session: Session, vm: Vm, seconds: float) -> bool:
    try:
        run_task(session, "Async.VM.clean_reboot", vm.ref, limit=seconds)
    except TaskTimedOut:
        return False
    except XenFailure as failure:
        if failure.code not in _NOT_CLEANLY:
            raise
        return False
    return True


def power_off(session: Session, vm: Vm, *, clean_seconds: float) -> None:
    """Bring a VM to Halted, cleanly if the guest does it in time, else by force."""
    if vm.halted:
        return
    if clean_seconds > 0 and vm.power_state is PowerState.RUNNING:
        try:
            run_task(session, "Async.VM.clean_shutdown", vm.ref, limit=clean_seconds)
            return
        except TaskTimedOut:
            pass
        except XenFailure as failure:
            if failure.code not in _NOT_CLEANLY:
                raise
    try:
        run_task(session, "Async.VM.hard_shutdown", vm.ref, limit=HARD_SECONDS)
    except XenFailure as failure:
        if failure.code != "VM_BAD_POWER_STATE":  # it has come to a halt meanwhile
            raise
