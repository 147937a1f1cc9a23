"""A disk plugged into dom0: where its block device is, its bytes, and the tools that work on it.

A disk is {device, sr, vdi}: the name XAPI gives its block device, and the uuids by which storage knows it.
"""

import errno
import os
import stat
from typing import TYPE_CHECKING

# In dom0 the scripts lie side by side in one folder; type checkers know them as a package.
if TYPE_CHECKING:
    from xenapi_host.plugins.celltree_plugin import Params, PermanentError, RetryableError, run
else:
    from celltree_plugin import Params, PermanentError, RetryableError, run

_ROOT = os.environ.get("CELLTREE_DOM0_ROOT", "/")
"""Set only by the simulator, whose dom0 is a folder."""


def device_path(params: Params, name: str) -> str:
    """The path of a plugged disk's block device (a file in the simulator)."""
    disk = params.get(name)
    if not isinstance(disk, dict):
        raise PermanentError(f"params.{name} must be an object with device, sr and vdi")
    for part in ("device", "sr", "vdi"):
        if not isinstance(disk.get(part), str) or "/" in disk[part] or disk[part] in (".", ".."):
            raise PermanentError(f"params.{name}.{part} must be a name without slashes")
    tried = (("dev", "sm", "backend", disk["sr"], disk["vdi"]), ("dev", disk["device"]))
    for parts in tried:
        path = os.path.join(_ROOT, *parts)
        if parts[-1] and os.path.exists(path):
            mode = os.stat(path).st_mode
            if stat.S_ISBLK(mode) or (_ROOT != "/" and stat.S_ISREG(mode)):
                return path
    raise RetryableError("the disk has no block device in dom0 yet")


def size_of(path: str) -> int:
    with open(path, "rb", buffering=0) as disk:
        return os.lseek(disk.fileno(), 0, os.SEEK_END)


def read_at(path: str, offset: int, length: int) -> bytes:
    with open(path, "rb", buffering=0) as disk:
        return os.pread(disk.fileno(), length, offset)


def exactly(fd: int, length: int, offset: int) -> bytes:
    found = b""
    while len(found) < length:
        part = os.pread(fd, length - len(found), offset + len(found))
        if not part:
            raise RetryableError("the disk ended early")
        found += part
    return found


def written(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        try:
            count = os.pwrite(fd, view, offset)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise PermanentError("no space left in the SR for the disk; choose another host or SR") from error
            raise RetryableError(f"the disk could not be written: {error.strerror}") from error
        view, offset = view[count:], offset + count


def need(*command: str) -> None:
    code, said = run(*command)
    if code and "No space left" in said:
        raise PermanentError("no space left in the SR for the disk; choose another host or SR")
    if code:
        raise PermanentError(f"{command[0]} failed: {said.strip()[-300:]}")
