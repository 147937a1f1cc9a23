"""A run is a function of its seed: the same trace, event by event, in any process."""

import os
import subprocess
import sys

import pytest

from cells.simulation.plan import draw
from cells.simulation.runs import quietly
from cells.simulation.world import simulate

PROGRAM = """
import sys
from cells.simulation.plan import draw
from cells.simulation.runs import quietly
from cells.simulation.world import simulate
with quietly():
    print(*(simulate(draw(int(seed))).trace for seed in sys.argv[1:]))
"""


@pytest.mark.parametrize("seed", [3, 14])
def test_same_seed_gives_the_same_trace(seed: int) -> None:
    with quietly():
        one, other = simulate(draw(seed)), simulate(draw(seed), tell=True)
    assert (one.trace, one.events, one.counts) == (other.trace, other.events, other.counts)


def test_trace_is_the_same_in_another_process_with_other_hashes() -> None:
    seeds = [3]
    with quietly():
        here = [simulate(draw(seed)).trace for seed in seeds]
    command = [sys.executable, "-c", PROGRAM, *map(str, seeds)]
    for hashes in ("1", "2"):
        there = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": hashes}
        )
        assert there.stdout.split() == here


def test_other_seeds_give_other_traces() -> None:
    with quietly():
        assert len({simulate(draw(seed)).trace for seed in range(3)}) == 3
