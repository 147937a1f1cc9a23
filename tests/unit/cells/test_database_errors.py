"""A database that loses races, goes away and comes back, and does not tell whether a commit was done: nothing is lost
and nothing is done twice."""

import random

import pytest

from api_cell.rows import ServerRow
from cells.errors import Temporary
from cells.messages import RebootServer, StopServer, Tick
from cells.record import Received
from tests.support.embedded import make_tree
from tests.support.invariants import validate, validate_quiet

FAILURES = ("conflict", "temporary", "lost", "ambiguous")


@pytest.mark.parametrize("seed", range(3))
def test_walk_over_failing_databases_loses_and_doubles_nothing(seed: int) -> None:
    dice = random.Random(seed)
    tree = make_tree({"east": (), "leaf": ("east",)}, seed=str(seed))
    tree.steps["leaf"].counting = True
    for store in tree.stores.values():
        store.failing.extend(dice.choice((*FAILURES, "", "", "")) for _ in range(60))
    servers = [tree.build("east", f"vm{number}") for number in range(3)]
    for _ in range(40):
        tree.run(0.5)
        validate(tree)
    for store in tree.stores.values():
        assert store.failed > 10
        store.failing.clear()
    tree.run(40, step=1.0)
    assert [tree.server("east", server).status for server in servers] == ["ACTIVE"] * 3
    for store in tree.stores.values():
        store.failing.extend(dice.choice((*FAILURES, "")) for _ in range(10))
    tree.ask("east", servers[0], StopServer())
    tree.ask("east", servers[1], RebootServer(hard=True))
    tree.run(60, step=1.0)
    validate_quiet(tree)
    assert [row.status for row in tree.rows("east", ServerRow)].count("SHUTOFF") == 1
    assert tree.steps["leaf"].done.count("VM.create") == 3
    assert tree.steps["leaf"].done.count("Async.VM.hard_reboot") == 1
    tree.close()


def test_resends_go_on_after_the_database_was_away_when_they_were_due() -> None:
    tree = make_tree({"east": (), "leaf": ("east",)})
    tree.network.lose_next["east", "leaf"] = 1
    server = tree.build("east", "vm")
    tree.settle()
    east = tree["east"].node
    assert east.unsent == 1
    store = tree.stores["east"]

    class Away:
        def unit(self, *, lock: bool = True):
            raise Temporary("the database is out of reach")

    east.store, there = Away(), east.store  # type: ignore[assignment]
    tree.clock.advance(2.5)
    east.step()
    east.store = there
    assert store.failed == 0
    tree.run(4)
    assert tree.server("east", server).status == "ACTIVE"
    tree.close()


def test_servers_of_a_leaf_that_is_heard_again_show_so_though_the_first_look_was_rolled_back() -> None:
    tree = make_tree({"east": (), "leaf": ("east",)})
    server = tree.build("east", "vm")
    tree.run(10)
    tree.freeze("leaf")
    tree.run(30)
    assert tree.server("east", server).status == "UNKNOWN"
    tree.thaw("leaf")
    role, tick = tree["east"].role, Received(record=tree.record("east", "east", Tick()))
    tree["leaf"].node.poke()
    while True:
        tree.run(0.01, step=0.01)
        with tree.stores["east"].inner.unit() as unit:
            rolled_back = role.decide(unit, tick, tree.clock())
        if any(isinstance(row, ServerRow) for row in rolled_back.save):
            break
        assert tree.server("east", server).status == "UNKNOWN", "an ordinary tick came first"
    tree.run(5)
    assert tree.server("east", server).status == "ACTIVE"
    tree.close()
