"""The leaves a build may be offered to, kept up with the roster and the topology. Memory only: it can be made again
from those two at any time, and follows them cheaply, because a leaf is looked at again only when its entry has changed.
"""

from cells.names import CellName, Instant
from routing.capacity import Capacities
from routing.demand import Demand
from routing.roster import Entry, Roster
from routing.topology import Topology


class Candidates:
    """The leaves below, with their free shapes ready to be counted."""

    def __init__(self, topology: Topology, roster: Roster) -> None:
        self._topology = topology
        self._roster = roster
        self._capacities = Capacities()
        self._entries: dict[CellName, tuple[int, Entry]] = {}
        self._order: list[tuple[int, Entry]] | None = None
        self._take(roster)

    def follow(self, topology: Topology, roster: Roster) -> None:
        """Take the newest snapshots in place of those held."""
        self._topology = topology
        if roster is not self._roster:
            self._roster = roster
            self._take(roster)

    def leaves(self) -> list[tuple[int, Entry]]:
        """Each leaf's slot and entry, by name."""
        if self._order is None:
            self._order = [self._entries[name] for name in sorted(self._entries)]
        return self._order

    def buildable(self, demand: Demand) -> list[int]:
        """How many servers each slot could build, by the leaves' last words alone."""
        return self._capacities.buildable(demand)

    def buildable_at(self, leaf: CellName, demand: Demand) -> int:
        held = self._entries.get(leaf)
        return self.buildable(demand)[held[0]] if held else 0

    def open_below(self, now: Instant) -> frozenset[CellName]:
        """The cells that new builds may reach."""
        return self._topology.open_below(now)

    def within(self, cell: CellName) -> frozenset[CellName]:
        """The named cell and all below it."""
        return self._topology.below(cell) | {cell}

    def _take(self, roster: Roster) -> None:
        for name, entry in roster.items():
            held = self._entries.get(name)
            if held is not None and held[1] is entry:
                continue
            capacity = entry.record.capacity
            if capacity is None:
                self._leave(name)
                continue
            if held is None or held[1].record.capacity != capacity:
                self._capacities.update(name, capacity)
            self._entries[name] = (self._capacities.slots[name], entry)
            self._order = None
        for name in self._entries.keys() - roster.keys():
            self._leave(name)

    def _leave(self, name: CellName) -> None:
        if self._entries.pop(name, None) is not None:
            self._capacities.remove(name)
            self._order = None
