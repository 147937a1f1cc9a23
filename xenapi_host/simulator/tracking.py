"""The change logs of one repository: which of its disks are tracked, and how the logs follow snapshots and deletions.

SM's rules (drivers/VDI.py): a snapshot takes the disk's log with what was written so far, and the disk begins a new
one behind it; the log of a disk that goes is added to the one behind it; VDI.data_destroy keeps the log.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import UUID

from xenapi_host import vhd
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.vhd_storage import VhdStorage


class Unrelated(Exception):
    """The two disks are not of one chain of logs."""


class Logs:
    """The logs in one repository's folder. To be used under the engine's lock or with the repository to oneself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def of(cls, engine: Engine, sr: Row) -> Logs | None:
        """None where disks have no bytes: there is nothing to track."""
        storage = engine.storage_of(sr)
        return cls(storage.folder(sr["uuid"])) if isinstance(storage, VhdStorage) else None

    def tracks(self, disk: str) -> bool:
        return self._path(disk).exists()

    def begin(self, disk: str, size: int) -> None:
        if not self.tracks(disk):
            vhd.write_log(self._path(disk), vhd.ChangeLog.fresh(size))

    def end(self, disk: str) -> None:
        """Tracking stops: what the log knew is lost to its neighbours, too."""
        log = self._read(disk)
        if log is None:
            return
        self._path(disk).unlink()
        before, after = self._neighbours(log)
        if before is not None:
            self._leads_to(before, None)
        if after is not None:
            self._follows(after, None)

    def snapshot(self, disk: str, taken: str) -> bool:
        """Whether the disk is tracked; then its log is now the snapshot's."""
        log = self._read(disk)
        if log is None:
            return False
        before, after = self._neighbours(log)
        fresh = vhd.ChangeLog.fresh(log.size, parent=UUID(taken), child=log.child)
        vhd.write_log(self._path(taken), replace(log, child=UUID(disk)))
        vhd.write_log(self._path(disk), fresh)
        if before is not None:
            self._leads_to(before, UUID(taken))
        if after is not None:
            self._follows(after, UUID(disk))
        return True

    def remove(self, disk: str) -> None:
        """The disk goes: the one behind it takes over what its log had."""
        log = self._read(disk)
        if log is None:
            return
        before, after = self._neighbours(log)
        if after is not None:
            behind = self._read(after)
            assert behind is not None
            vhd.write_log(self._path(after), replace(behind.merged(log), parent=log.parent))
        if before is not None:
            self._leads_to(before, log.child)
        self._path(disk).unlink()

    def resize(self, disk: str, size: int) -> None:
        log = self._read(disk)
        if log is not None:
            vhd.write_log(self._path(disk), log.resized(size))

    def changed(self, since: str, until: str) -> bytes:
        """The bitmap of what was written after `since` and up to `until`; raises Unrelated."""
        found, at = None, self._read(since)
        while at is not None and at.child is not None:
            name = str(at.child)
            at = self._read(name)
            if at is None:
                break
            found = at if found is None else found.merged(at)
            if name == until:
                return found.bitmap
        raise Unrelated(since, until)

    def _path(self, disk: str) -> Path:
        return vhd.log_beside(self._folder / disk)

    def _read(self, disk: str) -> vhd.ChangeLog | None:
        try:
            return vhd.read_log(self._path(disk))
        except FileNotFoundError:
            return None

    def _neighbours(self, log: vhd.ChangeLog) -> tuple[str | None, str | None]:
        """The disks before and behind this log, as far as they have logs themselves."""
        before, after = (str(end) if end else None for end in (log.parent, log.child))
        return (
            before if before and self.tracks(before) else None,
            after if after and self.tracks(after) else None,
        )

    def _leads_to(self, disk: str, child: UUID | None) -> None:
        log = self._read(disk)
        if log is not None:
            vhd.write_log(self._path(disk), replace(log, child=child))

    def _follows(self, disk: str, parent: UUID | None) -> None:
        log = self._read(disk)
        if log is not None:
            vhd.write_log(self._path(disk), replace(log, parent=parent))
