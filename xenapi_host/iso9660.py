"""A small ISO 9660 image in memory, with Joliet names beside the plain ones, so that every guest reads the same paths.

Written for config drives: some text files in a few folders. Numbers stand in both byte orders, as ECMA-119 wants them;
no times are kept, so that the same files always give the same bytes.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

SECTOR = 2048
_SYSTEM_AREA = 16  # sectors
_NO_TIME = b"0" * 16 + b"\0"
_FOLDER, _FILE = 2, 0


@dataclass(slots=True, kw_only=True)
class _Folder:
    """A folder and, once places are given, its first sector and its length in bytes."""

    name: str = ""
    folders: dict[str, "_Folder"] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    at: int = 0
    size: int = 0
    number: int = 1
    parent: "_Folder | None" = None


def make_iso(label: str, files: Mapping[str, bytes]) -> bytes:
    """An image with this volume label and these files; paths have slashes between folders and none in front. Names
    are those of files on any system: letters, digits, dot, hyphen, underscore, at most 30 characters."""
    plain, joliet = _tree(files), _tree(files)
    # system area, three descriptors, four path tables, folders of both trees, files
    place = _SYSTEM_AREA + 3
    tables = {}
    for name, tree in (("plain", plain), ("joliet", joliet)):
        length = sum(_table_size(folder, joliet=name == "joliet") for folder in _numbered(tree))
        tables[name] = (place, place + 1, length)
        place += 2
    for tree, wide in ((plain, False), (joliet, True)):
        for folder in _numbered(tree):
            folder.at, folder.size = place, SECTOR * -(-_listing_size(folder, wide) // SECTOR)
            place += folder.size // SECTOR
    at: dict[bytes, int] = {}
    for data in dict.fromkeys(files.values()):
        at[data] = place
        place += max(1, -(-len(data) // SECTOR))
    image = bytearray(place * SECTOR)
    _put(image, _SYSTEM_AREA, _descriptor(1, label, plain, tables["plain"], place, joliet=False))
    _put(image, _SYSTEM_AREA + 1, _descriptor(2, label, joliet, tables["joliet"], place, joliet=True))
    _put(image, _SYSTEM_AREA + 2, b"\xffCD001\x01")
    for name, tree in (("plain", plain), ("joliet", joliet)):
        wide = name == "joliet"
        little, big, _ = tables[name]
        _put(image, little, b"".join(_table_line(folder, "<", wide) for folder in _numbered(tree)))
        _put(image, big, b"".join(_table_line(folder, ">", wide) for folder in _numbered(tree)))
        for folder in _numbered(tree):
            _put(image, folder.at, _listing(folder, at, wide))
    for data, sector in at.items():
        _put(image, sector, data)
    return bytes(image)


def _tree(files: Mapping[str, bytes]) -> _Folder:
    root = _Folder()
    for path, data in sorted(files.items()):
        *folders, name = path.split("/")
        here = root
        for each in folders:
            if each not in here.folders:
                here.folders[each] = _Folder(name=each, parent=here)
            here = here.folders[each]
        here.files[name] = data
    return root


def _numbered(root: _Folder) -> list[_Folder]:
    """Every folder, by depth and then by name, numbered as path tables want it."""
    found, level = [root], [root]
    while level:
        level = [folder for above in level for _, folder in sorted(above.folders.items())]
        found.extend(level)
    for number, folder in enumerate(found, start=1):
        folder.number = number
    return found


def _put(image: bytearray, sector: int, data: bytes) -> None:
    image[sector * SECTOR : sector * SECTOR + len(data)] = data


def _both16(number: int) -> bytes:
    return struct.pack("<H", number) + struct.pack(">H", number)


def _both32(number: int) -> bytes:
    return struct.pack("<I", number) + struct.pack(">I", number)


def _name(text: str, wide: bool, *, folder: bool) -> bytes:
    if wide:
        return text.encode("utf-16-be")
    plain = "".join(letter if letter.isalnum() or letter == "." else "_" for letter in text.upper())
    if folder:
        return plain.replace(".", "_").encode("ascii")
    if plain.count(".") > 1:
        stem, _, ending = plain.rpartition(".")
        plain = f"{stem.replace('.', '_')}.{ending}"
    return f"{plain if '.' in plain else plain + '.'};1".encode("ascii")


def _entry(name: bytes, sector: int, size: int, flags: int) -> bytes:
    length = 33 + len(name)
    length += length % 2
    head = struct.pack("BB", length, 0) + _both32(sector) + _both32(size) + bytes(7)
    head += struct.pack("BBB", flags, 0, 0) + _both16(1) + struct.pack("B", len(name)) + name
    return head.ljust(length, b"\0")


def _lines(folder: _Folder, at: Mapping[bytes, int] | None, wide: bool) -> list[bytes]:
    above = folder.parent or folder
    named = [(_name(name, wide, folder=True), each.at, each.size, _FOLDER) for name, each in folder.folders.items()] + [
        (_name(name, wide, folder=False), 0 if at is None else at[data], len(data), _FILE)
        for name, data in folder.files.items()
    ]
    own = [_entry(b"\0", folder.at, folder.size, _FOLDER), _entry(b"\1", above.at, above.size, _FOLDER)]
    return own + [_entry(*each) for each in sorted(named)]


def _listing(folder: _Folder, at: Mapping[bytes, int] | None, wide: bool) -> bytes:
    """A folder's records; none crosses a sector's end."""
    found = b""
    for line in _lines(folder, at, wide):
        if len(found) % SECTOR + len(line) > SECTOR:
            found = found.ljust(SECTOR * -(-len(found) // SECTOR), b"\0")
        found += line
    return found


def _listing_size(folder: _Folder, wide: bool) -> int:
    return len(_listing(folder, None, wide))


def _table_name(folder: _Folder, wide: bool) -> bytes:
    return _name(folder.name, wide, folder=True) if folder.parent is not None else b"\0"


def _table_size(folder: _Folder, *, joliet: bool) -> int:
    length = len(_table_name(folder, joliet))
    return 8 + length + length % 2


def _table_line(folder: _Folder, order: str, wide: bool) -> bytes:
    name = _table_name(folder, wide)
    above = (folder.parent or folder).number
    line = struct.pack(f"{order}BBIH", len(name), 0, folder.at, above) + name
    return line + bytes(len(name) % 2)


def _descriptor(
    kind: int, label: str, root: _Folder, tables: tuple[int, int, int], sectors: int, *, joliet: bool
) -> bytes:
    """The primary (1) or the Joliet (2) volume descriptor."""

    def text(words: str, length: int) -> bytes:
        return _joliet_text(words, length) if joliet else words.encode("ascii")[:length].ljust(length)

    little, big, length = tables
    return b"".join(
        (
            struct.pack("B5sBB", kind, b"CD001", 1, 0),
            text("", 32),
            text(label, 32),
            bytes(8),
            _both32(sectors),
            b"%/E".ljust(32, b"\0") if joliet else bytes(32),
            _both16(1),
            _both16(1),
            _both16(SECTOR),
            _both32(length),
            struct.pack("<II", little, 0),
            struct.pack(">II", big, 0),
            _entry(b"\0", root.at, root.size, _FOLDER),
            text("", 128) * 4,
            text("", 37) * 3,
            _NO_TIME * 4,
            b"\x01\0",
        )
    ).ljust(SECTOR, b"\0")


def _joliet_text(words: str, length: int) -> bytes:
    """Text of two-byte letters, filled up with blanks; an odd last byte is zero."""
    return (words.ljust(length // 2)[: length // 2]).encode("utf-16-be").ljust(length, b"\0")
