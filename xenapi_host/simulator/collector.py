"""The collector of a repository: what deletions have left over is merged away, one step after another.

SM's rules (drivers/cleanup.py): a hidden disk without children goes; a hidden disk with one child is merged with it,
downwards; last of all a lone leaf takes its parent's place. It is kicked by SR.scan, VDI.destroy and
VDI.data_destroy, and works in the background: a client sees its work by looking again. An SR's other_config
`gc=false` stops all of it, `coalesce=false` all merging, `leaf-coalesce=false` (there or at a disk) that of leaves.
"""

from __future__ import annotations

import logging

from xenapi_host import vhd
from xenapi_host.simulator import chains
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.engine import Engine, at_once
from xenapi_host.simulator.storage import Disk, NoRoom

_LOG = logging.getLogger(__name__)
_OFF = "false"
Children = dict[str, list[Disk]]


def kick(engine: Engine, sr: Row) -> None:
    """Let the collector of this repository look for work: in the background, or now for light hosts. One that is at
    work already looks once more when it has done."""
    if not chains.has_chains(sr):
        return
    if engine.spawn is at_once:
        collect(engine, sr)
        return
    running, again = ("collector", sr.ref), ("collector again", sr.ref)
    if running in engine.busy:
        engine.busy.add(again)
        return
    engine.busy |= {running, again}

    def work() -> None:
        with engine.lock:
            try:
                while again in engine.busy:
                    engine.busy.discard(again)
                    collect(engine, sr)
                    engine.after_call()
            finally:
                engine.busy -= {running, again}

    engine.spawn(work)


def collect(engine: Engine, sr: Row) -> None:
    """Step after step until nothing is left to merge. Lets the lock go while it copies. A step that fails (no room, a
    damaged file, a disk that is being written) is left out."""
    failed: set[str] = set()
    with engine.exclusive("SR", sr.ref):
        while sr.ref in engine.db.rows and chains.plugged(engine.db, sr) and _step(engine, sr, failed):
            pass


def _step(engine: Engine, sr: Row, failed: set[str]) -> bool:
    if sr["other_config"].get("gc") == _OFF:
        return False
    disks = {disk.uuid: disk for disk in engine.storage.disks(sr["uuid"])}
    children: Children = {}
    for disk in disks.values():
        if disk.parent is not None:
            children.setdefault(disk.parent, []).append(disk)
    for disk in disks.values():
        if disk.hidden and disk.uuid not in children:
            engine.storage.delete(sr["uuid"], disk.uuid)
            chains.forget(engine, sr, disk.uuid)
            return True
    if sr["other_config"].get("coalesce") == _OFF:
        return False
    lone = [
        (disk, children[disk.uuid][0])
        for disk in disks.values()
        if disk.hidden and len(children[disk.uuid]) == 1 and children[disk.uuid][0].uuid not in failed
    ]
    lone.sort(key=lambda pair: not pair[1].hidden)  # inner ones first
    for parent, child in lone:
        if child.hidden or _may_merge_leaf(engine, sr, child):
            try:
                _merge(engine, sr, parent, child, children)
            except (NoRoom, OSError, vhd.VhdError, vhd.VhdInUse) as error:
                _LOG.warning("%s is not merged with its parent: %s", child.uuid, error)
                failed.add(child.uuid)
            return True
    return False


def _may_merge_leaf(engine: Engine, sr: Row, leaf: Disk) -> bool:
    vdi = engine.db.find("VDI", engine.db.by_uuid("VDI", leaf.uuid) or "")
    if vdi is None:
        return bool(sr["other_config"].get("leaf-coalesce") != _OFF)
    if _OFF in (sr["other_config"].get("leaf-coalesce"), vdi["other_config"].get("leaf-coalesce")):
        return False
    return vdi["on_boot"] != "reset" and ("VDI", vdi.ref) not in engine.busy


def _merge(engine: Engine, sr: Row, parent: Disk, child: Disk, children: Children) -> None:
    """The child's blocks go down into its parent, which then stands in the child's place."""
    storage, folder = engine.storage, sr["uuid"]
    with engine.unlocked():
        storage.coalesce(folder, child.uuid)
    storage.resize(folder, parent.uuid, max(child.virtual_size, parent.virtual_size))
    if child.hidden:
        for grandchild in children.get(child.uuid, []):
            storage.relink(folder, grandchild.uuid, parent.uuid)
            chains.point(engine, grandchild.uuid, parent.uuid)
        storage.delete(folder, child.uuid)
        chains.forget(engine, sr, child.uuid)
        return
    storage.replace(folder, parent.uuid, child.uuid)
    chains.forget(engine, sr, parent.uuid)
    chains.point(engine, child.uuid, parent.parent)
