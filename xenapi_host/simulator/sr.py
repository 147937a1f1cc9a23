"""Classes SR and PBD: storage repositories, and the plugs that join them to hosts."""

from __future__ import annotations

import re
from typing import Any

from xenapi_host.simulator import chains, collector
from xenapi_host.simulator.call import Call
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.dispatch import method
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.implicit import computed, construct
from xenapi_host.simulator.model import model

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
DEFAULT_SIZE = 2_000_000_000_000

# Per SR type: the operations its driver can do, besides those of every SR.
_EVERY = ["unplug", "plug", "pbd_create", "pbd_destroy", "scan", "vdi_create", "vdi_destroy", "vdi_clone"]
_DISK = ["vdi_resize", "vdi_snapshot", "vdi_mirror"]
_CBT = ["vdi_enable_cbt", "vdi_list_changed_blocks", "vdi_disable_cbt", "update", "vdi_data_destroy"]
OPERATIONS = {
    "dummy": ["vdi_introduce", *_EVERY, *_DISK],
    "file": [*_CBT, *_EVERY, *_DISK],
    "ext": ["vdi_introduce", *_CBT, *_EVERY, *_DISK],
    "nfs": ["vdi_introduce", *_CBT, *_EVERY, *_DISK],
    "iso": _EVERY,
}
_MOUNTED = ("ext", "nfs")  # plugins find these by PBD.device_config["path"]: dom0 is a folder of ours
_LOCATED = {"file": "SR_BACKEND_FAILURE_94", "iso": "SR_BACKEND_FAILURE_220"}


@computed("SR", "allowed_operations")
def allowed_operations(engine: Engine, sr: Row) -> list[str]:
    if sr["current_operations"]:
        return []
    unplugged = ["destroy", "forget"] if not chains.plugged(engine.db, sr) else []
    return [*OPERATIONS.get(sr["type"], _EVERY), *(op for op in unplugged if op == "forget")]


def _space(engine: Engine, sr: Row) -> tuple[int, int]:
    if not sr["PBDs"]:
        return -1, -1
    try:
        space = engine.storage_of(sr).space(sr["uuid"])
    except KeyError:
        return -1, -1
    return space.total, space.used


@computed("SR", "physical_size")
def physical_size(engine: Engine, sr: Row) -> str:
    return str(_space(engine, sr)[0])


@computed("SR", "physical_utilisation")
def physical_utilisation(engine: Engine, sr: Row) -> str:
    return str(_space(engine, sr)[1])


@computed("SR", "virtual_allocation")
def virtual_allocation(engine: Engine, sr: Row) -> str:
    return str(sum(engine.db.rows[ref].number("virtual_size") for ref in sr["VDIs"]))


def _live_host(call: Call, ref: str) -> Row:
    host = call.db.find("host", ref)
    if host is None:
        raise Failure("HOST_OFFLINE", ref)
    return host


def _driver(kind: str) -> None:
    if kind not in OPERATIONS:
        raise Failure("SR_UNKNOWN_DRIVER", kind)


def plug_row(engine: Engine, host: Row, sr: Row, device_config: dict[str, str], *, plugged: bool) -> Row:
    return engine.db.create(
        "PBD", {"host": host.ref, "SR": sr.ref, "device_config": device_config, "currently_attached": plugged}
    )


def mark_plugged(engine: Engine, pbd: Row) -> None:
    """XAPI notes the domain that runs the storage driver, and dom0 sees the SR's folder from now on."""
    host = engine.db.get("host", pbd["host"])
    config = {**pbd["other_config"], "storage_driver_domain": host["control_domain"]}
    engine.db.update(pbd, {"currently_attached": True, "other_config": config})
    dom0 = engine.dom0s.get(host.ref)
    if dom0 is not None:
        sr = engine.db.get("SR", pbd["SR"])
        path = dom0.mount(sr["uuid"])
        if sr["type"] in _MOUNTED:
            engine.db.set(pbd, "device_config", {**pbd["device_config"], "path": path})


@method("SR.create", "SR.make")
def create(
    call: Call,
    host_ref: str,
    device_config: dict[str, str],
    size: str,
    name_label: str,
    name_description: str,
    kind: str,
    content_type: str,
    shared: bool,
    sm_config: dict[str, str] | None = None,
) -> str:
    host = _live_host(call, host_ref)
    _driver(kind)
    if kind in _LOCATED and "location" not in device_config:
        raise Failure(_LOCATED[kind], "", "The request is missing the location parameter", "")
    sr = call.db.create(
        "SR",
        {
            "name_label": name_label,
            "name_description": name_description,
            "type": kind,
            "content_type": content_type,
            "shared": shared,
            "sm_config": sm_config or {},
        },
    )
    total = int(size) or DEFAULT_SIZE
    call.db.set(sr, "physical_size", str(total))
    call.engine.storage_of(sr).open(sr["uuid"], total)
    hosts = call.db.all("host") if shared else [host]
    for member in hosts:
        mark_plugged(call.engine, plug_row(call.engine, member, sr, device_config, plugged=False))
    return sr.ref


@method("SR.introduce")
def introduce(
    call: Call,
    uuid: str,
    name_label: str,
    name_description: str,
    kind: str,
    content_type: str,
    shared: bool,
    sm_config: dict[str, str] | None = None,
) -> str:
    _driver(kind)
    if uuid and _UUID.fullmatch(uuid) is None:  # it names a folder
        raise Failure("UUID_INVALID", "SR", uuid)
    if call.db.by_uuid("SR", uuid) is not None:
        raise Failure("SR_UUID_EXISTS", uuid)
    fields = {"name_label": name_label, "name_description": name_description, "type": kind, "shared": shared}
    sr = call.db.create(
        "SR",
        {**fields, "uuid": uuid or call.engine.new_uuid(), "content_type": content_type, "sm_config": sm_config or {}},
    )
    return sr.ref


def _refuse_plugged(call: Call, sr: Row) -> None:
    if chains.plugged(call.db, sr):
        raise Failure("SR_HAS_PBD", sr.ref)


def _forget(call: Call, sr: Row) -> None:
    for ref in [*sr["VDIs"], *sr["PBDs"]]:
        row = call.db.rows[ref]
        for vbd in list(row["VBDs"]) if row.class_name == "VDI" else []:
            call.db.delete(call.db.rows[vbd])
        call.db.delete(row)
    call.db.delete(sr)


@method("SR.forget")
def forget(call: Call, ref: str) -> str:
    sr = call.row("SR", ref)
    _refuse_plugged(call, sr)
    _forget(call, sr)
    return ""


@method("SR.destroy")
def destroy(call: Call, ref: str) -> str:
    sr = call.row("SR", ref)
    _refuse_plugged(call, sr)
    if not sr["PBDs"]:
        raise Failure("SR_HAS_NO_PBDS", ref)
    if sr["VDIs"]:
        raise Failure("SR_NOT_EMPTY", ref)
    call.engine.storage_of(sr).close(sr["uuid"])
    _forget(call, sr)
    return ""


@method("SR.scan")
def scan(call: Call, ref: str) -> str:
    sr = call.row("SR", ref)
    chains.need_plugged(call.db, sr)
    with call.at_work(scan=sr):
        chains.scan(call.engine, sr)
    collector.kick(call.engine, sr)
    return ""


@method("SR.update")
def update(call: Call, ref: str) -> str:
    chains.need_plugged(call.db, call.row("SR", ref))
    return ""


@method("SR.probe")
def probe(call: Call, host_ref: str, device_config: Any, kind: str, sm_config: Any = None) -> str:
    _live_host(call, host_ref)
    _driver(kind)
    raise Failure("SR_BACKEND_FAILURE_202", "", "General backend error [opterr=this driver cannot probe]", "")


@method("SR.get_supported_types")
def supported_types(call: Call) -> list[str]:
    return sorted({row["type"] for row in call.db.all("SM")})


@method("SR.set_name_label", "SR.set_name_description", "SR.set_shared", "SR.set_physical_size")
def set_field(call: Call, ref: str, value: Any) -> str:
    call.db.set(call.row("SR", ref), call.method.removeprefix("SR.set_"), value)
    return ""


@method("SR.assert_can_host_ha_statefile", "SR.assert_supports_database_replication")
def unsupported(call: Call, ref: str) -> str:
    raise Failure("SR_OPERATION_NOT_SUPPORTED", call.row("SR", ref).ref)


@method("PBD.create")
def pbd_create(call: Call, given: Any) -> str:
    fields = construct(model().classes["PBD"], given)
    host, sr = call.row("host", fields["host"]), call.row("SR", fields["SR"])
    for ref in sr["PBDs"]:
        if call.db.rows[ref]["host"] == host.ref:
            raise Failure("PBD_EXISTS", sr.ref, host.ref, ref)
    return call.db.create("PBD", fields).ref


@method("PBD.plug")
def plug(call: Call, ref: str) -> str:
    pbd = call.row("PBD", ref)
    if not pbd["currently_attached"]:
        call.shares_lock()
        sr = call.row("SR", pbd["SR"])
        call.engine.storage_of(sr).open(sr["uuid"], DEFAULT_SIZE)
        mark_plugged(call.engine, pbd)
        chains.scan(call.engine, sr)
    return ""


@method("PBD.unplug")
def unplug(call: Call, ref: str) -> str:
    pbd = call.row("PBD", ref)
    if not pbd["currently_attached"]:
        return ""
    sr = call.row("SR", pbd["SR"])
    for vdi in sr["VDIs"]:
        for vbd in call.db.rows[vdi]["VBDs"]:
            row = call.db.rows[vbd]
            if row["currently_attached"] and call.db.rows[row["VM"]]["resident_on"] == pbd["host"]:
                raise Failure("VDI_IN_USE", vdi, "PBD.unplug")
    call.db.set(pbd, "currently_attached", False)
    return ""


@method("PBD.destroy")
def pbd_destroy(call: Call, ref: str) -> str:
    pbd = call.row("PBD", ref)
    if pbd["currently_attached"]:
        raise Failure("OPERATION_NOT_ALLOWED", "PBD is currently attached")
    call.db.delete(pbd)
    return ""
