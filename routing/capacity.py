"""How many servers of any size each leaf could still build: exact, for all leaves at once. The only importer of numpy.

Every free shape of every leaf is a row in one pool of columns; a leaf's rows stand together, with room to grow, so
that a new record of one leaf touches its own rows only. A row counts into a *segment*: its leaf's hosts with storage
of their own, or one of its storage groups, whose free disk bounds the hosts that share it. Answers are kept for each
demand, and only the leaves that have changed since are counted again.
"""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cells.model import Capacity, HostClass
from cells.names import CellName
from routing.demand import Demand

UNBOUNDED = 2**31
"""Units of a host that no dimension bounds. Far more than any leaf holds, small enough for every sum to be exact."""

_MOST_DEMANDS = 64
_FEW = 64
_ROWS, _SEGMENTS = 4096, 1024

Ints = NDArray[np.int64]


@dataclass(slots=True, kw_only=True)
class _Span:
    """A run of a pool that belongs to one leaf: where it starts, and how much it may hold before it must move."""

    start: int = 0
    room: int = 0

    @property
    def slice(self) -> slice:
        return slice(self.start, self.start + self.room)


@dataclass(slots=True, kw_only=True)
class _Answer:
    """Buildable count of each slot for one demand, as of a version of the pool."""

    counts: list[int]
    version: int


class Capacities:
    """The free shapes of all leaves. A leaf has a *slot*, a small number that stays its own while it is here; counts
    come back as one list, indexed by slot."""

    def __init__(self) -> None:
        self.slots: dict[CellName, int] = {}
        self._free_slots: list[int] = []
        self._version = 0
        self._changed: Ints = np.zeros(64, np.int64)
        self._rows_of: list[_Span] = []
        self._segments_of: list[_Span] = []
        # The columns of a row: ram, vcpus, disk, hosts, segment, class.
        self._rows: Ints = np.zeros((6, _ROWS), np.int64)
        self._rows_end = 0
        # The columns of a segment: free disk of its group (-1 where each host has its own), slot.
        self._segments: Ints = np.zeros((2, _SEGMENTS), np.int64)
        self._segments_end = 1
        self._classes: dict[tuple[str, tuple[str, ...], str], int] = {}
        self._class_list: list[HostClass] = []
        self._answers: OrderedDict[Demand, _Answer] = OrderedDict()

    def update(self, leaf: CellName, capacity: Capacity) -> None:
        """Put a leaf's capacity in place of what was known of it."""
        slot = self._slot_of(leaf)
        groups = {group.name: group.free_gib for group in capacity.groups}
        shapes = [shape for known in capacity.classes for shape in known.shapes]
        names = sorted({shape.group for shape in shapes} - {""})
        segments = self._room_for_segments(slot, 1 + len(names))
        at = segments.start
        self._segments[0, at : at + 1 + len(names)] = [-1, *(max(0, groups.get(name, 0)) for name in names)]
        segment_of = {"": at, **{name: at + 1 + number for number, name in enumerate(names)}}
        rows = self._room_for_rows(slot, len(shapes))
        self._rows[:, rows.slice] = 0
        at = rows.start
        for known in capacity.classes:
            if not known.shapes:
                continue
            part = self._rows[:, at : at + len(known.shapes)]
            part[:5] = np.array(
                [(one.ram_mib, one.vcpus, one.disk_gib, one.hosts, segment_of[one.group]) for one in known.shapes],
                np.int64,
            ).T
            part[5] = self._class_number(known)
            np.maximum(part, 0, out=part)
            at += len(known.shapes)
        self._touch(slot)

    def remove(self, leaf: CellName) -> None:
        """Forget a leaf; its slot counts 0 until another leaf takes it."""
        slot = self.slots.pop(leaf, None)
        if slot is None:
            return
        self._rows[:, self._rows_of[slot].slice] = 0
        self._free_slots.append(slot)
        self._touch(slot)

    def buildable(self, demand: Demand) -> list[int]:
        """How many servers each slot could build now. To be read, not changed: the next caller gets the same list."""
        answer = self._answers.get(demand)
        if answer is None:
            answer = self._answers[demand] = _Answer(counts=self._count_all(demand), version=self._version)
            if len(self._answers) > _MOST_DEMANDS:
                self._answers.popitem(last=False)
            return answer.counts
        self._answers.move_to_end(demand)
        if answer.version == self._version:
            return answer.counts
        size = len(self._rows_of)
        stale = np.flatnonzero(self._changed[:size] > answer.version)
        if len(stale) > _FEW or size != len(answer.counts):
            answer.counts = self._count_all(demand)
        else:
            for slot in stale.tolist():
                answer.counts[slot] = self._count_one(demand, slot)
        answer.version = self._version
        return answer.counts

    # --- counting ---

    def _count_all(self, demand: Demand) -> list[int]:
        rows = self._rows[:, : self._rows_end]
        units = self._units(demand, rows)
        segments = self._segments[:, : self._segments_end]
        counts = np.bincount(rows[4], weights=units, minlength=self._segments_end).astype(np.int64)
        bounded = self._bound(demand, counts, segments[0])
        totals = np.bincount(segments[1], weights=bounded, minlength=len(self._rows_of)).astype(np.int64)
        return list(totals.tolist())

    def _count_one(self, demand: Demand, slot: int) -> int:
        rows = self._rows[:, self._rows_of[slot].slice]
        span = self._segments_of[slot]
        units = self._units(demand, rows)
        numbers = np.where(rows[3] > 0, rows[4] - span.start, 0)
        counts = np.bincount(numbers, weights=units, minlength=span.room).astype(np.int64)
        return int(self._bound(demand, counts, self._segments[0, span.slice]).sum())

    def _units(self, demand: Demand, rows: Ints) -> Ints:
        """Servers each row's hosts could take, before a storage group bounds them."""
        ram, vcpus, disk, hosts, segment, number = rows
        units: Ints = np.full(len(hosts), UNBOUNDED, np.int64)
        room = demand.room
        if room.ram_mib > 0:
            np.minimum(units, ram // room.ram_mib, out=units)
        if room.vcpus > 0:
            np.minimum(units, vcpus // room.vcpus, out=units)
        if room.disk_gib > 0:
            own = self._segments[0][segment] < 0
            np.minimum(units, disk // room.disk_gib, out=units, where=own)
        units *= hosts
        able = np.array([not demand.why_not(known) for known in self._class_list], bool)
        if not able.all():
            units *= able[number]
        return units

    def _bound(self, demand: Demand, counts: Ints, free: Ints) -> Ints:
        if demand.room.disk_gib <= 0:
            return counts
        return np.where(free >= 0, np.minimum(counts, free // demand.room.disk_gib), counts)

    # --- the pool ---

    def _slot_of(self, leaf: CellName) -> int:
        slot = self.slots.get(leaf)
        if slot is None:
            if self._free_slots:
                slot = self._free_slots.pop()
            else:
                slot = len(self._rows_of)
                self._rows_of.append(_Span())
                self._segments_of.append(_Span())
                if slot >= len(self._changed):
                    self._changed = np.concatenate([self._changed, np.zeros_like(self._changed)])
            self.slots[leaf] = slot
        return slot

    def _touch(self, slot: int) -> None:
        self._version += 1
        self._changed[slot] = self._version

    def _class_number(self, known: HostClass) -> int:
        key = (known.hypervisor_version, known.traits, known.zone)
        number = self._classes.get(key)
        if number is None:
            number = self._classes[key] = len(self._class_list)
            self._class_list.append(
                HostClass(hypervisor_version=known.hypervisor_version, traits=known.traits, zone=known.zone)
            )
        return number

    def _room_for_rows(self, slot: int, count: int) -> _Span:
        span = self._rows_of[slot]
        if span.room < count:
            self._rows[:, span.slice] = 0
            if self._rows_end + 2 * count > 2 * _ROWS + 2 * sum(held.room for held in self._rows_of):
                self._pack_rows()
            span.start, span.room = self._rows_end, _rounded(count)
            self._rows_end += span.room
            self._rows = _grown(self._rows, self._rows_end)
        return span

    def _pack_rows(self) -> None:
        """Close the gaps that moved leaves left behind."""
        packed = np.zeros_like(self._rows)
        end = 0
        for span in self._rows_of:
            packed[:, end : end + span.room] = self._rows[:, span.slice]
            span.start = end
            end += span.room
        self._rows, self._rows_end = packed, end

    def _room_for_segments(self, slot: int, count: int) -> _Span:
        span = self._segments_of[slot]
        if span.room < count:
            span.start, span.room = self._segments_end, _rounded(count)
            self._segments_end += span.room
            self._segments = _grown(self._segments, self._segments_end)
            self._segments[0, span.slice] = 0
            self._segments[1, span.slice] = slot
        return span


def _rounded(count: int) -> int:
    """The next power of two: a leaf whose shapes vary a little does not move."""
    return 1 << max(1, count - 1).bit_length()


def _grown(pool: Ints, size: int) -> Ints:
    if size <= pool.shape[1]:
        return pool
    after = np.zeros((pool.shape[0], 2 * size), np.int64)
    after[:, : pool.shape[1]] = pool
    return after
