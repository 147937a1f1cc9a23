"""The roster: the newest cell record of every cell below, each held once however many ways it came by.

Merging takes, for each name, the entry with the larger uuid and generation; that is commutative, associative and
idempotent, so that order, repetition and detours do not matter. Age is counted from the instant a generation first
arrived *here*, by our own clock: a skewed clock elsewhere can make nobody look fresh, or old.
"""

from collections.abc import Collection, ItemsView, Iterable, Iterator, KeysView, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from cells.messages import SignedCellRecord
from cells.model import CellRecord, Generation
from cells.names import CellName, Id, Instant
from cells.rows import RosterRow

_CHECKSUM_BITS = 63

Age = tuple[Id, Generation]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One cell's newest words, as they came and as they read; `arrived` is when this generation first came here."""

    record: CellRecord
    signed: SignedCellRecord
    arrived: Instant

    @property
    def name(self) -> CellName:
        return self.record.name

    @property
    def age(self) -> Age:
        """What orders the records of one name. A name that was given up and is used again belongs to another cell, with
        a uuid of later times: its generations begin anew, and come after all of the former one's."""
        return self.record.uuid, self.record.generation

    def is_fresh(self, now: Instant, mute_after: int) -> bool:
        return now - self.arrived <= mute_after

    def newer(self, other: "Entry") -> "Entry":
        """The one of two entries of a name to keep. A copy that comes later is no sign of life: the first arrival
        counts. Two different payloads of one generation (a cell that breaks the rules) are told apart by their bytes,
        so that all who see both keep the same."""
        mine = (self.age, self.signed.payload)
        theirs = (other.age, other.signed.payload)
        if mine != theirs:
            return self if mine > theirs else other
        return min((self, other), key=lambda entry: (entry.arrived, entry.signed.certificate, entry.signed.signature))

    def row(self) -> RosterRow:
        return RosterRow(
            name=self.record.name,
            uuid=self.record.uuid,
            generation=self.record.generation,
            updated=self.arrived,
            certificate=self.signed.certificate,
            payload=self.signed.payload,
            signature=self.signed.signature,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """What some leaves have and what of it is free, added up."""

    leaves: int = 0
    hosts: int = 0
    servers: int = 0
    total_ram_mib: int = 0
    total_vcpus: int = 0
    total_disk_gib: int = 0
    free_ram_mib: int = 0
    free_vcpus: int = 0
    free_disk_gib: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Leaves heard of lately, and those that have gone silent: never one sum of both."""

    fresh: Sum
    stale: Sum


class Roster(Mapping[CellName, Entry]):
    """Entries by name. Immutable: merging gives a new roster, or this one when nothing was news."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries: dict[CellName, Entry] = {}
        for entry in entries:
            held = self._entries.get(entry.name)
            self._entries[entry.name] = entry if held is None else held.newer(entry)

    def __getitem__(self, name: CellName) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[CellName]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def items(self) -> ItemsView[CellName, Entry]:
        return self._entries.items()

    def keys(self) -> KeysView[CellName]:
        return self._entries.keys()

    def __eq__(self, other: object) -> bool:
        return self._entries == other._entries if isinstance(other, Roster) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self._entries.items()))

    def merge(self, entries: Iterable[Entry]) -> "Roster":
        """The newest of both for each name."""
        changed: dict[CellName, Entry] = {}
        for entry in entries:
            held = changed.get(entry.name) or self._entries.get(entry.name)
            kept = entry if held is None else held.newer(entry)
            if kept is not held:
                changed[entry.name] = kept
        if not changed:
            return self
        after = Roster()
        after._entries = {**self._entries, **changed}
        return after

    def without(self, names: Collection[CellName]) -> "Roster":
        """The roster after these cells have left the tree."""
        if not any(name in self._entries for name in names):
            return self
        after = Roster()
        after._entries = {name: entry for name, entry in self._entries.items() if name not in names}
        return after

    def records(self) -> tuple[CellRecord, ...]:
        return tuple(entry.record for entry in self._entries.values())

    def stale(self, now: Instant, mute_after: int) -> tuple[CellName, ...]:
        """The cells not heard of within `mute_after`."""
        return tuple(sorted(name for name, entry in self.items() if not entry.is_fresh(now, mute_after)))

    def holding_servers(self, names: Iterable[CellName]) -> tuple[CellName, ...]:
        """Those of the named cells that have servers, by their last words."""
        return tuple(
            name
            for name in names
            if (entry := self.get(name)) and entry.record.capacity and entry.record.capacity.servers > 0
        )

    def totals(self, names: Collection[CellName], now: Instant, mute_after: int) -> Totals:
        """The capacity of the named cells, fresh and stale apart. A leaf has one entry, so it counts once."""
        held = [entry for name in set(names) if (entry := self.get(name)) and entry.record.capacity]
        return Totals(
            fresh=_sum(entry.record for entry in held if entry.is_fresh(now, mute_after)),
            stale=_sum(entry.record for entry in held if not entry.is_fresh(now, mute_after)),
        )

    def checksum(self, names: Iterable[CellName], now: Instant, mute_after: int) -> int:
        """A number that two cells agree on when they know the same fresh cells among `names`, each in the same epoch;
        0 for none. Sequences are left out: they grow at every tick and reach a parent over several ways at different
        times, so a sum over them would differ most of the time with nothing missing; one lost on the way is made
        good by the cell's next record."""
        return checksum(
            (name, entry.record.generation.epoch)
            for name in names
            if (entry := self.get(name)) and entry.is_fresh(now, mute_after)
        )


def checksum(cells: Iterable[tuple[CellName, int]]) -> int:
    """The sum of a hash of each (name, epoch): order does not matter, and one more cell is one more addition."""
    total = 0
    for name, epoch in set(cells):
        total += int.from_bytes(blake2b(f"{name} {epoch}".encode(), digest_size=8).digest(), "big")
    return total % (1 << _CHECKSUM_BITS)


def _sum(records: Iterable[CellRecord]) -> Sum:
    leaves = hosts = servers = total_ram = total_vcpus = total_disk = free_ram = free_vcpus = free_disk = 0
    for record in records:
        capacity = record.capacity
        if capacity is None:
            continue
        leaves += 1
        hosts += capacity.hosts
        servers += capacity.servers
        total_ram += capacity.total_ram_mib
        total_vcpus += capacity.total_vcpus
        total_disk += capacity.total_disk_gib
        free_disk += sum(group.free_gib for group in capacity.groups)
        for known in capacity.classes:
            for shape in known.shapes:
                free_ram += shape.ram_mib * shape.hosts
                free_vcpus += shape.vcpus * shape.hosts
                free_disk += shape.disk_gib * shape.hosts
    return Sum(
        leaves=leaves,
        hosts=hosts,
        servers=servers,
        total_ram_mib=total_ram,
        total_vcpus=total_vcpus,
        total_disk_gib=total_disk,
        free_ram_mib=free_ram,
        free_vcpus=free_vcpus,
        free_disk_gib=free_disk,
    )
