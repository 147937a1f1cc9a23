"""Class VM: sent into another pool with its disks, running or not.

The disks are copied first, then the VM is made over there, halted; only when it has ended here is it started there, so
that at most one of the two ever runs. Until then a failure takes away what was made there, and it goes on here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from xenapi_host import vhd
from xenapi_host.simulator import chains, memory
from xenapi_host.simulator.call import Call
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.failure import NULL, Failure
from xenapi_host.simulator.peers import Peer
from xenapi_host.simulator.raw_vdi import reading
from xenapi_host.simulator.vhd_storage import VhdStorage
from xenapi_host.simulator.vm import halt, remove
from xenapi_host.simulator.vm_operations import operation
from xenapi_host.simulator.vm_receiving import Handover, describe, describe_devices

_OF_VDI = ("name_label", "name_description", "type", "virtual_size", "sharable", "read_only", "xenstore_data", "tags")
_HANDOVER_TRIES = 3
Map = dict[str, str]


def disks_of(call: Call, vm: Row) -> list[Row]:
    """The disks that go along: not what is in a CD drive."""
    vbds = [call.db.rows[ref] for ref in vm["VBDs"]]
    found = [call.db.find("VDI", vbd["VDI"]) for vbd in vbds if vbd["type"] != "CD"]
    return [vdi for vdi in found if vdi is not None]


def refuse_unmapped(call: Call, vm: Row, vdi_map: Map) -> None:
    for vdi in disks_of(call, vm):
        if vdi.ref not in vdi_map:
            raise Failure("VDI_NOT_IN_MAP", vdi.ref)


def refuse_tracked(vdi: Row) -> None:
    if vdi["cbt_enabled"]:
        raise Failure("VDI_CBT_ENABLED", vdi.ref)


def refuse_send(call: Call, peer: Peer, vm: Row, dest: Map, vdi_map: Map, vif_map: Map) -> None:
    """Why the VM cannot go there, as VM.assert_can_migrate says it."""
    refuse_unmapped(call, vm, vdi_map)
    for ref in vm["VIFs"]:
        if ref not in vif_map:
            raise Failure("VIF_NOT_IN_MAP", ref)
    for vdi in disks_of(call, vm):
        refuse_tracked(vdi)
    if vm["snapshots"]:  # XAPI takes one along; here they would have to be left behind
        raise Failure("VM_HAS_TOO_MANY_SNAPSHOTS", vm.ref)
    needs = memory.needed(vm) if vm["power_state"] != "Halted" else 0
    wanted = {vdi_map[vdi.ref] for vdi in disks_of(call, vm)}
    networks = {vif_map[ref] for ref in vm["VIFs"]}
    with call.engine.unlocked():
        host = peer.call("host.get_record", dest["host"])
        if not host["enabled"]:
            raise Failure("HOST_DISABLED", dest["host"])
        for sr in sorted(wanted):
            pbds = [peer.call("PBD.get_record", ref) for ref in peer.call("SR.get_PBDs", sr)]
            if not any(pbd["host"] == dest["host"] and pbd["currently_attached"] for pbd in pbds):
                raise Failure("VM_REQUIRES_SR", vm.ref, sr)
        for network in sorted(networks):
            peer.call("network.get_uuid", network)
        free = int(peer.call("host.compute_free_memory", dest["host"]))
        if needs > free:
            raise Failure("HOST_NOT_ENOUGH_FREE_MEMORY", str(needs), str(free))


def send(call: Call, peer: Peer, vm: Row, dest: Map, vdi_map: Map, vif_map: Map) -> str:
    """Copy the disks, make the VM there, take it away here; the new reference."""
    with operation(call, vm, "migrate_send"):
        disks = disks_of(call, vm)
        image = call.db.find("VDI", vm["suspend_VDI"])
        targets = {vdi.ref: vdi_map[vdi.ref] for vdi in disks}
        if image is not None:  # a suspended VM's memory lies where its disks lie
            disks.append(image)
            targets[image.ref] = vdi_map.get(image.ref) or next(iter(vdi_map.values()), NULL)
        made: Map = {}
        halted: Handover | None = None
        try:
            for vdi in disks:
                made[vdi.ref] = _copy(call, peer, vdi, targets[vdi.ref])
            state = vm["power_state"]
            halted = _handover(call, vm, dest, made, vif_map, image)
            with call.engine.unlocked():
                new = peer.hand_over(halted)
            call.refuse_interrupted()
        except BaseException:
            with call.engine.unlocked():
                _clear_away(peer, halted, made)
            raise
        _let_go(call, vm, disks)
        try:
            with call.engine.unlocked():
                _hand_over(peer, replace(halted, power_state=state))
                with suppress(Failure):
                    peer.call("session.logout")
        finally:  # it is over there now, whether it runs or not
            remove(call.engine, vm)
        return new


def _copy(call: Call, peer: Peer, vdi: Row, sr: str) -> str:
    call.refuse_interrupted()
    fields = {field: vdi[field] for field in _OF_VDI} | {"SR": sr, "other_config": vdi["other_config"]}
    with _source(call, vdi) as disk, call.engine.unlocked():
        ref = str(peer.call("VDI.create", fields))
        try:
            peer.fill(ref, disk, lambda _: call.refuse_interrupted())
        except BaseException:
            with suppress(Failure):
                peer.call("VDI.destroy", ref)
            raise
        return ref


@contextmanager
def _source(call: Call, vdi: Row) -> Iterator[vhd.Disk | None]:
    """The disk as it is now, which nobody writes to meanwhile; None where it has no bytes."""
    engine = call.engine
    if not isinstance(engine.storage_of(call.row("SR", vdi["SR"])), VhdStorage):
        yield None
        return
    with engine.exclusive("VDI", vdi.ref), reading(engine, vdi) as disk:
        yield disk


def _handover(call: Call, vm: Row, dest: Map, made: Map, vif_map: Map, image: Row | None) -> Handover:
    vbds: list[dict[str, Any]] = []
    for vbd in describe_devices(call.engine, vm["VBDs"]):
        taken = made.get(vbd.get("VDI", NULL))
        vbds.append({**vbd, "VDI": taken or NULL, "empty": taken is None})
    vifs = describe_devices(call.engine, vm["VIFs"])
    networks = [vif_map[ref] for ref in reversed(vm["VIFs"])]
    return Handover(
        vm=describe(vm),
        vbds=vbds,
        vifs=[{**vif, "network": network} for vif, network in zip(vifs, networks, strict=True)],
        host=dest["host"],
        power_state="Halted",
        suspend_image=made[image.ref] if image is not None else None,
    )


def _let_go(call: Call, vm: Row, disks: list[Row]) -> None:
    """End the VM here, for good: its disks go, too."""
    if vm["power_state"] != "Halted":
        halt(call.engine, vm)
    for vdi in disks:
        if vdi.ref in call.db.rows:
            chains.remove(call.engine, vdi)


def _hand_over(peer: Peer, handover: Handover) -> None:
    for left in reversed(range(_HANDOVER_TRIES)):
        try:
            peer.hand_over(handover)
            return
        except Failure as failure:
            if failure.details[0] != "CANNOT_CONTACT_HOST" or not left:
                raise


def _clear_away(peer: Peer, halted: Handover | None, made: Map) -> None:
    with suppress(Failure):
        for ref in [peer.call("VM.get_by_uuid", halted.vm["uuid"])] if halted is not None else []:
            peer.call("VM.destroy", ref)
    for ref in made.values():
        with suppress(Failure):
            peer.call("VDI.destroy", ref)
