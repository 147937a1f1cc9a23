"""What a disk holds that its base does not, as a stream: a differencing VHD whose parent is the base.

Both are snapshots of one disk in one folder, so their chains meet: the files of the new one above that point are all
there is to send. What lies in several of them is taken from the newest. Only tables and bitmaps are read before the
stream begins, so its length is known.
"""

import os
import struct
import sys
import uuid
from array import array
from typing import TYPE_CHECKING, Iterator, List, Tuple

# In dom0 the scripts lie side by side in one folder; type checkers know them as a package.
if TYPE_CHECKING:
    from xenapi_host.plugins.celltree_vhd import (
        ABSENT,
        BLOCK,
        DIFFERENCING,
        SECTOR,
        NotSound,
        make_footer,
        make_header,
        make_tables,
        read_vhd,
        round_up,
    )
else:
    from celltree_vhd import (
        ABSENT,
        BLOCK,
        DIFFERENCING,
        SECTOR,
        NotSound,
        make_footer,
        make_header,
        make_tables,
        read_vhd,
        round_up,
    )

_SECTORS = BLOCK // SECTOR
_TABLE = 3 * SECTOR
_HEADER_FIELDS = struct.Struct(">16xQ4xII")


class NoBase(Exception):
    """The difference cannot be told from this base; the text says why."""


class Layer:
    """One file of a chain: which sectors of each block are in it."""

    def __init__(self, path: str) -> None:
        if read_vhd(path).kind != DIFFERENCING:
            raise NoBase("the base shares nothing with the disk any more")
        self._fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        table, entries, block = _HEADER_FIELDS.unpack_from(os.pread(self._fd, 2 * SECTOR, SECTOR))
        if block != BLOCK:
            self.close()
            raise NoBase(f"a layer of the disk has blocks of {block} bytes, not of {BLOCK}")
        self._table = array("I", os.pread(self._fd, 4 * entries, table))
        if sys.byteorder == "little":
            self._table.byteswap()

    def close(self) -> None:
        os.close(self._fd)

    def blocks(self) -> List[int]:
        """The numbers of the blocks of which some sectors are here."""
        return [number for number, place in enumerate(self._table) if place != ABSENT]

    def bitmap(self, block: int) -> int:
        """One bit a sector, the first sector's the highest."""
        if block >= len(self._table) or self._table[block] == ABSENT:
            return 0
        return int.from_bytes(os.pread(self._fd, SECTOR, self._table[block] * SECTOR), "big")

    def read(self, block: int, first: int, count: int) -> bytes:
        """Some sectors of a block that is here."""
        data = os.pread(self._fd, count * SECTOR, (self._table[block] + 1 + first) * SECTOR)
        if len(data) != count * SECTOR:
            raise NotSound("a block is cut short")
        return data


class Delta:
    """A planned stream. `size`: its bytes; `identity`: the new disk's, which its own children name as their parent."""

    def __init__(self, new: List[str], base: List[str], base_identity: str) -> None:
        """`new` and `base`: the files of both chains, leaf first. `base_identity`: as the base was sent before."""
        meeting = next((place for place, path in enumerate(new) if path in base), None)
        if not meeting:
            raise NoBase("the base shares nothing with the disk any more")
        self._layers = []  # type: List[Layer]
        try:
            for path in base[: base.index(new[meeting])]:
                self._refuse_written(path)
            for path in new[:meeting]:
                self._layers.append(Layer(path))
            self._plan(new[0], base_identity)
        except BaseException:
            self.close()
            raise

    def _refuse_written(self, path: str) -> None:
        layer = Layer(path)
        try:
            if layer.blocks():
                raise NoBase("the base has been written to since it was taken")
        finally:
            layer.close()

    def _plan(self, leaf: str, base_identity: str) -> None:
        disk = read_vhd(leaf)
        entries = array("I", [ABSENT]) * -(-disk.virtual_size // BLOCK)
        self._blocks = sorted({block for layer in self._layers for block in layer.blocks() if block < len(entries)})
        after = _TABLE + len(make_tables(entries, _TABLE))
        places, spellings = _locators(base_identity + ".vhd", after)
        start = after + len(spellings)
        for index, block in enumerate(self._blocks):
            entries[block] = (start + index * (SECTOR + BLOCK)) // SECTOR
        parent = uuid.UUID(base_identity).bytes
        self._footer = make_footer(disk.virtual_size, DIFFERENCING, uuid.UUID(disk.uuid))
        header = make_header(_TABLE, len(entries), parent, base_identity + ".vhd", places)
        self._head = self._footer + header + make_tables(entries, _TABLE) + spellings
        self.identity = disk.uuid
        self.size = len(self._head) + len(self._blocks) * (SECTOR + BLOCK) + SECTOR

    def pieces(self) -> Iterator[bytes]:
        """The stream, about 2 MiB at a time."""
        yield self._head
        for block in self._blocks:
            yield self._merged(block)
        yield self._footer

    def _merged(self, block: int) -> bytes:
        have, data = 0, bytearray(BLOCK)
        for layer in self._layers:
            more = layer.bitmap(block) & ~have
            for first, count in _runs(more):
                data[first * SECTOR : (first + count) * SECTOR] = layer.read(block, first, count)
            have |= more
        return have.to_bytes(SECTOR, "big") + bytes(data)

    def close(self) -> None:
        for layer in self._layers:
            layer.close()


def _locators(name: str, at: int) -> Tuple[bytes, bytes]:
    """The spellings of a parent's name that readers look for: their places for the header, and their bytes."""
    windows = (".\\" + name).encode("utf-16-le")
    texts = {b"MacX": ("file://./" + name).encode(), b"W2ku": windows, b"W2ru": windows}
    places, body = b"", b""
    for code, text in texts.items():
        space = round_up(len(text), SECTOR)
        places += struct.pack(">4sIIIQ", code, space // SECTOR, len(text), 0, at + len(body))
        body += text.ljust(space, b"\0")
    return places, body


def _runs(bitmap: int) -> Iterator[Tuple[int, int]]:
    """(first sector, count) of each run of set bits."""
    bits = format(bitmap, f"0{_SECTORS}b")
    first = bits.find("1")
    while first >= 0:
        last = bits.find("0", first)
        last = _SECTORS if last < 0 else last
        yield first, last - first
        first = bits.find("1", last)
