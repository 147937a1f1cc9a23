"""How a running server is doing: what its pool measures of its processors, memory, disks and interfaces."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from cells.model import PowerState
from xenapi_host.driver import disks, vms
from xenapi_host.driver.errors import telling
from xenapi_host.driver.usage import physical_size
from xenapi_host.driver.vms import Vm
from xenapi_host.session import NULL, Session, XenFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Bytes per second in and out of one interface (`name`: its MAC); None: not measured."""

    name: str
    read: float | None = None
    written: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskMeasured:
    """A disk: bytes per second as of Counted, its size, and the bytes that its layers take, each counted once for the
    whole server."""

    name: str
    read: float | None = None
    written: float | None = None
    virtual_size: int = 0
    physical_size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostics:
    """`cpus`: share of each processor in use, 0 to 1. `memory_free_kib`: as the guest says. Seconds since the start,
    None when off."""

    power_state: PowerState
    uptime: int | None = None
    cpus: tuple[float | None, ...] = ()
    memory_mib: int = 0
    memory_free_kib: float | None = None
    disks: tuple[DiskMeasured, ...] = ()
    interfaces: tuple[Counted, ...] = ()


@telling("measure the server")
def diagnostics(session: Session, server: bytes) -> Diagnostics:
    """What is measured now. Values the pool does not have are None."""
    vm = vms.the_one(session, server)
    runs = vm.power_state is PowerState.RUNNING
    interfaces = []
    for ref in vm.record["VIFs"]:
        vif = vms.record_of(session, "VIF", ref)
        if vif is not None:
            name = f"vif_{vif['device']}"
            interfaces.append(_counted(session, vm, str(vif["MAC"]), f"{name}_rx", f"{name}_tx", runs))
    count = int(vm.record["VCPUs_at_startup"])
    return Diagnostics(
        power_state=vm.power_state,
        uptime=_uptime(session, vm) if runs else None,
        cpus=tuple(_value(session, vm, f"cpu{number}", runs) for number in range(count)),
        memory_mib=int(vm.record["memory_dynamic_max"]) // 2**20,
        memory_free_kib=_value(session, vm, "memory_internal_free", runs),
        disks=tuple(_disks(session, vm, runs)),
        interfaces=tuple(interfaces),
    )


def _disks(session: Session, vm: Vm, runs: bool) -> Iterator[DiskMeasured]:
    counted: set[str] = set()
    found = [vms.record_of(session, "VBD", ref) for ref in vm.record["VBDs"]]
    vbds = [vbd for vbd in found if vbd is not None and vbd["VDI"] != NULL]
    for vbd in sorted(vbds, key=lambda vbd: int(vbd["userdevice"])):
        disk = disks.read(session, vbd["VDI"])
        if disk is None:
            continue
        name = str(vbd["device"] or f"xvd{chr(ord('a') + int(vbd['userdevice']))}")
        yield DiskMeasured(
            name=name,
            read=_value(session, vm, f"vbd_{name}_read", runs),
            written=_value(session, vm, f"vbd_{name}_write", runs),
            virtual_size=disk.size,
            physical_size=physical_size(session, disk, counted),
        )


def _counted(session: Session, vm: Vm, name: str, read: str, written: str, runs: bool) -> Counted:
    return Counted(name=name, read=_value(session, vm, read, runs), written=_value(session, vm, written, runs))


def _value(session: Session, vm: Vm, source: str, runs: bool) -> float | None:
    if not runs:
        return None
    try:
        value = float(session.call("VM.query_data_source", vm.ref, source))
    except XenFailure:  # a source that this host does not measure
        return None
    return None if math.isnan(value) else value


def _uptime(session: Session, vm: Vm) -> int | None:
    metrics = vms.record_of(session, "VM_metrics", str(vm.record["metrics"]))
    if metrics is None:
        return None
    now = _instant(session.call("host.get_servertime", vm.record["resident_on"]))
    return max(0, int((now - _instant(metrics["start_time"])).total_seconds()))


def _instant(stamp: object) -> datetime:
    """A XenAPI date and time, whichever of its two spellings."""
    return datetime.fromisoformat(str(stamp).removesuffix("Z")).replace(tzinfo=UTC)
