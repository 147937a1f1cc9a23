"""Which leaf is chosen, which are refused and why."""

from collections import Counter
from dataclasses import replace

import pytest

from cells import codec
from cells.errors import BadInput
from cells.model import Capacity, CellState, FreeShape, Generation, HostClass, StorageGroup
from routing.candidates import Candidates
from routing.demand import Room, demand_of
from routing.place import Choice, Explanation, NoRoom, choose
from routing.reservations import Reservation, Reservations
from routing.roster import Roster
from routing.topology import Topology
from routing.weights import PlacementSettings, Strategy
from tests.unit.routing.trees import MUTE, NOW, a_capacity, a_record, a_spec, an_edge, an_entry

SETTINGS = PlacementSettings(mute_after=MUTE)


def a_leaf(name, hosts=1, *, arrived=NOW, **fields):
    capacity = fields.pop("capacity", None) or a_capacity(FreeShape(ram_mib=4096, vcpus=4, disk_gib=100, hosts=hosts))
    return an_entry(a_record(name, "a", capacity=capacity, **fields), arrived)


def some_leaves(*entries, edges=None):
    edges = [an_edge(entry.name) for entry in entries] if edges is None else edges
    topology = Topology("a", mute_after=MUTE, edges=edges, records=[entry.record for entry in entries])
    return Candidates(topology, Roster(entries))


def ask(leaves, spec=None, *, reservations=None, settings=SETTINGS, draw=0.5, now=NOW, **asked):
    spec = spec or a_spec()
    return choose(spec, leaves, reservations or Reservations(), settings, draw=draw, now=now, **asked)


def reason(leaves, spec=None, *, leaf="x", **asked):
    answer = ask(leaves, spec, **asked)
    assert isinstance(answer, NoRoom)
    return answer.reasons[leaf]


def a_reservation(number, leaf="x", *, room=None, expires=NOW + MUTE, attempt=1):
    room = room or Room(ram_mib=1024, vcpus=1, disk_gib=10)
    return Reservation(server=number.to_bytes(16, "big"), attempt=attempt, leaf=leaf, room=room, expires=expires)


def test_the_only_leaf_with_room_is_chosen():
    answer = ask(some_leaves(a_leaf("x", hosts=0), a_leaf("y")))
    assert isinstance(answer, Choice)
    assert answer.leaf == "y"
    assert answer.explanation.refused == (("x", "no room"),)


def test_every_condition_refuses_with_its_reason():
    stale = a_leaf("x", arrived=NOW - MUTE - 1)
    assert reason(some_leaves(stale)) == "not heard of lately"
    assert "draining" in reason(some_leaves(a_leaf("x", state=CellState.DRAINING)))
    assert "project" in reason(some_leaves(a_leaf("x", projects=("q",))))
    assert "no open way" in reason(some_leaves(a_leaf("x"), edges=[]))
    assert reason(some_leaves(a_leaf("x")), tried=["x"]) == "tried already"
    assert "zone is not z" in reason(some_leaves(a_leaf("x")), a_spec(zone="z"))
    assert "lacks trait SSD" in reason(some_leaves(a_leaf("x")), a_spec(extra_specs={"trait:SSD": "required"}))
    assert "near" in reason(some_leaves(a_leaf("x")), near=["y"])
    assert "far" in reason(some_leaves(a_leaf("x")), far=["x"])
    assert "target_cell" in reason(some_leaves(a_leaf("x")), a_spec(hints={"target_cell": "y"}))
    assert "different_cell" in reason(some_leaves(a_leaf("x")), a_spec(hints={"different_cell": "y, x"}))


def test_a_project_that_is_named_is_admitted():
    assert isinstance(ask(some_leaves(a_leaf("x", projects=("p", "q")))), Choice)


def test_a_hint_may_name_a_cell_with_leaves_below_it():
    leaf = an_entry(a_record("x", "middle", capacity=a_capacity()))
    middle = an_entry(a_record("middle", "a"))
    leaves = some_leaves(leaf, middle, a_leaf("y"), edges=[an_edge("middle"), an_edge("y")])
    answer = ask(leaves, a_spec(hints={"target_cell": "middle"}))
    assert isinstance(answer, Choice)
    assert answer.leaf == "x"


def test_an_empty_hint_and_a_malformed_trait_are_bad_input():
    with pytest.raises(BadInput, match="target_cell is empty"):
        ask(some_leaves(a_leaf("x")), a_spec(hints={"target_cell": " , "}))
    with pytest.raises(BadInput, match="required"):
        demand_of(a_spec(extra_specs={"trait:SSD": "maybe"}))
    with pytest.raises(BadInput, match="vm_mode"):
        demand_of(a_spec(properties={"vm_mode": "kvm"}))
    with pytest.raises(BadInput, match="hypervisor_version_requires"):
        demand_of(a_spec(properties={"hypervisor_version_requires": "about 6"}))


@pytest.mark.parametrize(
    ("requires", "version", "meets"),
    [
        (">=6.2,<8", "7.1.1", True),
        (">=6.2,<8", "8.0", False),
        (">=8", "8.0.0", True),
        ("8.2", "8.2.0", True),
        ("!=8.2", "8.2.0", False),
        (">6.10", "6.9", False),
        (">=6", "", False),
    ],
)
def test_the_images_hypervisor_version_is_compared_by_numbers(requires, version, meets):
    demand = demand_of(a_spec(properties={"hypervisor_version_requires": requires}))
    assert (demand.why_not(HostClass(hypervisor_version=version)) == "") is meets


def test_a_vm_mode_is_asked_only_of_hosts_that_name_theirs():
    demand = demand_of(a_spec(properties={"vm_mode": "xen"}))
    assert demand.why_not(HostClass()) == ""
    assert demand.why_not(HostClass(traits=("CUSTOM_VM_MODE_XEN", "CUSTOM_VM_MODE_HVM"))) == ""
    assert demand.why_not(HostClass(traits=("CUSTOM_VM_MODE_HVM",))) != ""


def test_only_the_hosts_of_a_suitable_class_count():
    shape = FreeShape(ram_mib=1024, vcpus=1, disk_gib=10, hosts=3)
    capacity = Capacity(
        classes=(
            HostClass(zone="z1", traits=("SSD",), shapes=(shape,)),
            HostClass(zone="z2", shapes=(replace(shape, hosts=5),)),
        )
    )
    leaves = some_leaves(a_leaf("x", capacity=capacity))
    assert leaves.buildable_at("x", demand_of(a_spec())) == 8
    assert leaves.buildable_at("x", demand_of(a_spec(zone="z1"))) == 3
    assert leaves.buildable_at("x", demand_of(a_spec(extra_specs={"trait:SSD": "forbidden"}))) == 5


def test_a_storage_group_bounds_its_hosts_together():
    shape = FreeShape(ram_mib=10_240, vcpus=10, disk_gib=0, hosts=4, group="sr")
    capacity = Capacity(
        classes=(HostClass(shapes=(shape,)),), groups=(StorageGroup(name="sr", free_gib=75, total_gib=100),)
    )
    leaves = some_leaves(a_leaf("x", capacity=capacity))
    assert leaves.buildable_at("x", demand_of(a_spec(disk_gib=10))) == 7
    assert leaves.buildable_at("x", demand_of(a_spec(disk_gib=1))) == 40
    assert leaves.buildable_at("x", demand_of(a_spec(disk_gib=0))) == 40


def test_swap_and_ephemeral_disks_take_room_too():
    spec = a_spec(disk_gib=10)
    flavor = replace(spec.flavor, ephemeral_gib=5, swap_mib=1025)
    assert demand_of(replace(spec, flavor=flavor)).room.disk_gib == 17


def test_spread_prefers_the_emptier_leaf_and_stack_the_fuller():
    leaves = some_leaves(a_leaf("empty", hosts=10), a_leaf("full", hosts=1))
    best = replace(SETTINGS, best=1)
    assert ask(leaves, settings=best).leaf == "empty"
    assert ask(leaves, settings=replace(best, strategy=Strategy.STACK)).leaf == "full"


def test_an_administrators_offset_outweighs_free_room():
    leaves = some_leaves(a_leaf("wanted", hosts=1, weight_offset=10.0), *(a_leaf(f"x{n}", hosts=50) for n in range(5)))
    assert {ask(leaves, draw=draw / 20).leaf for draw in range(20)} == {"wanted"}


def test_a_fresher_record_is_preferred_among_equals():
    leaves = some_leaves(a_leaf("old", arrived=NOW - MUTE // 2), a_leaf("new"))
    assert ask(leaves, settings=replace(SETTINGS, best=1)).leaf == "new"


def test_draws_share_equal_leaves_evenly_and_stay_among_the_best():
    leaves = some_leaves(*(a_leaf(f"x{n}", hosts=4) for n in range(4)), a_leaf("poor", hosts=1))
    chosen = Counter(ask(leaves, draw=n / 400, settings=replace(SETTINGS, best=4)).leaf for n in range(400))
    assert chosen == {f"x{n}": 100 for n in range(4)}


def test_a_burst_does_not_go_to_one_leaf():
    leaves = some_leaves(*(a_leaf(f"x{n}", hosts=5) for n in range(4)))
    reservations = Reservations()
    settings = replace(SETTINGS, best=1)
    for number in range(80):
        leaf = ask(leaves, reservations=reservations, settings=settings).leaf
        reservations.reserve(a_reservation(number, leaf))
    assert {leaf: reservations.units_at(leaf, Room(ram_mib=1024, vcpus=1, disk_gib=10)) for leaf in ("x0", "x3")} == {
        "x0": 20,
        "x3": 20,
    }
    full = ask(leaves, reservations=reservations)
    assert isinstance(full, NoRoom)
    assert full.summary() == "4 leaves: no room: 20 free, 20 reserved"


def test_no_leaf_at_all_says_so():
    answer = ask(some_leaves())
    assert isinstance(answer, NoRoom)
    assert answer.summary() == "no leaf is known below this cell"


def test_an_explanation_survives_the_wire_and_names_every_leaf():
    answer = ask(some_leaves(a_leaf("x", hosts=2), a_leaf("y"), a_leaf("z", hosts=0)), draw=0.0)
    again = codec.unpack(Explanation, codec.pack(answer.explanation))
    assert again == answer.explanation
    verdicts = list(again.verdicts())
    assert [(verdict.leaf, verdict.chosen) for verdict in verdicts] == [("x", True), ("y", False), ("z", False)]
    assert [verdict.buildable for verdict in verdicts] == [8, 4, 0]
    assert verdicts[2].reason == "no room"


def test_a_shortened_explanation_names_the_chosen_leaf_and_counts_the_rest():
    kept = [a_leaf(f"x{n}", hosts=n + 1) for n in range(5)]
    full = [a_leaf(f"y{n}", hosts=0) for n in range(4)]
    whole = ask(some_leaves(*kept, *full), settings=replace(SETTINGS, best=5), draw=0.999).explanation
    short = whole.shortened(2)
    assert short.chosen == "x0"
    assert [leaf[0] for leaf in short.kept] == ["x0", "x4"]
    assert [leaf for leaf, _ in short.refused] == ["y0", "y1"]
    assert short.left_out == {"": 3, "no room": 2}
    assert whole.shortened(10) is whole


def test_candidates_follow_a_changed_a_new_and_a_removed_leaf():
    leaves = some_leaves(a_leaf("x"), a_leaf("y"))
    demand = demand_of(a_spec())
    assert leaves.buildable_at("x", demand) == 4
    grown = a_leaf("x", hosts=300, sequence=2)
    edges = [an_edge("x"), an_edge("z")]
    roster = Roster([grown, a_leaf("z", hosts=2)])
    leaves.follow(Topology("a", mute_after=MUTE, edges=edges, records=roster.records()), roster)
    assert [entry.name for _, entry in leaves.leaves()] == ["x", "z"]
    assert leaves.buildable_at("x", demand) == 1200
    assert leaves.buildable_at("z", demand) == 8
    assert leaves.buildable_at("y", demand) == 0


def test_a_cell_that_gives_up_its_hosts_is_no_candidate_any_more():
    leaves = some_leaves(a_leaf("x"))
    bare = an_entry(a_record("x", "a", sequence=2))
    leaves.follow(Topology("a", mute_after=MUTE, edges=[an_edge("x")], records=[bare.record]), Roster([bare]))
    assert leaves.leaves() == []


# --- reservations ---

ROOM = Room(ram_mib=1024, vcpus=1, disk_gib=10)


def test_a_reservation_ends_when_the_roster_counts_the_claim():
    held = Reservations([a_reservation(1)])
    server = (1).to_bytes(16, "big")
    held.reached("x", Generation(epoch=1, sequence=99))
    assert server in held
    held.settle(server, 1, Generation(epoch=1, sequence=5), known=Generation(epoch=1, sequence=4))
    held.reached("x", Generation(epoch=1, sequence=4))
    held.reached("y", Generation(epoch=1, sequence=9))
    assert held.units_at("x", ROOM) == 1
    held.reached("x", Generation(epoch=1, sequence=5))
    assert held.units_at("x", ROOM) == 0
    assert not held.leaves


def test_a_reservation_that_is_counted_already_ends_at_once():
    held = Reservations([a_reservation(1)])
    held.settle((1).to_bytes(16, "big"), 1, Generation(epoch=1, sequence=5), known=Generation(epoch=2))
    assert len(held) == 0


def test_a_reservation_ends_by_refusal_of_its_own_attempt_only():
    held = Reservations([a_reservation(1, attempt=2)])
    server = (1).to_bytes(16, "big")
    held.release(server, 1)
    held.settle(server, 1, Generation(), known=Generation(epoch=9))
    assert server in held
    held.release(server, 2)
    assert server not in held


def test_a_later_attempt_takes_the_place_of_an_earlier_one():
    held = Reservations([a_reservation(1, "x"), a_reservation(1, "y", attempt=2), a_reservation(1, "z", attempt=1)])
    assert held.leaves == {"y"}


def test_an_attempt_decided_again_moves_its_reservation_until_it_is_accepted():
    held = Reservations([a_reservation(1, "x"), a_reservation(1, "y")])
    assert held.leaves == {"y"}
    held.settle((1).to_bytes(16, "big"), 1, Generation(epoch=1, sequence=5))
    held.reserve(a_reservation(1, "x"))
    assert held.leaves == {"y"}


def test_a_reservation_ends_with_its_lease():
    held = Reservations([a_reservation(1, expires=NOW), a_reservation(2, expires=NOW + 1)])
    assert [late.server for late in held.expire(NOW)] == [(1).to_bytes(16, "big")]
    assert len(held) == 1


def test_a_large_reservation_takes_several_small_ones_away():
    held = Reservations([a_reservation(1, room=Room(ram_mib=4096, vcpus=1, disk_gib=10))])
    assert held.units_at("x", ROOM) == 4
    assert held.units_at("x", Room(ram_mib=8192, vcpus=8, disk_gib=80)) == 1
    assert held.units_at("y", ROOM) == 0
