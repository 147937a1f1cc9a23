"""Memory a VM costs its host. XAPI's arithmetic: shadow pages for HVM guests and a fixed part."""

from __future__ import annotations

from xenapi_host.simulator.database import Row
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.implicit import computed

MIB = 1024 * 1024
_PAGES_PER_MIB = 256
_FIXED_MIB = 2
_APPROXIMATE_VCPUS = 64


def overhead_of(static_max: int, vcpus: int, *, hvm: bool, multiplier: float = 1.0) -> int:
    """Bytes beside the guest's own memory."""
    size = -(-static_max // MIB)
    if not hvm:
        return MIB * _FIXED_MIB // 2
    pages = _PAGES_PER_MIB * vcpus + 2 * size
    shadow = max(-(-pages // _PAGES_PER_MIB), 1)
    return int(shadow * multiplier + _FIXED_MIB) * MIB


def overhead(vm: Row) -> int:
    return overhead_of(
        vm.number("memory_static_max"),
        vm.number("VCPUs_max"),
        hvm=vm["domain_type"] in ("hvm", "unspecified", "pvh"),
        multiplier=vm["HVM_shadow_multiplier"],
    )


def largest_static_max(vm: Row, total: int, *, approximate: bool) -> int:
    """The largest static maximum that fits into `total` with its overhead."""
    vcpus = _APPROXIMATE_VCPUS if approximate else vm.number("VCPUs_max")
    hvm = vm["domain_type"] != "pv"
    size = total // MIB
    while size > 0 and size * MIB + overhead_of(size * MIB, vcpus, hvm=hvm) > total:
        size -= 1
    return size * MIB


def needed(vm: Row) -> int:
    """What a start takes from a host's free memory."""
    return vm.number("memory_static_max") + overhead(vm)


def held(vm: Row) -> int:
    return vm.number("memory_dynamic_max") + overhead(vm)


def free(engine: Engine, host: Row) -> int:
    metrics = engine.db.get("host_metrics", host["metrics"])
    total = metrics.number("memory_total") - host.number("memory_overhead")
    for ref in host["resident_VMs"]:
        vm = engine.db.rows[ref]
        dom0 = vm["is_control_domain"]
        total -= vm.number("memory_static_max") + vm.number("memory_overhead") if dom0 else held(vm)
    return max(total, 0)


@computed("host_metrics", "memory_free")
def memory_free(engine: Engine, metrics: Row) -> str:
    for host in engine.db.all("host"):
        if host["metrics"] == metrics.ref:
            return str(free(engine, host))
    return "0"
