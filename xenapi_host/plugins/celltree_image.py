#!/usr/bin/env python3
"""Plugin: images between Glance and a storage repository on a file system. The disks never leave dom0's reach.

    version    {} -> {version, functions}
    download   {url, headers, sr_path, uuids, checksum?, format? (vhd | raw), max_virtual_size?, max_bytes?,
                timeout?, max_seconds?, ca_file?} -> [{uuid, virtual_size, parent}, ..] leaf first
    upload     {url, headers, sr_path, chain, compression?, timeout?, max_seconds?, ca_file?} -> {size, checksum}
    sweep      {sr_path} -> number of abandoned staging folders removed

`url` is the full address of /v2/images/ID/file. Sizes are bytes, times seconds. All of an image is received and
checked in a hidden staging folder inside the SR (same file system, never scanned); only then its files get their
names in the SR, parents first, so that a scan never sees a child without its parent.
"""

import contextlib
import errno
import fcntl
import gzip
import os
import re
import shutil
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional

# In dom0 the scripts lie side by side in one folder; type checkers know them as a package.
if TYPE_CHECKING:
    from xenapi_host.plugins.celltree_glance import Download, Upload
    from xenapi_host.plugins.celltree_plugin import Params, PermanentError, RetryableError, dispatch, number, text
    from xenapi_host.plugins.celltree_tar import Gunzip, Member, Refused, Tar
    from xenapi_host.plugins.celltree_vhd import (
        BLOCK,
        DIFFERENCING,
        MAX_VIRTUAL_SIZE,
        NotSound,
        Vhd,
        read_vhd,
        write_raw_as_vhd,
    )
else:
    # Every entry of the plugin folder is a plugin to XAPI; a __pycache__ must not appear there.
    sys.dont_write_bytecode = True
    from celltree_glance import Download, Upload
    from celltree_plugin import Params, PermanentError, RetryableError, dispatch, number, text
    from celltree_tar import Gunzip, Member, Refused, Tar
    from celltree_vhd import BLOCK, DIFFERENCING, MAX_VIRTUAL_SIZE, NotSound, Vhd, read_vhd, write_raw_as_vhd

VERSION = "1.0"
MAX_MEMBERS = 16
_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NAME = re.compile("(?:0|[1-9][0-9]?)\\.vhd")
_STAGING = ".celltree-staging-"
_VHD_UTIL_SECONDS = 300


def version(params: Params) -> Dict[str, Any]:
    return {"version": VERSION, "functions": sorted(FUNCTIONS)}


def download(params: Params) -> List[Dict[str, Any]]:
    sr_path = _sr_path(params)
    uuids = _uuids(params, "uuids")
    with _staging(sr_path, uuids[0]) as staging:
        present = _present(sr_path, uuids)
        if present:
            return present
        paths = _receive(params, staging, len(uuids))
        disks = _checked(paths, number(params, "max_virtual_size", MAX_VIRTUAL_SIZE))
        _refuse_taken(sr_path, uuids, disks)
        named = _name_and_link(paths, uuids)
        for path in reversed(named):
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            os.rename(path, os.path.join(sr_path, os.path.basename(path)))
        _sync_folder(sr_path)
        return _answer(uuids, disks)


def upload(params: Params) -> Dict[str, Any]:
    sr_path = _sr_path(params)
    chain = _uuids(params, "chain")
    compression = params.get("compression", 6)
    if compression not in range(10):
        raise PermanentError("params.compression must be a whole number from 0 to 9")
    paths = [_disk_path(sr_path, uuid) for uuid in chain]
    for path in paths:
        if not os.path.lexists(path):
            raise PermanentError(f"{os.path.basename(path)} is not in the SR; read the chain again")
    _checked(paths, MAX_VIRTUAL_SIZE)
    stream = Upload(params)
    try:
        packed = gzip.GzipFile("", "wb", compression, stream, mtime=0)
        with tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as tar:
            for position, path in enumerate(paths):
                _add(tar, f"{position}.vhd", path)
        packed.close()
        checksum = stream.finish()
        return {"size": stream.size, "checksum": checksum}
    finally:
        stream.close()


def sweep(params: Params) -> int:
    sr_path = _sr_path(params)
    removed = 0
    for name in os.listdir(sr_path):
        if name.startswith(_STAGING) and _UUID.fullmatch(name[len(_STAGING) :]):
            with contextlib.suppress(RetryableError), _staging(sr_path, name[len(_STAGING) :]):
                removed += 1
    return removed


FUNCTIONS: Dict[str, Callable[[Params], Any]] = {
    "version": version,
    "download": download,
    "upload": upload,
    "sweep": sweep,
}


# --- parameters ------------------------------------------------------------------------------------------------------


def _sr_path(params: Params) -> str:
    path = text(params, "sr_path")
    if not os.path.isabs(path) or not os.path.isdir(path):
        raise PermanentError("params.sr_path must be the absolute path of a mounted SR; plug its PBD")
    return os.path.realpath(path)


def _uuids(params: Params, name: str) -> List[str]:
    found = params.get(name)
    if not isinstance(found, list) or not 1 <= len(found) <= MAX_MEMBERS:
        raise PermanentError(f"params.{name} must be a list of 1 to {MAX_MEMBERS} uuids")
    for uuid in found:
        if not isinstance(uuid, str) or not _UUID.fullmatch(uuid):
            raise PermanentError(f"params.{name} must hold uuids in lower case")
    if len(set(found)) != len(found):
        raise PermanentError(f"params.{name} names a uuid twice")
    return found


def _disk_path(sr_path: str, uuid: str) -> str:
    return os.path.join(sr_path, uuid + ".vhd")


# --- receiving -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _staging(sr_path: str, leaf: str) -> Iterator[str]:
    """An empty folder of our own, removed at the end; what a killed run left under the name is cleared first."""
    path = os.path.join(sr_path, _STAGING + leaf)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    try:
        held = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    except OSError as error:
        raise PermanentError(f"{path} is not a folder; remove it") from error
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.path.samestat(os.fstat(held), os.lstat(path))
        except OSError:
            same = False
        if not same:
            raise RetryableError(f"another run works on disk {leaf}; wait for it")
        try:
            _clear(path)
            yield path
        finally:
            shutil.rmtree(path)
    finally:
        os.close(held)


def _clear(folder: str) -> None:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


def _present(sr_path: str, uuids: List[str]) -> List[Dict[str, Any]]:
    """The answer of an earlier run, if its leaf, which is moved last, is in the SR; else nothing.

    The leaf may have been cloned since, which puts a new file between it and its parent: the links are told as they
    are now.
    """
    if not os.path.lexists(_disk_path(sr_path, uuids[0])):
        return []
    found = []
    for uuid in uuids:
        path = _disk_path(sr_path, uuid)
        if not os.path.lexists(path):
            continue
        try:
            disk = read_vhd(path)
        except (NotSound, OSError) as error:
            raise PermanentError(f"{uuid} is in the SR but cannot be used: {error}") from error
        parent = disk.parent_file[:-4] if disk.parent_file.endswith(".vhd") else None
        found.append({"uuid": uuid, "virtual_size": disk.virtual_size, "parent": parent})
    return found


def _receive(params: Params, staging: str, most: int) -> List[str]:
    """Stream the image into the staging folder; the files, leaf first."""
    max_virtual_size = min(number(params, "max_virtual_size", MAX_VIRTUAL_SIZE), MAX_VIRTUAL_SIZE)
    max_bytes = number(params, "max_bytes", 2 * MAX_VIRTUAL_SIZE)
    kind = params.get("format", "vhd")
    if kind not in ("vhd", "raw"):
        raise PermanentError(f"params.format must be vhd or raw, not {kind!r}")
    stream = Download(params, max_bytes)
    try:
        if kind == "raw":
            path = os.path.join(staging, "0.vhd")
            write_raw_as_vhd(stream, path, min(max_virtual_size, max_bytes))
            paths = [path]
        else:
            paths = _unpack(Tar(Gunzip(stream, max_bytes)), staging, most, max_virtual_size)
        stream.verify()
        return paths
    except (Refused, NotSound) as error:
        raise PermanentError(f"image refused: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise PermanentError("no space left in the SR for the image; choose another host or SR") from error
        raise RetryableError(f"the SR failed: {error.strerror}") from error
    finally:
        stream.close()


def _unpack(tar: Tar, staging: str, most: int, max_virtual_size: int) -> List[str]:
    # The largest file a disk of this size can need: data, a bitmap and a table entry a block, tables.
    max_member = -(-max_virtual_size // BLOCK) * (BLOCK + 4096 + 8) + 1024 * 1024
    seen = {}  # type: Dict[str, str]
    for member in tar.members():
        if not _NAME.fullmatch(member.name):
            raise Refused(member.name, "only the names 0.vhd, 1.vhd .. are allowed")
        if member.name in seen:
            raise Refused(member.name, "is there twice")
        if len(seen) == most:
            raise Refused(member.name, f"more than {most} files; coalesce the chain before upload")
        if member.size > max_member:
            raise Refused(member.name, f"{member.size} bytes, over {max_member} for the size allowed")
        seen[member.name] = os.path.join(staging, member.name)
        _write_sparse(tar, member, seen[member.name])
    if not seen:
        raise Refused("", "holds no 0.vhd")
    for position in range(len(seen)):
        if f"{position}.vhd" not in seen:
            raise Refused(f"{position}.vhd", "is missing; the numbers must have no gap")
    return [seen[f"{position}.vhd"] for position in range(len(seen))]


def _write_sparse(tar: Tar, member: Member, path: str) -> None:
    """Write a new file, leaving zeros out, so that a file full of them takes no room."""
    step = 64 * 1024
    zeros = bytes(step)
    with open(path, "xb") as file:
        offset = 0
        for piece in tar.pieces(member):
            for start in range(0, len(piece), step):
                part = piece[start : start + step]
                if part != zeros[: len(part)]:
                    file.seek(offset + start)
                    file.write(part)
            offset += len(piece)
        file.truncate(member.size)


# --- checking and linking --------------------------------------------------------------------------------------------


def _checked(paths: List[str], max_virtual_size: int) -> List[Vhd]:
    """Every file sound, and each the child of the next by identity; parents' names are never looked at."""
    disks = []  # type: List[Vhd]
    for position, path in enumerate(paths):
        name = os.path.basename(path)
        try:
            disk = read_vhd(path)
        except (NotSound, OSError) as error:
            raise PermanentError(f"image refused: {name}: {error}") from error
        reason = _misfit(disk, disks[-1] if disks else None, position == len(paths) - 1, max_virtual_size)
        if reason:
            raise PermanentError(f"image refused: {name}: {reason}")
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


def _refuse_taken(sr_path: str, uuids: List[str], disks: List[Vhd]) -> None:
    """Files of a run that died while moving have the same content and may be replaced; no other file may."""
    for uuid, disk in zip(uuids, disks):
        path = _disk_path(sr_path, uuid)
        if not os.path.lexists(path):
            continue
        try:
            same = read_vhd(path).uuid == disk.uuid
        except (NotSound, OSError):
            same = False
        if not same:
            raise PermanentError(f"another disk has the name {uuid} in the SR; choose new uuids")


def _name_and_link(paths: List[str], uuids: List[str]) -> List[str]:
    """Give the files their uuids as names and link them again, base to leaf."""
    named = []
    for path, uuid in zip(paths, uuids):
        target = _disk_path(os.path.dirname(path), uuid)
        os.rename(path, target)
        named.append(target)
    for position in range(len(named) - 1, 0, -1):
        _link(named[position - 1], named[position])
    return named


def _link(child: str, parent: str) -> None:
    command = ["vhd-util", "modify", "-n", child, "-p", parent]
    try:
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        raise PermanentError(f"vhd-util cannot be run in dom0: {error.strerror}") from error
    try:
        said, _ = running.communicate(timeout=_VHD_UTIL_SECONDS)
    except BaseException as error:
        running.kill()
        running.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise RetryableError(f"vhd-util modify did not end in {_VHD_UTIL_SECONDS} s") from error
        raise
    if running.returncode:
        raise PermanentError("vhd-util modify failed: {}".format(said.decode("utf-8", "replace").strip()))


def _answer(uuids: List[str], disks: List[Vhd]) -> List[Dict[str, Any]]:
    parents = [*uuids[1 : len(disks)], None]
    return [
        {"uuid": uuid, "virtual_size": disk.virtual_size, "parent": parent}
        for uuid, disk, parent in zip(uuids, disks, parents)
    ]


# --- sending ---------------------------------------------------------------------------------------------------------


def _add(tar: tarfile.TarFile, name: str, path: str) -> None:
    """Add one file as it is now; it may be in use, so it is opened for reading and for no other thing."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(fd, "rb") as file:
        member = tarfile.TarInfo(name)
        member.size = os.fstat(fd).st_size
        member.mode = 0o644
        tar.addfile(member, file)


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


if __name__ == "__main__":
    dispatch(FUNCTIONS)
