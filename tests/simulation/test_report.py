"""What a failure is told with: the faults that are needed for it, no others, and the story."""

from cells.simulation.plan import draw
from cells.simulation.runs import quietly, report, shrunk
from cells.simulation.world import simulate
from tests.simulation.rules_off import RULES


def test_shrinking_leaves_out_what_is_not_needed() -> None:
    build = RULES["claims of hosts"]()
    whole = draw(0)
    with quietly():
        plan = shrunk(whole, build)
        assert simulate(plan, build).breach is not None
    assert not plan.mishaps  # a claim that is not saved needs no fault to be seen
    assert len({ask.server for ask in plan.asks}) == 1


def test_plan_that_breaks_nothing_is_not_shrunk() -> None:
    with quietly():
        assert shrunk(draw(3)) == draw(3)


def test_report_names_seed_promise_and_story() -> None:
    text = "\n".join(report(0, 1.5, RULES["claims of hosts"]()))
    assert text.startswith("seed 0, 1.5 minutes, commit ")
    assert "broken: P5, free = total - claimed, never negative:" in text
    assert "BROKEN" in text
