"""A cell that was detached leaves the rosters; one that is dead, or has servers, stays."""

from cells.decision import Remove
from cells.rows import EdgeRow, RosterRow
from routing.neighbourhood import Neighbourhood
from tests.unit.routing.trees import MUTE, NOW, Forest, Rows, a_capacity, a_record, an_edge, an_entry, signed, verify


def hellos(tree, now):
    return tree.hellos(None, now, lambda: bytes(16))


def seen_from_top(*entries, children=("dfw",)):
    tree = Neighbourhood("east", api=True, mute_after=MUTE, verify=verify)
    tree.load(Rows(*map(an_edge, children), *(entry.row() for entry in entries)), NOW)
    return tree


def leaf(servers=0, **fields):
    return an_entry(a_record("dfw-1", "dfw", capacity=a_capacity(servers=servers)), **fields)


REGION = an_entry(a_record("dfw", "east"))


def test_a_detached_cell_is_forgotten_once_it_is_silent():
    tree = seen_from_top(leaf(), children=())
    assert hellos(tree, NOW).save == ()
    assert hellos(tree, NOW + MUTE + 1).save == (Remove(row=RosterRow, key=("dfw-1",)),)
    assert "dfw-1" not in tree.roster
    assert hellos(tree, NOW + 2 * MUTE).save == ()


def test_a_silent_cell_that_a_way_leads_to_is_dead_and_stays():
    tree = seen_from_top(REGION, leaf())
    assert hellos(tree, NOW + MUTE + 1).save == ()
    assert "dfw-1" in tree.roster


def test_a_detached_cell_with_servers_stays_so_that_they_show_as_out_of_reach():
    tree = seen_from_top(leaf(servers=1), children=())
    assert hellos(tree, NOW + MUTE + 1).save == ()
    assert tree.roster.stale(NOW + MUTE + 1, MUTE) == ("dfw-1",)


def test_a_parent_whose_edge_was_removed_forgets_the_child_and_tells_nobody_of_it():
    forest = Forest({"east": (), "dfw": ("east",), "dfw-1": ("dfw",)})
    forest.round(3)
    dfw = forest.cells["dfw"]
    del dfw.rows.rows[EdgeRow, ("dfw-1",)]
    del forest.cells["dfw-1"].rows.rows[EdgeRow, ("dfw",)]
    for name in ("dfw", "dfw-1"):
        forest.cells[name].tree.load(forest.cells[name].rows, forest.now)
    forest.now += MUTE + 1
    own = signed(a_record("dfw", "east", sequence=99))
    decision = dfw.tree.hellos(own, forest.now, forest._new_id)
    assert decision.save == (Remove(row=RosterRow, key=("dfw-1",)),)
    told = [verify(words).name for record in decision.send for words in getattr(record.body, "records", ())]
    assert told == ["dfw"]
