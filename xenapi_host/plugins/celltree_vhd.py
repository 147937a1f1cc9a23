"""The little that plugins need to know of VHD files: their headers, checked; and raw bytes turned into one.

Changing links is left to the host's own vhd-util, the difference of two disks to celltree_delta. All numbers in a VHD
are big-endian.
"""

import os
import stat
import struct
import time
import uuid
from array import array
from typing import Any, NamedTuple, Optional

FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
SECTOR = 512
BLOCK = 2 * 1024 * 1024
MAX_VIRTUAL_SIZE = 2040 * 1024**3
ABSENT = 0xFFFFFFFF
_EPOCH = 946684800
_FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sBB426x")
_HEADER = struct.Struct(">8sQQIIII16sII512s192s256x")
_CLOCK_SLACK_SECONDS = 24 * 3600


class NotSound(Exception):
    """A VHD breaks the format; the text says where."""


class Vhd(NamedTuple):
    """One file's facts; sizes in bytes, identities as text. `parent` is None for a base, `parent_file` then ""."""

    kind: int
    virtual_size: int
    uuid: str
    hidden: bool
    parent: Optional[str]
    parent_file: str


def read_vhd(path: str) -> Vhd:
    """Check a file alone and return its facts: footers agree, table and blocks inside the file, not from the future."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise NotSound("is not a regular file")
        return _read(fd, found.st_size)
    finally:
        os.close(fd)


def _read(fd: int, size: int) -> Vhd:
    raw = os.pread(fd, SECTOR, max(0, size - SECTOR))
    if len(raw) < SECTOR or raw[:8] != b"conectix":
        raise NotSound("has no footer at its end")
    _require_sum(raw, 64, "footer")
    fields = _FOOTER.unpack(raw)
    version, created, virtual_size = fields[2], fields[4] + _EPOCH, fields[9]
    kind, identity, hidden = fields[13], str(uuid.UUID(bytes=fields[15])), bool(fields[17])
    if version >> 16 != 1 or kind not in (FIXED, DYNAMIC, DIFFERENCING):
        raise NotSound(f"footer: unknown version {version:#x} or type {kind}")
    if virtual_size <= 0 or virtual_size % SECTOR or virtual_size > MAX_VIRTUAL_SIZE:
        raise NotSound(f"footer: virtual size of {virtual_size} bytes")
    if created > time.time() + _CLOCK_SLACK_SECONDS:
        raise NotSound("footer: creation time in future; set the clock of the host that made it")
    if kind == FIXED:
        if virtual_size > size - SECTOR:
            raise NotSound("the disk is larger than the file that holds it")
        return Vhd(kind, virtual_size, identity, hidden, None, "")
    if fields[3] != SECTOR or os.pread(fd, SECTOR, 0) != raw:
        raise NotSound("the copy of the footer differs from the footer")
    parent, parent_file = _read_header(fd, size, virtual_size)
    if kind == DYNAMIC:
        return Vhd(kind, virtual_size, identity, hidden, None, "")
    if parent.int == 0:
        raise NotSound("header: differencing, yet without a parent's identity")
    return Vhd(kind, virtual_size, identity, hidden, str(parent), parent_file)


def _read_header(fd: int, size: int, virtual_size: int) -> "tuple[uuid.UUID, str]":
    raw = os.pread(fd, 2 * SECTOR, SECTOR)
    if len(raw) < 2 * SECTOR or raw[:8] != b"cxsparse":
        raise NotSound("header: no cxsparse cookie")
    _require_sum(raw, 36, "header")
    fields = _HEADER.unpack(raw)
    table, version, entries, block = fields[2:6]
    if version >> 16 != 1 or block & (block - 1) or not 64 * 1024 <= block <= 16 * 1024**2:
        raise NotSound(f"header: unknown version {version:#x} or block size {block}")
    needed = -(-virtual_size // block)
    if entries < needed:
        raise NotSound(f"header: {entries} block entries, {needed} needed")
    if table % SECTOR or table < 3 * SECTOR or table + 4 * needed > size - SECTOR:
        raise NotSound("block table: outside the file")
    _check_blocks(os.pread(fd, 4 * needed, table), table, block, size - SECTOR)
    return uuid.UUID(bytes=fields[7]), fields[10].decode("utf-16-be", "replace").split("\0", 1)[0]


def _check_blocks(table: bytes, start: int, block: int, end: int) -> None:
    """No block behind the end, over another one, over the headers or over the table."""
    span = block + round_up(block // SECTOR // 8, SECTOR)
    previous = 3 * SECTOR
    for (sector,) in sorted(struct.iter_unpack(">I", table)):
        if sector == ABSENT:
            continue
        place = sector * SECTOR
        if place < previous or place + span > end or (place < start + len(table) and start < place + span):
            raise NotSound(f"block table: the block at {place} overlaps something or is outside the file")
        previous = place + span


def _require_sum(raw: bytes, at: int, part: str) -> None:
    stated = struct.unpack_from(">I", raw, at)[0]
    if stated != _checksum(raw[:at] + bytes(4) + raw[at + 4 :]):
        raise NotSound(f"{part}: checksum does not match")


def _checksum(raw: bytes) -> int:
    return ~sum(raw) & 0xFFFFFFFF


def _sealed(raw: bytes, at: int) -> bytes:
    return raw[:at] + struct.pack(">I", _checksum(raw)) + raw[at + 4 :]


def round_up(size: int, step: int) -> int:
    return -(-size // step) * step


def write_raw_as_vhd(stream: Any, path: str, max_virtual_size: int) -> int:
    """Turn a raw stream of unknown length into a new dynamic VHD; blocks of zeros take no room.

    Returns the virtual size: the stream's length rounded up to 2 MiB, as XenServer's storage does. The block table
    lies behind the data, because its length is known last. Raises NotSound over `max_virtual_size`.
    """
    zeros = bytes(BLOCK)
    entries = array("I")
    received = 0
    with open(path, "xb") as file:
        end = 3 * SECTOR
        while True:
            data = _read_fully(stream, BLOCK)
            received += len(data)
            if received > max_virtual_size:
                raise NotSound(f"the raw image has more than the {max_virtual_size} bytes allowed")
            if not data:
                break
            if data == zeros[: len(data)]:
                entries.append(ABSENT)
                continue
            place = round_up(end + SECTOR, 4096) - SECTOR
            file.seek(place)
            file.write(b"\xff" * SECTOR + data.ljust(BLOCK, b"\0"))
            entries.append(place // SECTOR)
            end = place + SECTOR + BLOCK
        if not received:
            raise NotSound("the raw image is empty")
        _write_tables(file, entries, end)
    return len(entries) * BLOCK


def _write_tables(file: Any, entries: "array[int]", table: int) -> None:
    """Block table, blktap's map of full blocks and the footer behind the data; footer copy and header before it."""
    full = bytearray(round_up(-(-len(entries) // 8), SECTOR))
    for number, sector in enumerate(entries):
        if sector != ABSENT:
            full[number >> 3] |= 0x80 >> (number & 7)
    footer = make_footer(len(entries) * BLOCK)
    file.seek(table)
    file.write(make_tables(entries, table, bytes(full)) + footer)
    file.seek(0)
    file.write(footer + make_header(table, len(entries)))


def make_tables(entries: "array[int]", at: int, full: bytes = b"") -> bytes:
    """A block table that lies at `at`, and behind it blktap's map of full blocks, which only saves reading bitmaps."""
    raw = struct.pack(f">{len(entries)}I", *entries)
    raw = raw.ljust(round_up(len(raw), SECTOR), b"\xff")
    full = full.ljust(round_up(-(-len(entries) // 8), SECTOR), b"\0")
    body_at = at + len(raw) + SECTOR
    batmap = struct.pack(">8sQIIIB", b"tdbatmap", body_at, len(full) // SECTOR, 0x00010002, _checksum(full), 0)
    return raw + batmap.ljust(SECTOR, b"\0") + full


def make_header(table: int, entries: int, parent: bytes = b"", name: str = "", locators: bytes = b"") -> bytes:
    """The header of a disk whose block table lies at `table`; `parent`: its identity, `name`: its file's."""
    named = name.encode("utf-16-be")
    fields = (b"cxsparse", 0xFFFFFFFFFFFFFFFF, table, 0x00010000, entries, BLOCK, 0, parent, 0, 0, named, locators)
    return _sealed(_HEADER.pack(*fields), 36)


def make_footer(size: int, kind: int = DYNAMIC, identity: Optional[uuid.UUID] = None) -> bytes:
    """The footer of a disk of `size` bytes that is made now."""
    cylinders, heads, track = _geometry(size // SECTOR)
    made = max(0, int(time.time()) - _EPOCH)
    front = (b"conectix", 2, 0x00010000, SECTOR, made, b"tap\0", 0x00010003, bytes(4), size, size)
    back = (cylinders, heads, track, kind, 0, (identity or uuid.uuid4()).bytes, 0, 0)
    return _sealed(_FOOTER.pack(*(front + back)), 64)


def _geometry(sectors: int) -> "tuple[int, int, int]":
    """Cylinders, heads and sectors a track by the format's recipe."""
    sectors = min(sectors, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        return sectors // 255 // 16, 16, 255
    track = 17
    heads = max((sectors // track + 1023) // 1024, 4)
    if sectors // track >= heads * 1024 or heads > 16:
        track, heads = 31, 16
    if sectors // track >= heads * 1024:
        track, heads = 63, 16
    return sectors // track // heads, heads, track


def _read_fully(stream: Any, length: int) -> bytes:
    parts = []
    while length > 0:
        part = stream.read(length)
        if not part:
            break
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
