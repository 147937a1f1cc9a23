"""Class VM: fields that are set under rules, and questions about one VM."""

from __future__ import annotations

from typing import Any

from xenapi_host.simulator import memory
from xenapi_host.simulator.call import Call
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.dispatch import method
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.implicit import record
from xenapi_host.simulator.placement import boot_refusal, possible_hosts
from xenapi_host.simulator.vm import BIOS_STRINGS
from xenapi_host.simulator.vm_operations import leave_untold, operation, refuse

_VCPU_RULE = "VCPU values must satisfy: 0 < VCPUs_at_startup ≤ VCPUs_max"


@method("VM.set_is_a_template")
def set_is_a_template(call: Call, ref: str, value: bool) -> str:
    vm = call.row("VM", ref)
    if value:
        refuse(vm, "make_into_template")
        call.engine.told_operations.pop(ref, None)
    else:
        leave_untold(call.engine, vm)
    call.db.set(vm, "is_a_template", value)
    return ""


@method("VM.set_blocked_operations")
def set_blocked_operations(call: Call, ref: str, value: dict[str, str]) -> str:
    vm = call.row("VM", ref)
    leave_untold(call.engine, vm)
    call.db.set(vm, "blocked_operations", value)
    return ""


@method("VM.set_VCPUs_max")
def set_vcpus_max(call: Call, ref: str, value: str) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "changing_VCPUs")
    if int(value) < max(vm.number("VCPUs_at_startup"), 1):
        raise Failure("INVALID_VALUE", _VCPU_RULE, value)
    call.db.set(vm, "VCPUs_max", value)
    _recount(call, vm)
    return ""


@method("VM.set_VCPUs_at_startup")
def set_vcpus_at_startup(call: Call, ref: str, value: str) -> str:
    vm = call.row("VM", ref)
    if not 0 < int(value) <= vm.number("VCPUs_max"):
        raise Failure("INVALID_VALUE", _VCPU_RULE, value)
    call.db.set(vm, "VCPUs_at_startup", value)
    return ""


@method("VM.set_VCPUs_number_live")
def set_vcpus_number_live(call: Call, ref: str, value: str) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "changing_VCPUs_live")
    if not 0 < int(value) <= vm.number("VCPUs_max"):
        raise Failure("INVALID_VALUE", _VCPU_RULE, value)
    metrics = call.db.find("VM_metrics", vm["metrics"])
    if metrics is not None:
        call.db.set(metrics, "VCPUs_number", value)
    return ""


def _recount(call: Call, vm: Row) -> None:
    call.db.set(vm, "memory_overhead", str(memory.overhead(vm)))


def _limits(call: Call, vm: Row, static_min: str, static_max: str, dynamic_min: str, dynamic_max: str) -> None:
    order = [int(static_min), int(dynamic_min), int(dynamic_max), int(static_max)]
    if order != sorted(order) or order[0] < 0:
        raise Failure("MEMORY_CONSTRAINT_VIOLATION_ORDER")
    call.db.update(
        vm,
        {
            "memory_static_min": static_min,
            "memory_static_max": static_max,
            "memory_dynamic_min": dynamic_min,
            "memory_dynamic_max": dynamic_max,
            "memory_target": dynamic_max,
        },
    )
    _recount(call, vm)


@method("VM.set_memory_limits")
def set_memory_limits(call: Call, ref: str, smin: str, smax: str, dmin: str, dmax: str) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "changing_memory_limits")
    _limits(call, vm, smin, smax, dmin, dmax)
    return ""


@method("VM.set_memory")
def set_memory(call: Call, ref: str, value: str) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "changing_memory_limits")
    _limits(call, vm, vm["memory_static_min"], value, value, value)
    return ""


@method("VM.set_memory_static_max")
def set_static_max(call: Call, ref: str, value: str) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "changing_static_range")
    _limits(call, vm, vm["memory_static_min"], value, vm["memory_dynamic_min"], vm["memory_dynamic_max"])
    return ""


@method("VM.set_memory_static_min")
def set_static_min(call: Call, ref: str, value: str) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "changing_static_range")
    _limits(call, vm, value, vm["memory_static_max"], vm["memory_dynamic_min"], vm["memory_dynamic_max"])
    return ""


@method("VM.set_memory_static_range")
def set_static_range(call: Call, ref: str, smin: str, smax: str) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "changing_static_range")
    _limits(call, vm, smin, smax, vm["memory_dynamic_min"], vm["memory_dynamic_max"])
    return ""


@method("VM.set_memory_dynamic_range")
def set_dynamic_range(call: Call, ref: str, dmin: str, dmax: str) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "changing_dynamic_range")
    _limits(call, vm, vm["memory_static_min"], vm["memory_static_max"], dmin, dmax)
    return ""


@method("VM.set_memory_dynamic_min", "VM.set_memory_dynamic_max")
def set_dynamic_edge(call: Call, ref: str, value: str) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "changing_dynamic_range")
    least = call.method.endswith("min")
    dmin, dmax = (value, vm["memory_dynamic_max"]) if least else (vm["memory_dynamic_min"], value)
    _limits(call, vm, vm["memory_static_min"], vm["memory_static_max"], dmin, dmax)
    return ""


@method("VM.set_memory_target_live")
def set_memory_target_live(call: Call, ref: str, value: str) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "changing_memory_live")
    call.db.set(vm, "memory_target", value)
    return ""


@method("VM.wait_memory_target_live")
def wait_memory_target_live(call: Call, ref: str) -> str:
    refuse(call.row("VM", ref), "awaiting_memory_live")
    return ""


def _need_multiplier(value: float) -> None:
    if not memory.multiplies(value):
        raise Failure("INVALID_VALUE", "multiplier", memory.shown(value))


@method("VM.set_HVM_shadow_multiplier")
def set_shadow_multiplier(call: Call, ref: str, value: float) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "changing_shadow_memory")
    _need_multiplier(value)
    call.db.set(vm, "HVM_shadow_multiplier", value)
    _recount(call, vm)
    return ""


@method("VM.set_shadow_multiplier_live")
def set_shadow_multiplier_live(call: Call, ref: str, value: float) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "changing_shadow_memory_live")
    _need_multiplier(value)
    call.db.set(vm, "HVM_shadow_multiplier", value)
    return ""


@method("VM.set_NVRAM")
def set_nvram(call: Call, ref: str, value: dict[str, str]) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "changing_NVRAM")
    call.db.set(vm, "NVRAM", value)
    return ""


@method("VM.set_bios_strings")
def set_bios_strings(call: Call, ref: str, value: dict[str, str]) -> str:
    vm = call.row("VM", ref)
    if vm["bios_strings"]:
        raise Failure("VM_BIOS_STRINGS_ALREADY_SET")
    call.db.set(vm, "bios_strings", {**BIOS_STRINGS, **value})
    return ""


@method("VM.copy_bios_strings")
def copy_bios_strings(call: Call, ref: str, host: str) -> str:
    call.row("host", host)
    return set_bios_strings(call, ref, {})


@method("VM.set_suspend_VDI")
def set_suspend_vdi(call: Call, ref: str, vdi: str) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "set_suspend_VDI")
    call.db.set(vm, "suspend_VDI", call.row("VDI", vdi).ref)
    return ""


@method(
    "VM.set_actions_after_crash",
    "VM.set_start_delay",
    "VM.set_shutdown_delay",
    "VM.set_order",
    "VM.set_ha_restart_priority",
    "VM.set_ha_always_run",
    "VM.set_domain_type",
    "VM.set_HVM_boot_policy",
    "VM.set_has_vendor_device",
    "VM.set_hardware_platform_version",
    "VM.set_suspend_SR",
    "VM.set_appliance",
)
def set_field(call: Call, ref: str, value: Any) -> str:
    vm = call.row("VM", ref)
    field = call.method.removeprefix("VM.set_")
    call.db.set(vm, field, value)
    if field == "HVM_boot_policy":
        call.db.set(vm, "domain_type", "hvm" if value else "pv")
    return ""


# -- questions --


@method("VM.assert_operation_valid")
def assert_operation_valid(call: Call, ref: str, name: str) -> str:
    refuse(call.row("VM", ref), name)
    return ""


@method("VM.update_allowed_operations")
def update_allowed_operations(call: Call, ref: str) -> str:
    vm = call.row("VM", ref)
    if call.engine.told_operations.pop(ref, None) is not None:
        call.db.touch(vm)
    return ""


@method("VM.assert_can_boot_here")
def assert_can_boot_here(call: Call, ref: str, host: str) -> str:
    vm = call.row("VM", ref)
    if vm["resident_on"] == host:
        return ""
    refused = boot_refusal(call.engine, vm, call.row("host", host))
    if refused is not None:
        raise refused
    return ""


@method("VM.get_possible_hosts")
def get_possible_hosts(call: Call, ref: str) -> list[str]:
    vm = call.row("VM", ref)
    fitting = {host.ref for host in possible_hosts(call.engine, vm)}
    return [host for host in call.db.refs("host") if host in fitting or host == vm["resident_on"]]


@method("VM.maximise_memory")
def maximise_memory(call: Call, ref: str, total: str, approximate: bool) -> str:
    return str(memory.largest_static_max(call.row("VM", ref), int(total), approximate=approximate))


@method("VM.compute_memory_overhead")
def compute_memory_overhead(call: Call, ref: str) -> str:
    vm = call.row("VM", ref)
    return str(vm["memory_overhead"]) if vm["is_control_domain"] else str(memory.overhead(vm))


@method("VM.get_cooperative")
def get_cooperative(call: Call, ref: str) -> bool:
    call.row("VM", ref)
    return True


@method("VM.get_boot_record")
def get_boot_record(call: Call, ref: str) -> dict[str, Any]:
    vm = call.row("VM", ref)
    refuse(vm, "get_boot_record")
    with operation(call, vm, "get_boot_record"):
        return record(call.engine, vm)


@method("VM.send_sysrq", "VM.send_trigger")
def send_key(call: Call, ref: str, key: str) -> str:
    name = call.method.removeprefix("VM.")
    refuse(call.row("VM", ref), name)
    raise Failure("NOT_IMPLEMENTED", name)


@method("VM.add_to_VCPUs_params_live")
def add_to_vcpus_params_live(call: Call, ref: str, key: str, value: str) -> str:
    """XAPI checks whether the VM may be changed, and then has nothing that would do it."""
    refuse(call.row("VM", ref), "changing_VCPUs_live")
    raise Failure("NOT_IMPLEMENTED", "add_to_VCPUs_params_live")


@method("VM.call_plugin")
def call_plugin(call: Call, ref: str, plugin: str, function: str, args: dict[str, str]) -> str:
    refuse(call.row("VM", ref), "call_plugin")
    text = f'The requested fn "{function}" could not be found in plugin "{plugin}".'
    raise Failure("XENAPI_PLUGIN_FAILURE", "failed to find fn", text, text)


@method("VM.retrieve_wlb_recommendations")
def retrieve_wlb_recommendations(call: Call, ref: str) -> dict[str, Any]:
    call.row("VM", ref)
    raise Failure("WLB_NOT_INITIALIZED")


@method("VM.create_new_blob")
def create_new_blob(call: Call, ref: str, name: str, mime_type: str, public: bool) -> str:
    vm = call.row("VM", ref)
    blob = call.db.create(
        "blob", {"name_label": name, "mime_type": mime_type or "application/octet-stream", "public": public}
    )
    call.db.set(vm, "blobs", {**vm["blobs"], name: blob.ref})
    return blob.ref
