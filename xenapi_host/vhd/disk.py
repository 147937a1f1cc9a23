"""A virtual disk: a leaf over its ancestors, read and written by bytes. One thread at a time uses a Disk."""

import os
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self
from uuid import UUID

from xenapi_host.vhd.chain import open_chain
from xenapi_host.vhd.changes import Notes
from xenapi_host.vhd.errors import DamagedVhd
from xenapi_host.vhd.file import VhdFile
from xenapi_host.vhd.layout import round_up

# Writes are widened to 4 KiB, one byte of the bitmap, by copying up from the parents. The format allows single
# sectors, but libvhdi takes every sector after a written one in the same bitmap byte from the child.
_GRANULE = 4096


class Disk:
    """A chain of VHD files as one disk of `size` bytes. Reads see the newest layer; writes go to the leaf, and are
    noted in its change log if there is one."""

    def __init__(self, files: Sequence[VhdFile], notes: Notes | None = None) -> None:
        self.files = tuple(files)
        self._notes = notes

    @classmethod
    def open(cls, leaf: str | os.PathLike[str], *, writable: bool = False) -> Self:
        """Open the chain of `leaf`, parents by name in the same folder; raises NotAVhd, DamagedVhd, ChainError."""
        files = open_chain(leaf, writable=writable)
        return cls(files, Notes.beside(leaf) if writable else None)

    @property
    def size(self) -> int:
        """Virtual size in bytes."""
        return self.files[0].virtual_size

    @property
    def path(self) -> str:
        """The leaf's, when it was opened."""
        return self.files[0].path

    @property
    def uuid(self) -> UUID:
        return self.files[0].footer.uuid

    def pread(self, offset: int, length: int) -> bytes:
        """Read `length` bytes at `offset`; fewer at the disk's end. Holes read as zeros."""
        length = max(0, min(length, self.size - offset))
        found = bytearray(length)
        for start, count, file, position in self._resolve(0, len(self.files), offset, length):
            if file is not None:
                part = file.read_at(position, count)
                if len(part) < count:
                    raise DamagedVhd(file.path, "block table", f"data at {position} lies behind the end of the file")
                found[start - offset : start - offset + len(part)] = part
        return bytes(found)

    def pwrite(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write bytes at `offset`; ValueError if they do not fit the disk."""
        view = memoryview(data).cast("B")
        if offset < 0 or offset + len(view) > self.size:
            raise ValueError(f"{len(view)} bytes at {offset} do not fit a disk of {self.size} bytes; resize it first")
        if not view:
            return
        if self._notes is not None:
            self._notes.note(offset, len(view))
        first = offset // _GRANULE * _GRANULE
        last = min(round_up(offset + len(view), _GRANULE), self.size)
        if first == offset and last == offset + len(view):
            self.files[0].write(offset, view)
            return
        whole = bytearray(self.pread(first, last - first))
        whole[offset - first : offset - first + len(view)] = view
        self.files[0].write(first, memoryview(whole))

    def allocated(self, offset: int = 0, length: int | None = None) -> Iterator[tuple[int, int]]:
        """The (offset, length) ranges, merged and in order, that some layer holds; all else reads as zeros."""
        return self.held_by_layers(0, len(self.files), offset, length)

    def held_by_layers(
        self, newest: int, oldest: int, offset: int = 0, length: int | None = None
    ) -> Iterator[tuple[int, int]]:
        """As `allocated`, for the layers newest..oldest-1 only (0 is the leaf)."""
        stop = self.size if length is None else min(self.size, offset + length)
        pending: tuple[int, int] | None = None
        for start, count, file, _ in self._resolve(newest, oldest, offset, max(0, stop - offset)):
            if file is None:
                continue
            if pending is not None and sum(pending) == start:
                pending = (pending[0], pending[1] + count)
                continue
            if pending is not None:
                yield pending
            pending = (start, count)
        if pending is not None:
            yield pending

    def _resolve(
        self, layer: int, bottom: int, offset: int, length: int
    ) -> Iterator[tuple[int, int, VhdFile | None, int]]:
        """Cut a piece into (offset, length, file that holds it, position there); file None = a hole."""
        if layer == bottom:
            if length:
                yield offset, length, None, 0
            return
        file = self.files[layer]
        for run in file.runs(offset, length):
            if run.position is not None:
                yield run.offset, run.length, file, run.position
            else:
                yield from self._resolve(layer + 1, bottom, run.offset, run.length)

    def flush(self, *, durable: bool = False) -> None:
        """Write what is still in memory; `durable` also waits until the leaf is on the host's disk."""
        if self.files[0].writable:
            self.files[0].flush(durable=durable)

    def close(self) -> None:
        if self._notes is not None:
            self._notes.close()
        for file in self.files:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
