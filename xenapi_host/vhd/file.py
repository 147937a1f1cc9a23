"""One open VHD file: where each piece of the virtual disk lies in it, and how a piece gets a place.

Knows nothing of parents' contents; `disk` stacks these into a chain. Every write keeps the file valid if the process
dies right after it: the footer is written behind new space before that space is used, a block is linked empty before
its data is written, and bitmap bits are set last.
"""

import fcntl
import os
import stat
import sys
from array import array
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import NamedTuple, Self

from xenapi_host.vhd import layout
from xenapi_host.vhd.errors import DamagedVhd, NotAVhd, VhdInUse
from xenapi_host.vhd.layout import ABSENT, FOOTER_SIZE, HEADER_SIZE, SECTOR, Footer, Header, Kind

_PAGE = 4096


class Run(NamedTuple):
    """A piece of the virtual disk; `position` is where its bytes lie in this file, None = not in this file."""

    offset: int
    length: int
    position: int | None


class VhdFile:
    """One VHD file, open. A writer holds an exclusive lock on it (VhdInUse for the second writer)."""

    def __init__(self, path: str | os.PathLike[str], *, writable: bool = False) -> None:
        self.path = os.fspath(path)
        self.writable = writable
        self._fd = _open(self.path, writable)
        try:
            self._read_metadata()
        except BaseException:
            os.close(self._fd)
            raise
        self._last_bitmap: tuple[int, bytes] | None = None
        self._batmap_dirty = False

    def _read_metadata(self) -> None:
        self.end = os.fstat(self._fd).st_size
        self.footer_damage: DamagedVhd | NotAVhd | None = None
        try:
            self.footer = layout.unpack_footer(self.read_at(self.end - FOOTER_SIZE, FOOTER_SIZE), self.path)
        except (DamagedVhd, NotAVhd) as damage:
            # A writer that died while growing the file leaves the copy at the start: what it says still holds.
            copy = self.read_at(0, FOOTER_SIZE)
            if copy[:8] != b"conectix":
                raise
            self.footer = layout.unpack_footer(copy, self.path, "backup footer")
            if self.footer.kind is Kind.FIXED:
                raise
            self.footer_damage = damage
        self.header: Header | None = None
        self.bat: array[int] = array("I")
        self.batmap: bytearray | None = None
        if self.footer.kind is Kind.FIXED:
            if self.footer.virtual_size > self.end - FOOTER_SIZE:
                raise DamagedVhd(self.path, "primary footer", "the disk is larger than the file that holds it")
            return
        self.header = layout.unpack_header(self.read_at(FOOTER_SIZE, HEADER_SIZE), self.path)
        self._read_bat(self.header)
        self._read_batmap(self.header)

    def _read_bat(self, header: Header) -> None:
        needed = -(-self.footer.virtual_size // header.block_size)
        if header.entries < needed:
            raise DamagedVhd(self.path, "header", f"{header.entries} block entries, {needed} needed")
        raw = self.read_at(header.table_offset, needed * 4)
        if len(raw) < needed * 4:
            raise DamagedVhd(self.path, "block table", "reaches behind the end of the file")
        self.bat.frombytes(raw)
        if sys.byteorder == "little":
            self.bat.byteswap()

    def _read_batmap(self, header: Header) -> None:
        """Take blktap's map of fully written blocks if it is there and sound; it only saves reading bitmaps."""
        if self.footer.creator != layout.CREATOR:
            return
        found = layout.unpack_batmap_header(self.read_at(batmap_header_offset(header), SECTOR))
        if found is None or found.size * 8 < len(self.bat) or found.size > layout.round_up(header.entries, 4096):
            return
        body = self.read_at(found.offset, found.size)
        if found.version >= layout.BATMAP_VERSION and layout.checksum(body) == found.checksum:
            self.batmap = bytearray(body)
            self._batmap_offset = found.offset

    # --- looking -------------------------------------------------------------------------------------------------

    @property
    def virtual_size(self) -> int:
        return self.footer.virtual_size

    @property
    def block_size(self) -> int:
        return self.header.block_size if self.header else layout.BLOCK_SIZE

    def read_at(self, position: int, length: int) -> bytes:
        """Read file bytes (not disk bytes); short at the file's end."""
        if position < 0 or position > sys.maxsize:
            return b""
        parts = []
        while length > 0:
            part = os.pread(self._fd, length, position)
            if not part:
                break
            parts.append(part)
            position += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        """Cut a piece of the virtual disk into runs that are in this file and runs that are not, in order."""
        stop = offset + length
        inside = min(stop, self.virtual_size)
        if self.header is None:
            if offset < inside:
                yield Run(offset, inside - offset, offset)
        else:
            yield from self._block_runs(self.header, offset, inside)
        if stop > max(inside, offset):
            start = max(inside, offset)
            yield Run(start, stop - start, None)

    def _block_runs(self, header: Header, offset: int, stop: int) -> Iterator[Run]:
        size = header.block_size
        while offset < stop:
            block, within = divmod(offset, size)
            start = offset
            if self.bat[block] == ABSENT:
                last = (stop - 1) // size
                while block < last and self.bat[block + 1] == ABSENT:
                    block += 1
                offset = min((block + 1) * size, stop)
                yield Run(start, offset - start, None)
                continue
            offset = min((block + 1) * size, stop)
            data = self.bat[block] * SECTOR + header.bitmap_size
            if self._is_full(block):
                yield Run(start, offset - start, data + within)
            else:
                yield from _bitmap_runs(self.bitmap(block), data, block * size, start, offset)

    def _is_full(self, block: int) -> bool:
        return self.batmap is not None and bool(self.batmap[block >> 3] & (0x80 >> (block & 7)))

    def bitmap(self, block: int) -> bytes:
        """The bitmap of an allocated block: one bit a sector, most significant first."""
        if self._last_bitmap is not None and self._last_bitmap[0] == block:
            return self._last_bitmap[1]
        assert self.header is not None
        length = self.block_size // SECTOR // 8
        raw = self.read_at(self.bat[block] * SECTOR, length)
        if len(raw) < length:
            raise DamagedVhd(self.path, "block table", f"block {block} lies behind the end of the file")
        self._last_bitmap = (block, raw)
        return raw

    def parent_name(self) -> str:
        """The parent's file name, from the relative locators or the header; ParentOutsideFolder if it leads out."""
        assert self.header is not None
        spellings: dict[bytes, str] = {}
        for place in self.header.locators:
            if place.length > 2048:
                continue
            name = layout.decode_locator(place.code, self.read_at(place.offset, place.length))
            if name:
                spellings.setdefault(place.code, name)
        name = spellings.get(b"MacX") or spellings.get(b"W2ru") or self.header.parent_name
        return layout.plain_name(name or spellings.get(b"W2ku", ""), self.path)

    # --- changing ------------------------------------------------------------------------------------------------

    def write_at(self, position: int, data: bytes | memoryview) -> None:
        """Write file bytes (not disk bytes), all of them."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, position)
            position += written
            view = view[written:]
        self.end = max(self.end, position)

    def write(self, offset: int, data: memoryview) -> None:
        """Write whole sectors of the virtual disk into this file. The caller keeps inside the disk."""
        if self.header is None:
            self.write_at(offset, data)
            return
        while data:
            block, within = divmod(offset, self.block_size)
            take = min(self.block_size - within, len(data))
            self._write_in_block(self.header, block, within, data[:take])
            offset += take
            data = data[take:]

    def _write_in_block(self, header: Header, block: int, within: int, data: memoryview) -> None:
        if self.bat[block] == ABSENT:
            self._allocate(header, block)
        place = self.bat[block] * SECTOR
        self.write_at(place + header.bitmap_size + within, data)
        if self._is_full(block):
            return
        before = self.bitmap(block)
        sectors = header.block_size // SECTOR
        first, count = within // SECTOR, len(data) // SECTOR
        bits = int.from_bytes(before, "big") | ((1 << count) - 1) << (sectors - first - count)
        after = bits.to_bytes(len(before), "big")
        if after != before:
            self.write_at(place, after)
            self._last_bitmap = (block, after)
        if bits == (1 << sectors) - 1 and self.batmap is not None:
            self.batmap[block >> 3] |= 0x80 >> (block & 7)
            self._batmap_dirty = True

    def _allocate(self, header: Header, block: int) -> None:
        self.require_sound_footer()
        # The data of a block begins on a page, as blktap wants it.
        data = layout.round_up(self.end - FOOTER_SIZE + header.bitmap_size, _PAGE)
        place, old_footer = data - header.bitmap_size, self.end - FOOTER_SIZE
        self.write_at(data + header.block_size, layout.pack_footer(self.footer))
        self.write_at(old_footer, bytes(data - old_footer))
        self.write_at(header.table_offset + block * 4, (place // SECTOR).to_bytes(4, "big"))
        self.bat[block] = place // SECTOR
        self._last_bitmap = None

    def append(self, body: bytes) -> int:
        """Put metadata behind the last data, whole sectors, and the footer behind that; where it landed."""
        self.require_sound_footer()
        place = self.end - FOOTER_SIZE
        self.write_at(place + layout.round_up(len(body), SECTOR), layout.pack_footer(self.footer))
        self.write_at(place, body.ljust(layout.round_up(len(body), SECTOR), b"\0"))
        return place

    def write_footer(self, footer: Footer) -> None:
        """Replace the footer, at the end and (but for fixed disks) at the start."""
        raw = layout.pack_footer(footer)
        self.write_at(self.end - FOOTER_SIZE, raw)
        if footer.kind is not Kind.FIXED:
            self.write_at(0, raw)
        self.footer = footer

    def write_header(self, header: Header) -> None:
        self.write_at(FOOTER_SIZE, layout.pack_header(header))
        self.header = header

    def restore_footer(self) -> None:
        """Make the two footers one: a damaged one at the end from the copy, a different copy from the end."""
        if self.footer_damage is not None:
            self.write_at(layout.round_up(self.end, SECTOR), layout.pack_footer(self.footer))
            self.footer_damage = None
        elif self.footer.kind is not Kind.FIXED:
            self.write_footer(self.footer)

    def require_sound_footer(self) -> None:
        if self.footer_damage is not None:
            raise self.footer_damage

    def grow(self, new_size: int) -> None:
        """Make the virtual disk larger; the caller has checked the size."""
        footer = replace(self.footer, virtual_size=new_size)
        if self.header is None:
            old_end = self.end - FOOTER_SIZE
            self.write_at(new_size, layout.pack_footer(footer))
            self.write_at(old_end, bytes(min(FOOTER_SIZE, new_size - old_end)))
            self.footer = footer
            return
        entries = -(-new_size // self.block_size)
        if entries > self.header.entries:
            self._move_tables(self.header, entries)
        self.bat.extend([ABSENT] * (entries - len(self.bat)))
        self.write_footer(footer)

    def _move_tables(self, header: Header, entries: int) -> None:
        """Write longer tables behind the data; the header write switches to them in one step."""
        bat = array("I", self.bat)
        bat.extend([ABSENT] * (entries - len(bat)))
        body = packed_tables(bat, self.end - FOOTER_SIZE, bytes(self.batmap) if self.batmap is not None else b"")
        place = self.append(body)
        self.write_header(replace(header, table_offset=place, entries=entries))
        assert self.header is not None
        self.batmap = None
        self._read_batmap(self.header)

    def flush(self, *, durable: bool = False) -> None:
        """Write what is only in memory (the batmap); `durable` also waits for the disk."""
        if self._batmap_dirty and self.batmap is not None and self.header is not None:
            body = bytes(self.batmap)
            start = batmap_header_offset(self.header)
            sealed = layout.pack_batmap_header(self._batmap_offset, body)
            if self._batmap_offset == start + SECTOR:
                self.write_at(start, sealed + body)
            else:
                self.write_at(self._batmap_offset, body)
                self.write_at(start, sealed)
            self._batmap_dirty = False
        if durable:
            os.fsync(self._fd)

    def close(self) -> None:
        if self._fd < 0:
            return
        try:
            if self.writable:
                self.flush()
        finally:
            os.close(self._fd)
            self._fd = -1

    def stat(self) -> os.stat_result:
        return os.fstat(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def batmap_header_offset(header: Header) -> int:
    return header.table_offset + layout.round_up(header.entries * 4, SECTOR)


def packed_tables(bat: "array[int]", offset: int, batmap: bytes = b"") -> bytes:
    """Block table, batmap header and batmap as they follow each other in a file, from `offset` on."""
    swapped = array("I", bat)
    if sys.byteorder == "little":
        swapped.byteswap()
    raw = swapped.tobytes()
    table = raw.ljust(layout.round_up(len(raw), SECTOR), b"\xff")
    body = batmap.ljust(layout.round_up(-(-len(bat) // 8), SECTOR), b"\0")
    return table + layout.pack_batmap_header(offset + len(table) + SECTOR, body) + body


def _bitmap_runs(bitmap: bytes, data: int, block_start: int, start: int, stop: int) -> Iterator[Run]:
    """The runs of one block between two disk offsets, by its bitmap."""
    bits = format(int.from_bytes(bitmap, "big"), f"0{len(bitmap) * 8}b")
    while start < stop:
        sector = (start - block_start) // SECTOR
        other = bits.find("0" if bits[sector] == "1" else "1", sector)
        edge = stop if other < 0 else min(stop, block_start + other * SECTOR)
        yield Run(start, edge - start, data + start - block_start if bits[sector] == "1" else None)
        start = edge


def _open(path: str, writable: bool) -> int:
    """Open a regular file without following a link at its last part; lock it for a writer."""
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NotAVhd(f"{path} cannot be opened as a VHD: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NotAVhd(f"{path} is not a regular file")
        if writable:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise VhdInUse(f"{path} is open for writing elsewhere; close that disk first") from error
    except BaseException:
        os.close(fd)
        raise
    return fd
