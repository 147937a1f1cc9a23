"""Disks in a storage repository: base copies, coalescing, and what a scan finds.

A snapshot or clone of a disk renames its file to a new, hidden "base copy" and puts two empty children on it, so the
live disk keeps its uuid while its data moves to another (SM's FileSR). The collector undoes this when branches are
deleted: hidden nodes without children go, a hidden node with one child is merged with it. SR type `dummy` has no
chains: its disks are independent.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from xenapi_host.simulator.database import Database, Row
from xenapi_host.simulator.engine import CHAINLESS, Engine, at_once
from xenapi_host.simulator.failure import NULL, Failure
from xenapi_host.simulator.storage import BLOCK, Disk, NoRoom, Storage

MAX_SIZE_MIB = 2_088_960
MAX_DEPTH = 30
BASE_COPY = "base copy"
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
    if not plugged(db, sr):
        raise Failure("SR_HAS_NO_PBDS", sr.ref)


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
    sr = engine.db.get("SR", vdi["SR"])
    with engine.exclusive("SR", sr.ref):
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
        fields |= {"is_a_snapshot": True, "snapshot_of": vdi.ref}
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
        _remove(engine, sr, vdi)


def _remove(engine: Engine, sr: Row, vdi: Row) -> None:
    with suppress(KeyError):  # a file taken away behind our back: the object goes all the same, as XAPI's does
        engine.storage_of(sr).delete(sr["uuid"], vdi["uuid"])
    for vbd in list(vdi["VBDs"]):
        engine.db.delete(engine.db.rows[vbd])
    engine.db.delete(vdi)


def scan(engine: Engine, sr: Row) -> None:
    """SR.scan: meet new files, forget lost ones, refresh what is known, then collect."""
    if not has_chains(sr):
        return
    collect(engine, sr)
    db, folder = engine.db, sr["uuid"]
    disks = {disk.uuid: disk for disk in engine.storage.disks(folder)}
    known = {db.rows[ref]["uuid"]: db.rows[ref] for ref in sr["VDIs"]}
    for uuid, row in known.items():
        disk = disks.get(uuid)
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


def collect(engine: Engine, sr: Row) -> None:
    """The collector: one pass after another until a pass finds nothing to merge. Lets the lock go while it copies."""
    with engine.exclusive("SR", sr.ref):
        while sr.ref in engine.db.rows and plugged(engine.db, sr) and _collect_once(engine, sr):
            pass


def collect_soon(engine: Engine, sr: Row) -> None:
    """Kick the collector, as XAPI does after a disk was destroyed: in the background, or now for light hosts."""
    if not has_chains(sr):
        return
    if engine.spawn is at_once:
        collect(engine, sr)
        return

    def work() -> None:
        with engine.lock:
            collect(engine, sr)
            engine.after_call()

    engine.spawn(work)


def _collect_once(engine: Engine, sr: Row) -> bool:
    storage, folder = engine.storage, sr["uuid"]
    disks = {disk.uuid: disk for disk in storage.disks(folder)}
    children: dict[str, list[Disk]] = {}
    for disk in disks.values():
        if disk.parent is not None:
            children.setdefault(disk.parent, []).append(disk)
    for disk in disks.values():
        below = children.get(disk.uuid, [])
        if disk.hidden and not below:
            storage.delete(folder, disk.uuid)
            _forget(engine, sr, disk.uuid)
            return True
    if sr["other_config"].get("coalesce") == "false":
        return False
    for disk in disks.values():
        below = children.get(disk.uuid, [])
        if disk.hidden and len(below) == 1 and _may_merge(engine, sr, below[0]):
            _merge(engine, sr, disk, below[0], children.get(below[0].uuid, []))
            return True
    return False


def _may_merge(engine: Engine, sr: Row, child: Disk) -> bool:
    if child.hidden:
        return True
    ref = engine.db.by_uuid("VDI", child.uuid)
    config = engine.db.rows[ref]["other_config"] if ref else {}
    return "false" not in (config.get("leaf-coalesce"), sr["other_config"].get("leaf-coalesce"))


def _merge(engine: Engine, sr: Row, parent: Disk, child: Disk, grandchildren: list[Disk]) -> None:
    """The child's blocks go down into its parent, which then stands in the child's place."""
    storage, folder = engine.storage, sr["uuid"]
    with engine.unlocked():
        storage.coalesce(folder, child.uuid)
    storage.resize(folder, parent.uuid, max(child.virtual_size, parent.virtual_size))
    if child.hidden:
        for grandchild in grandchildren:
            storage.relink(folder, grandchild.uuid, parent.uuid)
            _point(engine, grandchild.uuid, parent.uuid)
        storage.delete(folder, child.uuid)
        _forget(engine, sr, child.uuid)
        return
    storage.delete(folder, child.uuid)
    storage.rename(folder, parent.uuid, child.uuid)
    storage.hide(folder, child.uuid, False)
    _forget(engine, sr, parent.uuid)
    _point(engine, child.uuid, parent.parent)


def _point(engine: Engine, uuid: str, parent: str | None) -> None:
    ref = engine.db.by_uuid("VDI", uuid)
    if ref is not None:
        row = engine.db.rows[ref]
        config = {k: v for k, v in row["sm_config"].items() if k != "vhd-parent"}
        engine.db.set(row, "sm_config", {**config, "vhd-parent": parent} if parent else config)


def _forget(engine: Engine, sr: Row, uuid: str) -> None:
    ref = engine.db.by_uuid("VDI", uuid)
    if ref is not None and engine.db.rows[ref]["SR"] == sr.ref:
        engine.db.delete(engine.db.rows[ref])
