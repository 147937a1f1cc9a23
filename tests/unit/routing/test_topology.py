"""Where packets go, and what a change of the tree would do."""

from dataclasses import replace

from cells.model import CellState
from routing.topology import Topology
from tests.unit.routing.trees import MUTE, NOW, a_capacity, a_record, an_edge

DIAMOND_EDGES = (an_edge("b1"), an_edge("b2"))
DIAMOND = (
    a_record("b1", "a"),
    a_record("b2", "a"),
    a_record("c", "b1", "b2", capacity=a_capacity()),
)


def a_topology(*edges, records=(), here="a"):
    return Topology(here, mute_after=MUTE, edges=edges, records=records)


def test_both_ways_of_a_diamond_are_named_and_the_leaf_once():
    top = a_topology(*DIAMOND_EDGES, records=DIAMOND)
    assert set(top.next_hops("c", NOW)) == {"b1", "b2"}
    assert top.below() == {"b1", "b2", "c"}
    assert top.leaves() == ("c",)
    assert top.paths("c") == (("a", "b1", "c"), ("a", "b2", "c"))
    assert top.depth == 2


def test_a_mute_child_is_left_out_while_another_lives():
    top = a_topology(an_edge("b1", heard=NOW - MUTE - 1), an_edge("b2"), records=DIAMOND)
    assert top.next_hops("c", NOW) == ("b2",)


def test_a_mute_child_is_tried_when_nothing_else_is_there():
    top = a_topology(an_edge("b1", heard=0), records=DIAMOND)
    assert top.next_hops("c", NOW) == ("b1",)


def test_a_neighbour_is_always_asked_directly_first():
    mute = an_edge("c", heard=0)
    top = a_topology(*DIAMOND_EDGES, mute, records=DIAMOND)
    assert top.next_hops("c", NOW)[0] == "c"
    assert set(top.next_hops("c", NOW)[1:]) == {"b1", "b2"}


def test_the_shorter_way_comes_first():
    records = (*DIAMOND, a_record("d", "c"), a_record("e", "d", "b2"))
    top = a_topology(*DIAMOND_EDGES, records=records)
    assert top.next_hops("e", NOW) == ("b2", "b1")


def test_ways_of_equal_length_are_shared_out_among_destinations():
    records = [a_record(f"leaf-{n}", "b1", "b2") for n in range(40)]
    top = a_topology(*DIAMOND_EDGES, records=records)
    first = [top.next_hops(f"leaf-{n}", NOW)[0] for n in range(40)]
    assert 5 < first.count("b1") < 35
    assert first == [top.next_hops(f"leaf-{n}", NOW)[0] for n in range(40)]


def test_upwards_the_parent_that_announces_the_destination_is_asked():
    p1 = an_edge("b1", parent=True, above=(("b1", 0, False), ("a1", 1, True)))
    p2 = an_edge("b2", parent=True, above=(("b2", 0, False), ("m", 1, False), ("a1", 2, True), ("a2", 2, True)))
    leaf = a_topology(p1, p2, here="c")
    assert leaf.next_hops("a1", NOW) == ("b1", "b2")
    assert leaf.next_hops("a2", NOW) == ("b2",)
    assert leaf.next_hops("b1", NOW) == ("b1",)
    assert leaf.api_cells() == ("a1", "a2")
    assert {name: cell.hops for name, cell in leaf.ancestors().items()} == {"b1": 1, "b2": 1, "m": 2, "a1": 2, "a2": 3}


def test_an_unknown_destination_and_this_cell_itself_have_no_way():
    top = a_topology(*DIAMOND_EDGES, records=DIAMOND)
    assert top.next_hops("nowhere", NOW) == ()
    assert top.next_hops("a", NOW) == ()


def test_a_refused_and_a_disabled_edge_carry_nothing():
    refused = an_edge("b1", refused="cycle")
    disabled = an_edge("b2", state=CellState.DISABLED)
    top = a_topology(refused, disabled, records=DIAMOND)
    assert top.next_hops("c", NOW) == () == top.next_hops("b1", NOW)
    assert top.below() == frozenset()
    assert {edge.neighbour for edge in top.edges} == {"b1", "b2"}


def test_only_live_parents_are_passed_on_downwards():
    p1 = an_edge("b1", parent=True, above=(("b1", 0, False), ("a1", 1, True)))
    p2 = an_edge("b2", parent=True, heard=NOW - MUTE - 1, above=(("b2", 0, False), ("a2", 1, True)))
    above = a_topology(p1, p2, here="c").above(NOW, api=False)
    assert [(cell.name, cell.hops, cell.api) for cell in above] == [("c", 0, False), ("b1", 1, False), ("a1", 2, True)]


def test_a_cell_that_has_heard_no_parent_lately_still_names_them_all():
    p1, p2 = (an_edge(name, parent=True, heard=0) for name in ("b1", "b2"))
    assert a_topology(p1, p2, here="c").parents_heard(NOW) == ("b1", "b2")
    assert a_topology(p1, replace(p2, heard=NOW), here="c").parents_heard(NOW) == ("b2",)


def test_builds_go_only_through_live_enabled_children():
    draining = an_edge("b1", state=CellState.DRAINING)
    mute = an_edge("b2", heard=0)
    assert a_topology(draining, mute, records=DIAMOND).open_below(NOW) == frozenset()
    assert "c" in a_topology(draining, an_edge("b2"), records=DIAMOND).open_below(NOW)


def test_an_edge_that_closes_a_ring_would_cycle():
    top = a_topology(*DIAMOND_EDGES, records=DIAMOND)
    assert top.would_cycle("c", "b1")
    assert top.would_cycle("c", "a")
    assert top.would_cycle("b1", "b1")
    assert not top.would_cycle("b1", "b2")
    assert not top.would_cycle("a", "new")
    middle = a_topology(an_edge("a", parent=True, above=(("a", 0, True), ("x", 1, False))), here="m")
    assert middle.would_cycle("m", "x")
    assert middle.would_cycle("m", "a")


def test_letting_a_child_go_cuts_off_what_only_it_leads_to():
    records = (*DIAMOND, a_record("d", "b1"))
    top = a_topology(*DIAMOND_EDGES, records=records)
    assert top.cut_off_by("b1") == ("b1", "d")
    assert top.cut_off_by("c") == ()


def test_a_way_round_through_a_parent_elsewhere_counts_for_a_middle_cell():
    parent = an_edge("a", parent=True, above=(("a", 0, True),))
    middle = a_topology(parent, an_edge("c"), records=[a_record("c", "b1", "b2")], here="b1")
    assert middle.cut_off_by("c") == ()
    api = a_topology(an_edge("c"), records=[a_record("c", "b1", "b2")], here="b1")
    assert api.cut_off_by("c") == ("c",)


def test_leaving_a_parent_loses_the_api_cells_only_it_leads_to():
    p1 = an_edge("b1", parent=True, above=(("b1", 0, False), ("a1", 1, True)))
    p2 = an_edge("b2", parent=True, above=(("b2", 0, False), ("a1", 1, True), ("a2", 1, True)))
    leaf = a_topology(p1, p2, here="c")
    assert leaf.unreached_without("b1") == ()
    assert leaf.unreached_without("b2") == ("a2",)


def test_a_record_that_changes_only_capacity_changes_no_topology():
    top = a_topology(*DIAMOND_EDGES, records=DIAMOND)
    assert top.changed(records=[a_record("c", "b1", "b2", sequence=9, capacity=a_capacity(servers=4))]) is top
    moved = top.changed(records=[a_record("c", "b2", sequence=9, capacity=a_capacity())])
    assert moved.next_hops("c", NOW) == ("b2",)
    assert set(top.next_hops("c", NOW)) == {"b1", "b2"}


def test_a_detached_child_is_gone_though_its_record_still_names_us():
    top = a_topology(*DIAMOND_EDGES, records=DIAMOND).changed(edges=[an_edge("b2")])
    assert top.children == ("b2",)
    assert "b1" not in top.below()
    assert top.changed(gone=["c"]).below() == {"b2"}
