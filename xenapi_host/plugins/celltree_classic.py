#!/usr/bin/env python3
"""Plugin: the root disk of a classic Xen guest, brought into a disk that is plugged into dom0.

    version  {} -> {version, functions}
    format   {disk, kind: ext3 | ext4, label} -> {made}    one bootable partition to the disk's end, its file system
    copy     {disk, source, guest, word: snapshot | final} -> {bytes}    rsync of what the source shows; bytes sent
    extract  {disk, url, headers, checksum} -> {files}     a tar.gz from Glance (kernel, ramdisk, agent) on top
    tell     {source, guest, word: release | power-on} -> {told}

A disk is as celltree_device.py says. A source is {command, shell}: a program of the operator's with its first words,
and what rsync is to take as its remote shell ("" for none). It is called as COMMAND WORD GUEST:

    snapshot   show a snapshot of the root file system of the guest, which goes on running
    final      power the guest off and show the root file system itself
    release    take away what was shown; nothing to take away is fine
    power-on   start the guest, if it is off

The first two print one line: what rsync is to read, a folder or HOST:FOLDER. Each word may be said again.
"""

import os
import re
import stat
import struct
import sys
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Tuple

# In dom0 the scripts lie side by side in one folder; type checkers know them as a package.
if TYPE_CHECKING:
    from xenapi_host.plugins.celltree_device import device_path, need, read_at, size_of, written
    from xenapi_host.plugins.celltree_glance import Download
    from xenapi_host.plugins.celltree_plugin import Params, PermanentError, RetryableError, dispatch, run, text
    from xenapi_host.plugins.celltree_tar import Gunzip, Refused, Tar
else:
    # Every entry of the plugin folder is a plugin to XAPI; a __pycache__ must not appear there.
    sys.dont_write_bytecode = True
    from celltree_device import device_path, need, read_at, size_of, written
    from celltree_glance import Download
    from celltree_plugin import Params, PermanentError, RetryableError, dispatch, run, text
    from celltree_tar import Gunzip, Refused, Tar

VERSION = "1.0"
SECTOR = 512
START = 2048  # the partition's first sector
_LINUX = 0x83
_BOOTABLE = 0x80
_GUEST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MOVED = re.compile(r"Total bytes (?:sent|received): ([0-9,.]+)")
_LARGEST_KIT = 1 << 30
_MOST_FILES = 50_000


def version(params: Params) -> Dict[str, Any]:
    return {"version": VERSION, "functions": sorted(FUNCTIONS)}


def format(params: Params) -> Dict[str, Any]:
    path = device_path(params, "disk")
    kind, label = text(params, "kind"), text(params, "label")
    if kind not in ("ext3", "ext4"):
        raise PermanentError(f"params.kind must be ext3 or ext4, not {kind!r}")
    table = _table(size_of(path) // SECTOR - START)
    if read_at(path, 0, SECTOR) == table and read_at(path, START * SECTOR + 1024 + 56, 2) == b"\x53\xef":
        return {"made": False}
    with open(path, "r+b", buffering=0) as disk:
        written(disk.fileno(), table, 0)
        os.fsync(disk.fileno())
    with _partition(path) as partition:
        need("mke2fs", "-q", "-F", "-t", kind, "-L", label[:16], partition)
    return {"made": True}


def copy(params: Params) -> Dict[str, Any]:
    path = device_path(params, "disk")
    command, shell, guest = _source(params)
    word = text(params, "word")
    if word not in ("snapshot", "final"):
        raise PermanentError("params.word must be snapshot or final")
    shown = _say(command, word, guest).strip()
    try:
        if "\n" in shown or not re.fullmatch(r"([A-Za-z0-9_.@-]+:)?/[^\x00-\x1f]*", shown):
            raise PermanentError("the source must print one line, FOLDER or HOST:FOLDER, and printed something else")
        with _mounted(path) as folder:
            return {"bytes": _rsync(shown, folder, shell)}
    finally:
        _say(command, "release", guest)


def extract(params: Params) -> Dict[str, Any]:
    path = device_path(params, "disk")
    with _mounted(path) as folder:
        stream = Download(params, _LARGEST_KIT)
        try:
            archive = Tar(Gunzip(stream, 4 * _LARGEST_KIT))
            files = 0
            for member in archive.members():
                files += 1
                if files > _MOST_FILES:
                    raise PermanentError(f"image refused: the kit has more than {_MOST_FILES} files")
                _put(folder, member.name, archive.pieces(member))
            stream.verify()
        except Refused as refused:
            raise PermanentError(f"image refused: {refused}") from refused
        finally:
            stream.close()
    return {"files": files}


def tell(params: Params) -> Dict[str, Any]:
    command, _, guest = _source(params)
    word = text(params, "word")
    if word not in ("release", "power-on"):
        raise PermanentError("params.word must be release or power-on")
    _say(command, word, guest)
    return {"told": word}


FUNCTIONS: Dict[str, Callable[[Params], Any]] = {
    "version": version,
    "format": format,
    "copy": copy,
    "extract": extract,
    "tell": tell,
}


# --- the source ---


def _source(params: Params) -> Tuple[List[str], str, str]:
    source, guest = params.get("source"), text(params, "guest")
    if not isinstance(source, dict) or not isinstance(source.get("shell"), str):
        raise PermanentError("params.source must be an object with command and shell")
    command = source.get("command")
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        raise PermanentError("params.source.command must be a list of words")
    if not _GUEST.fullmatch(guest):
        raise PermanentError("params.guest must be letters, digits, dots, hyphens and underscores")
    return command, source["shell"], guest


def _say(command: List[str], word: str, guest: str) -> str:
    code, said = run(*command, word, guest)
    if code:
        raise RetryableError(f"the source failed at {word} {guest}: {said.strip()[-300:]}")
    return said


def _rsync(shown: str, folder: str, shell: str) -> int:
    """Make the folder what is shown; how many bytes came."""
    words = ["rsync", "-aHX", "--numeric-ids", "--delete", "--stats", "--exclude=/lost+found"]
    code, said = run(*words, *(["-e", shell] if shell else []), shown.rstrip("/") + "/", folder + "/")
    # 24: a file vanished while it was read. The last copy is of a guest that is off; it brings what was missed.
    if code == 11 or "No space left" in said:
        raise PermanentError("no space left on the disk; choose a flavor with a larger one")
    if code not in (0, 24):
        raise RetryableError(f"rsync failed ({code}): {said.strip()[-300:]}")
    return max([0] + [int(re.sub("[,.]", "", count)) for count in _MOVED.findall(said)])


# --- the disk ---


def _table(sectors: int) -> bytes:
    """A first sector with one bootable Linux partition of so many sectors."""
    if sectors <= 0 or sectors > 0xFFFFFFFF:
        raise PermanentError("the disk must be of more than 1 MiB and at most 2 TiB")
    beyond = b"\xfe\xff\xff"
    entry = struct.pack("<B3sB3sII", _BOOTABLE, beyond, _LINUX, beyond, START, sectors)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


@contextmanager
def _partition(path: str) -> Iterator[str]:
    """The partition as a block device of its own."""
    _clear(path)
    code, said = run("losetup", "--show", "-f", "-o", str(START * SECTOR), path)
    if code:
        raise RetryableError(f"losetup failed: {said.strip()[-300:]}")
    loop = said.strip()
    try:
        yield loop
    finally:
        need("losetup", "-d", loop)


@contextmanager
def _mounted(path: str) -> Iterator[str]:
    """A folder with the file system in it; nothing of it can be run or is a device."""
    with _partition(path) as loop:
        folder = tempfile.mkdtemp(prefix="celltree-classic-")
        try:
            need("mount", "-o", "rw,nosuid,nodev,noexec", loop, folder)
            try:
                yield folder
            finally:
                need("umount", folder)
        finally:
            os.rmdir(folder)


def _clear(path: str) -> None:
    """What a run that was killed has left of this disk."""
    _, said = run("losetup", "-j", path)
    for line in said.splitlines():
        loop = line.partition(":")[0]
        if loop:
            run("umount", loop)
            need("losetup", "-d", loop)


def _put(folder: str, name: str, pieces: Iterator[bytes]) -> None:
    """Write one file below the folder. The guest's links are not followed: they could lead into dom0."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name:
        raise PermanentError(f"image refused: the kit's file {name[:80]!r} is not inside it")
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            with suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=at)
            try:
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            except OSError as error:
                raise PermanentError(
                    f"image refused: on the way to its file {name[:80]} the guest has a link or a file, not a folder"
                ) from error
            os.close(at)
            at = below
        try:
            if not stat.S_ISDIR(os.stat(parts[-1], dir_fd=at, follow_symlinks=False).st_mode):
                os.unlink(parts[-1], dir_fd=at)
        except FileNotFoundError:
            pass
        mode = 0o755 if parts[0] in ("bin", "sbin") or "bin" in parts[:-1] or "sbin" in parts[:-1] else 0o644
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(parts[-1], flags, mode, dir_fd=at), "wb") as file:
            for piece in pieces:
                file.write(piece)
    finally:
        os.close(at)


if __name__ == "__main__":
    dispatch(FUNCTIONS)
