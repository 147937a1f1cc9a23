"""Which host of the pool a VM may start on, and which one XAPI would take."""

from __future__ import annotations

from xenapi_host.simulator import memory
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import Failure

_LEAK = "option would leak a domain; VMs and not domains are managed by this API"
_NO_CORE = "cannot invoke a coredump of an HVM, PVH or PV-in-PVH domain"


def live(engine: Engine, host: Row) -> bool:
    metrics = engine.db.find("host_metrics", host["metrics"])
    return metrics is not None and bool(metrics["live"])


def reaches_sr(engine: Engine, host: Row, sr: str) -> bool:
    db = engine.db
    return any(db.rows[p]["host"] == host.ref and db.rows[p]["currently_attached"] for p in db.rows[sr]["PBDs"])


def reaches_network(engine: Engine, host: Row, network: Row) -> bool:
    """A network with physical interfaces must have one here; an internal one in use is tied to its host, unless it is
    said to be everywhere or is not XAPI's to manage."""
    db = engine.db
    if network["PIFs"]:
        return any(db.rows[p]["host"] == host.ref for p in network["PIFs"])
    if network["other_config"].get("assume_network_is_shared") == "true" or not network["managed"]:
        return True
    users = [db.rows[db.rows[vif]["VM"]] for vif in network["VIFs"]]
    hosts = {vm["resident_on"] for vm in users if vm["power_state"] == "Running"}
    return not hosts or host.ref in hosts


def missing(engine: Engine, vm: Row, host: Row) -> Failure | None:
    """What the VM needs and this host has not: an SR or a network."""
    db = engine.db
    for ref in vm["VBDs"]:
        vdi = db.find("VDI", db.rows[ref]["VDI"])
        if vdi is not None and not reaches_sr(engine, host, vdi["SR"]):
            return Failure("VM_REQUIRES_SR", vm.ref, vdi["SR"])
    return missing_network(engine, vm, host)


def missing_network(engine: Engine, vm: Row, host: Row) -> Failure | None:
    db = engine.db
    for ref in vm["VIFs"]:
        network = db.find("network", db.rows[ref]["network"])
        if network is not None and not reaches_network(engine, host, network):
            return Failure("VM_REQUIRES_NETWORK", vm.ref, network.ref)
    return None


def short_of_memory(engine: Engine, vm: Row, host: Row) -> Failure | None:
    needs, free = memory.needed(vm), memory.free(engine, host)
    return Failure("HOST_NOT_ENOUGH_FREE_MEMORY", str(needs), str(free)) if needs > free else None


def short_of_processors(vm: Row, host: Row) -> Failure | None:
    wanted, there = vm.number("VCPUs_max"), int(host["cpu_info"].get("cpu_count", 0))
    if wanted <= there or vm["platform"].get("vcpu-unrestricted") in ("true", "1"):
        return None
    return Failure("HOST_NOT_ENOUGH_PCPUS", str(wanted), str(there))


def unsound(vm: Row) -> Failure | None:
    """Values that VM.create takes and no host can run."""
    most, first, after_crash = vm.number("VCPUs_max"), vm.number("VCPUs_at_startup"), vm["actions_after_crash"]
    if most < 1:
        return Failure("INVALID_VALUE", "VCPUs_max", str(most))
    if first < 1:
        return Failure("INVALID_VALUE", "VCPUs-at-startup", str(first))
    if first > most:
        return Failure("VALUE_NOT_SUPPORTED", "VCPUs-at-startup", str(first), "value greater than VCPUs-max")
    for limit in ("static", "dynamic"):
        if vm.number(f"memory_{limit}_max") < vm.number(f"memory_{limit}_min"):
            return Failure("MEMORY_CONSTRAINT_VIOLATION")
    if not memory.multiplies(vm["HVM_shadow_multiplier"]):
        return Failure("INVALID_VALUE", "HVM_shadow_multiplier", memory.shown(vm["HVM_shadow_multiplier"]))
    if after_crash == "rename_restart":
        return Failure("VALUE_NOT_SUPPORTED", "VM.actions_after_crash", after_crash, _LEAK)
    if after_crash.startswith("coredump") and vm["domain_type"] != "pv":
        return Failure("VALUE_NOT_SUPPORTED", "VM.actions_after_crash", after_crash, _NO_CORE)
    return None


def boot_refusal(engine: Engine, vm: Row, host: Row) -> Failure | None:
    """Why this VM cannot start here now, or None."""
    wrong = unsound(vm)
    if wrong is not None:
        return wrong
    if not live(engine, host):
        return Failure("HOST_OFFLINE", host.ref)
    if not host["enabled"]:
        return Failure("HOST_DISABLED", host.ref)
    return missing(engine, vm, host) or short_of_memory(engine, vm, host) or short_of_processors(vm, host)


def possible_hosts(engine: Engine, vm: Row) -> list[Row]:
    return [host for host in engine.db.all("host") if boot_refusal(engine, vm, host) is None]


def choose_host(engine: Engine, vm: Row) -> Row:
    """The host of the VM's affinity if it fits, else the one with most free memory."""
    hosts = possible_hosts(engine, vm)
    if not hosts:
        raise Failure("NO_HOSTS_AVAILABLE")
    for host in hosts:
        if host.ref == vm["affinity"]:
            return host
    return max(hosts, key=lambda host: memory.free(engine, host))
