"""Class VM: snapshots, checkpoints, clones, copies, reverting, and templates provisioned into VMs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

from xenapi_host.simulator import chains
from xenapi_host.simulator.call import Call
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.devices import vbd_row, vif_row
from xenapi_host.simulator.dispatch import method
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import NULL, Failure
from xenapi_host.simulator.query import as_text
from xenapi_host.simulator.vdi import copied
from xenapi_host.simulator.vm import halt, new_domid, new_generation, remove, suspend_sr, vm_row, write_image
from xenapi_host.simulator.vm_operations import operation, refuse

# Of the source's fields, those that belong to the copy's own life.
_OWN = (
    "uuid",
    "VBDs",
    "VIFs",
    "VTPMs",
    "VGPUs",
    "consoles",
    "metrics",
    "guest_metrics",
    "current_operations",
    "power_state",
    "domid",
    "resident_on",
    "scheduled_to_be_resident_on",
    "suspend_VDI",
    "snapshots",
    "children",
    "parent",
    "snapshot_of",
    "is_a_snapshot",
    "snapshot_time",
    "snapshot_info",
    "snapshot_metadata",
    "blobs",
    "attached_PCIs",
    "crash_dumps",
)


def _copy_fields(vm: Row) -> dict[str, Any]:
    return {field: value for field, value in vm.items() if field not in _OWN}


def _copy_disks(
    call: Call, source: Row, target: Row, *, snapshot: bool, sr: Row | None = None, but: Collection[str] = ()
) -> None:
    """Branches of the source's disks, but these, on the target's VBDs; full copies where an SR is given."""
    db, engine = call.db, call.engine
    for ref in reversed(source["VBDs"]):
        vbd = db.rows[ref]
        if vbd["VDI"] in but:
            continue
        fields = {k: v for k, v in vbd.items() if k not in ("metrics", "current_operations")}
        vdi = db.find("VDI", vbd["VDI"])
        if vdi is not None and vbd["type"] != "CD":
            new = copied(call, vdi, sr) if sr is not None else chains.branch(engine, vdi, snapshot=snapshot)
            fields |= {"VDI": new.ref, "other_config": {**vbd["other_config"], "owner": ""}}
        row = vbd_row(engine, {**fields, "VM": target.ref})
        if snapshot:
            db.set(row, "device", vbd["device"])


@contextmanager
def _undone(call: Call, made: Row) -> Iterator[None]:
    """A copy that fails on its way, or is cancelled, goes, and its disks with it."""
    try:
        yield
    except Failure:
        for ref in list(made["VBDs"]):
            vdi = call.db.find("VDI", call.db.rows[ref]["VDI"])
            if vdi is not None and call.db.rows[ref]["type"] != "CD":
                chains.remove(call.engine, vdi)
        remove(call.engine, made)
        raise


def _copy_cards(call: Call, source: Row, target: Row, *, same_mac: bool) -> None:
    for ref in reversed(source["VIFs"]):
        fields = {k: v for k, v in call.db.rows[ref].items() if k not in ("metrics", "current_operations")}
        if not same_mac:
            fields["MAC"] = ""
        vif_row(call.engine, {**fields, "VM": target.ref})


def _copy_guest_metrics(engine: Engine, vm: Row) -> str:
    known = engine.db.find("VM_guest_metrics", vm["guest_metrics"])
    if known is None:
        return NULL
    fields = {field: value for field, value in known.items() if field != "uuid"}
    return engine.db.create("VM_guest_metrics", fields).ref


def _snapshot(call: Call, vm: Row, name: str, but: Collection[str] = ()) -> Row:
    engine = call.engine
    fields = _copy_fields(vm) | {
        "name_label": name,
        "is_a_template": True,
        "is_a_snapshot": True,
        "snapshot_of": vm.ref,
        "snapshot_time": engine.now(),
        "snapshot_info": {
            "power-state-at-snapshot": vm["power_state"],
            "disk-snapshot-type": "crash_consistent",
        },
        "snapshot_metadata": as_text(dict(vm)),
        "transportable_snapshot_id": "",
        "parent": vm["parent"],
    }
    fields |= {"generation_id": new_generation(engine), "guest_metrics": _copy_guest_metrics(engine, vm)}
    taken = vm_row(engine, fields)
    measured = engine.db.find("VM_metrics", vm["metrics"])
    if measured is not None:
        known = {field: value for field, value in measured.items() if field != "uuid"}
        engine.db.update(engine.db.get("VM_metrics", taken["metrics"]), known)
    with _undone(call, taken):
        _copy_disks(call, vm, taken, snapshot=True, but=but)
    engine.db.set(vm, "parent", taken.ref)
    _copy_cards(call, vm, taken, same_mac=True)
    host = engine.db.find("host", vm["resident_on"])
    if host is not None:
        engine.db.touch(host)  # XAPI tells of the host then, though nothing of it has changed
    return taken


@method("VM.snapshot")
def snapshot(call: Call, ref: str, name: str, ignore_vdis: list[str] | None = None) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "snapshot")
    with operation(call, vm, "snapshot"):
        return _snapshot(call, vm, name, ignore_vdis or ()).ref


@method("VM.checkpoint")
def checkpoint(call: Call, ref: str, name: str) -> str:
    """A snapshot with the memory: the VM is suspended, both get an image, and it goes on."""
    vm = call.row("VM", ref)
    refuse(vm, "checkpoint")
    engine = call.engine
    with operation(call, vm, "checkpoint"):
        suspend_sr(engine, vm)
        taken = _snapshot(call, vm, name)
        image = write_image(engine, vm)
        call.db.update(taken, {"power_state": "Suspended", "suspend_VDI": image.ref})
        if vm["power_state"] == "Running":
            call.db.set(vm, "domid", new_domid(engine, call.row("host", vm["resident_on"])))
    return taken.ref


def _twin(call: Call, vm: Row, name: str, sr: Row | None) -> Row:
    engine = call.engine
    config = {**vm["other_config"], "mac_seed": engine.new_uuid()}
    if vm["is_a_template"] and "base_template_name" not in config:
        config["base_template_name"] = vm["name_label"]
    fields = _copy_fields(vm) | {
        "name_label": name,
        "is_default_template": False,
        "other_config": config,
        "generation_id": new_generation(engine),
        "memory_target": "0",
    }
    twin = vm_row(engine, fields)
    with _undone(call, twin):
        _copy_disks(call, vm, twin, snapshot=False, sr=sr)
    _copy_cards(call, vm, twin, same_mac=False)
    return twin


@method("VM.clone")
def clone(call: Call, ref: str, name: str) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "clone")
    with operation(call, vm, "clone"):
        return _twin(call, vm, name, None).ref


@method("VM.copy")
def copy(call: Call, ref: str, name: str, sr_ref: str) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "copy")
    sr = call.row("SR", sr_ref) if sr_ref != NULL else None
    with operation(call, vm, "copy"):
        return _twin(call, vm, name, sr).ref


@method("VM.revert")
def revert(call: Call, ref: str) -> str:
    """The VM becomes what the snapshot was; a VM that is gone is made again."""
    taken = call.row("VM", ref)
    if not taken["is_a_snapshot"]:
        raise Failure("VM_REVERT_FAILED", ref, NULL)
    refuse(taken, "revert")
    engine = call.engine
    vm = call.db.find("VM", taken["snapshot_of"])
    with operation(call, taken, "revert"):
        if vm is None:
            vm = _risen(call, taken)
        else:
            _strip(engine, vm)
            fields = _copy_fields(taken) | {"name_label": vm["name_label"], "is_a_template": False}
            fields |= {"generation_id": new_generation(engine), "parent": taken.ref}
            metrics = call.db.create("VM_metrics", {"VCPUs_utilisation": {}})
            call.db.update(vm, {**fields, "metrics": metrics.ref, "is_a_snapshot": False})
        _copy_disks(call, taken, vm, snapshot=False)
        _copy_cards(call, taken, vm, same_mac=True)
        _restore_memory(call, taken, vm)
    return ""


def _risen(call: Call, taken: Row) -> Row:
    old = taken["snapshot_of"]
    name = taken["other_config"].get("name-before-snapshot", "")
    for line in (taken["snapshot_metadata"],):
        _, found, rest = line.partition("('name_label' '")
        name = rest.partition("')")[0] if found else name
    fields = _copy_fields(taken) | {
        "name_label": name or taken["name_label"],
        "is_a_template": False,
        "generation_id": new_generation(call.engine),
        "parent": taken.ref,
    }
    vm = vm_row(call.engine, fields)
    for row in call.db.all("VM"):
        if row["snapshot_of"] == old:
            call.db.set(row, "snapshot_of", vm.ref)
    return vm


def _strip(engine: Engine, vm: Row) -> None:
    if vm["power_state"] != "Halted":
        halt(engine, vm)
    for ref in list(vm["VBDs"]):
        vdi = engine.db.find("VDI", engine.db.rows[ref]["VDI"])
        if vdi is not None and engine.db.rows[ref]["type"] != "CD":
            chains.remove(engine, vdi)
        elif ref in engine.db.rows:
            engine.db.delete(engine.db.rows[ref])
    for ref in [*vm["VIFs"], vm["metrics"]]:
        if ref in engine.db.rows:
            engine.db.delete(engine.db.rows[ref])


def _restore_memory(call: Call, taken: Row, vm: Row) -> None:
    image = call.db.find("VDI", taken["suspend_VDI"])
    if image is None:
        return
    branch = chains.branch(call.engine, image, snapshot=False)
    call.db.update(vm, {"power_state": "Suspended", "suspend_VDI": branch.ref})


@method("VM.provision")
def provision(call: Call, ref: str) -> str:
    """Make the disks a template asks for, and a VM of the template."""
    vm = call.row("VM", ref)
    refuse(vm, "provision")
    with operation(call, vm, "provision"):
        for wanted in _wanted_disks(vm):
            _provide(call, vm, wanted)
        call.db.set(vm, "is_a_template", False)
    return ""


def _wanted_disks(vm: Row) -> list[dict[str, str]]:
    text = vm["other_config"].get("disks", "")
    if not text:
        return []
    if "<!" in text:
        raise Failure("PROVISION_FAILED_OUT_OF_SPACE")
    try:
        return [dict(disk.attrib) for disk in ElementTree.fromstring(text).iter("disk")]
    except ElementTree.ParseError as error:
        raise Failure("INTERNAL_ERROR", f"Xml_light_error({error})") from error


def _provide(call: Call, vm: Row, wanted: dict[str, str]) -> None:
    uuid = wanted.get("sr", "")
    ref = call.db.by_uuid("SR", uuid) if uuid else call.engine.pool["default_SR"]
    sr = call.db.find("SR", ref or NULL)
    if sr is None:
        raise Failure("UUID_INVALID", "SR", uuid) if uuid else Failure("DEFAULT_SR_NOT_FOUND", NULL)
    size = wanted.get("size", "0")
    fields = {"name_label": f"{vm['name_label']} {wanted.get('device', '0')}", "type": "system", "virtual_size": size}
    vdi = chains.make(call.engine, sr, fields)
    vbd_row(
        call.engine,
        {
            "VM": vm.ref,
            "VDI": vdi.ref,
            "userdevice": wanted.get("device", "0"),
            "bootable": wanted.get("bootable") == "true",
            "mode": "RW",
            "type": "Disk",
            "empty": False,
            "unpluggable": True,
            "other_config": {"owner": ""},
        },
    )
