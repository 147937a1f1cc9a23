"""Routes and rosters over random trees in which a cell may have several parents."""

import networkx as nx
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.roster import Roster
from routing.topology import Topology
from tests.unit.routing.trees import MUTE, NOW, Forest, a_capacity, a_record, an_edge, an_entry


@st.composite
def trees(draw, most=9):
    """The parents of each cell, always ones that stand before it; up to three cells have none and are API cells."""
    parents: dict[str, tuple[str, ...]] = {"c0": ()}
    for number in range(1, draw(st.integers(2, most))):
        before = sorted(parents)
        named = draw(st.lists(st.sampled_from(before), min_size=0 if number < 3 else 1, max_size=3, unique=True))
        parents[f"c{number}"] = tuple(named)
    return parents


def graph_of(parents):
    graph = nx.DiGraph()
    graph.add_nodes_from(parents)
    graph.add_edges_from((parent, child) for child, named in parents.items() for parent in named)
    return graph


@given(trees())
@settings(max_examples=40, deadline=None)
def test_after_some_ticks_every_way_leads_there_without_a_detour(parents):
    graph = graph_of(parents)
    forest = Forest(parents)
    forest.round(nx.dag_longest_path_length(graph) + 2)
    for source in parents:
        tree = forest.cells[source].tree
        for destination in parents:
            if source == destination:
                continue
            down = nx.has_path(graph, source, destination)
            up = nx.has_path(graph, destination, source)
            if not (down or up):
                assert tree.next_hops(destination, forest.now) == ()
                continue
            length = nx.shortest_path_length(graph, *((source, destination) if down else (destination, source)))
            way = forest.walk(source, destination)
            assert len(way) - 1 == length
            neighbours = graph.successors(source) if down else graph.predecessors(source)
            ways = {
                hop for hop in neighbours if nx.has_path(graph, *((hop, destination) if down else (destination, hop)))
            }
            assert set(tree.next_hops(destination, forest.now)) == ways
            for hop in ways:
                assert forest.walk(hop, destination)


@given(trees())
@settings(max_examples=40, deadline=None)
def test_every_leaf_counts_once_however_many_ways_lead_to_it(parents):
    graph = graph_of(parents)
    forest = Forest(parents)
    forest.round(nx.dag_longest_path_length(graph) + 2)
    for name, cell in forest.cells.items():
        leaves = [leaf for leaf in nx.descendants(graph, name) if forest.cells[leaf].hosts]
        topology = cell.tree.topology
        assert sorted(topology.leaves()) == sorted(leaves)
        totals = cell.tree.roster.totals(topology.below(), forest.now, MUTE)
        assert (totals.fresh.leaves, totals.fresh.hosts, totals.stale.leaves) == (len(leaves), len(leaves), 0)
        assert topology.below() == nx.descendants(graph, name)
        assert set(topology.ancestors()) == nx.ancestors(graph, name)


@given(trees(), st.data())
@settings(max_examples=40, deadline=None)
def test_with_one_edge_silent_all_that_is_still_connected_is_reached(parents, data):
    graph = graph_of(parents)
    forest = Forest(parents)
    depth = nx.dag_longest_path_length(graph)
    forest.round(depth + 2)
    if not graph.edges:
        return
    edge = data.draw(st.sampled_from(sorted(graph.edges)))
    forest.silent = {edge}
    forest.round(MUTE // 10_000_000 + 2 * depth + 3)
    graph.remove_edge(*edge)
    for source in parents:
        for destination in nx.descendants(graph, source):
            for start, end in ((source, destination), (destination, source)):
                assert forest.walk(start, end)


@given(trees(), st.data())
def test_would_cycle_is_right_about_everything_below(parents, data):
    graph = graph_of(parents)
    below = sorted(nx.descendants(graph, "c0"))
    topology = Topology(
        "c0",
        mute_after=MUTE,
        edges=[an_edge(child) for child in graph.successors("c0")],
        records=[a_record(name, *parents[name]) for name in below],
    )
    parent, child = (data.draw(st.sampled_from(["c0", *below])) for _ in range(2))
    assert topology.would_cycle(parent, child) == (parent == child or nx.has_path(graph, child, parent))
    for child in topology.children:
        without = graph.copy()
        without.remove_edge("c0", child)
        assert set(topology.cut_off_by(child)) == nx.descendants(graph, "c0") - nx.descendants(without, "c0")


@given(trees(), st.data())
def test_step_by_step_changes_give_the_same_topology_as_building_it_at_once(parents, data):
    graph = graph_of(parents)
    edges = [an_edge(child) for child in graph.successors("c0")]
    records = [a_record(name, *named, capacity=a_capacity()) for name, named in parents.items() if name != "c0"]
    whole = Topology("c0", mute_after=MUTE, edges=edges, records=records)
    grown = Topology("c0", mute_after=MUTE)
    for record in data.draw(st.permutations(records)):
        grown = grown.changed(records=[record])
    grown = grown.changed(edges=edges)
    for name in parents:
        assert grown.next_hops(name, NOW) == whole.next_hops(name, NOW)
        assert grown.paths(name) == whole.paths(name)
    assert (grown.below(), grown.leaves(), grown.depth) == (whole.below(), whole.leaves(), whole.depth)


entries = st.builds(
    lambda name, epoch, sequence, arrived, parent: an_entry(
        a_record(name, parent, epoch=epoch, sequence=sequence), NOW + arrived
    ),
    st.sampled_from(["x", "y", "z"]),
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(0, 3),
    st.sampled_from(["p", "q"]),
)
rosters = st.lists(entries, max_size=6).map(Roster)


def union(one, two):
    return one.merge(two.values())


@given(rosters, rosters, rosters)
def test_merging_rosters_is_commutative_associative_and_idempotent(one, two, three):
    assert union(one, two) == union(two, one)
    assert union(union(one, two), three) == union(one, union(two, three))
    assert union(one, one) is one
    assert union(union(one, two), two) == union(one, two)


@given(st.lists(entries, max_size=8), st.data())
def test_a_roster_is_the_same_in_whatever_order_its_entries_came(arrived, data):
    shuffled = data.draw(st.permutations(arrived))
    roster = Roster(arrived)
    assert Roster(shuffled) == roster
    assert Roster().merge(shuffled) == roster
    for name, entry in roster.items():
        assert all(entry.record.generation >= other.record.generation for other in arrived if other.name == name)
