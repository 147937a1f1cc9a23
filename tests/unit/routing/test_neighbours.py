"""Hellos: what a cell believes, saves, passes on and refuses."""

from dataclasses import replace

from cells.messages import Above, HelloDown, HelloUp, SignedCellRecord
from cells.model import CellState
from cells.record import Received, Record
from cells.rows import EdgeRow, RosterRow
from routing.neighbourhood import Neighbourhood
from routing.neighbours import HELLO_BYTES, hellos_up
from tests.unit.routing.trees import (
    MUTE,
    NOW,
    TICK,
    Forest,
    Rows,
    a_capacity,
    a_record,
    an_edge,
    an_entry,
    signed,
    verify,
)

DIAMOND = {"a": (), "b1": ("a",), "b2": ("a",), "c": ("b1", "b2")}


def a_cell(*rows, here="m", api=False):
    view = Rows(*rows)
    cell = Neighbourhood(here, api=api, mute_after=MUTE, verify=verify)
    cell.load(view, NOW)
    return cell, view


def told(cell, view, origin, body, *, now=NOW, neighbour=""):
    record = Record(id=bytes(16), body=body, origin=origin, destination=cell.here)
    decision = cell.decide(view, Received(record=record, neighbour=neighbour), now)
    view.save(decision.save)
    return decision


def hello_up(*records):
    return HelloUp(records=tuple(signed(record) for record in records))


def new_id():
    return bytes(16)


def sent_to(decision, neighbour):
    return [record.body for record in decision.send if record.destination == neighbour]


def names_in(bodies):
    return [verify(words).name for body in bodies for words in body.records]


def test_a_childs_hello_is_saved_and_opens_the_way_to_its_leaves():
    cell, view = a_cell(an_edge("b", heard=0))
    decision = told(cell, view, "b", hello_up(a_record("b", "m"), a_record("c", "b", capacity=a_capacity())))
    assert view.get(EdgeRow, "b").heard == NOW
    assert {row.name for row in decision.save if isinstance(row, RosterRow)} == {"b", "c"}
    assert cell.next_hops("c", NOW) == ("b",)
    assert not decision.notes


def test_the_same_hello_again_saves_no_cell_record():
    cell, view = a_cell(an_edge("b"))
    told(cell, view, "b", hello_up(a_record("b", "m")))
    again = told(cell, view, "b", hello_up(a_record("b", "m")), now=NOW + 1)
    assert [type(row) for row in again.save] == [EdgeRow]
    assert view.get(RosterRow, "b").updated == NOW


def test_a_record_that_a_lost_commit_did_not_save_is_saved_the_next_time():
    cell, view = a_cell(an_edge("b"))
    record = Record(id=bytes(16), body=hello_up(a_record("b", "m")), origin="b", destination="m")
    lost = cell.decide(view, Received(record=record), NOW)
    again = cell.decide(view, Received(record=record), NOW)
    assert lost.save == again.save


def test_a_record_with_a_bad_signature_does_not_spoil_the_rest():
    cell, view = a_cell(an_edge("b"))
    forged = SignedCellRecord(certificate=b"", payload=signed(a_record("c", "b")).payload, signature=b"bad")
    decision = told(cell, view, "b", HelloUp(records=(forged, signed(a_record("b", "m")))))
    assert list(cell.roster) == ["b"]
    assert "not signed" in decision.notes[0]


def test_a_name_used_again_belongs_to_the_cell_registered_later_though_its_generations_begin_anew():
    cell, view = a_cell(an_edge("b"))
    told(cell, view, "b", hello_up(a_record("c", "b", sequence=900, uuid=b"m" * 16)))
    decision = told(cell, view, "b", hello_up(a_record("c", "b", sequence=1, uuid=b"n" * 16)))
    assert cell.roster["c"].record.uuid == b"n" * 16
    assert [row.uuid for row in decision.save if isinstance(row, RosterRow)] == [b"n" * 16]
    late = told(cell, view, "b", hello_up(a_record("c", "b", sequence=901, uuid=b"m" * 16)))
    assert cell.roster["c"].record.generation.sequence == 1
    assert "belongs to another cell now" in late.notes[0]


def test_two_cells_of_a_name_in_one_hello_are_told_apart():
    cell, view = a_cell(an_edge("b"))
    decision = told(
        cell,
        view,
        "b",
        hello_up(a_record("c", "b", sequence=1, uuid=b"n" * 16), a_record("c", "b", sequence=9, uuid=b"m" * 16)),
    )
    assert cell.roster["c"].record.generation.sequence == 1
    assert "belongs to another cell now" in decision.notes[0]


def test_an_edge_registered_for_another_uuid_is_not_fooled():
    cell, view = a_cell(an_edge("b", uuid=b"r" * 16))
    assert "registered for another" in told(cell, view, "b", hello_up(a_record("b", "m"))).notes[0]
    assert not cell.roster


def test_an_edge_without_uuid_takes_the_first_certified_one():
    cell, view = a_cell(an_edge("b", uuid=bytes(16)))
    told(cell, view, "b", hello_up(a_record("b", "m", uuid=b"r" * 16)))
    assert view.get(EdgeRow, "b").uuid == b"r" * 16


def test_a_stranger_and_a_neighbour_of_the_wrong_side_change_nothing():
    cell, view = a_cell(an_edge("p", parent=True))
    assert told(cell, view, "x", hello_up(a_record("x", "m"))).save == ()
    assert told(cell, view, "p", hello_up(a_record("p", "m"))).save == ()
    assert told(cell, view, "x", HelloDown(above=())).save == ()
    assert not cell.roster


def test_a_hello_that_came_round_does_not_make_the_edge_live():
    cell, view = a_cell(an_edge("b", heard=0))
    decision = told(cell, view, "b", hello_up(a_record("b", "m")), neighbour="other")
    assert decision.save == ()
    assert "came round" in decision.notes[0]


def test_a_parents_hello_shows_who_is_above():
    cell, view = a_cell(an_edge("p", parent=True, heard=0))
    told(cell, view, "p", HelloDown(above=(Above(name="p", hops=0, api=False), Above(name="a", hops=1, api=True))))
    assert cell.next_hops("a", NOW) == ("p",)
    assert cell.topology.api_cells() == ("a",)


def test_an_edge_is_cut_while_we_are_above_our_parent_and_heals_after():
    cell, view = a_cell(an_edge("p", parent=True), an_edge("q", parent=True))
    ring = HelloDown(above=(Above(name="p", hops=0, api=False), Above(name="m", hops=1, api=False)))
    decision = told(cell, view, "p", ring)
    assert "cut" in decision.notes[0]
    assert view.get(EdgeRow, "p").refused
    assert cell.next_hops("p", NOW) == ()
    assert not sent_to(cell.hellos(signed(a_record("m", "q")), NOW, new_id), "p")
    assert told(cell, view, "p", ring).notes == ()
    healed = told(cell, view, "p", HelloDown(above=(Above(name="p", hops=0, api=False),)))
    assert "healed" in healed.notes[0]
    assert cell.next_hops("p", NOW) == ("p",)


def test_an_edge_refused_by_an_operator_is_not_healed_by_a_hello():
    cell, view = a_cell(an_edge("p", parent=True, refused="unreachable"))
    told(cell, view, "p", HelloDown(above=(Above(name="p", hops=0, api=False),)))
    assert view.get(EdgeRow, "p").refused == "unreachable"


def test_a_child_that_relays_ourselves_or_our_ancestors_shows_a_cycle():
    cell, view = a_cell(an_edge("b"), an_edge("p", parent=True, above=(("p", 0, False), ("a", 1, True))))
    decision = told(cell, view, "b", hello_up(a_record("m", "b"), a_record("a", "b"), a_record("b", "m")))
    assert list(cell.roster) == ["b"]
    assert sum("cycle" in note for note in decision.notes) == 2


def test_news_goes_up_once_and_a_parent_that_was_mute_gets_everything():
    cell, view = a_cell(an_edge("p", parent=True), an_edge("b"))
    told(cell, view, "b", hello_up(a_record("b", "m"), a_record("c", "b")))
    own = signed(a_record("m", "p"))
    assert names_in(sent_to(cell.hellos(own, NOW, new_id), "p")) == ["m", "b", "c"]
    assert names_in(sent_to(cell.hellos(own, NOW, new_id), "p")) == ["m"]
    told(cell, view, "b", hello_up(a_record("c", "b", sequence=2)))
    assert names_in(sent_to(cell.hellos(own, NOW, new_id), "p")) == ["m", "c"]
    later = NOW + MUTE + 1
    assert names_in(sent_to(cell.hellos(own, later, new_id), "p")) == ["m"]
    told(cell, view, "p", HelloDown(above=()), now=later)
    assert names_in(sent_to(cell.hellos(own, later, new_id), "p")) == ["m", "b", "c"]


def test_a_parent_that_differs_twice_gets_everything_again_and_once_is_forgiven():
    cell, view = a_cell(an_edge("p", parent=True), an_edge("b"))
    told(cell, view, "b", hello_up(a_record("b", "m")))
    own = signed(a_record("m", "p"))
    cell.hellos(own, NOW, new_id)
    told(cell, view, "p", HelloDown(above=(), known=1))
    assert names_in(sent_to(cell.hellos(own, NOW, new_id), "p")) == ["m"]
    decision = told(cell, view, "p", HelloDown(above=(), known=1))
    assert "sent again" in decision.notes[0]
    assert names_in(sent_to(cell.hellos(own, NOW, new_id), "p")) == ["m", "b"]


def test_hellos_are_split_by_size_and_lose_nothing():
    news = [an_entry(a_record(f"leaf-{n}", projects=tuple(f"project-{p}" for p in range(2_000)))) for n in range(30)]
    hellos = list(hellos_up(signed(a_record("m")), news))
    assert len(hellos) > 1
    assert names_in(hellos) == ["m", *(entry.name for entry in news)]
    for hello in hellos:
        assert sum(len(words.payload) for words in hello.records) <= HELLO_BYTES


def test_nothing_is_said_over_a_disabled_edge():
    cell, _ = a_cell(an_edge("b", state=CellState.DISABLED), an_edge("p", parent=True, state=CellState.DISABLED))
    assert cell.hellos(signed(a_record("m")), NOW, new_id).send == ()


def test_a_restarted_daemon_knows_what_the_rows_know():
    forest = Forest(DIAMOND)
    forest.round(3)
    before = forest.cells["a"].tree
    forest.restart("a")
    after = forest.cells["a"].tree
    assert after.roster == before.roster
    assert after.next_hops("c", NOW) == before.next_hops("c", NOW)


def test_a_load_takes_in_what_another_daemon_saved_and_drops_what_was_removed():
    cell, view = a_cell(an_edge("b"))
    view.save([an_entry(a_record("c", "b")).row(), an_edge("d")])
    cell.load(view, NOW)
    assert cell.next_hops("c", NOW) == ("b",)
    assert cell.topology.children == ("b", "d")
    view.rows = {key: row for key, row in view.rows.items() if key[0] is not RosterRow}
    cell.load(view, NOW)
    assert cell.next_hops("c", NOW) == ()


def test_a_tree_that_ticks_finds_all_its_ways_and_stays_quiet():
    forest = Forest(DIAMOND)
    forest.round(3)
    assert forest.walk("a", "c") in (["a", "b1", "c"], ["a", "b2", "c"])
    assert forest.walk("c", "a") in (["c", "b1", "a"], ["c", "b2", "a"])
    for cell in forest.cells.values():
        cell.notes.clear()
    forest.round(6)
    assert not [note for cell in forest.cells.values() for note in cell.notes]


def test_a_wiped_parent_is_told_everything_again():
    forest = Forest({"a": (), "b": ("a",), "c": ("b",), "d": ("c",)})
    forest.round(5)
    silent = replace(forest.cells["d"].rows.get(EdgeRow, "c"))
    assert silent.heard
    forest.wipe("a")
    forest.round(4)
    assert set(forest.cells["a"].tree.roster) == {"b", "c", "d"}


def test_traffic_goes_round_a_silent_middle_cell_and_comes_back():
    forest = Forest(DIAMOND)
    forest.round(3)
    forest.silent = {("a", "b1"), ("c", "b1")}
    forest.round(MUTE // TICK + 2)
    assert forest.walk("a", "c") == ["a", "b2", "c"]
    assert forest.walk("c", "a") == ["c", "b2", "a"]
    assert forest.cells["a"].tree.roster["c"].record.parents == ("b2",)
    forest.silent = set()
    forest.round(3)
    assert set(forest.cells["a"].tree.next_hops("c", forest.now)) == {"b1", "b2"}


def test_a_ring_is_cut_and_the_cells_say_so():
    forest = Forest({"a": (), "x": ("a", "z"), "y": ("x",), "z": ("y",)})
    forest.round(6)
    refused = [row for cell in forest.cells.values() for row in cell.rows.all(EdgeRow) if row.refused]
    assert refused
    assert any("cycle" in note for cell in forest.cells.values() for note in cell.notes)
    assert forest.walk("a", "z") == ["a", "x", "y", "z"]


def test_a_child_with_servers_may_not_be_cut_off_and_a_parent_not_left():
    busy = a_record("c", "m", capacity=a_capacity(servers=2))
    above = (("p", 0, False), ("a", 1, True))
    cell, _ = a_cell(an_edge("c"), an_edge("p", parent=True, above=above), an_entry(busy).row())
    assert "cut off with servers" in cell.why_not_detach("c")
    assert "no other parent leads to a" in cell.why_not_detach("p")
    idle, _ = a_cell(an_edge("p", parent=True, above=above))
    assert idle.why_not_detach("p") == ""
    assert idle.why_not_detach("p", servers=1) != ""
