"""Chains of VHD files that come from elsewhere: checked as one disk, given their names in an SR, linked again."""

import os
from typing import TYPE_CHECKING, List, Optional

# In dom0 the scripts lie side by side in one folder; type checkers know them as a package.
if TYPE_CHECKING:
    from xenapi_host.plugins.celltree_plugin import PermanentError, reason, run
    from xenapi_host.plugins.celltree_vhd import DIFFERENCING, NotSound, Vhd, read_vhd
else:
    from celltree_plugin import PermanentError, reason, run
    from celltree_vhd import DIFFERENCING, NotSound, Vhd, read_vhd

_VHD_UTIL_SECONDS = 300


def disk_path(sr_path: str, uuid: str) -> str:
    return os.path.join(sr_path, uuid + ".vhd")


def checked(paths: List[str], max_virtual_size: int) -> List[Vhd]:
    """Every file sound, and each the child of the next by identity; parents' names are never looked at."""
    disks = []  # type: List[Vhd]
    for position, path in enumerate(paths):
        name = os.path.basename(path)
        try:
            disk = read_vhd(path)
        except (NotSound, OSError) as error:
            raise PermanentError(f"image refused: {name}: {reason(error)}") from error
        misfit = _misfit(disk, disks[-1] if disks else None, position == len(paths) - 1, max_virtual_size)
        if misfit:
            raise PermanentError(f"image refused: {name}: {misfit}")
        disks.append(disk)
    return disks


def _misfit(disk: Vhd, child: Optional[Vhd], base: bool, max_virtual_size: int) -> str:
    if disk.virtual_size > max_virtual_size:
        return f"a disk of {disk.virtual_size} bytes, over the {max_virtual_size} allowed"
    if child is None and disk.hidden:
        return "is marked hidden; a leaf so marked would be removed by the next SR scan"
    if child is not None and child.parent != disk.uuid:
        return f"is {disk.uuid}, not the parent {child.parent} that its child names"
    if base and disk.kind == DIFFERENCING:
        return "is differencing, but its parent is not in the image"
    if not base and disk.kind != DIFFERENCING:
        return "is no differencing disk, so it cannot be a child of the next file"
    return ""


def refuse_taken(sr_path: str, uuids: List[str], disks: List[Vhd]) -> None:
    """Files of a run that died while moving have the same content and may be replaced; no other file may."""
    for uuid, disk in zip(uuids, disks):
        path = disk_path(sr_path, uuid)
        if not os.path.lexists(path):
            continue
        try:
            same = read_vhd(path).uuid == disk.uuid
        except (NotSound, OSError):
            same = False
        if not same:
            raise PermanentError(f"another disk has the name {uuid} in the SR; choose new uuids")


def name_and_link(paths: List[str], folder: str, uuids: List[str]) -> List[str]:
    """Bring the files into one folder, with their uuids as names, and link them again, base to leaf."""
    named = []
    for path, uuid in zip(paths, uuids):
        target = disk_path(folder, uuid)
        os.rename(path, target)
        named.append(target)
    for position in range(len(named) - 1, 0, -1):
        _link(named[position - 1], named[position])
    return named


def _link(child: str, parent: str) -> None:
    code, said = run("vhd-util", "modify", "-n", child, "-p", parent, seconds=_VHD_UTIL_SECONDS)
    if code:
        raise PermanentError(f"vhd-util modify failed: {said.strip()}")
