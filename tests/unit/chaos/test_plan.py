"""What is broken when: by the seed, everything at some time, and no target by two faults at once."""

from collections import defaultdict
from itertools import pairwise

from tests.chaos.plan import USUAL, Fault, Kind, Shape, schedule, targets

SHAPE = Shape(
    cells=("east", "dfw", "dfw-1"),
    daemons=("east", "east/2", "dfw", "dfw/2", "dfw-1", "dfw-1/2"),
    brokers=("broker:east", "broker:dfw"),
    databases=("database:east", "database:dfw"),
    pools=("xenserver:dfw-1",),
    edges=("east broker:dfw", "dfw broker:east"),
    ways=("dfw-1 database:dfw-1", "dfw-1 xenserver:dfw-1"),
    leaves=("dfw-1",),
    second_parents=("dfw-1 dfw", "dfw-1 ord"),
)


def test_the_same_seed_is_the_same_plan_and_another_one_another():
    assert schedule(1, 120, SHAPE) == schedule(1, 120, SHAPE) != schedule(2, 120, SHAPE)


def test_every_usual_kind_of_fault_comes_in_a_run_of_two_minutes():
    assert {fault.kind for fault in schedule(3, 120, SHAPE)} == set(USUAL)
    assert {fault.kind for fault in schedule(3, 120, SHAPE, tuple(Kind))} == set(Kind)


def test_faults_hit_what_is_there_are_over_in_time_and_a_target_has_one_at_a_time():
    busy: dict[str, list[Fault]] = defaultdict(list)
    for fault in schedule(4, 300, SHAPE):
        assert fault.target in targets(fault.kind, SHAPE)
        assert fault.at + fault.lasts <= 300
        busy[fault.target].append(fault)
    for faults in busy.values():
        for before, after in pairwise(faults):
            apart = {before.kind, after.kind} & {Kind.QUEUE_FULL, Kind.QUEUE_DELETED, Kind.CELL_DRAINED}
            assert before.at + before.lasts <= after.at or apart
