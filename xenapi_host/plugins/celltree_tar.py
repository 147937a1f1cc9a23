"""Strict reading of tar.gz from strangers: bounded memory, bounded output, regular files only.

Python's own tarfile follows extension headers of any size, links and devices; an image needs none of these, so this
reader knows plain members only and names what it refuses. Imports nothing of ours: dom0 and the image reader of
`xenapi_host.vhd` share it.
"""

import zlib
from typing import Any, Iterator, NamedTuple, Optional

_BLOCK = 512
_PIECE = 1024 * 1024
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a folder",
    b"6": "a pipe",
}


class Refused(Exception):
    """An archive breaks a rule. `member` names the file inside it ("" = the archive itself)."""

    def __init__(self, member: str, reason: str) -> None:
        super().__init__(f"{member}: {reason}" if member else reason)
        self.member = member
        self.reason = reason


class Member(NamedTuple):
    """One regular file of a tar: its name as written (without a leading "./") and its size in bytes."""

    name: str
    size: int


class Gunzip:
    """A gzip stream (anything with read(length)) read as plain bytes, at most `max_bytes` of them."""

    def __init__(self, stream: Any, max_bytes: int) -> None:
        self._stream = stream
        self._left = max_bytes
        self._max_bytes = max_bytes
        self._inflate = zlib.decompressobj(wbits=31)
        self._input = b""
        self._ready = bytearray()
        self._ended = False

    def read(self, length: int) -> bytes:
        """Exactly `length` bytes; fewer only at the end of a complete stream. Raises Refused."""
        while len(self._ready) < length and not self._ended:
            self._inflate_some()
        found = bytes(self._ready[:length])
        del self._ready[:length]
        return found

    def _inflate_some(self) -> None:
        if not self._input:
            self._input = self._stream.read(_PIECE)
        if self._inflate.eof:
            if not self._input.strip(b"\0"):
                self._ended = not self._input
                self._input = b""
                return
            self._inflate = zlib.decompressobj(wbits=31)
        elif not self._input:
            raise Refused("", "the gzip stream ends early: the image was cut short")
        try:
            part = self._inflate.decompress(self._input, _PIECE)
        except zlib.error as error:
            raise Refused("", f"not a sound gzip stream ({error})") from error
        self._input = self._inflate.unconsumed_tail or self._inflate.unused_data
        self._left -= len(part)
        if self._left < 0:
            raise Refused("", f"unpacks to more than the {self._max_bytes} bytes allowed")
        self._ready += part


class Tar:
    """The members of a tar stream, in order. Take `pieces()` of each member before the next."""

    def __init__(self, stream: Gunzip) -> None:
        self._stream = stream

    def members(self) -> Iterator[Member]:
        while True:
            raw = self._stream.read(_BLOCK)
            if not raw.strip(b"\0"):
                if len(raw) < _BLOCK:
                    raise Refused("", "the tar has no end mark: the image was cut short")
                break
            member = _parse(raw)
            if member is not None:
                yield member
        while self._stream.read(_PIECE):
            pass

    def pieces(self, member: Member) -> Iterator[bytes]:
        """The bytes of the member just given by `members`, about 1 MiB at a time."""
        left = member.size
        while left:
            part = self._stream.read(min(left, _PIECE))
            if not part:
                raise Refused(member.name, f"ends {left} bytes early: the image was cut short")
            left -= len(part)
            yield part
        self._stream.read(-member.size % _BLOCK)


def _parse(raw: bytes) -> Optional[Member]:
    """A regular member from its header; None for the tar's own "./" entry; Refused for anything else."""
    if len(raw) < _BLOCK:
        raise Refused("", "ends inside a tar header: the image was cut short")
    name = raw[:100].split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
    # POSIX archives have a name prefix here; GNU ones, whose magic goes on with blanks, keep other things.
    if raw[257:265] == b"ustar\x0000":
        prefix = raw[345:500].split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
        name = f"{prefix}/{name}" if prefix else name
    stated = _number(raw[148:156], name)
    if stated != sum(raw[:148]) + 8 * 32 + sum(raw[156:]):
        raise Refused(name, "the tar header's checksum is wrong")
    kind, size = raw[156:157], _number(raw[124:136], name)
    if kind == b"5" and name in (".", "./") and size == 0:
        return None
    if kind not in (b"0", b"\0"):
        what = _KINDS.get(kind, f"of tar type {kind!r}")
        raise Refused(name, f"is {what}; only regular files are allowed")
    return Member(name=name[2:] if name.startswith("./") else name, size=size)


def _number(field: bytes, name: str) -> int:
    """A tar number: octal digits, or GNU's base 256 for files of 8 GiB and more."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0") or b"0"
    if digits.strip(b"01234567"):
        raise Refused(name, "a number in the tar header is not octal")
    return int(digits, 8)
