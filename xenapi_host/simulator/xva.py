"""The XVA format: a VM in a tar. First ova.xml, which describes it; then each disk as members of one MiB,
`Ref:7/00000000`, each followed by its checksum. Blocks of zeros are left out, but for a disk's first and last.

XAPI takes SHA-1 (`.checksum`) and XXH64 (`.xxhash`) and has written the latter since 2020; we write the former, which
every XAPI and xva-img understand, and take both.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import xxhash

from xenapi_host import vhd
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.wire_xml import Malformed, value_from, value_text

BLOCK = 1024 * 1024
LARGEST_DESCRIPTION = 16 * 1024 * 1024
DESCRIPTION = "ova.xml"
_RECORD = tarfile.BLOCKSIZE
_ZEROS = bytes(BLOCK)
_MEMBER = re.compile(r"(?P<disk>Ref:\d{1,9})/(?P<number>\d{8,12})(?P<checksum>\.checksum|\.xxhash)?\Z")


class Readable(Protocol):
    def read(self, length: int, /) -> bytes: ...


class Writable(Protocol):
    def write(self, data: bytes, /) -> object: ...


# -- out --


def write_description(out: Writable, described: dict[str, Any]) -> None:
    text = f"<?xml version='1.0'?><value>{value_text(described)}</value>"
    _write_member(out, DESCRIPTION, text.encode())


def write_disk(out: Writable, name: str, disk: vhd.Disk) -> None:
    """A disk's blocks under the name of its object; holes are not read."""
    last = (disk.size - 1) // BLOCK
    for number in sorted({0, last} | _numbers_held(disk)):
        data = disk.pread(number * BLOCK, min(BLOCK, disk.size - number * BLOCK))
        if number in (0, last) or data != _ZEROS[: len(data)]:
            member = f"{name}/{number:08d}"
            _write_member(out, member, data)
            _write_member(out, member + ".checksum", hashlib.sha1(data, usedforsecurity=False).hexdigest().encode())


def write_end(out: Writable) -> None:
    out.write(bytes(2 * _RECORD))


def _numbers_held(disk: vhd.Disk) -> set[int]:
    numbers: set[int] = set()
    for offset, length in disk.allocated():
        numbers.update(range(offset // BLOCK, (offset + length - 1) // BLOCK + 1))
    return numbers


def _write_member(out: Writable, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o400
    out.write(info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % _RECORD))


# -- in --


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One MiB of a disk, or its end; `sound` is whether its checksum holds."""

    disk: str
    number: int
    data: bytes
    sound: bool


def read_description(stream: Readable) -> dict[str, Any]:
    """The first member. Raises Failure with XAPI's codes, as everything below."""
    found = _next_header(stream)
    if found is None or found[0] != DESCRIPTION:
        raise Failure("IMPORT_ERROR_UNEXPECTED_FILE", DESCRIPTION, found[0] if found else "")
    if found[1] > LARGEST_DESCRIPTION:
        raise Failure("IMPORT_ERROR_GENERIC", f"{DESCRIPTION} is larger than {LARGEST_DESCRIPTION} bytes")
    try:
        described = value_from(_contents(stream, found[1]))
    except Malformed as error:
        raise Failure("IMPORT_ERROR_GENERIC", f"{DESCRIPTION}: {error}") from error
    if not isinstance(described, dict):
        raise Failure("IMPORT_ERROR_GENERIC", f"{DESCRIPTION} describes no VM")
    return described


def read_blocks(stream: Readable) -> Iterator[Block]:
    """The blocks in the order in which they come. Empty ones, which XAPI sends to keep a connection, are left out."""
    while (found := _next_header(stream)) is not None:
        name, size = found
        member = _MEMBER.match(name)
        if member is None or member["checksum"] or size > BLOCK:
            raise Failure("IMPORT_ERROR_UNEXPECTED_FILE", "a block of a disk", name[:80])
        data = _contents(stream, size)
        checksum = _next_header(stream)
        if checksum is None or checksum[0] not in (name + ".checksum", name + ".xxhash") or checksum[1] > 64:
            raise Failure("IMPORT_ERROR_UNEXPECTED_FILE", f"{name}.checksum", checksum[0][:80] if checksum else "")
        given = _contents(stream, checksum[1]).strip().lower()
        if checksum[0].endswith(".checksum"):
            right = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        else:
            right = xxhash.xxh64(data).hexdigest()
        if size:
            yield Block(disk=member["disk"], number=int(member["number"]), data=data, sound=given == right.encode())


def _next_header(stream: Readable) -> tuple[str, int] | None:
    """Name and size of the next member; None at the end. Anything but a plain file is refused, whatever it is for."""
    raw = _exactly(stream, _RECORD)
    if not any(raw):
        return None
    try:
        info = tarfile.TarInfo.frombuf(raw, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise Failure("IMPORT_ERROR_GENERIC", f"no tar: {error}") from error
    if not info.isreg() or info.size < 0:
        raise Failure("IMPORT_ERROR_UNEXPECTED_FILE", "a plain file", info.name[:80])
    return info.name, info.size


def _contents(stream: Readable, size: int) -> bytes:
    return _exactly(stream, size + -size % _RECORD)[:size]


def _exactly(stream: Readable, length: int) -> bytes:
    parts = []
    while length:
        part = stream.read(min(length, BLOCK))
        if not part:
            raise Failure("IMPORT_ERROR_PREMATURE_EOF")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
