#!/usr/bin/env python3
"""Plugin: images between Glance and a storage repository on a file system. The disks never leave dom0's reach.

    version    {} -> {version, functions}
    download   {url, headers, sr_path, uuids, checksum?, parents? [{url, checksum?}, ..], format? (vhd | raw),
                max_virtual_size?, max_bytes?, timeout?, max_seconds?, ca_file?}
               -> [{uuid, virtual_size, parent}, ..] leaf first
    upload     {url, headers, sr_path, chain, base? {chain, identity}, properties?, compression?, timeout?,
                max_seconds?, ca_file?} -> {size, checksum, identity, disks}
    sweep      {sr_path} -> number of abandoned staging folders removed

`url` is the full address of /v2/images/ID/file. Sizes are bytes, times seconds. All of an image is received and
checked in a hidden staging folder inside the SR (same file system, never scanned); only then its files get their
names in the SR, parents first, so that a scan never sees a child without its parent.

An incremental image holds one differencing disk, made against a `base`: an earlier snapshot of the same disk, sent as
a disk of that `identity`. It is downloaded together with the images it builds upon, its `parents`, newest first; the
files of all of them are one chain.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import sys
import tarfile
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional

# In dom0 the scripts lie side by side in one folder; type checkers know them as a package.
if TYPE_CHECKING:
    from xenapi_host.plugins.celltree_chain import checked, disk_path, name_and_link, refuse_taken
    from xenapi_host.plugins.celltree_delta import Delta, NoBase
    from xenapi_host.plugins.celltree_glance import Download, Upload, describe
    from xenapi_host.plugins.celltree_gzip import Gzip
    from xenapi_host.plugins.celltree_plugin import (
        Params,
        PermanentError,
        RetryableError,
        dispatch,
        number,
        reason,
        text,
    )
    from xenapi_host.plugins.celltree_tar import Gunzip, Member, Refused, Tar
    from xenapi_host.plugins.celltree_vhd import BLOCK, MAX_VIRTUAL_SIZE, NotSound, Vhd, read_vhd, write_raw_as_vhd
else:
    # Every entry of the plugin folder is a plugin to XAPI; a __pycache__ must not appear there.
    sys.dont_write_bytecode = True
    from celltree_chain import checked, disk_path, name_and_link, refuse_taken
    from celltree_delta import Delta, NoBase
    from celltree_glance import Download, Upload, describe
    from celltree_gzip import Gzip
    from celltree_plugin import Params, PermanentError, RetryableError, dispatch, number, reason, text
    from celltree_tar import Gunzip, Member, Refused, Tar
    from celltree_vhd import BLOCK, MAX_VIRTUAL_SIZE, NotSound, Vhd, read_vhd, write_raw_as_vhd

VERSION = "1.2"
MAX_MEMBERS = 16
_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NAME = re.compile("(?:0|[1-9][0-9]?)\\.vhd")
_STAGING = ".celltree-staging-"


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
        disks = checked(paths, number(params, "max_virtual_size", MAX_VIRTUAL_SIZE))
        refuse_taken(sr_path, uuids, disks)
        named = name_and_link(paths, staging, uuids)
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
    paths = [disk_path(sr_path, uuid) for uuid in chain]
    for path in paths:
        if not os.path.lexists(path):
            raise PermanentError(f"{os.path.basename(path)} is not in the SR; read the chain again")
    disks = checked(paths, MAX_VIRTUAL_SIZE)
    base = params.get("base")
    delta = _delta(sr_path, paths, base) if base else None
    try:
        if params.get("properties"):
            describe(params, params["properties"])
        sent = _send(params, paths, delta, compression)
    finally:
        if delta is not None:
            delta.close()
    return {"identity": disks[0].uuid, "disks": 1 if delta is not None else len(disks), **sent}


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
        raise PermanentError(f"{os.path.basename(path)} in the SR is not a folder; remove it") from error
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
    if not os.path.lexists(disk_path(sr_path, uuids[0])):
        return []
    found = []
    for uuid in uuids:
        path = disk_path(sr_path, uuid)
        if not os.path.lexists(path):
            continue
        try:
            disk = read_vhd(path)
        except (NotSound, OSError) as error:
            raise PermanentError(f"{uuid} is in the SR but cannot be used: {reason(error)}") from error
        parent = disk.parent_file[:-4] if disk.parent_file.endswith(".vhd") else None
        found.append({"uuid": uuid, "virtual_size": disk.virtual_size, "parent": parent})
    return found


def _receive(params: Params, staging: str, most: int) -> List[str]:
    """Stream the image and those it builds upon into the staging folder; the files of all, leaf first."""
    paths = _receive_one(params, os.path.join(staging, "image"), most)
    parents = params.get("parents", [])
    if not isinstance(parents, list) or not all(isinstance(parent, dict) for parent in parents):
        raise PermanentError("params.parents must be a list of objects")
    if parents and params.get("format", "vhd") != "vhd":
        raise PermanentError("image refused: only an image of VHD files builds upon others")
    for place, parent in enumerate(parents, start=1):
        if len(paths) >= most:
            raise PermanentError(f"image refused: it has more than {most} disks with those it builds upon")
        own = {name: value for name, value in params.items() if name not in ("url", "checksum")}
        paths += _receive_one({**own, **parent}, os.path.join(staging, f"parent {place}"), most - len(paths))
    return paths


def _receive_one(params: Params, folder: str, most: int) -> List[str]:
    os.mkdir(folder)
    max_virtual_size = min(number(params, "max_virtual_size", MAX_VIRTUAL_SIZE), MAX_VIRTUAL_SIZE)
    max_bytes = number(params, "max_bytes", 2 * MAX_VIRTUAL_SIZE)
    kind = params.get("format", "vhd")
    if kind not in ("vhd", "raw"):
        raise PermanentError(f"params.format must be vhd or raw, not {kind!r}")
    stream = Download(params, max_bytes)
    try:
        if kind == "raw":
            path = os.path.join(folder, "0.vhd")
            write_raw_as_vhd(stream, path, min(max_virtual_size, max_bytes))
            paths = [path]
        else:
            paths = _unpack(Tar(Gunzip(stream, max_bytes)), folder, most, max_virtual_size)
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


def _unpack(tar: Tar, folder: str, most: int, max_virtual_size: int) -> List[str]:
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
        seen[member.name] = os.path.join(folder, member.name)
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


def _answer(uuids: List[str], disks: List[Vhd]) -> List[Dict[str, Any]]:
    parents = [*uuids[1 : len(disks)], None]
    return [
        {"uuid": uuid, "virtual_size": disk.virtual_size, "parent": parent}
        for uuid, disk, parent in zip(uuids, disks, parents)
    ]


# --- sending ---------------------------------------------------------------------------------------------------------


def _delta(sr_path: str, paths: List[str], base: Any) -> Delta:
    """What is to be sent of the disk that its base does not hold."""
    if not isinstance(base, dict) or not _UUID.fullmatch(text(base, "identity")):
        raise PermanentError("params.base must hold a chain and an identity")
    try:
        return Delta(paths, [disk_path(sr_path, uuid) for uuid in _uuids(base, "chain")], base["identity"])
    except NoBase as error:
        raise PermanentError(f"no base: {error}") from error
    except (NotSound, OSError) as error:
        raise PermanentError(f"no base: it cannot be read: {reason(error)}") from error


def _send(params: Params, paths: List[str], delta: Optional[Delta], compression: int) -> Dict[str, Any]:
    """Stream the chain, or only the difference, as one tar.gz."""
    stream = Upload(params)
    try:
        packed = Gzip(stream, compression)  # type: Any
        with tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as tar:
            if delta is not None:
                member = _member("0.vhd", delta.size)
                tar.addfile(member, Pieces(delta.pieces()))  # type: ignore[arg-type]
            else:
                for position, path in enumerate(paths):
                    _add(tar, f"{position}.vhd", path)
        packed.close()
        checksum = stream.finish()
        return {"size": stream.size, "checksum": checksum}
    finally:
        stream.close()


class Pieces:
    """Pieces of bytes read as a file: as many as are asked for, fewer only at the end."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._ready = memoryview(b"")

    def read(self, length: int) -> bytes:
        found = []
        while length:
            if not self._ready:
                self._ready = memoryview(next(self._pieces, b""))
                if not self._ready:
                    break
            found.append(self._ready[:length])
            self._ready = self._ready[length:]
            length -= len(found[-1])
        return b"".join(found)


def _add(tar: tarfile.TarFile, name: str, path: str) -> None:
    """Add one file as it is now; it may be in use, so it is opened for reading and for no other thing."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(fd, "rb") as file:
        tar.addfile(_member(name, os.fstat(fd).st_size), file)


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


if __name__ == "__main__":
    dispatch(FUNCTIONS)
