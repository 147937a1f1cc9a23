"""The part of the tree a cell knows, and where a packet goes next. A snapshot: a change gives a new Topology.

Downwards a cell knows everything: the cell record of each cell below names that cell's parents. Upwards it knows only
what its parents announce: which cells are above, how far, and which of them are API cells. So a way down is found in
a graph, a way up by asking which parents reach the destination.

The graph (networkx) holds all cells but this one, so that no way ever comes back through here; this cell's own edges
stand beside it, because their last-heard times change with every hello while the graph does not.
"""

from collections.abc import Iterable, Mapping
from itertools import islice
from zlib import crc32

import networkx as nx

from cells.messages import Above
from cells.model import CellRecord, CellState
from cells.names import CellName, Instant
from cells.record import MAX_HOPS
from cells.rows import EdgeRow

_MOST_PATHS = 100

Place = tuple[tuple[CellName, ...], bool]
"""What of a cell record decides the graph: its parents, and whether it has hosts."""


def place_of(record: CellRecord) -> Place:
    return record.parents, record.capacity is not None


class _Graph:
    """Cells and their parents as of one moment, without `here`; shared by all snapshots that differ only in edges.
    Distances are found once for each destination asked for."""

    __slots__ = ("_below", "_hops", "_reach", "children", "nodes", "places", "silent")

    def __init__(
        self,
        here: CellName,
        children: frozenset[CellName],
        places: Mapping[CellName, Place],
        silent: frozenset[CellName] = frozenset(),
    ) -> None:
        self.children = children
        self.places = places
        self.silent = silent
        self.nodes: nx.DiGraph[CellName] = nx.DiGraph()
        self.nodes.add_nodes_from(children)
        self.nodes.add_edges_from(
            (parent, name)
            for name, (parents, _) in places.items()
            if name != here
            for parent in parents
            if parent not in (here, name)
        )
        self._hops: dict[CellName, dict[CellName, int]] = {}
        self._reach: dict[CellName, frozenset[CellName]] = {}
        self._below: frozenset[CellName] | None = None

    def hops_to(self, destination: CellName) -> dict[CellName, int]:
        """How many hops each cell is from the destination, for the cells that reach it: past no silent cell, unless
        every way from a child leads past one. What a silent cell last said of its parents may no longer be so, and
        nobody else would say that the way ends there."""
        known = self._hops.get(destination)
        if known is None:
            known = {}
            if destination in self.nodes:
                past = self.silent - {destination}
                heard = nx.restricted_view(self.nodes, past, ()) if past else self.nodes
                known = dict(nx.single_target_shortest_path_length(heard, destination))
                if past and self.children.isdisjoint(known):
                    known = dict(nx.single_target_shortest_path_length(self.nodes, destination))
            self._hops[destination] = known
        return known

    def reach(self, name: CellName) -> frozenset[CellName]:
        """A cell and every cell below it."""
        known = self._reach.get(name)
        if known is None:
            known = frozenset({name} | nx.descendants(self.nodes, name)) if name in self.nodes else frozenset()
            self._reach[name] = known
        return known

    def below(self) -> frozenset[CellName]:
        if self._below is None:
            self._below = self.reach_of(self.children)
        return self._below

    def reach_of(self, names: Iterable[CellName]) -> frozenset[CellName]:
        return frozenset().union(*(self.reach(name) for name in names))


class Topology:
    """What `here` knows of the tree. Edges that are refused or disabled carry nothing and are left out; an edge is
    live while its neighbour was heard within `mute_after` microseconds."""

    __slots__ = ("_edges", "_graph", "_rows", "here", "mute_after")

    def __init__(
        self,
        here: CellName,
        *,
        mute_after: int,
        edges: Iterable[EdgeRow] = (),
        records: Iterable[CellRecord] = (),
    ) -> None:
        self.here = here
        self.mute_after = mute_after
        self._rows: dict[CellName, EdgeRow] = {edge.neighbour: edge for edge in edges}
        self._edges = _usable(self._rows)
        self._graph = _Graph(here, self._child_names(), {record.name: place_of(record) for record in records})

    def changed(
        self,
        *,
        edges: Iterable[EdgeRow] | None = None,
        records: Iterable[CellRecord] = (),
        gone: Iterable[CellName] = (),
        silent: frozenset[CellName] | None = None,
    ) -> "Topology":
        """The snapshot after some cell records came or went, or with these edges, or these silent cells, in place of
        the old ones. This same snapshot when nothing of the tree's shape changed; the graph is rebuilt only when that
        shape did."""
        places = self._graph.places
        news = {record.name: place_of(record) for record in records if places.get(record.name) != place_of(record)}
        lost = [name for name in gone if name in places]
        rows = self._rows if edges is None else {edge.neighbour: edge for edge in edges}
        mute = self._graph.silent if silent is None else silent
        if not news and not lost and rows == self._rows and mute == self._graph.silent:
            return self
        after = Topology.__new__(Topology)
        after.here = self.here
        after.mute_after = self.mute_after
        after._rows = rows
        after._edges = _usable(rows)
        after._graph = self._graph
        if news or lost or after._child_names() != self._graph.children or mute != self._graph.silent:
            kept = {name: place for name, place in {**places, **news}.items() if name not in lost}
            after._graph = _Graph(self.here, after._child_names(), kept, mute)
        return after

    # --- neighbours ---

    @property
    def edges(self) -> tuple[EdgeRow, ...]:
        """Every edge of this cell, also those that are cut."""
        return tuple(self._rows.values())

    @property
    def children(self) -> tuple[CellName, ...]:
        return tuple(sorted(self._child_names()))

    @property
    def parents(self) -> tuple[CellName, ...]:
        return tuple(sorted(name for name, edge in self._edges.items() if edge.parent))

    def is_live(self, neighbour: CellName, now: Instant) -> bool:
        """Whether the neighbour has been heard lately over an edge that is not cut."""
        edge = self._edges.get(neighbour)
        return edge is not None and self._is_live(edge, now)

    def parents_heard(self, now: Instant) -> tuple[CellName, ...]:
        """The parents to name in this cell's own record: those heard lately; all of them while none is, so that a cell
        that wakes up does not take itself out of the tree."""
        heard = tuple(name for name in self.parents if self._is_live(self._edges[name], now))
        return heard or self.parents

    # --- the tree ---

    def below(self, name: CellName | None = None) -> frozenset[CellName]:
        """Every cell below the named one (below this cell if none is named), each once however many ways lead to it."""
        if name is None or name == self.here:
            return self._graph.below()
        return self._graph.reach(name) - {name} if name in self._graph.below() else frozenset()

    def ancestors(self) -> dict[CellName, Above]:
        """Every cell above as its parents announce it, by name, at its fewest hops from here (a parent: 1)."""
        return _nearest(edge for edge in self._edges.values() if edge.parent)

    def above(self, now: Instant, *, api: bool) -> tuple[Above, ...]:
        """What this cell announces to its children: itself at 0 hops and all that its live parents announce. A mute
        parent is left out: what it reached is not reached through here now."""
        live = _nearest(edge for edge in self._edges.values() if edge.parent and self._is_live(edge, now))
        live.pop(self.here, None)
        return (Above(name=self.here, hops=0, api=api), *sorted(live.values(), key=lambda cell: (cell.hops, cell.name)))

    def api_cells(self) -> tuple[CellName, ...]:
        """The API cells above, nearest first."""
        cells = sorted(self.ancestors().values(), key=lambda cell: (cell.hops, cell.name))
        return tuple(cell.name for cell in cells if cell.api)

    def leaves(self) -> tuple[CellName, ...]:
        """The cells below that have hosts (they may have children, too)."""
        places = self._graph.places
        return tuple(sorted(name for name in self._graph.below() if name in places and places[name][1]))

    def open_below(self, now: Instant) -> frozenset[CellName]:
        """The cells below to which new builds may go: those under a child whose edge is live and enabled."""
        return self._graph.reach_of(
            name
            for name, edge in self._edges.items()
            if not edge.parent and edge.state is CellState.ENABLED and self._is_live(edge, now)
        )

    @property
    def depth(self) -> int:
        """Hops from here to the farthest cell below, by its shortest way."""
        return sum(1 for _ in nx.bfs_layers(self._graph.nodes, self._child_names()))

    # --- ways ---

    def next_hops(self, destination: CellName, now: Instant) -> tuple[CellName, ...]:
        """The neighbours a packet for this cell may go to next, best first: live ones by fewest hops; ways of equal
        length keep an order of their own for each destination, which shares the load and keeps one destination's
        packets together. Mute neighbours are named only while no live one leads there, so that a first contact can be
        tried; but a destination next door is always asked directly first: its inbox is the same queue whoever
        publishes to it, and its hello must come over the edge it is about. Empty when the destination is unknown, or
        is this cell."""
        hops = self._hops_down(destination) or self._hops_up(destination)
        live = {
            name: count for name, count in hops.items() if name == destination or self._is_live(self._edges[name], now)
        }
        ways = live or hops
        return tuple(sorted(ways, key=lambda name: (ways[name], crc32(f"{destination}/{name}".encode()), name)))

    def paths(self, destination: CellName) -> tuple[tuple[CellName, ...], ...]:
        """The ways down to a cell below, each from here to there, shortest first; at most 100 of them."""
        ways: list[tuple[CellName, ...]] = []
        for child in self._hops_down(destination):
            if child == destination:
                ways.append((self.here, child))
                continue
            found = nx.all_simple_paths(self._graph.nodes, child, destination, cutoff=MAX_HOPS)
            ways.extend((self.here, *path) for path in islice(found, _MOST_PATHS))
        return tuple(sorted(ways, key=lambda path: (len(path), path))[:_MOST_PATHS])

    # --- what a change would do ---

    def would_cycle(self, parent: CellName, child: CellName) -> bool:
        """Whether an edge from parent to child would close a cycle, as far as this cell can see: the cells above
        it see more, so a cell checks its parents' announcements again whenever they come."""
        if parent == child:
            return True
        above = self.ancestors()
        if parent == self.here or parent in self._graph.below():
            return child in above or child == self.here or parent in self._graph.reach(child)
        return parent in self._graph.reach(child)

    def cut_off_by(self, child: CellName) -> tuple[CellName, ...]:
        """The cells that would lose their last way if this cell let the child go. A cell with parents of its own counts
        a way that goes round it (through a parent that is not below here); an API cell does not: it needs a way of its
        own to its servers."""
        if child not in self._graph.children:
            return ()
        ways = set(self._graph.children) - {child}
        if self.parents:
            ways |= set(self._graph.nodes) - self._graph.below()
        return tuple(sorted(self._graph.reach(child) - self._graph.reach_of(ways)))

    def unreached_without(self, parent: CellName) -> tuple[CellName, ...]:
        """The API cells above that only this parent leads to."""
        others = _nearest(edge for name, edge in self._edges.items() if edge.parent and name != parent)
        return tuple(sorted(set(self.api_cells()) - set(others)))

    # --- within ---

    def _child_names(self) -> frozenset[CellName]:
        return frozenset(name for name, edge in self._edges.items() if not edge.parent)

    def _is_live(self, edge: EdgeRow, now: Instant) -> bool:
        return edge.heard > 0 and now - edge.heard <= self.mute_after

    def _hops_down(self, destination: CellName) -> dict[CellName, int]:
        if destination == self.here:
            return {}
        hops = self._graph.hops_to(destination)
        if len(hops) < len(self._graph.children):
            return {name: count for name, count in hops.items() if name in self._graph.children}
        return {name: hops[name] for name in self._graph.children if name in hops}

    def _hops_up(self, destination: CellName) -> dict[CellName, int]:
        if destination == self.here:
            return {}
        hops: dict[CellName, int] = {}
        for name, edge in self._edges.items():
            if not edge.parent:
                continue
            if name == destination:
                hops[name] = 0
                continue
            found = [count for cell, count, _ in edge.above if cell == destination]
            if found:
                hops[name] = min(found)
        return hops


def _usable(rows: Mapping[CellName, EdgeRow]) -> dict[CellName, EdgeRow]:
    return {name: edge for name, edge in rows.items() if not edge.refused and edge.state is not CellState.DISABLED}


def _nearest(parents: Iterable[EdgeRow]) -> dict[CellName, Above]:
    """The union of what these parents announce, one hop farther from here, the fewest hops of each cell."""
    nearest: dict[CellName, Above] = {}
    for edge in parents:
        for name, hops, api in (*edge.above, (edge.neighbour, 0, False)):
            if hops + 1 >= MAX_HOPS:
                continue
            known = nearest.get(name)
            if known is None or hops + 1 < known.hops:
                nearest[name] = Above(name=name, hops=hops + 1, api=api)
    return nearest
