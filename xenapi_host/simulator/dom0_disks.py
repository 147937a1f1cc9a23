"""Disks plugged into the control domain: each is a sparse file dev/DEVICE in that host's dom0 while it is plugged.

A stand-in for the block device that a real dom0 has. The file is filled at the plug and, if it may be written, laid
back over the disk's VHD at the unplug; only blocks that differ are written. Light hosts have no bytes and no files.
"""

from __future__ import annotations

import os
from pathlib import Path

from xenapi_host import vhd
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.vhd_storage import VhdStorage

_PIECE = 64 * 1024


def show(engine: Engine, vbd: Row) -> None:
    """Make the file of a disk that is plugged now. The engine's lock is let go meanwhile."""
    paths = _paths(engine, vbd)
    if paths is None:
        return
    disk, file = paths
    with engine.exclusive("SR", engine.db.get("VDI", vbd["VDI"])["SR"]), engine.unlocked():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        vhd.export_raw_file(disk, file)


def take_back(engine: Engine, vbd: Row) -> None:
    """Lay the file over the disk again and remove it."""
    paths = _paths(engine, vbd)
    if paths is None:
        return
    disk, file = paths
    with engine.exclusive("SR", engine.db.get("VDI", vbd["VDI"])["SR"]), engine.unlocked():
        if vbd["mode"] == "RW" and file.exists():
            lay_over(file, disk)
        file.unlink(missing_ok=True)


def _paths(engine: Engine, vbd: Row) -> tuple[Path, Path] | None:
    """The disk's VHD and its file in dom0; None where there are none."""
    vm, vdi = engine.db.find("VM", vbd["VM"]), engine.db.find("VDI", vbd["VDI"])
    if vm is None or vdi is None or not vm["is_control_domain"] or not isinstance(engine.storage, VhdStorage):
        return None
    dom0 = engine.dom0s.get(vm["resident_on"])
    if dom0 is None:
        return None
    disk = engine.storage.path(engine.db.get("SR", vdi["SR"])["uuid"], vdi["uuid"])
    return disk, dom0.root / "dev" / vbd["device"]


def lay_over(file: Path, leaf: Path) -> None:
    """Write a raw file's bytes into a disk, where they differ."""
    zeros = bytes(_PIECE)
    with open(file, "rb", buffering=0) as raw, vhd.Disk.open(leaf, writable=True) as disk:
        for offset in range(0, disk.size, _PIECE):
            length = min(_PIECE, disk.size - offset)
            held = any(disk.allocated(offset, length))
            if not held and _hole(raw.fileno(), offset, length):
                continue
            new = os.pread(raw.fileno(), length, offset)
            if new != (disk.pread(offset, length) if held else zeros[:length]):
                disk.pwrite(offset, new)


def _hole(fd: int, offset: int, length: int) -> bool:
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= offset + length
    except OSError:  # ENXIO: nothing but a hole from here on
        return True
