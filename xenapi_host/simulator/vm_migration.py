"""Class VM: moving a running VM to another host of its pool, and the questions before moving it anywhere."""

from __future__ import annotations

from typing import Any

from xenapi_host.simulator import chains, collector, domains, memory
from xenapi_host.simulator.call import Call
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.dispatch import method
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import Failure, internal
from xenapi_host.simulator.peers import PATH, Peer, expect, peer_of
from xenapi_host.simulator.placement import boot_refusal, missing, missing_network, reaches_sr
from xenapi_host.simulator.vdi import attached, copied
from xenapi_host.simulator.vm import new_domid
from xenapi_host.simulator.vm_operations import operation, refuse
from xenapi_host.simulator.vm_sending import disks_of, refuse_send, refuse_tracked, refuse_unmapped, send

_INTRA_POOL_VIF = "VIF mapping is not allowed for intra-pool migration -all VIFs must be on the same network"


def move(engine: Engine, vm: Row, host: Row) -> None:
    """The domain goes on over there, under a new number."""
    before = vm["resident_on"], vm["domid"]
    engine.db.update(vm, {"resident_on": host.ref, "domid": new_domid(engine, host)})
    domains.moved(engine, vm, *before)


@method("VM.pool_migrate")
def pool_migrate(call: Call, ref: str, host_ref: str, options: dict[str, str]) -> str:
    vm = call.row("VM", ref)
    host = call.row("host", host_ref)
    refuse(vm, "pool_migrate")
    refuse_host(call.engine, vm, host)
    with operation(call, vm, "pool_migrate"):
        move(call.engine, vm, host)
    return ""


def refuse_host(engine: Engine, vm: Row, host: Row) -> None:
    if vm["resident_on"] == host.ref:
        refused = missing(engine, vm, host)
    else:
        refused = boot_refusal(engine, vm, host)
    if refused is not None:
        raise refused


# -- between hosts with disks copied --


@method("host.migrate_receive")
def migrate_receive(call: Call, host_ref: str, network_ref: str, options: dict[str, str]) -> dict[str, str]:
    host, network = call.row("host", host_ref), call.row("network", network_ref)
    pifs = [call.db.rows[p] for p in network["PIFs"] if call.db.rows[p]["host"] == host.ref]
    if not pifs:
        raise Failure("HOST_CANNOT_ATTACH_NETWORK", host.ref, network.ref)
    session = call.engine.open_session("migration")
    expect(call.engine, session.ref)
    urls = call.engine.urls
    here = urls.get(host.ref, f"http://{host['address']}")
    master = urls.get(call.engine.master.ref, f"http://{call.engine.master['address']}")
    return {
        "SM": f"{here}/services/SM?session_id={session.ref}",
        "host": host.ref,
        "xenops": f"{here}{PATH}?session_id={session.ref}",
        "session_id": session.ref,
        "master": f"{master}/",
    }


def _peer(call: Call, dest: dict[str, str]) -> Peer | None:
    """The receiving pool, where it is another one."""
    if "host" not in dest or "master" not in dest or "xenops" not in dest:
        raise internal("Not_found")
    return peer_of(dest) if call.db.find("host", dest["host"]) is None else None


def _assert(call: Call, vm: Row, dest: dict[str, str], vdi_map: dict[str, str], vif_map: dict[str, str]) -> Row:
    host = call.row("host", dest["host"])
    refuse_unmapped(call, vm, vdi_map)
    refused = missing_network(call.engine, vm, host)
    if refused is not None:
        raise refused
    if vif_map:
        raise Failure("OPERATION_NOT_ALLOWED", _INTRA_POOL_VIF)
    for vdi in disks_of(call, vm):
        target = vdi_map[vdi.ref]
        if target != vdi["SR"]:
            refuse_tracked(vdi)
        if not reaches_sr(call.engine, host, call.row("SR", target).ref):
            raise Failure("VM_REQUIRES_SR", vm.ref, target)
    if not host["enabled"]:
        raise Failure("HOST_DISABLED", host.ref)
    if vm["power_state"] == "Running" and vm["resident_on"] != host.ref:
        needs, free = memory.needed(vm), memory.free(call.engine, host)
        if needs > free:
            raise Failure("HOST_NOT_ENOUGH_FREE_MEMORY", str(needs), str(free))
    return host


@method("VM.assert_can_migrate")
def assert_can_migrate(
    call: Call,
    ref: str,
    dest: dict[str, str],
    live: bool,
    vdi_map: dict[str, str],
    vif_map: dict[str, str],
    options: dict[str, str],
    vgpu_map: Any = None,
) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "migrate_send")
    if (peer := _peer(call, dest)) is not None:
        refuse_send(call, peer, vm, dest, vdi_map, vif_map)
    else:
        _assert(call, vm, dest, vdi_map, vif_map)
    return ""


@method("VM.assert_can_migrate_sender")
def assert_can_migrate_sender(
    call: Call, ref: str, dest: Any, live: bool, vdi_map: Any, vif_map: Any, vgpu_map: Any, options: Any
) -> str:
    refuse(call.row("VM", ref), "migrate_send")
    return ""


@method("VM.migrate_send")
def migrate_send(
    call: Call,
    ref: str,
    dest: dict[str, str],
    live: bool,
    vdi_map: dict[str, str],
    vif_map: dict[str, str],
    options: dict[str, str],
    vgpu_map: Any = None,
) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "migrate_send")
    if (peer := _peer(call, dest)) is not None:
        refuse_send(call, peer, vm, dest, vdi_map, vif_map)
        return send(call, peer, vm, dest, vdi_map, vif_map)
    host = _assert(call, vm, dest, vdi_map, vif_map)
    with operation(call, vm, "migrate_send"):
        for vdi in disks_of(call, vm):
            target = vdi_map.get(vdi.ref)
            if target is not None and target != vdi["SR"]:
                _carry(call, vm, vdi, call.row("SR", target))
        if vm["power_state"] in ("Running", "Paused"):
            move(call.engine, vm, host)
    return vm.ref


def _carry(call: Call, vm: Row, vdi: Row, sr: Row) -> Row:
    """Copy the disk and let the VM's VBDs use the copy; the old one goes."""
    new = copied(call, vdi, sr)
    for ref in list(vdi["VBDs"]):
        if call.db.rows[ref]["VM"] == vm.ref:
            call.db.set(call.db.rows[ref], "VDI", new.ref)
    for ref in list(vdi["snapshots"]):
        call.db.set(call.db.rows[ref], "snapshot_of", new.ref)
    chains.remove(call.engine, vdi)
    collector.kick(call.engine, call.row("SR", vdi["SR"]))
    return new


@method("VDI.pool_migrate")
def vdi_pool_migrate(call: Call, ref: str, sr_ref: str, options: dict[str, str]) -> str:
    """A running VM's disk moves to another repository of its pool, under another reference."""
    vdi, sr = call.row("VDI", ref), call.row("SR", sr_ref)
    users = attached(call.engine, vdi)
    if not users:
        raise Failure("VDI_NEEDS_VM_FOR_MIGRATE", ref)
    vm = call.row("VM", users[0]["VM"])
    refuse(vm, "migrate_send")
    refuse_tracked(vdi)
    if not reaches_sr(call.engine, call.row("host", vm["resident_on"]), sr.ref):
        raise Failure("VM_REQUIRES_SR", vm.ref, sr.ref)
    if sr.ref == vdi["SR"]:
        return ref
    with operation(call, vm, "migrate_send"):
        return _carry(call, vm, vdi, sr).ref
