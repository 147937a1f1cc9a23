"""Two daemons serve a leaf; the one that drives a host is frozen at each of its calls that change something, past its
lease, and then goes on. The other has done the work meanwhile. Frozen after a call it does nothing more. Frozen before
one, with the look at its lease just behind it, it does that one call too many: no harm may come of it but one halted VM
or one loose disk, which the leaf finds and removes when nobody has used it for long enough."""

from collections.abc import Callable

import pytest

from tests.crash.operations import OPERATIONS, a_server, a_tree, calm
from tests.support.embedded import Tree
from tests.support.invariants import validate, validate_quiet

FROZEN = 15.0
KEPT = 20.0
LEFT_OVER = ("has 2 VMs", "is left", "claimed by nobody")


FROZEN_IN = (
    "build",
    "snapshot",
    "resize, confirm",
    "resize, revert",
    "attach a volume",
    "detach a volume",
    "rebuild",
    "take and drop a snapshot on the host",
    "delete",
)


def left_over(tree: Tree, which: tuple[str, ...]) -> int:
    """How many things nobody uses are left on the hosts; everything else must be right."""
    try:
        validate_quiet(tree)
    except AssertionError as wrong:
        lines = str(wrong).splitlines()
        if not all(any(each in line for each in which) for line in lines):
            raise
        return len(lines)
    return 0


def play(name: str, number: int, when: str) -> list[str]:
    operation = OPERATIONS[name]
    tree = a_tree(operation, leftovers_kept=KEPT)
    tree.open("leaf", "second")
    tree.run(6, step=1.0)
    server = a_server(operation, tree)

    def stand_still() -> None:
        daemon = tree.turn
        tree.freeze(daemon)
        tree.run(FROZEN, step=1.0)
        validate(tree)
        tree.thaw(daemon)

    steps = tree.steps["leaf"]
    steps.strike(stand_still, **{when: number})
    try:
        operation.act(tree, server)
        steps.stop()
        calm(tree)
        validate(tree)
        row = tree.find_server("east", server)
        assert (row.status if row else None) == operation.after
        if operation.seen is not None:
            operation.seen(tree, server)
        left = left_over(tree, LEFT_OVER if when == "before" else ())
        assert left <= 1
        if left:
            tree.run(2 * KEPT, step=1.0)
            validate_quiet(tree)
    finally:
        tree.close()
    return steps.done


def changes(step: str) -> bool:
    return step != "commit" and not step.rpartition(".")[2].startswith(("get_", "assert_"))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", FROZEN_IN)
def test_frozen_daemon_does_no_harm_when_it_goes_on(
    name: str, when: str, record_property: Callable[[str, object], None]
) -> None:
    calls = [number for number, step in enumerate(play(name, -1, when)) if changes(step)]
    assert calls
    record_property(f"steps of {name}, frozen", len(calls))
    failed = []
    for number in calls:
        try:
            steps = play(name, number, when)
        except AssertionError as error:
            failed.append(f"frozen {when} step {number}: {error}")
        else:
            assert len(steps) > number
    assert not failed, f"{len(failed)} of {len(calls)}: " + "\n".join(failed)
