"""Class host: enabled or not, evacuated, its memory and facts."""

from __future__ import annotations

import re
from typing import Any
from xmlrpc.client import DateTime

from xenapi_host.simulator import memory
from xenapi_host.simulator.call import Call
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.dispatch import method
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import Failure, internal
from xenapi_host.simulator.host_power import guests
from xenapi_host.simulator.implicit import computed
from xenapi_host.simulator.placement import boot_refusal, live, possible_hosts
from xenapi_host.simulator.vm_migration import move
from xenapi_host.simulator.vm_operations import operation


@computed("host", "allowed_operations")
def allowed_operations(engine: Engine, host: Row) -> list[str]:
    always = ["vm_migrate", "provision", "vm_resume", "enable", "evacuate", "vm_start"]
    if "vm_resume" in host["current_operations"].values():
        always.remove("evacuate")
    return always if host["enabled"] else [*always, "apply_updates", "reboot", "shutdown"]


@method("host.enable")
def enable(call: Call, ref: str) -> str:
    call.db.set(call.row("host", ref), "enabled", True)
    return ""


@method("host.disable")
def disable(call: Call, ref: str) -> str:
    call.db.set(call.row("host", ref), "enabled", False)
    return ""


def _obstacles(call: Call, host: Row) -> dict[str, list[str]]:
    """VMs that could go to no other host, and why."""
    found: dict[str, list[str]] = {}
    others = [other for other in call.db.all("host") if other is not host]
    for vm in guests(call.engine, host):
        refusals = [boot_refusal(call.engine, vm, other) for other in others]
        if not others:
            found[vm.ref] = ["NO_HOSTS_AVAILABLE", vm.ref]
        elif all(refusals) and refusals[0] is not None:
            found[vm.ref] = refusals[0].details
    return found


@method("host.get_vms_which_prevent_evacuation")
def get_vms_which_prevent_evacuation(call: Call, ref: str) -> dict[str, list[str]]:
    return _obstacles(call, call.row("host", ref))


@method("host.assert_can_evacuate")
def assert_can_evacuate(call: Call, ref: str) -> str:
    obstacles = _obstacles(call, call.row("host", ref))
    if obstacles:
        raise Failure("CANNOT_EVACUATE_HOST", "|".join(",".join(why) for why in obstacles.values()))
    return ""


@method("host.evacuate")
def evacuate(call: Call, ref: str, network: str = "", batch: str = "") -> str:
    host = call.row("host", ref)
    for why in _obstacles(call, host).values():
        raise Failure(*why)
    for vm in guests(call.engine, host):
        targets = [h for h in possible_hosts(call.engine, vm) if h is not host]
        if not targets:
            raise Failure("NO_HOSTS_AVAILABLE")
        with operation(call, vm, "pool_migrate"):
            move(call.engine, vm, max(targets, key=lambda h: memory.free(call.engine, h)))
    return ""


@method("host.destroy")
def destroy(call: Call, ref: str) -> str:
    host = call.row("host", ref)
    if ref == call.engine.pool["master"] or live(call.engine, host):
        raise Failure("HOST_IS_LIVE", ref)
    raise Failure("NOT_IMPLEMENTED", "host.destroy")


@method("host.compute_free_memory")
def compute_free_memory(call: Call, ref: str) -> str:
    return str(memory.free(call.engine, call.row("host", ref)))


@method("host.compute_memory_overhead")
def compute_memory_overhead(call: Call, ref: str) -> str:
    return str(call.row("host", ref)["memory_overhead"])


@method("host.get_servertime")
def get_servertime(call: Call, ref: str) -> DateTime:
    call.row("host", ref)
    return call.engine.now()


@method("host.get_server_localtime")
def get_server_localtime(call: Call, ref: str) -> DateTime:
    call.row("host", ref)
    return DateTime(str(call.engine.now().value).removesuffix("Z"))


@method("host.get_management_interface")
def get_management_interface(call: Call, ref: str) -> str:
    host = call.row("host", ref)
    for pif in host["PIFs"]:
        if call.db.rows[pif]["management"]:
            return str(pif)
    raise internal("Not_found")


@method("host.get_uncooperative_resident_VMs")
def uncooperative(call: Call, ref: str) -> list[str]:
    call.row("host", ref)
    return []


@method("host.list_methods", "host.get_log", "host.send_debug_keys")
def not_implemented(call: Call, *params: Any) -> str:
    names = {"host.list_methods": "list_method", "host.get_log": "get_log"}
    raise Failure("NOT_IMPLEMENTED", names.get(call.method, call.method))


@method("host.dmesg")
def dmesg(call: Call, ref: str) -> str:
    call.row("host", ref)
    return "Xen simulator"


@method("host.set_hostname_live")
def set_hostname_live(call: Call, ref: str, name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,63}", name):
        raise Failure("HOST_NAME_INVALID", "hostname contains invalid characters")
    call.db.set(call.row("host", ref), "hostname", name)
    return ""
