"""What may be done to a VM: operation x power state, the order of refusals, and the sets a client reads.

One table and one order for both: `refuse` raises what XAPI raises, `allowed_operations` asks the same question for
every operation a client may see.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from xenapi_host.simulator.call import Call
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.implicit import computed

H, P, S, R = "Halted", "Paused", "Suspended", "Running"
ANY = (H, P, S, R)

# In the order in which XAPI lists them.
STATES: dict[str, tuple[str, ...]] = {
    "create_vtpm": (H,),
    "destroy": (H, S),
    "metadata_export": ANY,
    "export": (H, S),
    "make_into_template": (H,),
    "changing_NVRAM": (H,),
    "changing_shadow_memory": (H,),
    "changing_static_range": (H,),
    "changing_dynamic_range": (H, R),
    "changing_VCPUs_live": (R,),
    "migrate_send": (H, S, R),
    "pool_migrate": (R,),
    "resume_on": (S,),
    "resume": (S,),
    "suspend": (R,),
    "hard_reboot": (P, R),
    "hard_shutdown": (P, S, R),
    "clean_reboot": (R,),
    "clean_shutdown": (R,),
    "unpause": (P,),
    "pause": (R,),
    "start_on": (H,),
    "start": (H,),
    "provision": (H,),
    "revert": ANY,
    "checkpoint": (P, S, R),
    "copy": (H,),
    "clone": (H,),
    "snapshot": ANY,
}
# Used in refusals only; clients do not see them in allowed_operations.
INTERNAL: dict[str, tuple[str, ...]] = {
    "shutdown": (P, S, R),
    "changing_VCPUs": (H,),
    "changing_memory_limits": (H,),
    "changing_memory_live": (R,),
    "changing_shadow_memory_live": (R,),
    "awaiting_memory_live": (R,),
    "send_sysrq": (R,),
    "send_trigger": (R,),
    "call_plugin": (R,),
    "data_source_op": (R,),
    "get_boot_record": (P, S, R),
    "power_state_reset": ANY,
    "set_suspend_VDI": (S,),
    "csvm": (S,),
    "create_template": (H, S),
    "snapshot_with_quiesce": (R,),
    "import": (),
    "reverting": ANY,
    "query_services": ANY,
    "assert_operation_valid": ANY,
    "update_allowed_operations": ANY,
}
_ALL = {**STATES, **INTERNAL}
# Operations whose name never reaches a client: refusals spell them so.
_NAMELESS = ("changing_VCPUs", "changing_memory_limits")

_FOR_TEMPLATES = {
    "changing_dynamic_range",
    "changing_static_range",
    "changing_memory_limits",
    "changing_shadow_memory",
    "changing_NVRAM",
    "changing_VCPUs",
    "clone",
    "copy",
    "export",
    "provision",
    "metadata_export",
    "power_state_reset",
    "update_allowed_operations",
}
_FOR_OWN_TEMPLATES = {"destroy", "migrate_send"}
_FOR_SNAPSHOTS = {
    "revert",
    "clone",
    "copy",
    "export",
    "destroy",
    "hard_shutdown",
    "metadata_export",
    "power_state_reset",
    "update_allowed_operations",
}
_FOR_CONTROL_DOMAINS = {
    "metadata_export",
    "changing_static_range",
    "changing_dynamic_range",
    "data_source_op",
    "update_allowed_operations",
}
_TOGETHER = ({"clone", "copy", "export"}, {"snapshot", "checkpoint"})
NOT_ON_CONTROL_DOMAIN = "This operation is not allowed on a control domain"


def power_state_refusal(vm: Row, expected: tuple[str, ...]) -> Failure:
    wanted = ", ".join(state.lower() for state in expected)
    return Failure("VM_BAD_POWER_STATE", vm.ref, wanted, vm["power_state"].lower())


def need_power_state(vm: Row, expected: tuple[str, ...]) -> None:
    if vm["power_state"] not in expected:
        raise power_state_refusal(vm, expected)


def _may_join(running: str, operation: str) -> bool:
    if operation == "hard_shutdown":
        return running != "hard_shutdown"
    if operation == "hard_reboot":
        return running not in ("hard_shutdown", "hard_reboot")
    if operation in ("clean_shutdown", "clean_reboot") and running == "migrate_send":
        return True
    return any(running in pair and operation in pair for pair in _TOGETHER)


def refusal(vm: Row, operation: str) -> Failure | None:
    """Why this operation is refused now, or None."""
    shown = "(unknown operation)" if operation in _NAMELESS else operation
    blocked = vm["blocked_operations"].get(operation)
    if blocked is not None:
        return Failure("OPERATION_BLOCKED", vm.ref, blocked)
    expected = _ALL[operation]
    control = vm["is_control_domain"]
    if vm["is_a_snapshot"] and operation in ("clone", "copy"):
        expected = (H, S)
    if vm["power_state"] not in expected and not (control and operation == "changing_static_range"):
        return power_state_refusal(vm, expected)
    for task, running in vm["current_operations"].items():
        if not _may_join(running, operation):
            return Failure("OTHER_OPERATION_IN_PROGRESS", "VM", vm.ref, running, task)
    if vm["is_a_snapshot"]:
        if operation not in _FOR_SNAPSHOTS:
            return Failure("VM_IS_SNAPSHOT", vm.ref, shown)
    elif vm["is_a_template"]:
        own = operation in _FOR_OWN_TEMPLATES and not vm["is_default_template"]
        if operation not in _FOR_TEMPLATES and not own:
            return Failure("VM_IS_TEMPLATE", vm.ref, shown)
    elif operation == "provision":
        return Failure("PROVISION_ONLY_ALLOWED_ON_TEMPLATE")
    elif operation == "revert":
        return Failure("ONLY_REVERT_SNAPSHOT")
    if control and operation not in _FOR_CONTROL_DOMAINS:
        return Failure("OPERATION_NOT_ALLOWED", NOT_ON_CONTROL_DOMAIN)
    if operation == "query_services":
        return Failure("NOT_SYSTEM_DOMAIN", vm.ref)
    if operation == "snapshot_with_quiesce":
        return Failure("VM_SNAPSHOT_WITH_QUIESCE_NOT_SUPPORTED", vm.ref)
    return None


def refuse(vm: Row, operation: str) -> None:
    why = refusal(vm, operation)
    if why is not None:
        raise why


def allowed_now(vm: Row) -> list[str]:
    return [operation for operation in STATES if refusal(vm, operation) is None]


@computed("VM", "allowed_operations")
def allowed_operations(engine: Engine, vm: Row) -> list[str]:
    """What a client is told may be done: what is so, but for the changes that XAPI looks at with the next operation."""
    told = engine.told_operations.get(vm.ref)
    return list(told) if told is not None else allowed_now(vm)


def leave_untold(engine: Engine, vm: Row) -> None:
    """A change follows that XAPI takes into allowed_operations only with the next operation."""
    engine.told_operations.setdefault(vm.ref, allowed_now(vm))


@contextmanager
def operation(call: Call, vm: Row, name: str, *, at: str = "", there: str = "") -> Iterator[None]:
    """An operation of a VM under way. `at`: the host that does it, where that is not the VM's; `there`: what it is for
    this host."""
    host = call.db.find("host", at or vm["resident_on"])
    if host is not None and not call.db.rows[host["metrics"]]["live"]:
        raise Failure("HOST_OFFLINE", host.ref)
    call.at = host.ref if host is not None else ""
    call.engine.told_operations.pop(vm.ref, None)
    doing = {name: vm, there: host} if there and host is not None else {name: vm}
    with call.at_work(**doing):
        yield
