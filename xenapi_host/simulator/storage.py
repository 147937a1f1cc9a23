"""Where disks live: the port, and its implementation without bytes for light hosts.

The rules of a storage repository (base copies, coalescing, what a client sees) are in chains.py and speak to this port
only; the other implementation, real VHD files, is vhd_storage.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

MIB = 1024 * 1024
BLOCK = 2 * MIB
VHD_OVERHEAD = 3584  # an empty dynamic VHD: footer, header, one BAT sector, footer
DIFFERENCING_OVERHEAD = 5120


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """What a storage repository's folder says of one disk."""

    uuid: str
    virtual_size: int
    physical_size: int
    parent: str | None
    hidden: bool
    empty: bool  # no block of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    total: int
    used: int


Report = Callable[[float], None]  # how much is done, up to 1.0; what it raises ends the work


def unheard(done: float) -> None:
    """A report to nobody."""


class Storage(Protocol):
    """All methods are called with the SR's uuid. None may be called twice for one disk at the same time; the ones
    that move bytes (coalesce, copy) may take long and are called without the engine's lock. A disk that is not there
    raises KeyError; no room raises NoRoom. `replace` puts a disk in its leaf's place, under its name and visible;
    `occupy` says how many bytes others than our disks take; `write` writes to a disk as if a guest had."""

    def open(self, sr: str, total: int) -> None: ...
    def close(self, sr: str) -> None: ...
    def space(self, sr: str) -> Space: ...
    def disks(self, sr: str) -> list[Disk]: ...
    def disk(self, sr: str, uuid: str) -> Disk: ...
    def create(self, sr: str, uuid: str, virtual_size: int) -> None: ...
    def branch(self, sr: str, uuid: str, parent: str) -> None: ...
    def rename(self, sr: str, uuid: str, new_uuid: str) -> None: ...
    def replace(self, sr: str, uuid: str, leaf: str) -> None: ...
    def delete(self, sr: str, uuid: str) -> None: ...
    def hide(self, sr: str, uuid: str, hidden: bool) -> None: ...
    def relink(self, sr: str, uuid: str, parent: str | None) -> None: ...
    def resize(self, sr: str, uuid: str, virtual_size: int) -> None: ...
    def coalesce(self, sr: str, uuid: str) -> None: ...
    def copy(
        self, sr: str, uuid: str, to_sr: str, to_uuid: str, *, base: str | None = None, report: Report = unheard
    ) -> None: ...
    def occupy(self, sr: str, size: int) -> None: ...
    def write(self, sr: str, uuid: str, offset: int, data: bytes) -> None: ...


class NoRoom(Exception):
    """The repository cannot hold this much."""

    def __init__(self, asked: int, free: int) -> None:
        super().__init__(asked, free)
        self.asked = asked
        self.free = free


@dataclass(slots=True)
class _Node:
    virtual_size: int
    allocated: int
    parent: str | None
    hidden: bool


class _Repository:
    __slots__ = ("nodes", "others", "total", "used")

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self.others = 0
        self.nodes: dict[str, _Node] = {}


class MemoryStorage:
    """Sizes and chains without a byte. Not locked: the engine's lock covers it."""

    def __init__(self) -> None:
        self._repositories: dict[str, _Repository] = {}

    def open(self, sr: str, total: int) -> None:
        self._repositories.setdefault(sr, _Repository(total))

    def close(self, sr: str) -> None:
        self._repositories.pop(sr, None)

    def space(self, sr: str) -> Space:
        repository = self._repositories[sr]
        return Space(total=repository.total, used=repository.used)

    def disks(self, sr: str) -> list[Disk]:
        return [self._disk(uuid, node) for uuid, node in self._repositories[sr].nodes.items()]

    def disk(self, sr: str, uuid: str) -> Disk:
        return self._disk(uuid, self._repositories[sr].nodes[uuid])

    def create(self, sr: str, uuid: str, virtual_size: int) -> None:
        self._add(sr, uuid, _Node(virtual_size, 0, None, False))

    def branch(self, sr: str, uuid: str, parent: str) -> None:
        size = self._repositories[sr].nodes[parent].virtual_size
        self._add(sr, uuid, _Node(size, 0, parent, False))

    def rename(self, sr: str, uuid: str, new_uuid: str) -> None:
        nodes = self._repositories[sr].nodes
        nodes[new_uuid] = nodes.pop(uuid)

    def replace(self, sr: str, uuid: str, leaf: str) -> None:
        self.delete(sr, leaf)
        self.hide(sr, uuid, False)
        self.rename(sr, uuid, leaf)

    def delete(self, sr: str, uuid: str) -> None:
        repository = self._repositories[sr]
        repository.used -= self._physical(repository.nodes.pop(uuid))

    def hide(self, sr: str, uuid: str, hidden: bool) -> None:
        self._repositories[sr].nodes[uuid].hidden = hidden

    def relink(self, sr: str, uuid: str, parent: str | None) -> None:
        repository = self._repositories[sr]
        node = repository.nodes[uuid]
        repository.used -= self._physical(node)
        node.parent = parent
        repository.used += self._physical(node)

    def resize(self, sr: str, uuid: str, virtual_size: int) -> None:
        self._repositories[sr].nodes[uuid].virtual_size = virtual_size

    def coalesce(self, sr: str, uuid: str) -> None:
        nodes = self._repositories[sr].nodes
        child = nodes[uuid]
        if child.parent is None:
            return
        parent = nodes[child.parent]
        parent.virtual_size = max(parent.virtual_size, child.virtual_size)
        self._grow(sr, child.parent, child.allocated)

    def copy(
        self, sr: str, uuid: str, to_sr: str, to_uuid: str, *, base: str | None = None, report: Report = unheard
    ) -> None:
        report(0.0)
        nodes = self._repositories[sr].nodes
        size, allocated, at = nodes[uuid].virtual_size, 0, uuid
        while at != base:
            allocated += nodes[at].allocated
            parent = nodes[at].parent
            if parent is None:
                break
            at = parent
        if to_uuid not in self._repositories[to_sr].nodes:
            self.create(to_sr, to_uuid, size)
        self._grow(to_sr, to_uuid, min(allocated, size))

    def occupy(self, sr: str, size: int) -> None:
        repository = self._repositories[sr]
        repository.used += size - repository.others
        repository.others = size

    def write(self, sr: str, uuid: str, offset: int, data: bytes) -> None:
        self._grow(sr, uuid, len(data))  # where they are written is not kept, so all of them are new

    def _grow(self, sr: str, uuid: str, size: int) -> None:
        repository = self._repositories[sr]
        node = repository.nodes[uuid]
        grown = min(node.virtual_size, node.allocated + size) - node.allocated
        if repository.used + grown > repository.total:
            raise NoRoom(grown, repository.total - repository.used)
        node.allocated += grown
        repository.used += grown

    def _add(self, sr: str, uuid: str, node: _Node) -> None:
        repository = self._repositories[sr]
        size = self._physical(node)
        if repository.used + size > repository.total:
            raise NoRoom(size, repository.total - repository.used)
        repository.nodes[uuid] = node
        repository.used += size

    @staticmethod
    def _physical(node: _Node) -> int:
        return node.allocated + (VHD_OVERHEAD if node.parent is None else DIFFERENCING_OVERHEAD)

    def _disk(self, uuid: str, node: _Node) -> Disk:
        return Disk(
            uuid=uuid,
            virtual_size=node.virtual_size,
            physical_size=self._physical(node),
            parent=node.parent,
            hidden=node.hidden,
            empty=node.allocated == 0,
        )
