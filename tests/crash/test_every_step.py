"""Each operation, its cell killed once before and once after each of its steps (every commit, every XenAPI call),
started again, and run to quiet: the operation has its effect, exactly once, and nothing is left over."""

from collections.abc import Callable

import pytest

from compute_cell.commands import COMMANDS
from tests.crash.operations import ONE_LEAF, OPERATIONS, Operation, a_server, a_tree, calm
from tests.support.embedded import Tree, make_tree
from tests.support.invariants import validate, validate_quiet


def play(operation: Operation, cell: str, *, before: int = -1, after: int = -1) -> tuple[Tree, list[str]]:
    tree = a_tree(operation)
    server = a_server(operation, tree)
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


# An API cell does the same for every command but these.
AT_THE_OWNER = ("build", "build, delete at once", "snapshot", "stop", "resize, confirm", "resize, revert", "delete")
CASES = [(name, "leaf") for name in OPERATIONS] + [(name, "east") for name in AT_THE_OWNER]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("name", "cell"), CASES)
def test_operation_survives_a_kill_at_each_of_its_steps(
    name: str, cell: str, when: str, record_property: Callable[[str, object], None]
) -> None:
    operation = OPERATIONS[name]
    _, steps = play(operation, cell)
    assert len(steps) >= 2, f"no steps were seen: {steps}"
    record_property(f"steps of {name}, at {cell}", len(steps))
    failed = []
    for number, step in enumerate(steps):
        try:
            tree, _ = play(operation, cell, **{when: number})
            assert tree.steps[cell].act is None, "the step was never reached"
        except AssertionError as error:
            failed.append(f"killed {when} step {number} ({step}): {error}")
    assert not failed, f"{len(failed)} of {len(steps)} kills: " + "\n".join(failed)


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
        tree.close()
