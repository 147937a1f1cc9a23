"""Storage in real VHD files: one folder per repository, one file per disk, named after its uuid.

The folder is what dom0 sees under /var/run/sr-mount, so files that plugins put there are found by a scan.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from pathlib import Path

from xenapi_host import vhd
from xenapi_host.simulator.storage import BLOCK, Disk, NoRoom, Report, Space, unheard

_KNOWN = 4096
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,199}")


def _plain(name: str) -> str:
    """A name that a client may have chosen must not lead out of our folder."""
    if _NAME.fullmatch(name) is None:
        raise KeyError(name)
    return name


class VhdStorage:
    """Repositories under one root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self._totals: dict[str, int] = {}
        self._others: dict[str, int] = {}  # what others than our disks take
        self._facts: dict[str, tuple[tuple[int, int, int], Disk]] = {}
        self._guard = threading.Lock()

    def folder(self, sr: str) -> Path:
        return self.root / _plain(sr)

    def path(self, sr: str, uuid: str) -> Path:
        return self.folder(sr) / f"{_plain(uuid)}.vhd"

    def open(self, sr: str, total: int) -> None:
        self.folder(sr).mkdir(exist_ok=True)
        self._totals.setdefault(sr, total)

    def close(self, sr: str) -> None:
        shutil.rmtree(self.folder(sr), ignore_errors=True)
        self._totals.pop(sr, None)
        self._others.pop(sr, None)

    def space(self, sr: str) -> Space:
        used = self._others.get(sr, 0)
        with os.scandir(self._opened(sr)) as entries:
            for entry in entries:
                try:
                    used += entry.stat().st_blocks * 512
                except FileNotFoundError:
                    continue
        return Space(total=self._totals[sr], used=used)

    def disks(self, sr: str) -> list[Disk]:
        found = []
        with os.scandir(self._opened(sr)) as entries:
            names = [e.name for e in entries if e.name.endswith(".vhd") and not e.name.startswith(".")]
        for name in names:
            try:
                found.append(self.disk(sr, name.removesuffix(".vhd")))
            except KeyError:
                continue  # gone meanwhile, or no VHD: SM does not show it either
        return found

    def disk(self, sr: str, uuid: str) -> Disk:
        path = self.path(sr, uuid)
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            known = self._facts.get(str(path))
            if known is not None and known[0] == stamp:
                return known[1]
            facts = vhd.info(path)
        except (FileNotFoundError, vhd.NotAVhd, vhd.DamagedVhd) as error:
            raise KeyError(uuid) from error
        parent = (facts.parent_name or "").rpartition("/")[2].rpartition("\\")[2].removesuffix(".vhd") or None
        disk = Disk(
            uuid=uuid,
            virtual_size=facts.virtual_size,
            physical_size=facts.file_size,
            parent=parent,
            hidden=facts.hidden,
            empty=facts.blocks_allocated == 0,
        )
        if len(self._facts) > _KNOWN:
            self._facts.clear()
        self._facts[str(path)] = (stamp, disk)
        return disk

    def create(self, sr: str, uuid: str, virtual_size: int) -> None:
        self._need_room(sr, BLOCK)
        vhd.create_dynamic(self.path(sr, uuid), virtual_size)

    def branch(self, sr: str, uuid: str, parent: str) -> None:
        self._need_room(sr, BLOCK)
        vhd.create_child(self.path(sr, uuid), self.path(sr, parent))

    def rename(self, sr: str, uuid: str, new_uuid: str) -> None:
        os.rename(self.path(sr, uuid), self.path(sr, new_uuid))

    def replace(self, sr: str, uuid: str, leaf: str) -> None:
        self.hide(sr, uuid, False)  # first: a hidden leaf, should we die in between, would be taken for garbage
        os.replace(self.path(sr, uuid), self.path(sr, leaf))

    def delete(self, sr: str, uuid: str) -> None:
        try:
            self.path(sr, uuid).unlink()
        except FileNotFoundError:
            raise KeyError(uuid) from None

    def hide(self, sr: str, uuid: str, hidden: bool) -> None:
        vhd.set_hidden(self.path(sr, uuid), hidden)

    def relink(self, sr: str, uuid: str, parent: str | None) -> None:
        if parent is not None:
            vhd.set_parent(self.path(sr, uuid), self.path(sr, parent))

    def resize(self, sr: str, uuid: str, virtual_size: int) -> None:
        if virtual_size > self.disk(sr, uuid).virtual_size:
            vhd.resize(self.path(sr, uuid), virtual_size)

    def coalesce(self, sr: str, uuid: str) -> None:
        child = self.disk(sr, uuid)
        if child.parent is not None:
            self.resize(sr, child.parent, child.virtual_size)
        vhd.coalesce(self.path(sr, uuid))

    def copy(
        self, sr: str, uuid: str, to_sr: str, to_uuid: str, *, base: str | None = None, report: Report = unheard
    ) -> None:
        """A full copy, or the blocks above `base` laid over an existing disk. Holes are not read."""
        source, target = self.path(sr, uuid), self.path(to_sr, to_uuid)
        if not target.exists():
            size = self.disk(sr, uuid).virtual_size
            self._need_room(to_sr, BLOCK)
            vhd.create_dynamic(target, size)
        with vhd.Disk.open(source) as reader, vhd.Disk.open(target, writable=True) as writer:
            extents = list(reader.allocated())
            whole = sum(length for _, length in extents)
            self._need_room(to_sr, whole)
            done = 0
            for offset, length in extents:
                for start in range(offset, offset + length, BLOCK):
                    report(done / whole)
                    piece = min(BLOCK, offset + length - start)
                    writer.pwrite(start, reader.pread(start, piece))
                    done += piece

    def occupy(self, sr: str, size: int) -> None:
        self._opened(sr)
        self._others[sr] = size

    def write(self, sr: str, uuid: str, offset: int, data: bytes) -> None:
        self._need_room(sr, len(data))
        with vhd.Disk.open(self.path(sr, uuid), writable=True) as disk:
            disk.pwrite(offset, data)

    def _opened(self, sr: str) -> Path:
        if sr not in self._totals:
            raise KeyError(sr)
        return self.folder(sr)

    def _need_room(self, sr: str, size: int) -> None:
        space = self.space(sr)
        if space.used + size > space.total:
            raise NoRoom(size, space.total - space.used)
