"""Each operation, its cell killed before and after each of its steps (every commit, every XenAPI call; of some
operations every message published, confirmed and acknowledged too, also by a relay), started again, and run to quiet:
the operation has its effect, exactly once, and nothing is left over."""

from collections.abc import Callable

import pytest

from cells.decision import Decision
from cells.record import NO_SERVER, Received
from compute_cell.commands import COMMANDS
from tests.crash.operations import (
    BEHIND_A_RELAY,
    ONE_LEAF,
    OPERATIONS,
    OVER_THE_BROKERS,
    Operation,
    a_server,
    a_tree,
    calm,
)
from tests.support.embedded import Tree, make_tree
from tests.support.faults import OF_THE_BROKER
from tests.support.invariants import validate, validate_quiet


def play(
    operation: Operation, cell: str, *, of_the_broker: bool = False, before: int = -1, after: int = -1
) -> tuple[Tree, list[str]]:
    tree = a_tree(operation, BEHIND_A_RELAY if cell == "middle" else ONE_LEAF)
    server = a_server(operation, tree)
    tree.steps[cell].of_the_broker = of_the_broker
    tree.steps[cell].kill(before=before, after=after)
    operation.act(tree, server)
    tree.steps[cell].stop()
    try:
        calm(tree)
        validate_quiet(tree)
        row = tree.find_server("east", server)
        assert (row.status if row else None) == operation.after
        if row:
            assert row.state is not None and row.state.flavor.name == operation.flavor
            assert not row.fault_code and row.state.fault is None
        if operation.seen is not None:
            operation.seen(tree, server)
    finally:
        tree.close()
    return tree, tree.steps[cell].done


# An API cell does the same for every other command as for a stop: a test below says so.
AT_THE_OWNER = ("build", "build, delete at once", "snapshot", "stop", "resize, confirm", "resize, revert", "delete")
CASES = [
    *((name, "leaf") for name in OPERATIONS),
    *((name, "east") for name in AT_THE_OWNER),
    *((name, "middle") for name in OVER_THE_BROKERS),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("name", "cell"), CASES)
def test_operation_survives_a_kill_at_each_of_its_steps(
    name: str, cell: str, when: str, record_property: Callable[[str, object], None]
) -> None:
    operation = OVER_THE_BROKERS[name] if cell == "middle" else OPERATIONS[name]
    steps = strike(operation, cell, when, of_the_broker=False)
    record_property(f"steps of {name}, at {cell}", len(steps))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("cell", ["east", "middle", "leaf"])
@pytest.mark.parametrize("name", OVER_THE_BROKERS)
def test_operation_survives_a_kill_at_each_message_published_confirmed_and_acknowledged(
    name: str, cell: str, when: str, record_property: Callable[[str, object], None]
) -> None:
    steps = strike(OVER_THE_BROKERS[name], cell, when, of_the_broker=True)
    assert set(steps) == OF_THE_BROKER
    record_property(f"steps of {name}, at the brokers of {cell}", len(steps))


def strike(operation: Operation, cell: str, when: str, *, of_the_broker: bool) -> list[str]:
    """Kill the cell at every step of the operation; gives the steps."""
    _, steps = play(operation, cell, of_the_broker=of_the_broker)
    assert len(steps) >= 2, f"no steps were seen: {steps}"
    failed = []
    for number, step in enumerate(steps):
        try:
            tree, _ = play(operation, cell, of_the_broker=of_the_broker, **{when: number})
            assert tree.steps[cell].act is None, "the step was never reached"
        except AssertionError as error:
            failed.append(f"killed {when} step {number} ({step}): {error}")
    assert not failed, f"{len(failed)} of {len(steps)} kills: " + "\n".join(failed)
    return steps


@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - set(AT_THE_OWNER)))
def test_owner_does_the_same_for_every_command_that_it_is_not_struck_at(name: str) -> None:
    asked = len(OPERATIONS[name].kinds)
    once = at_the_owner("stop")
    assert once[0] == ("local.intent", [], [True])
    assert at_the_owner(name) == once * asked


def at_the_owner(name: str) -> list[tuple[str, list[str], list[bool]]]:
    """What its owner decides about a server while an operation is done: on which kind of record, which rows it writes,
    and for each record that it sends whether that is the command itself."""
    operation = OPERATIONS[name]
    decided = []

    def look(cell: str, received: Received, decision: Decision) -> None:
        assert cell != "east" or not decision.do
        if cell == "east" and received.record.server != NO_SERVER and (decision.save or decision.send):
            rows = sorted(type(row).__name__ for row in decision.save)
            commands = [type(record.body) in operation.kinds for record in decision.send]
            decided.append((received.record.kind.name, rows, commands))

    tree = a_tree(operation, trace=look)
    server = a_server(operation, tree)
    decided.clear()
    operation.act(tree, server)
    tree.close()
    return decided


def test_every_command_is_among_the_operations() -> None:
    struck = {kind for operation in OPERATIONS.values() for kind in operation.kinds}
    assert struck >= set(COMMANDS)


def test_no_moment_of_a_build_has_two_started_vms() -> None:
    """The invariants that hold always are looked at after every kill and between the turns that follow it."""
    operation = OPERATIONS["build"]
    _, steps = play(operation, "leaf")
    for number in range(0, len(steps), 5):
        tree = make_tree(ONE_LEAF)
        tree.build("east", "vm")
        tree.steps["leaf"].kill(after=number)
        for _ in range(20):
            tree.run(0.25)
            validate(tree)
            if "leaf" not in tree.house.cells:
                tree.restart("leaf")
        tree.steps["leaf"].stop()  # closing is a step too
        tree.close()
