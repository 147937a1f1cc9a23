"""Making and changing VHD files: create, snapshot child, parent links, hidden flag, size, coalesce."""

import os
import time
from array import array
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

from xenapi_host.vhd import layout
from xenapi_host.vhd.chain import chain, open_chain
from xenapi_host.vhd.errors import CannotShrink, ChainLoop, ChainTooLong, VhdError
from xenapi_host.vhd.file import VhdFile, packed_tables
from xenapi_host.vhd.layout import ABSENT, CHAIN_LIMIT, FOOTER_SIZE, HEADER_SIZE, NIL, Footer, Header, Kind, Locator

AnyPath = str | os.PathLike[str]


def create_dynamic(path: AnyPath, virtual_size: int, *, uuid: UUID | None = None, now: float | None = None) -> UUID:
    """Make an empty dynamic disk of `virtual_size` bytes (a multiple of 512) at a path that is still free.

    Returns its uuid (a new one unless given). `now` is Unix time. Raises SizeRefused, FileExistsError.
    """
    layout.checked_size(virtual_size)
    created = time.time() if now is None else now
    footer = _footer(Kind.DYNAMIC, virtual_size, uuid, created)
    _write_new(path, footer, NIL, layout.EPOCH_2000, "")
    return footer.uuid


def create_fixed(path: AnyPath, virtual_size: int, *, uuid: UUID | None = None, now: float | None = None) -> UUID:
    """Make a fixed disk full of zeros (a sparse file); as `create_dynamic` otherwise."""
    layout.checked_size(virtual_size)
    footer = _footer(Kind.FIXED, virtual_size, uuid, time.time() if now is None else now)
    with open(path, "xb") as file:
        file.seek(virtual_size)
        file.write(layout.pack_footer(footer))
    return footer.uuid


def create_child(
    path: AnyPath,
    parent_path: AnyPath,
    *,
    uuid: UUID | None = None,
    virtual_size: int | None = None,
    now: float | None = None,
) -> UUID:
    """Make an empty differencing disk over a parent in the same folder; returns its uuid.

    It has the parent's size unless a larger one is given. Raises ChainTooLong when the parent's chain has 30 files
    already, VhdError when the folders differ or the parent is no VHD, FileExistsError.
    """
    _require_same_folder(path, parent_path)
    if len(chain(parent_path)) >= CHAIN_LIMIT:
        raise ChainTooLong(f"{parent_path} is {CHAIN_LIMIT} files deep already; coalesce its chain first")
    with VhdFile(parent_path) as parent:
        size = parent.virtual_size if virtual_size is None else layout.checked_size(virtual_size)
        if size < parent.virtual_size:
            raise CannotShrink(f"a child of {parent_path} needs at least {parent.virtual_size} bytes, not {size}")
        footer = _footer(Kind.DIFFERENCING, size, uuid, time.time() if now is None else now)
        _write_new(path, footer, parent.footer.uuid, parent.stat().st_mtime, Path(parent_path).name)
    return footer.uuid


def set_hidden(path: AnyPath, hidden: bool) -> None:
    """Mark a file as a base copy nobody attaches (blktap's byte 85), or as a plain disk again."""
    with VhdFile(path, writable=True) as file:
        file.require_sound_footer()
        file.write_footer(replace(file.footer, hidden=hidden))


def set_uuid(path: AnyPath, uuid: UUID) -> None:
    """Give a file another identity; its children must be linked again with `set_parent`."""
    with VhdFile(path, writable=True) as file:
        file.require_sound_footer()
        file.write_footer(replace(file.footer, uuid=uuid))


def set_parent(path: AnyPath, parent_path: AnyPath) -> None:
    """Link a differencing disk to a parent in its folder: uuid, time stamp, name and locators.

    The data is not looked at: the caller knows that the parent holds what the child was made from. Raises VhdError
    for a disk that has no parent, ChainLoop when the disk would become its own ancestor, ChainTooLong.
    """
    _require_same_folder(path, parent_path)
    ancestors = open_chain(parent_path)
    try:
        if any(os.path.samestat(os.stat(path), ancestor.stat()) for ancestor in ancestors):
            raise ChainLoop(f"{path} cannot have its own descendant {parent_path} as parent")
        if len(ancestors) >= CHAIN_LIMIT:
            raise ChainTooLong(f"{parent_path} is {CHAIN_LIMIT} files deep already; coalesce its chain first")
        with VhdFile(path, writable=True) as child:
            if child.footer.kind is not Kind.DIFFERENCING or child.header is None:
                raise VhdError(f"{path} is {child.footer.kind.name.lower()}: only a differencing disk has a parent")
            child.require_sound_footer()
            name = Path(parent_path).name
            places = _locators_in_place(child, child.header, name)
            parent = ancestors[0]
            child.write_header(
                layout.with_parent(child.header, parent.footer.uuid, parent.stat().st_mtime, name, places)
            )
    finally:
        for ancestor in ancestors:
            ancestor.close()


def resize(path: AnyPath, new_size: int) -> None:
    """Grow a disk to `new_size` bytes; what is added reads as zeros. Raises CannotShrink, SizeRefused."""
    layout.checked_size(new_size)
    with VhdFile(path, writable=True) as file:
        file.require_sound_footer()
        if new_size < file.virtual_size:
            raise CannotShrink(
                f"{path} has {file.virtual_size} bytes and cannot shrink to {new_size}; copy it into a smaller disk"
            )
        if new_size > file.virtual_size:
            file.grow(new_size)


def coalesce(child_path: AnyPath) -> int:
    """Copy everything a differencing disk holds into its parent; returns the bytes copied.

    Afterwards parent and child read the same: link the child's children to the parent, then delete the child. Done
    twice, or again after a crash half-way, the result is the same. The parent must have no other children, and the
    child no writer (VhdInUse).
    """
    copied = 0
    files = open_chain(child_path, writable=True)
    try:
        child = files[0]
        if len(files) == 1:
            raise VhdError(f"{child_path} has no parent to be coalesced into")
        if files[1].virtual_size < child.virtual_size:
            resize(files[1].path, child.virtual_size)
        with VhdFile(files[1].path, writable=True) as parent:
            for run in child.runs(0, child.virtual_size):
                if run.position is None:
                    continue
                for step in range(0, run.length, layout.BLOCK_SIZE):
                    count = min(layout.BLOCK_SIZE, run.length - step)
                    parent.write(run.offset + step, memoryview(child.read_at(run.position + step, count)))
                copied += run.length
            parent.flush(durable=True)
    finally:
        for file in files:
            file.close()
    return copied


def repair(path: AnyPath) -> None:
    """Make a disk's two footers one again, after a writer died between them or the end of the file was lost.

    The one at the end holds if it is sound, else the copy at the start; NotAVhd or DamagedVhd when neither is.
    """
    with VhdFile(path, writable=True) as file:
        file.restore_footer()


def _footer(kind: Kind, size: int, uuid: UUID | None, created: float) -> Footer:
    return Footer(kind=kind, virtual_size=size, original_size=size, uuid=uuid or uuid4(), created=created)


def _write_new(path: AnyPath, footer: Footer, parent: UUID, parent_time: float, parent_name: str) -> None:
    """Footer, header, block table, batmap, locators, footer: the order in which blktap lays a file out."""
    entries = -(-footer.virtual_size // layout.BLOCK_SIZE)
    table_offset = FOOTER_SIZE + HEADER_SIZE
    tables = packed_tables(array("I", [ABSENT]) * entries, table_offset)
    places: tuple[Locator, ...] = ()
    spellings = b""
    if parent_name:
        places, spellings = layout.place_locators(parent_name, table_offset + len(tables))
    header = Header(
        table_offset=table_offset,
        entries=entries,
        parent_uuid=parent,
        parent_time=parent_time,
        parent_name=parent_name,
        locators=places,
    )
    sealed = layout.pack_footer(footer)
    with open(path, "xb") as file:
        file.write(sealed + layout.pack_header(header) + tables + spellings + sealed)


def _locators_in_place(child: VhdFile, header: Header, name: str) -> tuple[Locator, ...]:
    """Write the parent's name into the locators' old places if all fit there, else into a new place."""
    texts = layout.locator_texts(name)
    old = {place.code: place for place in header.locators}
    if any(code not in old or old[code].space < len(text) for code, text in texts.items()):
        places, body = layout.place_locators(name, 0)
        start = child.append(body)
        return tuple(replace(place, offset=start + place.offset) for place in places)
    for code, text in texts.items():
        child.write_at(old[code].offset, text.ljust(old[code].space, b"\0"))
    return tuple(replace(old[code], length=len(text)) for code, text in texts.items())


def _require_same_folder(path: AnyPath, parent_path: AnyPath) -> None:
    if not os.path.samefile(Path(path).parent, Path(parent_path).parent):
        raise VhdError(f"{path} and its parent {parent_path} must be in one folder; move the parent there first")
