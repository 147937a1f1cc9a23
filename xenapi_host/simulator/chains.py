"""Disks in a storage repository: base copies, deletion, and what a scan finds.

A snapshot or clone of a disk renames its file to a new, hidden "base copy" and puts two empty children on it, so the
live disk keeps its uuid while its data moves to another (SM's FileSR). The collector (collector.py) undoes this when
branches are deleted. SR type `dummy` has no chains: its disks are independent.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from xenapi_host.simulator.database import Database, Row
from xenapi_host.simulator.engine import CHAINLESS, Engine
from xenapi_host.simulator.failure import NULL, Failure
from xenapi_host.simulator.storage import BLOCK, Disk, NoRoom, Storage
from xenapi_host.simulator.tracking import Logs

MAX_SIZE_MIB = 2_088_960
MAX_DEPTH = 30
BASE_COPY = "base copy"
NO_DATA = "cbt_metadata"  # the type of a snapshot of which only the change log is left
DUMMY_NOTE = {"samplekey": "This is a dummy SR VDI"}


def rounded(size: int) -> int:
    return max(-(-size // BLOCK), 1) * BLOCK


def has_chains(sr: Row) -> bool:
    return sr["type"] not in CHAINLESS


def invalid_size(reason: str) -> Failure:
    return Failure("SR_BACKEND_FAILURE_79", "", f"VDI Invalid size [opterr={reason}]", "")


def plugged(db: Database, sr: Row) -> bool:
    return any(db.rows[pbd]["currently_attached"] for pbd in sr["PBDs"])


def need_plugged(db: Database, sr: Row) -> None:
    """At least one host that sees the repository must be alive."""
    hosts = [db.rows[db.rows[pbd]["host"]] for pbd in sr["PBDs"] if db.rows[pbd]["currently_attached"]]
    if not hosts:
        raise Failure("SR_HAS_NO_PBDS", sr.ref)
    if not any(db.rows[host["metrics"]]["live"] for host in hosts):
        raise Failure("HOST_OFFLINE", hosts[0].ref)


def need_managed(vdi: Row) -> None:
    """Base copies are the storage driver's own affair."""
    if not vdi["managed"]:
        raise Failure("VDI_NOT_MANAGED", vdi.ref)


def need_data(vdi: Row) -> None:
    if vdi["type"] == NO_DATA:
        raise Failure("VDI_INCOMPATIBLE_TYPE", vdi.ref, NO_DATA)


def no_room(refused: NoRoom) -> Failure:
    return Failure("SR_FULL", str(refused.asked), str(refused.free))


def make(engine: Engine, sr: Row, fields: dict[str, Any]) -> Row:
    """VDI.create: a new disk and its object."""
    size = int(fields["virtual_size"])
    if has_chains(sr):
        if size < 0 or size > MAX_SIZE_MIB * 1024 * 1024:
            raise invalid_size(f"VDI size must be between 1 MB and {MAX_SIZE_MIB} MB")
        size = rounded(size)
    uuid = engine.new_uuid()
    try:
        engine.storage_of(sr).create(sr["uuid"], uuid, size)
    except NoRoom as refused:
        raise no_room(refused) from refused
    known = fields.get("sm_config", {})
    sm_config = {k: v for k, v in known.items() if k == "type"} if has_chains(sr) else DUMMY_NOTE
    kept = {k: v for k, v in fields.items() if k not in ("virtual_size", "sm_config", "SR", "uuid")}
    return engine.db.create(
        "VDI",
        {
            **kept,
            "uuid": uuid,
            "location": uuid,
            "SR": sr.ref,
            "virtual_size": str(size),
            "managed": True,
            "sm_config": sm_config,
        },
    )


def depth(storage: Storage, sr: str, uuid: str) -> int:
    deep, at = 1, storage.disk(sr, uuid).parent
    while at is not None:
        deep, at = deep + 1, storage.disk(sr, at).parent
    return deep


def branch(engine: Engine, vdi: Row, *, snapshot: bool) -> Row:
    """VDI.snapshot and VDI.clone: a second leaf that starts with the same content."""
    need_data(vdi)
    sr = engine.db.get("SR", vdi["SR"])
    with engine.exclusive("VDI", vdi.ref), engine.exclusive("SR", sr.ref):
        return _branch(engine, sr, engine.db.get("VDI", vdi.ref), snapshot=snapshot)


def _branch(engine: Engine, sr: Row, vdi: Row, *, snapshot: bool) -> Row:
    uuid = engine.new_uuid()
    if has_chains(sr):
        parent = _freeze(engine, sr, vdi, uuid)
        sm_config = {"vhd-parent": parent}
    else:
        engine.storage_of(sr).copy(sr["uuid"], vdi["uuid"], sr["uuid"], uuid)
        sm_config = {}
    fields: dict[str, Any] = {
        "uuid": uuid,
        "location": uuid,
        "SR": sr.ref,
        "name_label": vdi["name_label"],
        "name_description": vdi["name_description"],
        "type": vdi["type"],
        "virtual_size": vdi["virtual_size"],
        "sharable": vdi["sharable"],
        "read_only": vdi["read_only"] if has_chains(sr) else snapshot,
        "other_config": vdi["other_config"],
        "xenstore_data": vdi["xenstore_data"],
        "tags": vdi["tags"],
        "on_boot": vdi["on_boot"],
        "managed": True,
        "sm_config": sm_config,
        "metadata_of_pool": NULL,
        "snapshot_time": engine.now(),
    }
    if snapshot:
        logs = Logs.of(engine, sr)
        tracked = logs is not None and logs.snapshot(vdi["uuid"], uuid)
        fields |= {"is_a_snapshot": True, "snapshot_of": vdi.ref, "cbt_enabled": tracked}
    return engine.db.create("VDI", fields)


def _freeze(engine: Engine, sr: Row, vdi: Row, new_uuid: str) -> str:
    """Turn the live file into a base copy with two children; gives the parent the new leaf got."""
    storage, folder, live = engine.storage, sr["uuid"], vdi["uuid"]
    disk = storage.disk(folder, live)
    if disk.empty and disk.parent is not None:
        storage.branch(folder, new_uuid, disk.parent)
        return disk.parent
    if depth(storage, folder, live) >= MAX_DEPTH:
        raise Failure("SR_BACKEND_FAILURE_109", "", "The snapshot chain is too long", "")
    base = engine.new_uuid()
    storage.rename(folder, live, base)
    try:
        storage.branch(folder, live, base)
        storage.branch(folder, new_uuid, base)
    except NoRoom as refused:
        raise no_room(refused) from refused
    storage.hide(folder, base, True)
    introduce(engine, sr, storage.disk(folder, base))
    engine.db.set(vdi, "sm_config", {**vdi["sm_config"], "vhd-parent": base})
    return base


def introduce(engine: Engine, sr: Row, disk: Disk) -> Row:
    """The object of a file that had none: found by a scan, or a new base copy."""
    fields: dict[str, Any] = {
        "uuid": disk.uuid,
        "location": disk.uuid,
        "SR": sr.ref,
        "type": "user",
        "virtual_size": str(disk.virtual_size),
        "managed": not disk.hidden,
        "metadata_of_pool": NULL,
        "sm_config": {"vhd-parent": disk.parent} if disk.parent else {},
    }
    if disk.hidden:
        fields |= {"name_label": BASE_COPY, "read_only": True}
    return engine.db.create("VDI", fields)


def remove(engine: Engine, vdi: Row) -> None:
    """Delete a disk's file and object; snapshots of it forget nothing but are no longer listed."""
    sr = engine.db.get("SR", vdi["SR"])
    with engine.exclusive("SR", sr.ref):
        engine.db.get("VDI", vdi.ref)
        _delete_file(engine, sr, vdi)
        logs = Logs.of(engine, sr)
        if logs is not None:
            logs.remove(vdi["uuid"])
        for vbd in list(vdi["VBDs"]):
            engine.db.delete(engine.db.rows[vbd])
        engine.db.delete(vdi)


def remove_data(engine: Engine, vdi: Row) -> None:
    """Delete a snapshot's file; its object and its change log stay."""
    sr = engine.db.get("SR", vdi["SR"])
    with engine.exclusive("SR", sr.ref):
        vdi = engine.db.get("VDI", vdi.ref)
        _delete_file(engine, sr, vdi)
        config = {key: value for key, value in vdi["sm_config"].items() if key != "vhd-parent"}
        engine.db.update(vdi, {"type": NO_DATA, "sm_config": config})


def _delete_file(engine: Engine, sr: Row, vdi: Row) -> None:
    with suppress(KeyError):  # a file taken away behind our back: the object goes all the same, as XAPI's does
        engine.storage_of(sr).delete(sr["uuid"], vdi["uuid"])


def scan(engine: Engine, sr: Row) -> None:
    """SR.scan: meet new files, forget lost ones, refresh what is known."""
    if not has_chains(sr):
        return
    with engine.exclusive("SR", sr.ref):
        _scan(engine, engine.db.get("SR", sr.ref))


def _scan(engine: Engine, sr: Row) -> None:
    db, folder = engine.db, sr["uuid"]
    disks = {disk.uuid: disk for disk in engine.storage.disks(folder)}
    known = {db.rows[ref]["uuid"]: db.rows[ref] for ref in sr["VDIs"]}
    for uuid, row in known.items():
        disk = disks.get(uuid)
        if row["type"] == NO_DATA:
            continue
        if disk is None:
            for vbd in list(row["VBDs"]):
                db.delete(db.rows[vbd])
            db.delete(row)
        else:
            _refresh(db, row, disk)
    for uuid, disk in disks.items():
        if uuid not in known:
            introduce(engine, sr, disk)


def _refresh(db: Database, row: Row, disk: Disk) -> None:
    without = {k: v for k, v in row["sm_config"].items() if k != "vhd-parent"}
    db.set(row, "sm_config", {**without, "vhd-parent": disk.parent} if disk.parent else without)
    db.set(row, "virtual_size", str(disk.virtual_size))
    if disk.hidden and row["managed"]:
        db.update(row, {"managed": False, "name_label": BASE_COPY, "read_only": True})


def point(engine: Engine, uuid: str, parent: str | None) -> None:
    """A disk's object names the parent that its file has now."""
    ref = engine.db.by_uuid("VDI", uuid)
    if ref is not None:
        row = engine.db.rows[ref]
        config = {k: v for k, v in row["sm_config"].items() if k != "vhd-parent"}
        engine.db.set(row, "sm_config", {**config, "vhd-parent": parent} if parent else config)


def forget(engine: Engine, sr: Row, uuid: str) -> None:
    """The object of a file that has gone."""
    ref = engine.db.by_uuid("VDI", uuid)
    if ref is not None and engine.db.rows[ref]["SR"] == sr.ref:
        engine.db.delete(engine.db.rows[ref])
