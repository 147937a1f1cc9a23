"""A sample of the seeds with a SQLite file for each cell instead of dicts: the same promises, and the same events."""

from dataclasses import replace
from pathlib import Path

import pytest

from cells.simulation.house import Build
from cells.simulation.plan import Fault, draw
from cells.simulation.runs import quietly
from cells.simulation.world import simulate
from tests.simulation import focused


@pytest.mark.parametrize("seed", [14, 20])
def test_every_promise_is_kept_on_sqlite(seed: int, tmp_path: Path) -> None:
    with quietly():
        assert simulate(draw(seed), Build(folder=str(tmp_path))).breach is None


def test_databases_put_back_on_sqlite_catch_up(tmp_path: Path) -> None:
    with quietly():
        assert simulate(focused.restored(2), Build(folder=str(tmp_path))).breach is None


def test_sqlite_gives_the_same_events_as_dicts(tmp_path: Path) -> None:
    plan = draw(3)
    # Which units write is known of dicts alone, so failing units would not be the same ones.
    calm = replace(plan, mishaps=tuple(mishap for mishap in plan.mishaps if mishap.fault is not Fault.DATABASE))
    with quietly():
        on_dicts, on_sqlite = simulate(calm), simulate(calm, Build(folder=str(tmp_path)))
    assert (on_sqlite.trace, on_sqlite.events) == (on_dicts.trace, on_dicts.events)
