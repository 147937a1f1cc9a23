"""Which 64 KiB pieces of a disk were written since its change log was begun: changed block tracking.

A log is a file beside the disk's own: `<uuid>.cbtlog` for `<uuid>.vhd` (SM keeps its logs there, in another format).
While it is there, every write through `Disk` is noted in it before the data is written. A log names the disk it
follows and the one that follows it, so that the logs of a disk and its snapshots are a chain of their own, which
outlives their data.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

from xenapi_host.vhd.errors import NotAVhd

PIECE = 64 * 1024
SUFFIX = ".cbtlog"
_MAGIC = b"celltcbt"
_HEAD = struct.Struct(">8sQ16s16s")
_NOBODY = UUID(int=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeLog:
    """`bitmap`: one bit a piece, most significant first, as VDI.list_changed_blocks answers it; `size`: the disk's."""

    size: int
    bitmap: bytes
    parent: UUID | None = None
    child: UUID | None = None

    @classmethod
    def fresh(cls, size: int, *, parent: UUID | None = None, child: UUID | None = None) -> ChangeLog:
        return cls(size=size, bitmap=bytes(_length(size)), parent=parent, child=child)

    def merged(self, other: ChangeLog) -> ChangeLog:
        """What either of them has; the size is the larger."""
        size = max(self.size, other.size)
        length = _length(size)
        bits = _number(self.bitmap, length) | _number(other.bitmap, length)
        return replace(self, size=size, bitmap=bits.to_bytes(length, "big"))

    def resized(self, size: int) -> ChangeLog:
        return self.merged(ChangeLog.fresh(size))


def _length(size: int) -> int:
    return -(-size // (8 * PIECE))


def _number(bitmap: bytes, length: int) -> int:
    return int.from_bytes(bitmap.ljust(length, b"\0"), "big")


def log_beside(leaf: str | os.PathLike[str]) -> Path:
    """Where the log of a disk is, if there is one."""
    return Path(leaf).with_suffix(SUFFIX)


def read_log(path: Path) -> ChangeLog:
    """Raises FileNotFoundError, NotAVhd."""
    data = path.read_bytes()
    if len(data) < _HEAD.size or data[:8] != _MAGIC:
        raise NotAVhd(f"{path} is no change log; disable change tracking of the disk and enable it anew")
    _, size, parent, child = _HEAD.unpack_from(data)
    if len(data) != _HEAD.size + _length(size):
        raise NotAVhd(f"{path} is cut off; disable change tracking of the disk and enable it anew")
    return ChangeLog(size=size, bitmap=data[_HEAD.size :], parent=_named(parent), child=_named(child))


def write_log(path: Path, log: ChangeLog) -> None:
    """Put a whole log in place; a reader sees the old one or the new one."""
    new = path.with_name(path.name + ".new")
    head = _HEAD.pack(_MAGIC, log.size, (log.parent or _NOBODY).bytes, (log.child or _NOBODY).bytes)
    new.write_bytes(head + log.bitmap)
    new.replace(path)


def _named(raw: bytes) -> UUID | None:
    return UUID(bytes=raw) if any(raw) else None


class Notes:
    """An open disk's log, written into while the disk is."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    @classmethod
    def beside(cls, leaf: str | os.PathLike[str]) -> Notes | None:
        try:
            return cls(log_beside(leaf))
        except FileNotFoundError:
            return None

    def note(self, offset: int, length: int) -> None:
        """These bytes are about to be written."""
        for piece in range(offset // PIECE, (offset + length - 1) // PIECE + 1):
            self._map[_HEAD.size + piece // 8] |= 0x80 >> piece % 8

    def close(self) -> None:
        self._map.close()
