"""Two hundred seeds, each a tree of cells in which everything goes wrong that can: every promise is kept in all."""

from pathlib import Path

import pytest

from cells.simulation.runs import Tally, report, run_seeds

MINUTES = 1.5
SEEDS, CHUNK = 200, 10
FAILED = Path(__file__).with_name("failed_seeds.txt")


def once_failed() -> list[int]:
    lines = FAILED.read_text(encoding="ascii").splitlines()
    return [int(line.split("#")[0]) for line in lines if line.split("#")[0].strip()]


def check(seeds: range | list[int]) -> None:
    tally = Tally()
    for outcome, seconds in run_seeds(seeds, MINUTES):
        tally.add(outcome, seconds)
        if outcome.breach is not None:
            pytest.fail("\n".join(report(outcome.plan.seed, MINUTES)), pytrace=False)
    assert tally.seeds == len(seeds)
    # A run in which nothing was built or nothing went wrong would prove nothing.
    assert tally.counts["builds"] >= len(seeds)
    assert sum(count for name, count in tally.counts.items() if name.startswith("fault ")) >= len(seeds)


@pytest.mark.parametrize("seed", once_failed())
def test_seed_that_once_failed_keeps_every_promise(seed: int) -> None:
    check([seed])


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_promise_is_kept_in_seeds_from(first: int) -> None:
    check(range(first, first + CHUNK))
