"""What a command that its leaf gave up half way has left is put right before the command is over."""

from typing import Any

import pytest

from cells.messages import AttachVolume, RescueServer, ResizeServer, SnapshotServer
from cells.model import ImageRef, VmState
from compute_cell.commands import COMMANDS
from tests.support.embedded import SMALL
from tests.unit.compute_cell.test_volumes import VOLUME, Leaf, leaf  # noqa: F401

IMAGE = ImageRef(id="i", url="http://images/i")
HALF_DONE = {
    "snapshot": SnapshotServer(image=IMAGE),
    "resize": ResizeServer(flavor=SMALL),
    "rescue": RescueServer(image=IMAGE),
    "attach": AttachVolume(volume=VOLUME, device=8),
}


@pytest.mark.parametrize("body", HALF_DONE.values(), ids=HALF_DONE)
def test_given_up_is_undone_first_and_then_says_so(leaf: Leaf, body: Any) -> None:  # noqa: F811
    undo = COMMANDS[type(body)].undo
    assert undo is not None
    undoing = leaf.end(leaf.tell(body), "no answer", permanent=False)
    assert [job.kind for job in undoing.do] == [undo.kind]
    assert leaf.row.number < leaf.number, "not over yet"
    leaf.end(undoing)
    assert leaf.row.failed == (leaf.number, undo.says)
    assert leaf.row.state.vm_state is VmState.ACTIVE


@pytest.mark.parametrize("body", HALF_DONE.values(), ids=HALF_DONE)
def test_only_where_a_copy_may_be_half_made_a_failed_undoing_breaks_the_server(leaf: Leaf, body: Any) -> None:  # noqa: F811
    undoing = leaf.end(leaf.tell(body), "no answer", permanent=False)
    leaf.end(undoing, "it is blocked")
    assert leaf.row.failed == (leaf.number, "it is blocked")
    assert leaf.row.state.vm_state is (VmState.ERROR if isinstance(body, ResizeServer) else VmState.ACTIVE)
