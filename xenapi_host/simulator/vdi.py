"""Class VDI: disks as a client sees them. The rules of their files are in chains.py."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import Any

from xenapi_host.simulator import chains, collector
from xenapi_host.simulator.call import Call
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.dispatch import method
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import NULL, Failure
from xenapi_host.simulator.implicit import computed, construct
from xenapi_host.simulator.model import model
from xenapi_host.simulator.storage import NoRoom
from xenapi_host.simulator.tracking import Logs
from xenapi_host.simulator.wire_types import EPOCH_TEXT, date

_HALTED = ["forget", "destroy", "snapshot", "resize", "copy", "clone"]
_SUPPORTS_CONFIG = ("file", "ext", "nfs")


def attached(engine: Engine, vdi: Row) -> list[Row]:
    return [vbd for ref in vdi["VBDs"] if (vbd := engine.db.rows[ref])["currently_attached"]]


@computed("VDI", "allowed_operations")
def allowed_operations(engine: Engine, vdi: Row) -> list[str]:
    if vdi["current_operations"]:
        return []
    if vdi["type"] == chains.NO_DATA:
        return ["forget", "destroy"]
    sr = engine.db.find("SR", vdi["SR"])
    configurable = sr is not None and sr["type"] in _SUPPORTS_CONFIG
    if attached(engine, vdi):
        return (["generate_config"] if configurable else []) + ["snapshot", "clone"]
    allowed = [op for op in _HALTED if op != "snapshot" or not vdi["sharable"]]
    return (["generate_config"] if configurable else []) + allowed


@computed("VDI", "physical_utilisation")
def physical_utilisation(engine: Engine, vdi: Row) -> str:
    sr = engine.db.find("SR", vdi["SR"])
    if sr is None:
        return "0"
    if vdi["sm_config"].get("type") == "raw" or not chains.has_chains(sr):
        return "0" if vdi["is_a_snapshot"] and not chains.has_chains(sr) else str(vdi["virtual_size"])
    try:
        return str(engine.storage_of(sr).disk(sr["uuid"], vdi["uuid"]).physical_size)
    except KeyError:
        return "0"


def refuse_in_use(call: Call, vdi: Row, operation: str) -> None:
    for task, running in vdi["current_operations"].items():
        raise Failure("OTHER_OPERATION_IN_PROGRESS", "VDI", vdi.ref, running, task)
    if attached(call.engine, vdi) or ("VDI", vdi.ref) in call.engine.busy:
        raise Failure("VDI_IN_USE", vdi.ref, operation)


def sr_of(call: Call, vdi: Row) -> Row:
    sr = call.row("SR", vdi["SR"])
    chains.need_plugged(call.db, sr)
    return sr


@method("VDI.create")
def create(call: Call, given: Any) -> str:
    fields = construct(model().classes["VDI"], given)
    sr = call.row("SR", fields["SR"])
    chains.need_plugged(call.db, sr)
    call.shares_lock()
    return chains.make(call.engine, sr, fields).ref


@method("VDI.destroy")
def destroy(call: Call, ref: str) -> str:
    vdi = call.row("VDI", ref)
    sr = sr_of(call, vdi)
    chains.need_managed(vdi)
    refuse_in_use(call, vdi, "destroy")
    with call.at_work(destroy=vdi):
        chains.remove(call.engine, vdi)
        for vm in call.db.all("VM"):
            if vm["suspend_VDI"] == ref:
                call.db.set(vm, "suspend_VDI", NULL)
    collector.kick(call.engine, sr)
    return ""


@method("VDI.snapshot")
def snapshot(call: Call, ref: str, driver_params: Any = None) -> str:
    vdi = call.row("VDI", ref)
    sr_of(call, vdi)
    chains.need_managed(vdi)
    with call.at_work(snapshot=vdi):
        return chains.branch(call.engine, vdi, snapshot=True).ref


@method("VDI.clone")
def clone(call: Call, ref: str, driver_params: Any = None) -> str:
    vdi = call.row("VDI", ref)
    sr_of(call, vdi)
    chains.need_managed(vdi)
    with call.at_work(clone=vdi):
        return chains.branch(call.engine, vdi, snapshot=False).ref


@method("VDI.resize", "VDI.resize_online")
def resize(call: Call, ref: str, size: str) -> str:
    vdi = call.row("VDI", ref)
    sr = sr_of(call, vdi)
    chains.need_managed(vdi)
    chains.need_data(vdi)
    refuse_in_use(call, vdi, "resize")
    wanted = int(size)
    if chains.has_chains(sr):
        if wanted > chains.MAX_SIZE_MIB * 1024 * 1024:
            raise chains.invalid_size(f"VDI size must be between 1 MB and {chains.MAX_SIZE_MIB} MB")
        if wanted < vdi.number("virtual_size"):
            raise chains.invalid_size("shrinking not allowed")
        wanted = chains.rounded(wanted)
    with call.at_work(resize=vdi), call.engine.exclusive("SR", sr.ref):
        call.row("VDI", ref)
        call.engine.storage_of(sr).resize(sr["uuid"], vdi["uuid"], wanted)
        logs = Logs.of(call.engine, sr)
        if logs is not None:
            logs.resize(vdi["uuid"], wanted)
        call.db.set(vdi, "virtual_size", str(wanted))
    return ""


def _copy_bytes(call: Call, source: Row, uuid: str, sr: Row, new_uuid: str, size: int) -> None:
    """From or to a repository that keeps sizes only, there is nothing to carry but the size. The lock is let go."""
    take, give = call.engine.storage_of(source), call.engine.storage_of(sr)
    if take is give:
        give.copy(source["uuid"], uuid, sr["uuid"], new_uuid, report=call.tell_progress)
    elif size:
        give.create(sr["uuid"], new_uuid, chains.rounded(size) if chains.has_chains(sr) else size)


def copied(call: Call, vdi: Row, sr: Row) -> Row:
    """A full copy, flattened, in the given SR."""
    chains.need_data(vdi)
    engine = call.engine
    uuid = engine.new_uuid()
    source = call.row("SR", vdi["SR"])
    with ExitStack() as held:
        for ref in sorted({source.ref, sr.ref}):  # always in this order, so that two copies cannot wait for each other
            held.enter_context(engine.exclusive("SR", ref))
        call.row("VDI", vdi.ref)
        held.enter_context(call.at_work(copy=vdi))
        try:
            with engine.unlocked():
                _copy_bytes(call, source, vdi["uuid"], sr, uuid, vdi.number("virtual_size"))
        except (NoRoom, Failure) as refused:
            with suppress(KeyError):  # half a copy is of no use to anybody
                engine.storage_of(sr).delete(sr["uuid"], uuid)
            raise chains.no_room(refused) if isinstance(refused, NoRoom) else refused from None
        return _copy_row(call, vdi, sr, uuid)


def _copy_row(call: Call, vdi: Row, sr: Row, uuid: str) -> Row:
    kept = (
        "name_label",
        "name_description",
        "type",
        "virtual_size",
        "sharable",
        "other_config",
        "xenstore_data",
        "tags",
    )
    fields: dict[str, Any] = {field: vdi[field] for field in kept}
    sm_config = {} if chains.has_chains(sr) else chains.DUMMY_NOTE
    return call.db.create(
        "VDI",
        {**fields, "uuid": uuid, "location": uuid, "SR": sr.ref, "managed": True, "sm_config": sm_config},
    )


@method("VDI.copy")
def copy(call: Call, ref: str, sr_ref: str = NULL, base_vdi: str = NULL, into_vdi: str = NULL) -> str:
    vdi = call.row("VDI", ref)
    chains.need_managed(vdi)
    if into_vdi != NULL:
        return _copy_into(call, vdi, call.row("VDI", into_vdi))
    sr = call.row("SR", sr_ref)
    chains.need_plugged(call.db, sr)
    sr_of(call, vdi)
    return copied(call, vdi, sr).ref


def _copy_into(call: Call, vdi: Row, target: Row) -> str:
    if target.number("virtual_size") < vdi.number("virtual_size"):
        raise Failure("VDI_TOO_SMALL", target.ref, vdi["virtual_size"])
    chains.need_data(vdi)
    refuse_in_use(call, target, "copy")
    source, into = sr_of(call, vdi), sr_of(call, target)
    call.let_cancel()
    try:
        with call.engine.unlocked():
            _copy_bytes(call, source, vdi["uuid"], into, target["uuid"], 0)
    except NoRoom as refused:
        raise chains.no_room(refused) from refused
    return target.ref


@method("VDI.introduce")
def introduce(
    call: Call,
    uuid: str,
    name_label: str,
    name_description: str,
    sr_ref: str,
    kind: str,
    sharable: bool,
    read_only: bool,
    other_config: dict[str, str],
    location: str,
    xenstore_data: dict[str, str] | None = None,
    sm_config: dict[str, str] | None = None,
    managed: bool = True,
    virtual_size: str = "0",
    physical_utilisation: str = "0",
    metadata_of_pool: str = NULL,
    is_a_snapshot: bool = False,
    snapshot_time: Any = None,
    snapshot_of: str = NULL,
) -> str:
    sr = call.row("SR", sr_ref)
    if sr["type"] == "file":  # SM's plain file driver has no VDI_INTRODUCE; ext and nfs have
        raise Failure("SR_OPERATION_NOT_SUPPORTED", sr.ref)
    chains.need_plugged(call.db, sr)
    at = location.removesuffix(".vhd").rpartition("/")[2] or uuid
    try:
        disk = call.engine.storage_of(sr).disk(sr["uuid"], at)
    except KeyError:
        raise Failure("SR_BACKEND_FAILURE_46", "", f"The VDI is not available [opterr={at} not found]", "") from None
    known = next((row for ref in sr["VDIs"] if (row := call.db.rows[ref])["location"] == at), None)
    if known is not None and known["uuid"] != uuid:
        raise Failure("LOCATION_NOT_UNIQUE", sr.ref, at)
    if known is not None:  # told again: what belongs to XenAPI's side is taken over, names where there are any
        names = {"name_label": name_label, "name_description": name_description}
        call.db.update(known, {field: name for field, name in names.items() if name})
        told = {"type": kind, "sharable": sharable, "other_config": other_config}
        call.db.update(known, {**told, "xenstore_data": xenstore_data or {}})
        return known.ref
    if uuid and uuid != at:  # the driver looks for the file of this name
        raise Failure("SR_BACKEND_FAILURE_46", "", f"The VDI is not available [opterr={uuid} not found]", "")
    return call.db.create(
        "VDI",
        {
            "uuid": uuid or at,
            "name_label": name_label,
            "name_description": name_description,
            "SR": sr.ref,
            "type": kind,
            "sharable": sharable,
            "read_only": read_only,
            "other_config": other_config,
            "location": at,
            "xenstore_data": xenstore_data or {},
            "sm_config": {**(sm_config or {}), **({"vhd-parent": disk.parent} if disk.parent else {})},
            "managed": managed,
            "virtual_size": str(disk.virtual_size),
            "is_a_snapshot": is_a_snapshot,
            "snapshot_of": snapshot_of,
            "snapshot_time": snapshot_time or date(EPOCH_TEXT),
        },
    ).ref


@method("VDI.forget")
def forget(call: Call, ref: str) -> str:
    vdi = call.row("VDI", ref)
    refuse_in_use(call, vdi, "forget")
    for vbd in list(vdi["VBDs"]):
        call.db.delete(call.db.rows[vbd])
    call.db.delete(vdi)
    return ""


@method("VDI.update")
def update(call: Call, ref: str) -> str:
    call.row("VDI", ref)
    return ""


@method("VDI.set_name_label")
def set_name_label(call: Call, ref: str, value: str) -> str:
    call.db.set(call.row("VDI", ref), "name_label", value)
    return ""


@method("VDI.set_name_description")
def set_name_description(call: Call, ref: str, value: str) -> str:
    call.db.set(call.row("VDI", ref), "name_description", value)
    return ""


@method("VDI.set_allow_caching")
def set_allow_caching(call: Call, ref: str, value: bool) -> str:
    call.db.set(call.row("VDI", ref), "allow_caching", value)
    return ""


@method("VDI.set_on_boot")
def set_on_boot(call: Call, ref: str, value: str) -> str:
    vdi = call.row("VDI", ref)
    refuse_in_use(call, vdi, "set_on_boot")
    call.db.set(vdi, "on_boot", value)
    return ""
