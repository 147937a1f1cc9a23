#!/usr/bin/env python3
"""Plugin: a disk's inside, while the disk is plugged into dom0: auto-disk-config, fresh disks, small images.

    version  {} -> {version, functions}
    grow     {disk} -> {done, reason, size}               partition and file system up to the disk's end
    shrink   {disk, size} -> {done, reason, size}         file system and partition down to `size` bytes
    copy     {source, disk, size} -> {copied}             the first `size` bytes, holes left out
    make     {disk, kind: ext3 | ext4 | swap, label} -> {made}    a whole disk as one file system; its own is kept
    write    {disk, data} -> {written}                    base64; optional: packed (by zlib), offset (else 0)

A disk is {device, sr, vdi}: the name XAPI gives its block device, and the uuids by which storage knows it. Sizes are
bytes. Only what auto-disk-config has always meant is touched: exactly one partition, number 1, of a PC partition
table, or no table at all, and ext3 or ext4 inside. Any other layout is left alone, `done` false and `reason` why.

The tools of e2fsprogs work on the disk itself, told where the file system begins; no partition device is needed.
"""

import base64
import binascii
import os
import struct
import sys
import tempfile
import zlib
from typing import TYPE_CHECKING, Any, Callable, Dict, List, NamedTuple, Optional, Tuple

# In dom0 the scripts lie side by side in one folder; type checkers know them as a package.
if TYPE_CHECKING:
    from xenapi_host.plugins.celltree_device import device_path, exactly, need, read_at, size_of, written
    from xenapi_host.plugins.celltree_plugin import Params, PermanentError, dispatch, number, run, text
else:
    # Every entry of the plugin folder is a plugin to XAPI; a __pycache__ must not appear there.
    sys.dont_write_bytecode = True
    from celltree_device import device_path, exactly, need, read_at, size_of, written
    from celltree_plugin import Params, PermanentError, dispatch, number, run, text

VERSION = "1.1"
SECTOR = 512
_ENTRIES = 446  # where the four entries of 16 bytes are in the first sector
_EXTENDED = (0x05, 0x0F, 0x85)
_PROTECTIVE = 0xEE  # the one entry that covers a GPT
_BEYOND_CYLINDERS = b"\xfe\xff\xff"
_LAST_SECTOR = 0xFFFFFFFF
_PIECE = 4 * 1024 * 1024
_MOST_WRITTEN = 16 * 1024 * 1024


class LeftAlone(Exception):
    """The disk is not of the kind that is resized; the text says why."""


class Layout(NamedTuple):
    """Where the file system is, in sectors. `entry`: where its partition's entry is in the first sector, or None."""

    start: int
    entry: Optional[int]


def version(params: Params) -> Dict[str, Any]:
    return {"version": VERSION, "functions": sorted(FUNCTIONS)}


def grow(params: Params) -> Dict[str, Any]:
    path = device_path(params, "disk")
    size = size_of(path)
    try:
        layout = _layout(path)
        _check(path, layout)
        _set_length(path, layout, size // SECTOR - layout.start)
        _resize(path, layout, size // SECTOR - layout.start)
    except LeftAlone as left:
        return {"done": False, "reason": str(left), "size": size}
    return {"done": True, "reason": "", "size": size}


def shrink(params: Params) -> Dict[str, Any]:
    path = device_path(params, "disk")
    size = number(params, "size", 0)
    try:
        layout = _layout(path)
        _check(path, layout)
        sectors = size // SECTOR - layout.start
        _refuse_too_small(path, layout, sectors)
        _resize(path, layout, sectors)
        _set_length(path, layout, sectors)
    except LeftAlone as left:
        return {"done": False, "reason": str(left), "size": size_of(path)}
    return {"done": True, "reason": "", "size": size}


def copy(params: Params) -> Dict[str, Any]:
    source, target = device_path(params, "source"), device_path(params, "disk")
    size = number(params, "size", 0)
    if size > size_of(source) or size > size_of(target):
        raise PermanentError("params.size is more than one of the disks has")
    copied = 0
    zeros = bytes(_PIECE)
    with open(source, "rb", buffering=0) as reader, open(target, "r+b", buffering=0) as writer:
        for offset in range(0, size, _PIECE):
            piece = exactly(reader.fileno(), min(_PIECE, size - offset), offset)
            if piece != zeros[: len(piece)]:
                written(writer.fileno(), piece, offset)
                copied += len(piece)
        os.fsync(writer.fileno())
    return {"copied": copied}


def make(params: Params) -> Dict[str, Any]:
    path = device_path(params, "disk")
    kind, label = text(params, "kind"), text(params, "label")
    if not label.replace("-", "").isalnum() or len(label) > 16:
        raise PermanentError("params.label must be at most 16 letters, digits and hyphens")
    if kind == "swap":
        made = read_at(path, 4086, 10) != b"SWAPSPACE2"
        if made:
            _make_swap(path, label)
    elif kind in ("ext3", "ext4"):
        made = _file_system(path, Layout(0, None)) != kind
        if made:
            need("mke2fs", "-q", "-F", "-t", kind, "-L", label, path)
    else:
        raise PermanentError(f"params.kind must be ext3, ext4 or swap, not {kind!r}")
    return {"made": made}


def write(params: Params) -> Dict[str, Any]:
    path = device_path(params, "disk")
    try:
        data = base64.b64decode(text(params, "data"), validate=True)
    except binascii.Error as error:
        raise PermanentError(f"params.data is not base64: {error}") from error
    if params.get("packed"):
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(data, _MOST_WRITTEN)
        if not unpacker.eof:
            raise PermanentError(f"params.data is cut short or has more than {_MOST_WRITTEN} bytes")
    offset = params.get("offset", 0)
    if not isinstance(offset, int) or offset < 0 or offset + len(data) > min(_MOST_WRITTEN, size_of(path)):
        raise PermanentError(f"params.data has {len(data)} bytes, more than the disk takes there")
    with open(path, "r+b", buffering=0) as writer:
        written(writer.fileno(), data, offset)
        os.fsync(writer.fileno())
    return {"written": len(data)}


FUNCTIONS: Dict[str, Callable[[Params], Any]] = {
    "version": version,
    "grow": grow,
    "shrink": shrink,
    "copy": copy,
    "make": make,
    "write": write,
}


# --- what is on it ---


def _layout(path: str) -> Layout:
    """Where the one file system is; LeftAlone when the disk is not of the kind that is resized."""
    sector = read_at(path, 0, SECTOR)
    if read_at(path, SECTOR, 8) == b"EFI PART":
        raise LeftAlone("the disk has a GPT partition table")
    entries = _entries(sector)
    if entries and any(kind == _PROTECTIVE for _, kind, _ in entries):
        raise LeftAlone("the disk has a GPT partition table")
    if not entries:
        layout = Layout(0, None)
    elif len(entries) > 1:
        raise LeftAlone(f"the disk has {len(entries)} partitions")
    else:
        place, kind, start = entries[0]
        if place != 0:
            raise LeftAlone(f"the disk's partition is number {place + 1}, not 1")
        if kind in _EXTENDED:
            raise LeftAlone("the disk's partition is an extended one")
        if start == 0 or start * SECTOR >= size_of(path):
            raise LeftAlone("the disk's partition begins outside the disk")
        layout = Layout(start, _ENTRIES)
    found = _file_system(path, layout)
    where = "partition" if layout.entry is not None else "disk"
    if not found:
        raise LeftAlone(f"the {where} holds no ext3 or ext4 file system")
    if found == "ext2":
        raise LeftAlone(f"the {where} holds an ext2 file system, not ext3 or ext4")
    return layout


def _entries(sector: bytes) -> List[Tuple[int, int, int]]:
    """(place, type, first sector) of each partition of a PC table; none when there is no table."""
    if len(sector) < SECTOR or sector[510:] != b"\x55\xaa":
        return []
    found = []
    for place in range(4):
        entry = sector[_ENTRIES + 16 * place : _ENTRIES + 16 * place + 16]
        start, length = struct.unpack("<II", entry[8:])
        if entry[4] and length:
            found.append((place, entry[4], start))
    return found


def _file_system(path: str, layout: Layout) -> str:
    """ext2, ext3, ext4 or "", by the features in its superblock."""
    block = read_at(path, layout.start * SECTOR + 1024, 264)
    if len(block) < 264 or block[56:58] != b"\x53\xef":
        return ""
    compatible, incompatible, _ = struct.unpack("<III", block[92:104])
    if incompatible & 0x08:  # a journal of another file system
        return ""
    if incompatible & 0x3C0:  # extents, 64bit, mmp, flex_bg: only ext4 has these
        return "ext4"
    return "ext3" if compatible & 0x04 else "ext2"


def _set_length(path: str, layout: Layout, sectors: int) -> None:
    """Give the partition this many sectors; all else in the table, the boot flag and type too, stays."""
    if layout.entry is None:
        return
    sector = bytearray(read_at(path, 0, SECTOR))
    at = layout.entry
    if sectors > _LAST_SECTOR or layout.start + sectors > _LAST_SECTOR:
        raise LeftAlone("a PC partition table cannot hold a partition of more than 2 TiB")
    sector[at + 5 : at + 8] = _BEYOND_CYLINDERS
    struct.pack_into("<I", sector, at + 12, sectors)
    with open(path, "r+b", buffering=0) as disk:
        written(disk.fileno(), bytes(sector), 0)
        os.fsync(disk.fileno())


# --- e2fsprogs ---


def _at(path: str, layout: Layout) -> str:
    return f"{path}?offset={layout.start * SECTOR}" if layout.start else path


def _check(path: str, layout: Layout) -> None:
    """resize2fs takes only a file system that was checked; the journal is replayed on the way."""
    code, said = run("e2fsck", "-f", "-p", _at(path, layout))
    if code & ~3:  # 1 and 2: errors were put right
        if "unsupported" in said:
            raise LeftAlone("the file system has features that the host's tools do not know")
        raise LeftAlone("the file system has errors that need a person (e2fsck)")


def _refuse_too_small(path: str, layout: Layout, sectors: int) -> None:
    _, said = run("resize2fs", "-P", _at(path, layout))
    blocks = int(said.rsplit(":", 1)[-1].split()[0]) if ":" in said else 0
    size = 1024 << struct.unpack("<I", read_at(path, layout.start * SECTOR + 1024 + 24, 4))[0]
    if sectors <= 0 or blocks * size > sectors * SECTOR:
        need = blocks * size + layout.start * SECTOR
        raise LeftAlone(f"what the disk holds needs {-(-need // 1024**2)} MiB")


def _resize(path: str, layout: Layout, sectors: int) -> None:
    code, said = run("resize2fs", _at(path, layout), f"{sectors}s")
    if code and "No space left" in said:
        raise PermanentError("no space left in the SR for the disk; choose another host or SR")
    if code:
        raise LeftAlone("the file system could not be resized (resize2fs)")


def _make_swap(path: str, label: str) -> None:
    """mkswap writes one page; it is made on a file of the same size, so that no partition device is needed."""
    with tempfile.NamedTemporaryFile() as blank:
        blank.truncate(size_of(path))
        need("mkswap", "-L", label, blank.name)
        page = read_at(blank.name, 0, 4096)
    with open(path, "r+b", buffering=0) as disk:
        written(disk.fileno(), page, 0)
        os.fsync(disk.fileno())


if __name__ == "__main__":
    dispatch(FUNCTIONS)
