"""Counting and choosing, held against a plain second implementation on random leaves, demands and changes."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from cells.model import Capacity, FreeShape, Generation, HostClass, StorageGroup
from routing.candidates import Candidates
from routing.capacity import Capacities
from routing.demand import Demand, Room, demand_of
from routing.place import Choice, choose
from routing.reservations import Reservation, Reservations
from routing.roster import Roster
from routing.topology import Topology
from routing.weights import PlacementSettings, Strategy
from tests.unit.routing import plain
from tests.unit.routing.trees import MUTE, NOW, a_record, a_spec, an_edge, an_entry

GROUPS = ("", "", "sr1", "sr2", "missing")
NAMES = ("leaf-1", "leaf-2", "leaf-3", "leaf-4")


@st.composite
def shapes(draw):
    group = draw(st.sampled_from(GROUPS))
    return FreeShape(
        ram_mib=draw(st.integers(0, 40)),
        vcpus=draw(st.integers(0, 16)),
        disk_gib=0 if group else draw(st.integers(0, 60)),
        hosts=draw(st.integers(0, 4)),
        group=group,
    )


classes = st.builds(
    HostClass,
    zone=st.sampled_from(["", "z1", "z2"]),
    traits=st.sampled_from([(), ("SSD",), ("SSD", "GPU")]),
    shapes=st.lists(shapes(), max_size=6).map(tuple),
)
groups = st.tuples(
    *(
        st.builds(StorageGroup, name=st.just(name), free_gib=st.integers(0, 90), total_gib=st.just(90))
        for name in GROUPS[2:4]
    )
)
capacities = st.builds(Capacity, classes=st.lists(classes, max_size=3).map(tuple), groups=groups)
rooms = st.builds(Room, ram_mib=st.integers(0, 12), vcpus=st.integers(0, 5), disk_gib=st.integers(0, 20))
demands = st.builds(
    Demand,
    room=rooms,
    zone=st.sampled_from(["", "", "z1"]),
    required=st.sampled_from([frozenset(), frozenset({"SSD"})]),
    forbidden=st.sampled_from([frozenset(), frozenset({"GPU"})]),
)
changes = st.lists(st.tuples(st.sampled_from(NAMES), st.none() | capacities), min_size=1, max_size=12)


@given(changes, st.lists(demands, min_size=1, max_size=3))
def test_every_count_after_every_change_is_that_of_counting_host_by_host(changes, asked):
    fast = Capacities()
    held: dict[str, Capacity] = {}
    for leaf, capacity in changes:
        if capacity is None:
            fast.remove(leaf)
            held.pop(leaf, None)
        else:
            fast.update(leaf, capacity)
            held[leaf] = capacity
        for demand in asked:
            counts = fast.buildable(demand)
            assert {name: counts[slot] for name, slot in fast.slots.items()} == {
                name: plain.buildable(known, demand) for name, known in held.items()
            }
            assert sum(counts) == sum(plain.buildable(known, demand) for known in held.values())


@given(st.integers(70, 90), st.integers(1, 40), demands)
@settings(max_examples=20)
def test_many_leaves_that_all_change_and_grow_are_counted_right(leaves, grow, demand):
    fast = Capacities()
    one = FreeShape(ram_mib=24, vcpus=8, disk_gib=40, hosts=1)
    for size in (1, grow, 200, 3):
        capacity = Capacity(classes=(HostClass(zone="z1", traits=("SSD",), shapes=(one,) * size),))
        for number in range(leaves):
            fast.update(f"leaf-{number}", capacity)
        expected = plain.buildable(capacity, demand)
        assert [fast.buildable(demand)[slot] for slot in fast.slots.values()] == [expected] * leaves


@given(rooms, rooms, shapes())
def test_units_of_never_says_less_than_what_a_taken_room_takes_away(room, taken, shape):
    after = replace(
        shape,
        ram_mib=shape.ram_mib - taken.ram_mib,
        vcpus=shape.vcpus - taken.vcpus,
        disk_gib=shape.disk_gib - taken.disk_gib,
        group="",
        hosts=1,
    )
    if min(after.ram_mib, after.vcpus, after.disk_gib) < 0 or room == Room(ram_mib=0, vcpus=0, disk_gib=0):
        return
    before, left = (
        plain.buildable(Capacity(classes=(HostClass(shapes=(one,)),)), Demand(room=room))
        for one in (replace(shape, group="", hosts=1), after)
    )
    assert before - left <= room.units_of(taken)
    assert room.units_of(room) == 1


reservations = st.lists(
    st.builds(
        Reservation,
        server=st.integers(0, 9).map(lambda number: number.to_bytes(16, "big")),
        attempt=st.integers(1, 3),
        leaf=st.sampled_from(NAMES),
        room=rooms,
        expires=st.integers(NOW - 5, NOW + 5),
    ),
    max_size=12,
)


@given(
    st.lists(capacities, min_size=4, max_size=4),
    st.lists(st.booleans(), min_size=4, max_size=4),
    reservations,
    rooms,
    st.sampled_from(list(Strategy)),
    st.integers(1, 4),
    st.floats(0, 1, exclude_max=True),
)
def test_a_choice_always_has_room_and_a_refusal_never_had_any(
    given_capacities, fresh, wanted, room, strategy, best, draw
):
    entries = [
        an_entry(a_record(name, "a", capacity=capacity), NOW if alive else NOW - MUTE - 1)
        for name, capacity, alive in zip(NAMES, given_capacities, fresh, strict=True)
    ]
    topology = Topology("a", mute_after=MUTE, edges=[an_edge(name) for name in NAMES])
    spec = a_spec(vcpus=room.vcpus, ram_mib=room.ram_mib, disk_gib=room.disk_gib)
    demand = demand_of(spec)
    held = Reservations(wanted)
    kept: dict[bytes, Reservation] = {}
    for reservation in wanted:
        if reservation.server not in kept or kept[reservation.server].attempt <= reservation.attempt:
            kept[reservation.server] = reservation
    free = {
        name: plain.buildable(capacity, demand) - plain.reserved(name, demand, kept.values())
        for name, capacity, alive in zip(NAMES, given_capacities, fresh, strict=True)
        if alive
    }
    able = {name for name, units in free.items() if units >= 1}
    answer = choose(
        spec,
        Candidates(topology, Roster(entries)),
        held,
        PlacementSettings(mute_after=MUTE, strategy=strategy, best=best),
        draw=draw,
        now=NOW,
    )
    assert {leaf[0] for leaf in answer.explanation.kept} == able
    assert {leaf for leaf, _ in answer.explanation.refused} == set(NAMES) - able
    assert isinstance(answer, Choice) == bool(able)
    if isinstance(answer, Choice):
        assert answer.leaf in able
        if best == 1:
            extreme = max if strategy is Strategy.SPREAD else min
            assert free[answer.leaf] == extreme(free[name] for name in able)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 5), st.integers(1, 3), st.sampled_from(NAMES)),
        st.tuples(st.just("settle"), st.integers(0, 5), st.integers(1, 3), st.integers(0, 5)),
        st.tuples(st.just("release"), st.integers(0, 5), st.integers(1, 3), st.none()),
        st.tuples(st.just("reached"), st.integers(0, 5), st.just(0), st.sampled_from(NAMES)),
        st.tuples(st.just("expire"), st.integers(0, 5), st.just(0), st.none()),
    ),
    max_size=40,
)
ROOM = Room(ram_mib=1, vcpus=1, disk_gib=1)


@given(steps)
def test_reservations_never_go_negative_and_end_at_nothing(steps):
    held = Reservations()
    for step, number, attempt, detail in steps:
        server = number.to_bytes(16, "big")
        if step == "reserve":
            held.reserve(Reservation(server=server, attempt=attempt, leaf=detail, room=ROOM, expires=NOW + number))
        elif step == "settle":
            held.settle(server, attempt, Generation(epoch=1, sequence=detail))
        elif step == "release":
            held.release(server, attempt)
        elif step == "reached":
            held.reached(detail, Generation(epoch=1, sequence=number))
        else:
            held.expire(NOW + number)
        units = {name: held.units_at(name, ROOM) for name in NAMES}
        assert all(count >= 0 for count in units.values())
        assert sum(units.values()) == len(held)
        assert {name for name, count in units.items() if count} == held.leaves
    held.expire(NOW + 10)
    assert len(held) == 0
    assert not held.leaves
