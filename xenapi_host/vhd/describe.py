"""What one VHD file says of itself."""

import os
from dataclasses import dataclass
from uuid import UUID

from xenapi_host.vhd.errors import ParentOutsideFolder
from xenapi_host.vhd.file import VhdFile
from xenapi_host.vhd.layout import ABSENT, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class VhdInfo:
    """One file's own facts; sizes in bytes, times in Unix seconds.

    `parent_name` is the parent's file name in the same folder, None for a base or when the name recorded leads out of
    the folder. `allocated_bytes` = blocks present x block size; `file_size` includes tables and bitmaps; `disk_usage`
    is what the host's file system spends.
    """

    kind: Kind
    virtual_size: int
    uuid: UUID
    hidden: bool
    created: float
    creator: str
    creator_version: int
    parent_uuid: UUID | None
    parent_name: str | None
    parent_time: float | None
    block_size: int
    blocks_allocated: int
    allocated_bytes: int
    file_size: int
    disk_usage: int


def info(path: str | os.PathLike[str]) -> VhdInfo:
    """Read a file's facts; its parent is not looked at. Raises NotAVhd, DamagedVhd, FileNotFoundError."""
    with VhdFile(path) as file:
        header, footer, found = file.header, file.footer, file.stat()
        blocks = sum(entry != ABSENT for entry in file.bat)
        differs = header is not None and footer.kind is Kind.DIFFERENCING
        return VhdInfo(
            kind=footer.kind,
            virtual_size=footer.virtual_size,
            uuid=footer.uuid,
            hidden=footer.hidden,
            created=footer.created,
            creator=footer.creator.rstrip(b"\0 ").decode("ascii", "replace"),
            creator_version=footer.creator_version,
            parent_uuid=header.parent_uuid if header is not None and differs else None,
            parent_name=_parent_name(file) if differs else None,
            parent_time=header.parent_time if header is not None and differs else None,
            block_size=file.block_size,
            blocks_allocated=blocks,
            allocated_bytes=blocks * file.block_size if header is not None else footer.virtual_size,
            file_size=found.st_size,
            disk_usage=found.st_blocks * 512,
        )


def _parent_name(file: VhdFile) -> str | None:
    try:
        return file.parent_name()
    except ParentOutsideFolder:
        return None
