"""A disk as a VHD stream, whole or only what changed since a base; and such a stream laid over a disk.

The stream's length is known before its first byte, because XenServer's export handler announces it.
"""

import os
import time
from array import array
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from xenapi_host.vhd import layout
from xenapi_host.vhd.disk import Disk
from xenapi_host.vhd.errors import DamagedVhd, NotAVhd, StreamEnded
from xenapi_host.vhd.file import VhdFile, packed_tables
from xenapi_host.vhd.layout import ABSENT, BLOCK_SIZE, FOOTER_SIZE, HEADER_SIZE, SECTOR, Footer, Header, Kind
from xenapi_host.vhd.raw import Readable, read_fully

AnyPath = str | os.PathLike[str]
_SPAN = BLOCK_SIZE + SECTOR


def changed_ranges(leaf: AnyPath | Disk, base: AnyPath | Disk) -> list[tuple[int, int]]:
    """The (offset, length) ranges in which `leaf` may differ from `base`, merged and in order.

    `base` is an ancestor, or any disk that shares an ancestor (a snapshot and its live disk share the base copy):
    what either wrote since then counts. Disks that share nothing differ wherever one of them holds something.
    """
    with _opened(leaf) as new, _opened(base) as old:
        identities = [_identity(file) for file in old.files]
        shared = next((depth for depth, file in enumerate(new.files) if _identity(file) in identities), None)
        new_layers = len(new.files) if shared is None else shared
        old_layers = len(old.files) if shared is None else identities.index(_identity(new.files[shared]))
        ranges = [*new.held_by_layers(0, new_layers), *old.held_by_layers(0, old_layers)]
        if new.size > old.size:
            # What the base has no place for may be anything; only what some layer holds needs sending.
            ranges += new.allocated(old.size)
        return _merged(ranges, new.size)


def _opened(disk: AnyPath | Disk) -> AbstractContextManager[Disk]:
    """A disk that was open stays open."""
    return nullcontext(disk) if isinstance(disk, Disk) else Disk.open(disk)


def _identity(file: VhdFile) -> tuple[int, int]:
    found = file.stat()
    return found.st_dev, found.st_ino


def _merged(ranges: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, length in sorted(ranges):
        stop = min(start + length, size)
        if merged and start <= sum(merged[-1]):
            merged[-1] = (merged[-1][0], max(stop, sum(merged[-1])) - merged[-1][0])
        elif start < stop:
            merged.append((start, stop - start))
    return merged


@dataclass(frozen=True, slots=True, kw_only=True)
class VhdExport:
    """A planned VHD stream: `size` bytes in all, given by `chunks()`."""

    leaf: AnyPath | Disk
    head: bytes
    footer: bytes
    ranges: tuple[tuple[int, int], ...]
    blocks: tuple[int, ...]
    size: int

    def chunks(self) -> Iterator[bytes]:
        """The stream in order, about 2 MiB at a time."""
        yield self.head
        by_block = _per_block(self.ranges)
        with _opened(self.leaf) as disk:
            for block in self.blocks:
                bits, data = 0, bytearray(BLOCK_SIZE)
                for start, length in by_block[block]:
                    first, last = start // SECTOR, -(-(start + length) // SECTOR)
                    bits |= ((1 << (last - first)) - 1) << (4096 - last)
                    part = disk.pread(block * BLOCK_SIZE + start, length)
                    data[start : start + len(part)] = part
                yield bits.to_bytes(SECTOR, "big") + data
        yield self.footer


def plan_export(
    leaf: AnyPath | Disk, base: AnyPath | Disk | None = None, *, uuid: UUID | None = None, now: float | None = None
) -> VhdExport:
    """Plan the VHD stream of a disk: flattened and dynamic, or with `base` differencing with the changes only.

    The stream carries the disk's own uuid unless another is given; nothing is read but tables and bitmaps. A disk that
    is open already stays open, and is what the stream is of, whatever becomes of its files' names.
    """
    with _opened(leaf) as disk:
        size, identity = disk.size, disk.uuid
        ranges = list(disk.allocated()) if base is None else changed_ranges(disk, base)
    footer = Footer(
        kind=Kind.DYNAMIC if base is None else Kind.DIFFERENCING,
        virtual_size=size,
        original_size=size,
        uuid=uuid or identity,
        created=time.time() if now is None else now,
    )
    blocks = tuple(sorted(_per_block(ranges)))
    sealed = layout.pack_footer(footer)
    head = _head(footer, blocks, base)
    return VhdExport(
        leaf=leaf,
        head=head,
        footer=sealed,
        ranges=tuple(ranges),
        blocks=blocks,
        size=len(head) + len(blocks) * _SPAN + FOOTER_SIZE,
    )


def _head(footer: Footer, blocks: tuple[int, ...], base: AnyPath | Disk | None) -> bytes:
    """Everything before the first block, its block table already filled in."""
    entries = -(-footer.virtual_size // BLOCK_SIZE)
    table_offset = FOOTER_SIZE + HEADER_SIZE
    bat = array("I", [ABSENT]) * entries
    after_tables = table_offset + len(packed_tables(bat, table_offset))
    spellings = b""
    header = Header(table_offset=table_offset, entries=entries)
    if base is not None:
        with _opened(base) as parent_disk:
            parent, parent_time = parent_disk.uuid, parent_disk.files[0].stat().st_mtime
            name = Path(parent_disk.path).name
        places, spellings = layout.place_locators(name, after_tables)
        header = layout.with_parent(header, parent, parent_time, name, places)
    first = after_tables + len(spellings)
    for index, block in enumerate(blocks):
        bat[block] = (first + index * _SPAN) // SECTOR
    return layout.pack_footer(footer) + layout.pack_header(header) + packed_tables(bat, table_offset) + spellings


def _per_block(ranges: list[tuple[int, int]] | tuple[tuple[int, int], ...]) -> dict[int, list[tuple[int, int]]]:
    """Ranges cut at block borders: block number -> (offset in the block, length)."""
    blocks: dict[int, list[tuple[int, int]]] = {}
    for start, length in ranges:
        stop = start + length
        while start < stop:
            block, within = divmod(start, BLOCK_SIZE)
            take = min(BLOCK_SIZE - within, stop - start)
            blocks.setdefault(block, []).append((within, take))
            start += take
    return blocks


def apply_stream(stream: Readable, disk: Disk) -> int:
    """Lay a VHD stream (dynamic or differencing) over a disk: only the sectors it holds are written.

    Returns the bytes written. The stream is read once, front to back. Raises NotAVhd, DamagedVhd, StreamEnded, and
    ValueError when it describes a disk larger than this one. Parents it names are not looked at.
    """
    what = "the VHD stream"
    footer = layout.unpack_footer(read_fully(stream, FOOTER_SIZE), what, "backup footer")
    if footer.kind is Kind.FIXED:
        raise NotAVhd(f"{what} is a fixed disk, which begins with data: send it as raw")
    if footer.virtual_size > disk.size:
        raise ValueError(f"{what} has a disk of {footer.virtual_size} bytes, this one has {disk.size}; resize it")
    header = layout.unpack_header(read_fully(stream, HEADER_SIZE), what)
    position = _skip(stream, FOOTER_SIZE + HEADER_SIZE, header.table_offset)
    entries = -(-footer.virtual_size // header.block_size)
    if header.entries < entries:
        raise DamagedVhd(what, "header", f"{header.entries} block entries, {entries} needed")
    raw = _exactly(stream, entries * 4)
    position += len(raw)
    bat = [int.from_bytes(raw[at : at + 4], "big") for at in range(0, len(raw), 4)]
    written = 0
    for place, block in sorted((entry, block) for block, entry in enumerate(bat) if entry != ABSENT):
        position = _skip(stream, position, place * SECTOR)
        bitmap = _exactly(stream, header.bitmap_size)[: header.block_size // SECTOR // 8]
        data = _exactly(stream, header.block_size)
        position += header.bitmap_size + header.block_size
        written += _apply_block(disk, block * header.block_size, bitmap, data, footer.virtual_size)
    while stream.read(BLOCK_SIZE):
        pass
    return written


def _apply_block(disk: Disk, start: int, bitmap: bytes, data: bytes, size: int) -> int:
    written = 0
    for first, last in _set_runs(bitmap):
        piece = data[first * SECTOR : min(last * SECTOR, size - start)]
        if piece:
            disk.pwrite(start + first * SECTOR, piece)
            written += len(piece)
    return written


def _set_runs(bitmap: bytes) -> Iterator[tuple[int, int]]:
    bits = format(int.from_bytes(bitmap, "big"), f"0{len(bitmap) * 8}b")
    first = bits.find("1")
    while first >= 0:
        last = bits.find("0", first)
        last = len(bits) if last < 0 else last
        yield first, last
        first = bits.find("1", last)


def _exactly(stream: Readable, length: int) -> bytes:
    data = read_fully(stream, length)
    if len(data) < length:
        raise StreamEnded("the VHD stream ended inside a block or table; send it again")
    return data


def _skip(stream: Readable, position: int, target: int) -> int:
    if target < position:
        raise DamagedVhd("the VHD stream", "block table", f"a part at {target} overlaps what is before it")
    left = target - position
    while left > 0:
        left -= len(_exactly(stream, min(left, BLOCK_SIZE)))
    return target
