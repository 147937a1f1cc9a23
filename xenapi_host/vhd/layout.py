"""The bytes of a VHD: footer, header, parent locators, tables. Pure; nothing here opens a file.

All numbers are big-endian. `path` arguments only serve the error texts. Times are seconds since 1970 outside this
module and since 2000 inside the file.
"""

import struct
from dataclasses import dataclass, replace
from enum import IntEnum
from uuid import UUID

from xenapi_host.vhd.errors import DamagedVhd, NotAVhd, ParentOutsideFolder, SizeRefused

SECTOR = 512
FOOTER_SIZE = 512
HEADER_SIZE = 1024
BLOCK_SIZE = 2 * 1024 * 1024
ABSENT = 0xFFFFFFFF
NOWHERE = 0xFFFFFFFFFFFFFFFF
EPOCH_2000 = 946684800
MAX_VIRTUAL_SIZE = 2040 * 1024**3
CHAIN_LIMIT = 30
CREATOR = b"tap\0"
CREATOR_VERSION = 0x00010003
NIL = UUID(int=0)

_FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sBB426x")
_HEADER = struct.Struct(">8sQQIIII16sII512s192s256x")
_LOCATOR = struct.Struct(">4sIIIQ")
_BATMAP = struct.Struct(">8sQIIIB")
_FOOTER_CHECKSUM_AT = 64
_HEADER_CHECKSUM_AT = 36
BATMAP_VERSION = 0x00010002


class Kind(IntEnum):
    """The three types of VHD file."""

    FIXED = 2
    DYNAMIC = 3
    DIFFERENCING = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Footer:
    """The 512 bytes at a VHD's end (and, but for fixed disks, again at its start)."""

    kind: Kind
    virtual_size: int
    uuid: UUID
    created: float
    original_size: int
    hidden: bool = False
    creator: bytes = CREATOR
    creator_version: int = CREATOR_VERSION
    creator_os: bytes = b"\0\0\0\0"
    features: int = 2
    saved_state: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Locator:
    """Where one spelling of the parent's name lies in the file; `space` and `length` in bytes."""

    code: bytes
    space: int
    length: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The 1024 bytes at offset 512 of dynamic and differencing disks."""

    table_offset: int
    entries: int
    block_size: int = BLOCK_SIZE
    parent_uuid: UUID = NIL
    parent_time: float = EPOCH_2000
    parent_name: str = ""
    locators: tuple[Locator, ...] = ()

    @property
    def bitmap_size(self) -> int:
        """Bytes of the bitmap before each block, in whole sectors."""
        return round_up(self.block_size // SECTOR // 8, SECTOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatmapHeader:
    """blktap's `tdbatmap`: where the map of fully written blocks lies, in bytes."""

    offset: int
    size: int
    version: int
    checksum: int


def round_up(number: int, step: int) -> int:
    return -(-number // step) * step


def checksum(raw: bytes) -> int:
    """One's complement of the byte sum."""
    return ~sum(raw) & 0xFFFFFFFF


def _seal(raw: bytes, at: int) -> bytes:
    """Put the checksum into a structure packed with a zero in its place."""
    return raw[:at] + struct.pack(">I", checksum(raw)) + raw[at + 4 :]


def _sealed(raw: bytes, at: int) -> bool:
    zeroed = raw[:at] + b"\0\0\0\0" + raw[at + 4 :]
    return raw[at : at + 4] == struct.pack(">I", checksum(zeroed))


def checked_size(size: int) -> int:
    """The virtual size, if a VHD can have it."""
    if size <= 0 or size % SECTOR or size > MAX_VIRTUAL_SIZE:
        raise SizeRefused(
            f"a VHD cannot have {size} bytes: give a multiple of 512 above 0 and at most {MAX_VIRTUAL_SIZE}"
        )
    return size


def geometry(size: int) -> tuple[int, int, int]:
    """Cylinders, heads, sectors a track for a size in bytes, by the format's own recipe."""
    sectors = min(size // SECTOR, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        return sectors // 255 // 16, 16, 255
    track = 17
    rows = sectors // track
    heads = max((rows + 1023) // 1024, 4)
    if rows >= heads * 1024 or heads > 16:
        track, heads = 31, 16
        rows = sectors // track
    if rows >= heads * 1024:
        track, heads = 63, 16
        rows = sectors // track
    return rows // heads, heads, track


def pack_footer(footer: Footer) -> bytes:
    cylinders, heads, track = geometry(footer.virtual_size)
    raw = _FOOTER.pack(
        b"conectix",
        footer.features,
        0x00010000,
        NOWHERE if footer.kind is Kind.FIXED else FOOTER_SIZE,
        max(0, int(footer.created) - EPOCH_2000),
        footer.creator,
        footer.creator_version,
        footer.creator_os,
        footer.original_size,
        footer.virtual_size,
        cylinders,
        heads,
        track,
        footer.kind,
        0,
        footer.uuid.bytes,
        footer.saved_state,
        footer.hidden,
    )
    return _seal(raw, _FOOTER_CHECKSUM_AT)


def unpack_footer(raw: bytes, path: str, part: str = "primary footer") -> Footer:
    """Read a footer, or raise NotAVhd (no cookie) or DamagedVhd."""
    if len(raw) < FOOTER_SIZE or raw[:8] != b"conectix":
        raise NotAVhd(f"{path} carries no VHD footer: it is not a VHD, or it was cut short")
    if not _sealed(raw, _FOOTER_CHECKSUM_AT):
        raise DamagedVhd(path, part, "checksum does not match")
    (_, features, version, data_offset, created, creator, creator_version, creator_os) = _FOOTER.unpack(raw)[:8]
    (original, current, _, _, _, kind, _, uuid, saved, hidden) = _FOOTER.unpack(raw)[8:]
    if version >> 16 != 1:
        raise DamagedVhd(path, part, f"unknown format version {version:#x}")
    if kind not in tuple(Kind):
        raise DamagedVhd(path, part, f"unknown disk type {kind}")
    if Kind(kind) is not Kind.FIXED and data_offset != FOOTER_SIZE:
        raise DamagedVhd(path, part, f"header at {data_offset} instead of {FOOTER_SIZE}")
    if current <= 0 or current % SECTOR or current > MAX_VIRTUAL_SIZE:
        raise DamagedVhd(path, part, f"virtual size of {current} bytes")
    return Footer(
        kind=Kind(kind),
        virtual_size=current,
        uuid=UUID(bytes=uuid),
        created=float(created + EPOCH_2000),
        original_size=original,
        hidden=bool(hidden),
        creator=creator,
        creator_version=creator_version,
        creator_os=creator_os,
        features=features,
        saved_state=saved,
    )


def pack_header(header: Header) -> bytes:
    name = header.parent_name.encode("utf-16-be")[:512]
    locators = b"".join(
        _LOCATOR.pack(place.code, place.space // SECTOR, place.length, 0, place.offset) for place in header.locators
    )
    raw = _HEADER.pack(
        b"cxsparse",
        NOWHERE,
        header.table_offset,
        0x00010000,
        header.entries,
        header.block_size,
        0,
        header.parent_uuid.bytes,
        max(0, int(header.parent_time) - EPOCH_2000),
        0,
        name,
        locators,
    )
    return _seal(raw, _HEADER_CHECKSUM_AT)


def unpack_header(raw: bytes, path: str) -> Header:
    """Read a dynamic disk's header, or raise DamagedVhd."""
    part = "header"
    if len(raw) < HEADER_SIZE or raw[:8] != b"cxsparse":
        raise DamagedVhd(path, part, "no cxsparse cookie")
    if not _sealed(raw, _HEADER_CHECKSUM_AT):
        raise DamagedVhd(path, part, "checksum does not match")
    (_, _, table, version, entries, block_size, _, parent, parent_time, _, name, locators) = _HEADER.unpack(raw)
    if version >> 16 != 1:
        raise DamagedVhd(path, part, f"unknown format version {version:#x}")
    if block_size & (block_size - 1) or not 64 * 1024 <= block_size <= 16 * 1024**2:
        raise DamagedVhd(path, part, f"block size of {block_size} bytes")
    if table % SECTOR or table < FOOTER_SIZE + HEADER_SIZE:
        raise DamagedVhd(path, part, f"block table at {table}")
    return Header(
        table_offset=table,
        entries=entries,
        block_size=block_size,
        parent_uuid=UUID(bytes=parent),
        parent_time=float(parent_time + EPOCH_2000),
        parent_name=name.decode("utf-16-be", "replace").split("\0", 1)[0],
        locators=tuple(_locators(locators)),
    )


def _locators(raw: bytes) -> list[Locator]:
    found = []
    for code, space, length, _, offset in _LOCATOR.iter_unpack(raw):
        if code == b"\0\0\0\0":
            continue
        # Sectors by the book; some writers put bytes, which no sane sector count reaches.
        space_bytes = space if space >= SECTOR else space * SECTOR
        found.append(Locator(code=code, space=space_bytes, length=length, offset=offset))
    return found


def pack_batmap_header(body_offset: int, body: bytes) -> bytes:
    return _BATMAP.pack(b"tdbatmap", body_offset, len(body) // SECTOR, BATMAP_VERSION, checksum(body), 0).ljust(
        SECTOR, b"\0"
    )


def unpack_batmap_header(raw: bytes) -> BatmapHeader | None:
    """Read blktap's batmap header; None when there is none here."""
    if len(raw) < _BATMAP.size or raw[:8] != b"tdbatmap":
        return None
    _, offset, sectors, version, summed, _ = _BATMAP.unpack_from(raw)
    return BatmapHeader(offset=offset, size=sectors * SECTOR, version=version, checksum=summed)


def locator_texts(parent_file: str) -> dict[bytes, bytes]:
    """The three spellings of a relative parent name that XenServer's and Microsoft's readers look for."""
    windows = f".\\{parent_file}".encode("utf-16-le")
    return {b"MacX": f"file://./{parent_file}".encode(), b"W2ku": windows, b"W2ru": windows}


def place_locators(parent_file: str, offset: int) -> tuple[tuple[Locator, ...], bytes]:
    """Lay the spellings out from `offset` on: the locators, and the bytes to write there."""
    places, body = [], b""
    for code, text in locator_texts(parent_file).items():
        space = round_up(len(text), SECTOR)
        places.append(Locator(code=code, space=space, length=len(text), offset=offset + len(body)))
        body += text.ljust(space, b"\0")
    return tuple(places), body


def decode_locator(code: bytes, text: bytes) -> str | None:
    """A locator's path as text with forward slashes; None for a code or spelling we do not know."""
    try:
        if code == b"MacX":
            name = text.decode()
            return name.removeprefix("file://") if name.startswith("file://") else None
        if code in (b"W2ru", b"W2ku"):
            return text.decode("utf-16-le").rstrip("\0").replace("\\", "/")
    except UnicodeDecodeError:
        return None
    return None


def plain_name(name: str, path: str) -> str:
    """The file name in a parent's spelling, if it stays in the child's folder; else ParentOutsideFolder."""
    bare = name.replace("\\", "/").removeprefix("./")
    if not bare or "/" in bare or bare in (".", "..") or "\0" in bare:
        raise ParentOutsideFolder(
            f"{path} names the parent {name!r}, outside its folder; put the parent beside it and run set_parent"
        )
    return bare


def with_parent(header: Header, uuid: UUID, time: float, name: str, places: tuple[Locator, ...]) -> Header:
    return replace(header, parent_uuid=uuid, parent_time=time, parent_name=name, locators=places)
