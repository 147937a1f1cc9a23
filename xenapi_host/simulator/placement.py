"""Which host of the pool a VM may start on, and which one XAPI would take."""

from __future__ import annotations

from xenapi_host.simulator import memory
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import Failure


def live(engine: Engine, host: Row) -> bool:
    metrics = engine.db.find("host_metrics", host["metrics"])
    return metrics is not None and bool(metrics["live"])


def reaches_sr(engine: Engine, host: Row, sr: str) -> bool:
    db = engine.db
    return any(db.rows[p]["host"] == host.ref and db.rows[p]["currently_attached"] for p in db.rows[sr]["PBDs"])


def reaches_network(engine: Engine, host: Row, network: Row) -> bool:
    """A network with physical interfaces must have one here; an internal one in use is tied to its host."""
    db = engine.db
    if network["PIFs"]:
        return any(db.rows[p]["host"] == host.ref for p in network["PIFs"])
    users = {db.rows[db.rows[v]["VM"]]["resident_on"] for v in network["VIFs"] if db.rows[v]["currently_attached"]}
    return not users or host.ref in users


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


def boot_refusal(engine: Engine, vm: Row, host: Row) -> Failure | None:
    """Why this VM cannot start here now, or None."""
    if not live(engine, host):
        return Failure("HOST_OFFLINE", host.ref)
    if not host["enabled"]:
        return Failure("HOST_DISABLED", host.ref)
    return missing(engine, vm, host) or short_of_memory(engine, vm, host)


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
