#!/usr/bin/env python3
"""Writing gzip (RFC 1952) as one member, and quickly where there is nothing to gain: pieces that would not get smaller,
as those of encrypted, compressed or random data, are stored as they are. A dom0 packs some 50 MiB/s and stores far
more. Any gunzip reads it: each change of the level is a full flush, after which a new deflate stream may go on."""

import struct
import zlib
from typing import Any

_PIECE = 256 * 1024
_SAMPLES, _SAMPLE = 4, 1024
# What a sample must shrink to for its piece to be packed.
_GAIN = 0.95
_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # deflate, no name, no time, no system


class Gzip:
    """A file to write to; what comes of it goes to `stream`, anything with write(bytes). `level` is zlib's, 0 to 9,
    for what is worth packing."""

    def __init__(self, stream: Any, level: int) -> None:
        self._stream = stream
        self._level = level
        self._waiting = bytearray()
        self._at = level
        self._deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._sum = 0
        self._size = 0
        stream.write(_HEADER)

    def write(self, data: bytes) -> int:
        self._waiting += data
        while len(self._waiting) >= _PIECE:
            self._pack(bytes(self._waiting[:_PIECE]))
            del self._waiting[:_PIECE]
        return len(data)

    def close(self) -> None:
        """Write what is left, and the end of the stream. The stream itself stays open."""
        self._pack(bytes(self._waiting))
        self._waiting.clear()
        self._stream.write(self._deflate.flush() + struct.pack("<II", self._sum, self._size & 0xFFFFFFFF))

    def _pack(self, piece: bytes) -> None:
        level = self._level if _is_worth_it(piece) else 0
        if level != self._at:
            self._stream.write(self._deflate.flush(zlib.Z_FULL_FLUSH))
            self._at, self._deflate = level, zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._sum = zlib.crc32(piece, self._sum)
        self._size += len(piece)
        self._stream.write(self._deflate.compress(piece))


def _is_worth_it(piece: bytes) -> bool:
    step = max(1, len(piece) // _SAMPLES)
    sample = b"".join(piece[at : at + _SAMPLE] for at in range(0, len(piece), step))
    return len(zlib.compress(sample, 1)) < _GAIN * len(sample)
