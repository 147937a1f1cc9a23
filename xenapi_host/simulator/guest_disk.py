"""A guest's root file system, changed as the guest itself would change it: files read and written inside the real VHD.

The disk is laid out as a sparse file, e2fsprogs' debugfs works on it, and what has changed is laid back. Storage's lock
is held meanwhile, so that no snapshot sees half of it.
"""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cells.errors import BadInput
from xenapi_host import vhd
from xenapi_host.image_maker import ImageMakingFailed, file_system_start, run_tool
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.dom0_disks import lay_over
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import NULL
from xenapi_host.simulator.vhd_storage import VhdStorage

_ROOT_DEVICE = "0"
_LONGEST_PATH = 1024


class GuestFiles:
    """The files of one guest, while its disk is laid out at `raw`, in a folder of its own."""

    def __init__(self, raw: Path) -> None:
        self._device = f"{raw}?offset={file_system_start(raw)}"
        self._work = raw.parent
        self.changed = False

    def read(self, path: str) -> bytes | None:
        """A file's bytes; None where there is none."""
        copy = self._work / "copy"
        copy.unlink(missing_ok=True)
        run_tool("debugfs", "-R", f'dump "{_checked(path)}" "{copy}"', self._device)
        return copy.read_bytes() if copy.is_file() else None

    def write(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """A whole file, with the folders above it."""
        checked = _checked(path)
        source = self._work / "source"
        source.write_bytes(data)
        folders = [str(folder) for folder in reversed(Path(checked).parents)][1:]
        script = [*(f'mkdir "{folder}"' for folder in folders if not self._is_there(folder))]
        script += [f'rm "{checked}"', f'write "{source}" "{checked}"']
        script += [f'sif "{checked}" mode 0{0o100000 | mode:o}']
        script += [f'sif "{checked}" {field} 0' for field in ("uid", "gid")]
        commands = self._work / "commands"
        commands.write_text("\n".join(script) + "\n", encoding="utf-8")
        run_tool("debugfs", "-w", "-f", str(commands), self._device)
        self.changed = True
        if self.read(path) != data:
            raise BadInput(f"{path}: the guest's file system has no room for it, or a folder is in its place")

    def _is_there(self, path: str) -> bool:
        return "File not found" not in run_tool("debugfs", "-R", f'stat "{path}"', self._device)


@contextmanager
def guest_files(engine: Engine, vm: Row) -> Iterator[GuestFiles | None]:
    """The files of a VM's root disk; None where it has no disk of ours with a file system that is understood. To be
    called without the engine's lock."""
    with engine.lock:
        found = _leaf(engine, vm)
        if found is None:
            with engine.unlocked():
                yield None
            return
        sr, vdi, leaf = found
        with (
            engine.exclusive("VDI", vdi),
            engine.exclusive("SR", sr),
            engine.unlocked(),
            tempfile.TemporaryDirectory(prefix="celltree-guest-") as at,
        ):
            raw = Path(at) / "raw"
            vhd.export_raw_file(leaf, raw)
            files = _understood(raw)
            yield files
            if files is not None and files.changed:
                lay_over(raw, leaf)


def _understood(raw: Path) -> GuestFiles | None:
    files = GuestFiles(raw)
    try:
        files.read("/etc/hostname")
    except ImageMakingFailed:
        return None
    return files


def _leaf(engine: Engine, vm: Row) -> tuple[str, str, Path] | None:
    """The SR, the VDI and the VHD of a VM's root disk."""
    if not isinstance(engine.storage, VhdStorage) or vm.ref not in engine.db.rows:
        return None
    for ref in vm["VBDs"]:
        vbd = engine.db.rows[ref]
        if vbd["userdevice"] == _ROOT_DEVICE and vbd["type"] == "Disk" and vbd["VDI"] != NULL:
            vdi = engine.db.get("VDI", vbd["VDI"])
            leaf = engine.storage.path(engine.db.get("SR", vdi["SR"])["uuid"], vdi["uuid"])
            return (vdi["SR"], vdi.ref, leaf) if leaf.is_file() else None
    return None


def _checked(path: str) -> str:
    plain = posixpath.normpath(path)
    strange = any(letter in '"\\' or not letter.isprintable() for letter in path)
    if not path.startswith("/") or plain != path or strange or len(path) > _LONGEST_PATH or path == "/":
        raise BadInput(f"{path[:80]!r} is no plain absolute path of a file")
    return path
