"""Raw bytes in and out of a disk, without reading or writing holes."""

import os
from collections.abc import Iterator
from typing import BinaryIO, Protocol
from uuid import UUID

from xenapi_host.vhd.change import create_dynamic
from xenapi_host.vhd.disk import Disk
from xenapi_host.vhd.errors import StreamEnded
from xenapi_host.vhd.layout import BLOCK_SIZE

_PIECE = 4096
_ZEROS = bytes(BLOCK_SIZE)


class Readable(Protocol):
    """Anything with read(length); short reads are allowed, b"" is the end."""

    def read(self, length: int, /) -> bytes: ...


class Writable(Protocol):
    """Anything with write(bytes) that takes all of them."""

    def write(self, data: bytes, /) -> object: ...


def import_raw(
    stream: Readable, path: str | os.PathLike[str], size: int, *, uuid: UUID | None = None, now: float | None = None
) -> UUID:
    """Make a dynamic VHD from `size` raw bytes of a stream; runs of zeros take no room. Returns its uuid.

    A size that is no multiple of 512 is filled up with zeros. Raises StreamEnded when the stream ends early; the file
    is removed then.
    """
    made = create_dynamic(path, -(-size // 512) * 512, uuid=uuid, now=now)
    try:
        with Disk.open(path, writable=True) as disk:
            overwrite_raw(stream, disk, size)
    except BaseException:
        os.unlink(path)
        raise
    return made


def overwrite_raw(stream: Readable, disk: Disk, size: int) -> None:
    """Put `size` raw bytes of a stream over the start of a disk; zeros are written only where something lies."""
    offset = 0
    while offset < size:
        data = read_fully(stream, min(BLOCK_SIZE, size - offset))
        if not data:
            raise StreamEnded(f"the raw stream ended after {offset} of {size} bytes; send it again")
        for start, stop, zero in _zero_runs(data):
            if not zero or any(disk.allocated(offset + start, stop - start)):
                disk.pwrite(offset + start, data[start:stop])
        offset += len(data)


def export_raw(path: str | os.PathLike[str], stream: Writable) -> int:
    """Write the whole disk of a leaf to a stream, holes as zeros; returns the bytes written (its virtual size)."""
    with Disk.open(path) as disk:
        write_raw(disk, stream)
        return disk.size


def write_raw(disk: Disk, stream: Writable) -> None:
    """As `export_raw`, of a disk that is open."""
    offset = 0
    for start, length in disk.allocated():
        _write_zeros(stream, start - offset)
        for step in range(0, length, BLOCK_SIZE):
            stream.write(disk.pread(start + step, min(BLOCK_SIZE, length - step)))
        offset = start + length
    _write_zeros(stream, disk.size - offset)


def export_raw_file(path: str | os.PathLike[str], raw_path: str | os.PathLike[str]) -> int:
    """As `export_raw`, into a new sparse file: holes cost nothing."""
    with Disk.open(path) as disk, open(raw_path, "xb") as target:
        for start, length in disk.allocated():
            target.seek(start)
            for step in range(0, length, BLOCK_SIZE):
                target.write(disk.pread(start + step, min(BLOCK_SIZE, length - step)))
        target.truncate(disk.size)
        return disk.size


def import_raw_file(raw_path: str | os.PathLike[str], path: str | os.PathLike[str]) -> UUID:
    """As `import_raw`, from a file: its holes are not read."""
    with open(raw_path, "rb", buffering=0) as source:
        size = os.fstat(source.fileno()).st_size
        made = create_dynamic(path, -(-size // 512) * 512)
        with Disk.open(path, writable=True) as disk:
            for start, stop in _data_extents(source, size):
                for offset in range(start, stop, BLOCK_SIZE):
                    _write_piece(disk, offset, os.pread(source.fileno(), min(BLOCK_SIZE, stop - offset), offset))
    return made


def _write_piece(disk: Disk, offset: int, data: bytes) -> None:
    for start, stop, zero in _zero_runs(data):
        if not zero:
            disk.pwrite(offset + start, data[start:stop])


def _data_extents(source: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """Where a sparse file holds data, as its file system tells."""
    stop = 0
    while stop < size:
        try:
            start = os.lseek(source.fileno(), stop, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        stop = os.lseek(source.fileno(), start, os.SEEK_HOLE)
        yield start, stop


def read_fully(stream: Readable, length: int) -> bytes:
    """Read until `length` bytes or the end."""
    parts = []
    while length > 0:
        part = stream.read(length)
        if not part:
            break
        parts.append(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _zero_runs(data: bytes) -> Iterator[tuple[int, int, bool]]:
    """Cut bytes into (start, stop, all zero) runs at steps of 4 KiB."""
    if data == _ZEROS[: len(data)]:
        yield 0, len(data), True
        return
    begin, zero = 0, data[:_PIECE] == _ZEROS[: min(_PIECE, len(data))]
    for start in range(_PIECE, len(data), _PIECE):
        piece = data[start : start + _PIECE]
        if (piece == _ZEROS[: len(piece)]) != zero:
            yield begin, start, zero
            begin, zero = start, not zero
    yield begin, len(data), zero


def _write_zeros(stream: Writable, length: int) -> None:
    while length > 0:
        part = _ZEROS[: min(length, BLOCK_SIZE)]
        stream.write(part)
        length -= len(part)
