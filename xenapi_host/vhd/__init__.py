"""VHD files, alone and in chains: what a XenServer storage repository on a file system is made of.

The functions most callers need (paths are `str` or `Path`, sizes bytes, times Unix seconds, uuids `uuid.UUID`):

    create_dynamic(path, virtual_size, *, uuid=None, now=None) -> UUID
    create_fixed(path, virtual_size, *, uuid=None, now=None) -> UUID
    create_child(path, parent_path, *, uuid=None, virtual_size=None, now=None) -> UUID     a snapshot's new layer
    info(path) -> VhdInfo                              one file's facts
    chain(leaf) -> (leaf path, parent path, .. base)   by name, in one folder
    set_hidden(path, bool); set_parent(path, parent_path); set_uuid(path, uuid); resize(path, new_size)
    coalesce(child_path) -> bytes copied into its parent
    check(path); check_chain(leaf); repair(path)
    Disk.open(leaf, writable=False): size, pread, pwrite, allocated, flush, close; a context manager
    import_raw(stream, path, size) -> UUID; export_raw(leaf, stream) -> bytes
    overwrite_raw(stream, disk, size); write_raw(disk, stream)                         of disks that are open
    import_raw_file(raw_path, path); export_raw_file(leaf, raw_path)                   sparse files, holes not read
    changed_ranges(leaf, base) -> [(offset, length), ..]; plan_export(leaf, base=None) -> VhdExport(size, chunks())
    apply_stream(vhd_stream, disk) -> bytes            lay an exported stream over a disk
    read_log(path); write_log(path, ChangeLog); log_beside(leaf)       which pieces were written, as Disk notes it
    write_image(leaf, stream) -> members; read_image(stream, empty_folder, limits=ImageLimits(..)) -> (0.vhd, ..)

Errors are `VhdError`s (permanent), `VhdInUse` (temporary) and what the operating system says (FileNotFoundError,
FileExistsError, no space left). A parent is taken only from its child's own folder.
"""

from xenapi_host.vhd.chain import chain, check, check_chain, open_chain
from xenapi_host.vhd.change import (
    coalesce,
    create_child,
    create_dynamic,
    create_fixed,
    repair,
    resize,
    set_hidden,
    set_parent,
    set_uuid,
)
from xenapi_host.vhd.changes import ChangeLog, log_beside, read_log, write_log
from xenapi_host.vhd.describe import VhdInfo, info
from xenapi_host.vhd.disk import Disk
from xenapi_host.vhd.errors import (
    CannotShrink,
    ChainError,
    ChainLoop,
    ChainTooLong,
    DamagedVhd,
    ImageRefused,
    NotAVhd,
    ParentMismatch,
    ParentMissing,
    ParentOutsideFolder,
    SizeRefused,
    StreamEnded,
    VhdError,
    VhdInUse,
)
from xenapi_host.vhd.export import VhdExport, apply_stream, changed_ranges, plan_export
from xenapi_host.vhd.image import ImageLimits, read_image, write_image
from xenapi_host.vhd.layout import BLOCK_SIZE, CHAIN_LIMIT, MAX_VIRTUAL_SIZE, Kind
from xenapi_host.vhd.raw import export_raw, export_raw_file, import_raw, import_raw_file, overwrite_raw, write_raw

__all__ = [
    "BLOCK_SIZE",
    "CHAIN_LIMIT",
    "MAX_VIRTUAL_SIZE",
    "CannotShrink",
    "ChainError",
    "ChainLoop",
    "ChainTooLong",
    "ChangeLog",
    "DamagedVhd",
    "Disk",
    "ImageLimits",
    "ImageRefused",
    "Kind",
    "NotAVhd",
    "ParentMismatch",
    "ParentMissing",
    "ParentOutsideFolder",
    "SizeRefused",
    "StreamEnded",
    "VhdError",
    "VhdExport",
    "VhdInUse",
    "VhdInfo",
    "apply_stream",
    "chain",
    "changed_ranges",
    "check",
    "check_chain",
    "coalesce",
    "create_child",
    "create_dynamic",
    "create_fixed",
    "export_raw",
    "export_raw_file",
    "import_raw",
    "import_raw_file",
    "info",
    "log_beside",
    "open_chain",
    "overwrite_raw",
    "plan_export",
    "read_image",
    "read_log",
    "repair",
    "resize",
    "set_hidden",
    "set_parent",
    "set_uuid",
    "write_image",
    "write_log",
    "write_raw",
]
