"""A leaf lets go what nobody uses on its hosts: of which servers, and when."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from cells.messages import DeleteServer, RebootServer
from cells.rows import StoryRow
from compute_cell.leftovers import Sweeping, held_on
from compute_cell.rows import InstanceRow, Move, Phase
from tests.support.embedded import SMALL, Tree, make_tree
from tests.support.invariants import validate_quiet
from xenapi_host import tags
from xenapi_host.leftovers import Held

KEPT = 8.0


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = make_tree({"east": (), "leaf": ("east",)}, hosts=1, compute={"leftovers_kept": KEPT})
    yield tree
    tree.close()


def _built(tree: Tree) -> InstanceRow:
    server = tree.build("east")
    tree.run(6)
    row = tree.instance("leaf", server)
    assert row is not None and row.phase is Phase.GRANTED
    return row


def _second_vm(tree: Tree) -> None:
    """What a daemon that was frozen before VM.create makes when it goes on."""
    session = tree.pools["leaf"].login()
    (vm,) = [vm for vm in session.call("VM.get_all_records").values() if tags.SERVER in vm["other_config"]]
    session.call("VM.create", {**vm, "uuid": "", "power_state": "Halted"})
    session.close()


def _names(tree: Tree) -> list[str]:
    return [vm["name_label"] for vm in tree.vms("leaf")]


def test_second_vm_of_a_server_goes_and_its_story_says_so(tree: Tree) -> None:
    row = _built(tree)
    _second_vm(tree)
    tree.run(int(KEPT) - 1, step=1.0)
    assert len(_names(tree)) == 2
    tree.run(int(KEPT), step=1.0)
    assert _names(tree) == [tags.vm_name(row.id)]
    told = [line.text for line in tree.rows("leaf", StoryRow) if line.event == "tidied"]
    assert told == [f"nobody used {tags.vm_name(row.id)} for long: removed"]
    validate_quiet(tree)


def test_vm_that_comes_after_its_server_was_deleted_goes(tree: Tree) -> None:
    row = _built(tree)
    session = tree.pools["leaf"].login()
    (record,) = [vm for vm in session.call("VM.get_all_records").values() if tags.SERVER in vm["other_config"]]
    tree.ask("east", row.id, DeleteServer(build_deadline=0))
    tree.run(6)
    session.call("VM.create", {**record, "power_state": "Halted"})
    tree.run(2 * int(KEPT), step=1.0)
    assert _names(tree) == []


def test_command_that_comes_while_a_server_is_tidied_up_is_done_afterwards(tree: Tree) -> None:
    row = _built(tree)
    _second_vm(tree)
    domid = tree.vms("leaf")[0]["domid"]
    for _ in range(2 * int(KEPT)):
        tree.run(1, step=1.0)
        held = tree.instance("leaf", row.id)
        if held is not None and held.job != bytes(16):
            break
    tree.ask("east", row.id, RebootServer(hard=True))
    tree.run(2 * int(KEPT), step=1.0)
    (vm,) = tree.vms("leaf")
    assert vm["domid"] != domid
    validate_quiet(tree)


def test_nothing_is_said_of_a_server_with_which_something_goes_on(tree: Tree) -> None:
    row = _built(tree)
    assert held_on(row, row.pool) is Held.HERE
    assert held_on(row, "another pool") is Held.GONE
    assert held_on(None, row.pool) is Held.UNKNOWN
    assert held_on(replace(row, phase=Phase.GONE, pool=""), row.pool) is Held.GONE
    busy = (
        replace(row, job=b"j" * 16),
        replace(row, phase=Phase.PREPARED),
        replace(row, phase=Phase.UNDOING),
        replace(row, moving=Move(host="h", pool="another pool", name="h", room=SMALL)),
    )
    assert [held_on(each, row.pool) for each in busy] == [None] * 4


def test_pools_are_looked_over_four_times_in_the_time_and_at_least_hourly() -> None:
    assert [Sweeping(kept_for=kept).every for kept in (40.0, 86400.0, 1.0)] == [10, 3600, 1]
