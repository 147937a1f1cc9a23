"""Memory a VM costs its host. XAPI's arithmetic: shadow pages for HVM guests and a fixed part."""

from __future__ import annotations

from bisect import bisect_right
from math import inf

from xenapi_host.simulator.database import Row
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.implicit import computed

MIB = 1024 * 1024
_PAGES_PER_MIB = 256
_FIXED_MIB = 2
_APPROXIMATE_VCPUS = 64
_MOST_MIB = 2**40


def multiplies(multiplier: float) -> bool:
    """Whether shadow memory can be reckoned with this."""
    return 1.0 <= multiplier < inf


def shown(number: float) -> str:
    """A float as XAPI prints it."""
    text = f"{number:.12g}"
    return text if set(text) & set(".en") else f"{text}."


def overhead_of(static_max: int, vcpus: int, *, hvm: bool, multiplier: float = 1.0) -> int:
    """Bytes beside the guest's own memory."""
    size = -(-static_max // MIB)
    if not hvm:
        return MIB * _FIXED_MIB // 2
    pages = _PAGES_PER_MIB * vcpus + 2 * size
    shadow = max(-(-pages // _PAGES_PER_MIB), 1)
    scaled = min(shadow * (multiplier if multiplies(multiplier) else 1.0), _MOST_MIB)
    return int(scaled + _FIXED_MIB) * MIB


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

    def with_overhead(mib: int) -> int:
        return mib * MIB + overhead_of(mib * MIB, vcpus, hvm=hvm)

    fitting = bisect_right(range(max(total, 0) // MIB + 1), total, key=with_overhead)
    return max(fitting - 1, 0) * MIB


def needed(vm: Row) -> int:
    """What a VM must have of a host's memory, at its start and while it runs: guests can be squeezed so far."""
    return vm.number("memory_dynamic_min") + overhead(vm)


def free(engine: Engine, host: Row) -> int:
    """What is left for other VMs when all here are squeezed as far as they may be."""
    return _left(engine, host, "memory_dynamic_min")


def unused(engine: Engine, host: Row) -> int:
    """What no VM has now."""
    return _left(engine, host, "memory_dynamic_max")


def _left(engine: Engine, host: Row, field: str) -> int:
    metrics = engine.db.get("host_metrics", host["metrics"])
    total = metrics.number("memory_total") - host.number("memory_overhead")
    for ref in host["resident_VMs"]:
        vm = engine.db.rows[ref]
        if vm["is_control_domain"]:
            total -= vm.number("memory_static_max") + vm.number("memory_overhead")
        else:
            total -= vm.number(field) + overhead(vm)
    return max(total, 0)


@computed("host_metrics", "memory_free")
def memory_free(engine: Engine, metrics: Row) -> str:
    for host in engine.db.all("host"):
        if host["metrics"] == metrics.ref:
            return str(unused(engine, host))
    return "0"
