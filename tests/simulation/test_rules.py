"""Every safety rule, switched off: some promise is broken within a few seeds, or is kept at a price that is counted.
Without this the seeds that pass would prove nothing."""

from collections.abc import Callable

import pytest

from cells.simulation.invariants import Breach
from cells.simulation.plan import Plan, draw
from cells.simulation.runs import quietly
from cells.simulation.world import simulate
from tests.simulation import focused
from tests.simulation.rules_off import RULES

Plans = Callable[[int], Plan]
PATIENCE = 400.0  # virtual seconds; runs that end well are at rest long before

# Rule -> plans that press on it, how many of them at most, and the checks that may be the first to see it.
BROKEN: dict[str, tuple[Plans, int, set[str]]] = {
    "inbox marks": (draw, 5, {"effects happen once"}),
    "outbox": (focused.lossy, 10, {"everything ends"}),
    "end-to-end acknowledgement": (focused.lossy, 10, {"everything ends"}),
    "grant": (
        focused.lost_answers,
        5,
        {"at most one VM of a server is started", "a failed build leaves nothing", "delete wins"},
    ),
    "tag lookup": (focused.killed_builds, 20, {"one VM for each server", "as many VMs as the leaf says"}),
    "versions": (draw, 20, {"versions only grow", "views equal the truth"}),
    "digests": (focused.rows_put_back, 5, {"views equal the truth", "everything ends"}),
    "claims of hosts": (draw, 5, {"free = total - claimed, never negative"}),
    "deadlines": (focused.late_offers, 10, {"nothing begins after its deadline"}),
    "lease epochs": (focused.frozen_jobs, 20, {"one VM for each server", "no disk is left over"}),
    # Elsewhere the owner has one command of a server on its way at a time, and inbox marks know a copy of it.
    "command numbers": (
        focused.forgotten_servers,
        6,
        {"a command that is over does not begin again", "everything ends"},
    ),
    "first words": (
        focused.untold,
        10,
        {"at most one VM of a server is started", "one VM for each server", "a failed build leaves nothing"},
    ),
    "first words of leaves": (focused.untold_leaves, 6, {"delete wins"}),
    "commands to forgotten servers": (focused.forgotten_servers, 6, {"everything ends"}),
}

# Rules without which every promise is kept all the same, at a price: what is counted, in which plans, of how many.
SPARED: dict[str, tuple[str, Plans, int]] = {
    # A leaf refuses what it has no room for, and the owner asks the next: without reservations a burst herds.
    "reservations": ("refused for room", focused.bursts, 2),
    # What a daemon had taken when it died goes to the next one at once, not when its origin's outbox loses patience.
    "acknowledged after the commit": ("resent", focused.killed_at_commits, 3),
}


def first_breach(rule: str, plans: Plans, seeds: range) -> Breach | None:
    with quietly():
        for seed in seeds:
            breach = simulate(plans(seed), RULES[rule](), patience=PATIENCE).breach
            if breach is not None:
                return breach
    return None


def test_every_rule_is_shown_to_matter() -> None:
    assert BROKEN.keys() | SPARED.keys() == RULES.keys()


@pytest.mark.parametrize("rule", BROKEN)
def test_without_the_rule_a_promise_is_broken(rule: str) -> None:
    plans, most, broken = BROKEN[rule]
    breach = first_breach(rule, plans, range(most))
    assert breach is not None, f"{most} runs without {rule} kept every promise: the checks see too little"
    assert breach.name in broken


@pytest.mark.parametrize("rule", SPARED)
def test_without_the_rule_every_promise_is_kept_at_a_price(rule: str) -> None:
    count, plans, seeds = SPARED[rule]
    with_rule = without = 0
    with quietly():
        for seed in range(seeds):
            right, wrong = simulate(plans(seed)), simulate(plans(seed), RULES[rule]())
            assert right.breach is None
            assert wrong.breach is None
            with_rule += right.counts[count]
            without += wrong.counts[count]
    assert without > 3 * with_rule + 3


@pytest.mark.parametrize(
    "plans",
    [
        focused.late_offers,
        focused.frozen_jobs,
        focused.rows_put_back,
        focused.lost_answers,
        focused.killed_builds,
        focused.lossy,
        focused.forgetful_leaves,
        focused.forgotten_servers,
        focused.restored,
        focused.untold,
    ],
    ids=lambda plans: plans.__name__,
)
def test_with_all_rules_the_same_faults_break_nothing(plans: Plans) -> None:
    with quietly():
        for seed in range(3):
            assert simulate(plans(seed)).breach is None
