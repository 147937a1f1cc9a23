"""Class VM: a running VM sent into another pool of this process, with its disks.

The receiving pool is known by the session that its host.migrate_receive has opened, which is in the map that XAPI's
clients pass on unread. Two real pools talk over HTTP; simulated ones in two processes do not know each other.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

from xenapi_host import vhd
from xenapi_host.simulator import chains, memory
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.devices import vbd_row, vif_row
from xenapi_host.simulator.engine import Call, Engine
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.storage import BLOCK, NoRoom, Storage
from xenapi_host.simulator.vhd_storage import VhdStorage
from xenapi_host.simulator.vm import boot, halt, remove, vm_row
from xenapi_host.simulator.vm_operations import operation

_WAITING: WeakValueDictionary[str, Engine] = WeakValueDictionary()  # session of a migrate_receive -> its pool
_OWN_OF_VM = {
    *("VBDs", "VIFs", "VTPMs", "consoles", "metrics", "guest_metrics", "snapshots", "children", "parent"),
    *("current_operations", "power_state", "domid", "resident_on", "scheduled_to_be_resident_on", "affinity"),
}
_OF_VDI = ("name_label", "name_description", "type", "virtual_size", "sharable", "other_config", "xenstore_data")
_OWN_OF_DEVICE = ("metrics", "current_operations", "currently_attached", "device", "uuid")


def expect(engine: Engine, session: str) -> None:
    """This pool is ready to receive under this session."""
    _WAITING[session] = engine


def receiver(call: Call, dest: dict[str, str]) -> Engine | None:
    """The pool that a destination names, if it is another one of this process."""
    peer = _WAITING.get(dest.get("session_id", ""))
    return None if peer is call.engine else peer


def refuse_send(
    call: Call, peer: Engine, vm: Row, dest: dict[str, str], vdi_map: dict[str, str], vif_map: dict[str, str]
) -> None:
    """Why the VM cannot go there, as VM.assert_can_migrate says it."""
    for vdi in disks_of(call, vm):
        if vdi.ref not in vdi_map:
            raise Failure("VDI_NOT_IN_MAP", vdi.ref)
    for ref in vm["VIFs"]:
        if ref not in vif_map:
            raise Failure("VIF_NOT_IN_MAP", ref)
    needs = memory.needed(vm)
    with call.engine.unlocked(), peer.lock:
        host = peer.db.find("host", dest["host"])
        if host is None:
            raise Failure("HANDLE_INVALID", "host", dest["host"])
        if not host["enabled"]:
            raise Failure("HOST_DISABLED", host.ref)
        for class_name, refs in (("SR", vdi_map.values()), ("network", vif_map.values())):
            for ref in refs:
                if peer.db.find(class_name, ref) is None:
                    raise Failure("HANDLE_INVALID", class_name, ref)
        free = memory.free(peer, host)
        if needs > free:
            raise Failure("HOST_NOT_ENOUGH_FREE_MEMORY", str(needs), str(free))


def disks_of(call: Call, vm: Row) -> list[Row]:
    found = [call.db.find("VDI", call.db.rows[ref]["VDI"]) for ref in vm["VBDs"]]
    return [vdi for vdi in found if vdi is not None]


def send(
    call: Call, peer: Engine, vm: Row, dest: dict[str, str], vdi_map: dict[str, str], vif_map: dict[str, str]
) -> str:
    """Copy the disks, make the VM there, take it away here; the new reference."""
    engine, disks = call.engine, disks_of(call, vm)
    with operation(call, vm, "migrate_send"):
        made: dict[str, tuple[str, dict[str, Any]]] = {}  # VDI here -> uuid and fields there
        for vdi in disks:
            source = call.row("SR", vdi["SR"])
            take = engine.storage_of(source)
            with engine.exclusive("SR", source.ref), engine.unlocked():
                with peer.lock:
                    uuid, sr = peer.new_uuid(), peer.db.get("SR", vdi_map[vdi.ref])
                give = peer.storage_of(sr)
                _carry(take, source["uuid"], vdi["uuid"], give, sr["uuid"], uuid, vdi.number("virtual_size"))
            fields = {field: vdi[field] for field in _OF_VDI}
            made[vdi.ref] = uuid, {**fields, "uuid": uuid, "location": uuid, "SR": sr.ref, "managed": True}
        image = {field: value for field, value in vm.items() if field not in _OWN_OF_VM}
        vbds, vifs = ([dict(call.db.rows[ref].items()) for ref in reversed(vm[kind])] for kind in ("VBDs", "VIFs"))
        cards = dict(zip([card["MAC"] for card in vifs], reversed(vm["VIFs"]), strict=True))
        runs = vm["power_state"] == "Running"
        with engine.unlocked(), peer.lock:
            new = _arrive(peer, image, vbds, vifs, made, {mac: vif_map[ref] for mac, ref in cards.items()})
            if runs:
                boot(peer, new, peer.db.get("host", dest["host"]), paused=False)
            peer.after_call()
    if vm["power_state"] != "Halted":
        halt(engine, vm)
    for vdi in disks:
        chains.remove(engine, vdi)
    remove(engine, vm)
    return new.ref


def _carry(take: Storage, sr: str, uuid: str, give: Storage, to_sr: str, to_uuid: str, size: int) -> None:
    try:
        give.create(to_sr, to_uuid, size)
    except NoRoom as refused:
        raise chains.no_room(refused) from refused
    if not isinstance(take, VhdStorage) or not isinstance(give, VhdStorage):
        return
    with (
        vhd.Disk.open(take.path(sr, uuid)) as reader,
        vhd.Disk.open(give.path(to_sr, to_uuid), writable=True) as writer,
    ):
        for offset, length in reader.allocated():
            for start in range(offset, offset + length, BLOCK):
                writer.pwrite(start, reader.pread(start, min(BLOCK, offset + length - start)))


def _arrive(
    peer: Engine,
    image: dict[str, Any],
    vbds: list[dict[str, Any]],
    vifs: list[dict[str, Any]],
    made: dict[str, tuple[str, dict[str, Any]]],
    networks: dict[str, str],
) -> Row:
    refs = {old: peer.db.create("VDI", fields).ref for old, (_, fields) in made.items()}
    vm = vm_row(peer, image)
    for fields in vbds:
        own = {field: value for field, value in fields.items() if field not in _OWN_OF_DEVICE}
        vbd_row(peer, {**own, "VM": vm.ref, "VDI": refs.get(own.get("VDI", ""), own.get("VDI"))})
    for fields in vifs:
        own = {field: value for field, value in fields.items() if field not in _OWN_OF_DEVICE}
        vif_row(peer, {**own, "VM": vm.ref, "network": networks[fields["MAC"]]})
    return vm
