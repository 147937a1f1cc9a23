"""A chain as Glance holds it: a gzipped tar of `0.vhd` (the leaf), `1.vhd` (its parent) .. `n-1.vhd` (the base)."""

import os
import re
import tarfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from xenapi_host.plugins.celltree_gzip import Gzip
from xenapi_host.plugins.celltree_tar import Gunzip, Member, Refused, Tar
from xenapi_host.vhd.chain import chain, check
from xenapi_host.vhd.change import set_parent
from xenapi_host.vhd.errors import ImageRefused, VhdError
from xenapi_host.vhd.file import VhdFile
from xenapi_host.vhd.layout import BLOCK_SIZE, MAX_VIRTUAL_SIZE, SECTOR, Kind
from xenapi_host.vhd.raw import Readable

_NAME = re.compile(r"(?:0|[1-9][0-9]?)\.vhd")
_MIB = 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What an image may cost. Bytes; lower them to what the flavor and the storage can take.

    `max_virtual_size` bounds each disk; `max_bytes` bounds all that comes out of the decompression.
    """

    max_virtual_size: int = MAX_VIRTUAL_SIZE
    max_bytes: int = 2 * MAX_VIRTUAL_SIZE
    max_members: int = 16

    @property
    def max_member_bytes(self) -> int:
        """The largest file a disk of `max_virtual_size` can need: data, a bitmap and a table entry a block, tables."""
        blocks = -(-self.max_virtual_size // BLOCK_SIZE)
        return blocks * (BLOCK_SIZE + 4096 + 8) + _MIB


def write_image(leaf: str | os.PathLike[str], stream: BinaryIO, *, compression: int = 6) -> int:
    """Write a leaf and its ancestors as an image; files in use are only read. Returns the number of members.

    `compression` is gzip's level 0..9, for what gets smaller by it. Raises the chain's errors before anything is
    written.
    """
    paths = chain(leaf)
    packed: Any = Gzip(stream, compression)  # what tarfile's stubs want of a file to write to is more than it uses
    # GNU numbers for files over 8 GiB; no time or user names, so that the same chain gives the same bytes.
    with tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as tar:
        for number, path in enumerate(paths):
            with open(path, "rb") as file:
                member = tarfile.TarInfo(f"{number}.vhd")
                member.size = os.fstat(file.fileno()).st_size
                member.mode = 0o644
                tar.addfile(member, file)
    packed.close()
    return len(paths)


def read_image(
    stream: Readable,
    folder: str | os.PathLike[str],
    *,
    limits: ImageLimits | None = None,
    now: float | None = None,
) -> tuple[Path, ...]:
    """Unpack an image into an empty folder, check it whole and link its parents; the paths, leaf first.

    Nothing outside `folder` is written or read. Raises ImageRefused, which names the member and the reason but no
    folder; whatever is raised, the folder is empty again. `now` is Unix time.
    """
    allowed = limits or ImageLimits()
    target = Path(folder)
    with ExitStack() as undoing:
        paths = _unpack(stream, target, allowed, undoing)
        _check_disks(paths, allowed, time.time() if now is None else now)
        for child, parent in zip(reversed(paths[:-1]), reversed(paths[1:]), strict=True):
            with _refusing(child):
                set_parent(child, parent)
        undoing.pop_all()
    return paths


def _unpack(stream: Readable, folder: Path, limits: ImageLimits, undoing: ExitStack) -> tuple[Path, ...]:
    """Write the members; their paths, leaf first. What is written is removed again by `undoing`."""
    sizes: dict[str, int] = {}
    try:
        tar = Tar(Gunzip(stream, limits.max_bytes))
        for member in tar.members():
            _check_member(member, sizes, limits)
            sizes[member.name] = member.size
            with open(folder / member.name, "xb", buffering=0) as file:
                undoing.callback((folder / member.name).unlink)
                _write_sparse(tar.pieces(member), file, member.size)
    except Refused as refused:
        raise ImageRefused(refused.member, refused.reason) from refused
    if not sizes:
        raise ImageRefused("", "holds no 0.vhd")
    paths = tuple(folder / f"{number}.vhd" for number in range(len(sizes)))
    for path in paths:
        if path.name not in sizes:
            raise ImageRefused(path.name, f"is missing among {len(sizes)} members; the numbers must have no gap")
    return paths


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """What is wrong with a member's file, told in the words of the archive, where files have no folder."""
    try:
        yield
    except VhdError as error:
        reason = str(error).removeprefix(f"{path}: ").replace(f"{path.parent}{os.sep}", "")
        raise ImageRefused(path.name, reason) from error


def _check_member(member: Member, sizes: dict[str, int], limits: ImageLimits) -> None:
    if not _NAME.fullmatch(member.name):
        raise ImageRefused(member.name, "only the names 0.vhd, 1.vhd .. are allowed")
    if member.name in sizes:
        raise ImageRefused(member.name, "is there twice")
    if len(sizes) == limits.max_members:
        raise ImageRefused(member.name, f"more than {limits.max_members} files; coalesce the chain before upload")
    if member.size > limits.max_member_bytes:
        raise ImageRefused(member.name, f"{member.size} bytes, over {limits.max_member_bytes} for the size allowed")


def _check_disks(paths: tuple[Path, ...], limits: ImageLimits, now: float) -> None:
    child_uuid = child_name = None
    for path in paths:
        base = path == paths[-1]
        with _refusing(path):
            check(path, now=now)
            with VhdFile(path) as file:
                footer, header = file.footer, file.header
        if footer.virtual_size > limits.max_virtual_size:
            raise ImageRefused(
                path.name, f"a disk of {footer.virtual_size} bytes, over the {limits.max_virtual_size} allowed"
            )
        if path == paths[0] and footer.hidden:
            raise ImageRefused(path.name, "is marked hidden; a leaf so marked would be removed by the next SR scan")
        if base and footer.kind is Kind.DIFFERENCING:
            raise ImageRefused(path.name, "is differencing, but its parent is not in the image")
        if not base and footer.kind is not Kind.DIFFERENCING:
            raise ImageRefused(path.name, f"is {footer.kind.name.lower()}, so it cannot be a child of the next member")
        if child_uuid is not None and child_uuid != footer.uuid:
            raise ImageRefused(path.name, f"is {footer.uuid}, not {child_uuid}, the parent that {child_name} names")
        child_uuid, child_name = header.parent_uuid if header is not None else None, path.name


def _write_sparse(pieces: Iterable[bytes], file: FileIO, size: int) -> None:
    """Fill a new file, leaving zeros out, so that a file full of them takes no room."""
    offset = 0
    zeros = bytes(128 * SECTOR)
    for piece in pieces:
        for start in range(0, len(piece), len(zeros)):
            part = memoryview(piece)[start : start + len(zeros)]
            if part != zeros[: len(part)]:
                file.seek(offset + start)
                while part:
                    part = part[file.write(part) :]
        offset += len(piece)
    file.truncate(size)
