"""Each operation, its cell killed once before and once after each of its steps (every commit, every XenAPI call),
started again, and run to quiet: the operation has its effect, exactly once, and nothing is left over."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from cells.messages import ConfirmResize, DeleteServer, ResizeServer, RevertResize, SnapshotServer, StopServer
from cells.model import ImageRef
from tests.support.embedded import SMALL, Tree, make_tree
from tests.support.invariants import validate, validate_quiet

ONE_LEAF = {"east": (), "leaf": ("east",)}
IMAGE = ImageRef(id="22222222-2222-2222-2222-222222222222", name="snap", url="http://127.0.0.1:9/image")


@dataclass(frozen=True)
class Operation:
    """`act` runs it on a tree with a server, ACTIVE if `built`; `after` is the status then (None: gone)."""

    act: Callable[[Tree, bytes], None]
    after: str | None
    flavor: str = "m1.tiny"
    built: bool = True


def _ask(*commands: object) -> Callable[[Tree, bytes], None]:
    def act(tree: Tree, server: bytes) -> None:
        for command in commands:
            tree.ask("east", server, command)
            calm(tree)

    return act


def _delete_at_once(tree: Tree, server: bytes) -> None:
    tree.settle()
    tree.ask("east", server, DeleteServer(build_deadline=tree.clock.now + 600_000_000))
    calm(tree)


OPERATIONS = {
    "build": Operation(act=lambda tree, server: calm(tree), after="ACTIVE", built=False),
    "snapshot": Operation(act=_ask(SnapshotServer(image=IMAGE)), after="ACTIVE"),
    "stop": Operation(act=_ask(StopServer()), after="SHUTOFF"),
    "resize, confirm": Operation(
        act=_ask(ResizeServer(flavor=SMALL), ConfirmResize()), after="ACTIVE", flavor="m1.small"
    ),
    "resize, revert": Operation(act=_ask(ResizeServer(flavor=SMALL), RevertResize()), after="ACTIVE"),
    "delete": Operation(act=_ask(DeleteServer(build_deadline=0)), after=None),
    "build, delete at once": Operation(act=_delete_at_once, after=None, built=False),
}


def calm(tree: Tree) -> None:
    """Start again what died, and let everything come to its end; the clock goes on for a minute at most."""
    tree.run(1, step=0.5)
    for name in tree.configs:
        if name not in tree.house.cells:
            tree.restart(name)
    for _ in range(60):
        tree.run(1, step=0.5)
        if all(cell.node.quiet for cell in tree.house.cells.values()):
            break
    tree.run(1, step=0.5)


def play(operation: Operation, cell: str, *, before: int = -1, after: int = -1) -> tuple[Tree, list[str]]:
    tree = make_tree(ONE_LEAF)
    server = tree.build("east", "vm")
    if operation.built:
        tree.run(3)
        validate_quiet(tree)
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
    finally:
        tree.close()
    return tree, tree.steps[cell].done


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("cell", ["leaf", "east"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_survives_a_kill_at_each_of_its_steps(
    name: str, cell: str, when: str, record_property: Callable[[str, object], None]
) -> None:
    operation = OPERATIONS[name]
    _, steps = play(operation, cell)
    assert len(steps) >= 2, f"no steps were seen: {steps}"
    record_property("steps", len(steps))
    failed = []
    for number, step in enumerate(steps):
        try:
            tree, _ = play(operation, cell, **{when: number})
            assert tree.steps[cell].act is None, "the step was never reached"
        except AssertionError as error:
            failed.append(f"killed {when} step {number} ({step}): {error}")
    assert not failed, f"{len(failed)} of {len(steps)} kills: " + "\n".join(failed)


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
