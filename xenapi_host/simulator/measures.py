"""What can be measured of a host, a VM and a repository, and the values now: data sources, by XAPI's names.

All of it follows from the pool's state. Guests do not run, so processors are idle, networks and disks silent; what a
guest would tell of itself is not known: such sources do not exist.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

from xenapi_host.simulator import memory
from xenapi_host.simulator.call import Call
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.dispatch import method
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import Failure, internal
from xenapi_host.simulator.rrd import STEP, Rrd
from xenapi_host.simulator.vm_operations import refuse

_KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One data source and its value now."""

    name: str
    description: str
    units: str
    value: float
    maximum: float = inf

    def as_record(self) -> dict[str, Any]:
        return {
            "name_label": self.name,
            "name_description": self.description,
            "enabled": True,
            "standard": True,
            "units": self.units,
            "min": 0.0,
            "max": min(self.maximum, sys.float_info.max),  # JSON has no word for infinity
            "value": self.value,
        }


def of_host(engine: Engine, host: Row) -> list[Source]:
    residents = [engine.db.rows[ref] for ref in host["resident_VMs"]]
    pifs = [engine.db.rows[ref] for ref in host["PIFs"]]
    cards = [pif["device"] for pif in pifs if pif["physical"]]
    running = [vm for vm in residents if vm["power_state"] == "Running"]
    total = engine.db.get("host_metrics", host["metrics"]).number("memory_total")
    return [
        _source("memory_total_kib", "Total amount of memory in the host", "KiB", total / _KIB),
        _source("memory_free_kib", "Total amount of free memory", "KiB", memory.unused(engine, host) / _KIB),
        _source("running_domains", "Total number of running domains", "count", len(running)),
        _source("running_vcpus", "Count of running virtual CPUs", "count", sum(map(_vcpus, running))),
        *_processors("Physical cpu usage for cpu", int(host["cpu_info"].get("cpu_count", 0))),
        _source("cpu_avg", "Average physical cpu usage", "(fraction)", 0, maximum=1),
        _source("loadavg", "Domain0 loadavg", "(fraction)", 0),
        *(
            _source(f"pif_{card}_rx", f"Bytes per second received on physical interface {card}", "B/s", 0)
            for card in cards
        ),
        *(_source(f"pif_{card}_tx", f"Bytes per second sent on physical interface {card}", "B/s", 0) for card in cards),
    ]


def of_vm(engine: Engine, vm: Row) -> list[Source]:
    disks = sorted(vbd["device"] for ref in vm["VBDs"] if (vbd := engine.db.rows[ref])["currently_attached"])
    cards = sorted(engine.db.rows[ref]["device"] for ref in vm["VIFs"])
    used = vm.number("memory_dynamic_max")
    return [
        *_processors("CPU usage for vcpu ", _vcpus(vm)),
        _source("memory", "Memory currently allocated to VM", "B", used),
        _source("memory_target", "Target of VM balloon driver", "B", vm.number("memory_target") or used),
        *(_source(f"vbd_{disk}_read", f"Reads from device '{disk}' in B/s", "B/s", 0) for disk in disks),
        *(_source(f"vbd_{disk}_write", f"Writes to device '{disk}' in B/s", "B/s", 0) for disk in disks),
        *(_source(f"vif_{card}_rx", f"Bytes per second received on VIF {card}", "B/s", 0) for card in cards),
        *(_source(f"vif_{card}_tx", f"Bytes per second sent on VIF {card}", "B/s", 0) for card in cards),
    ]


def of_sr(engine: Engine, sr: Row) -> list[Source]:
    space = engine.storage_of(sr).space(sr["uuid"])
    return [
        _source("physical_utilisation", "Physical utilisation of the SR", "B", space.used),
        _source("size", "Size of the SR", "B", space.total),
    ]


def _source(name: str, description: str, units: str, value: float, *, maximum: float = inf) -> Source:
    return Source(name=name, description=description, units=units, value=float(value), maximum=float(maximum))


def _vcpus(vm: Row) -> int:
    return vm.number("VCPUs_at_startup")


def _processors(description: str, count: int) -> list[Source]:
    return [_source(f"cpu{n}", f"{description}{n}", "(fraction)", 0, maximum=1) for n in range(count)]


_OF: dict[str, Callable[[Engine, Row], list[Source]]] = {"host": of_host, "VM": of_vm, "SR": of_sr}


def sources(engine: Engine, row: Row) -> list[Source]:
    """The data sources of a host, a VM or a repository; none of what is not running or not plugged in."""
    try:
        return _OF[row.class_name](engine, row)
    except KeyError:  # a repository without its storage
        return []


class Meter:
    """Samples every host, running VM and repository each 5 s, once started. Histories end with the process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._guard = threading.Lock()
        self._rrds: dict[tuple[str, str], Rrd] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="simulator-meter")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(STEP - time.time() % STEP):
            self.sample(self._engine.clock())

    def sample(self, now: float) -> None:
        """Measure everything once."""
        engine = self._engine
        with engine.lock:
            running = [vm for vm in engine.db.all("VM") if vm["power_state"] == "Running"]
            measured = [
                ((row.class_name, row["uuid"]), {source.name: source.value for source in sources(engine, row)})
                for row in [*engine.db.all("host"), *running, *engine.db.all("SR")]
            ]
        with self._guard:
            for key, values in measured:
                self._rrds.setdefault(key, Rrd()).add(now, values)

    def known(self) -> dict[tuple[str, str], Rrd]:
        """Histories by (class, uuid)."""
        with self._guard:
            return dict(self._rrds)

    def forget(self, class_name: str, uuid: str, source: str) -> None:
        with self._guard:
            rrd = self._rrds.get((class_name, uuid))
            if rrd is not None:
                rrd.forget(source)


# -- as XenAPI's calls tell it --


def _asked(call: Call, ref: str) -> Row:
    row = call.row(call.method.partition(".")[0], ref)
    if row.class_name == "VM":
        refuse(row, "data_source_op")
    return row


@method("host.get_data_sources", "VM.get_data_sources", "SR.get_data_sources")
def get_data_sources(call: Call, ref: str) -> list[dict[str, Any]]:
    return [source.as_record() for source in sources(call.engine, _asked(call, ref))]


def _one(call: Call, row: Row, name: str) -> Source:
    for source in sources(call.engine, row):
        if source.name == name:
            return source
    raise internal(f'Rrd.Invalid_data_source("{name}")')


@method("host.query_data_source", "VM.query_data_source", "SR.query_data_source")
def query_data_source(call: Call, ref: str, name: str) -> float:
    return _one(call, _asked(call, ref), name).value


@method("host.record_data_source", "VM.record_data_source", "SR.record_data_source")
def record_data_source(call: Call, ref: str, name: str) -> str:
    """All that exist are recorded anyway."""
    _one(call, _asked(call, ref), name)
    return ""


@method("host.forget_data_source_archives", "VM.forget_data_source_archives", "SR.forget_data_source_archives")
def forget_data_source_archives(call: Call, ref: str, name: str) -> str:
    row = _asked(call, ref)
    _one(call, row, name)
    if call.engine.meter is None:
        raise Failure("NOT_IMPLEMENTED", call.method)
    call.engine.meter.forget(row.class_name, row["uuid"], name)
    return ""
