"""From a leaf to its base: opening, walking and checking the files of a chain, all in one folder.

A parent is taken by its file name only and only from the folder of the leaf; its uuid must be the one the child names.
"""

import os
import time
from contextlib import ExitStack
from pathlib import Path

from xenapi_host.vhd.errors import ChainLoop, ChainTooLong, DamagedVhd, ParentMismatch, ParentMissing
from xenapi_host.vhd.file import VhdFile, batmap_header_offset
from xenapi_host.vhd.layout import ABSENT, CHAIN_LIMIT, FOOTER_SIZE, SECTOR, Kind, round_up, unpack_footer

_LOOKS = 4
_CLOCK_SLACK_SECONDS = 24 * 3600


def open_chain(leaf: str | os.PathLike[str], *, writable: bool = False) -> list[VhdFile]:
    """Open a leaf and all its ancestors, leaf first; only the leaf can be writable. Close what you get.

    Storage may merge layers while this looks, which renames and relinks files: then it looks again.
    """
    for _ in range(_LOOKS - 1):
        try:
            return _open_chain(leaf, writable)
        except (ParentMissing, ParentMismatch):
            continue
    return _open_chain(leaf, writable)


def _open_chain(leaf: str | os.PathLike[str], writable: bool) -> list[VhdFile]:
    folder = Path(leaf).parent
    with ExitStack() as opened:
        files = [opened.enter_context(VhdFile(leaf, writable=writable))]
        seen = {_identity(files[0])}
        while files[-1].footer.kind is Kind.DIFFERENCING:
            child = files[-1]
            name = child.parent_name()
            try:
                parent = opened.enter_context(VhdFile(folder / name))
            except FileNotFoundError as error:
                raise ParentMissing(f"{child.path} needs its parent {name}, which is not in {folder}") from error
            if _identity(parent) in seen:
                raise ChainLoop(f"{parent.path} is its own ancestor; run set_parent on {child.path}")
            assert child.header is not None
            if parent.footer.uuid != child.header.parent_uuid:
                raise ParentMismatch(
                    f"{parent.path} is {parent.footer.uuid}, but {child.path} was made from {child.header.parent_uuid};"
                    f" bring the right file or run set_parent"
                )
            seen.add(_identity(parent))
            files.append(parent)
            if len(files) > CHAIN_LIMIT:
                raise ChainTooLong(f"the chain of {leaf} has more than {CHAIN_LIMIT} files; coalesce it first")
        opened.pop_all()
        return files


def chain(leaf: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The paths of a leaf and all its ancestors, leaf first."""
    files = open_chain(leaf)
    try:
        return tuple(Path(file.path) for file in files)
    finally:
        for file in files:
            file.close()


def check(path: str | os.PathLike[str], *, now: float | None = None) -> None:
    """Check one file alone: footers agree, not from the future, blocks inside the file and apart from each other.

    Raises NotAVhd or DamagedVhd. `now` is Unix time; a day of slack allows for clocks that are set wrongly.
    """
    with VhdFile(path) as file:
        _check_open(file, time.time() if now is None else now)


def check_chain(leaf: str | os.PathLike[str], *, now: float | None = None) -> None:
    """Check every file from the leaf to its base, and that they belong together. Raises VhdError's kinds."""
    files = open_chain(leaf)
    try:
        for file in files:
            _check_open(file, time.time() if now is None else now)
    finally:
        for file in files:
            file.close()


def _check_open(file: VhdFile, now: float) -> None:
    file.require_sound_footer()
    if file.footer.created > now + _CLOCK_SLACK_SECONDS:
        raise DamagedVhd(file.path, "primary footer", "creation time in future")
    header = file.header
    if header is None:
        return
    copy = unpack_footer(file.read_at(0, FOOTER_SIZE), file.path, "backup footer")
    if copy != file.footer:
        raise DamagedVhd(file.path, "backup footer", "differs from the primary footer")
    if file.footer.kind is Kind.DIFFERENCING and header.parent_uuid.int == 0:
        raise DamagedVhd(file.path, "header", "differencing, yet without a parent's identity")
    for place in header.locators:
        if place.offset + place.length > file.end or place.length > place.space:
            raise DamagedVhd(file.path, "parent locator", f"{place.code!r} reaches out of its place")
    _check_blocks(file)


def _check_blocks(file: VhdFile) -> None:
    header = file.header
    assert header is not None
    lowest = header.table_offset + round_up(header.entries * 4, SECTOR)
    span = header.bitmap_size + header.block_size
    places = sorted(entry * SECTOR for entry in file.bat if entry != ABSENT)
    tables = [(header.table_offset, lowest)]
    if file.batmap is not None:
        tables.append((batmap_header_offset(header), lowest + SECTOR + len(file.batmap)))
    previous_end = FOOTER_SIZE + 1024
    for place in places:
        if place < previous_end:
            raise DamagedVhd(file.path, "block table", f"the block at {place} overlaps what is before it")
        if any(place < stop and start < place + span for start, stop in tables):
            raise DamagedVhd(file.path, "block table", f"the block at {place} overlaps the tables")
        previous_end = place + span
    if places and previous_end > file.end - FOOTER_SIZE:
        raise DamagedVhd(file.path, "block table", f"the block at {places[-1]} reaches behind the end of the file")


def _identity(file: VhdFile) -> tuple[int, int]:
    found = file.stat()
    return found.st_dev, found.st_ino
