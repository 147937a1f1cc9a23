"""A leaf looks its pools' storage over for images that nobody uses any more."""

from collections.abc import Iterator

import pytest

from cells.messages import DeleteServer
from cells.names import NEVER
from tests.support.embedded import Tree, make_tree

DAY = 86400.0


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = make_tree({"top": (), "leaf": ("top",)}, hosts=1, compute={"images_kept": DAY})
    yield tree
    tree.close()


def _images(tree: Tree) -> int:
    return sum(1 for vdi in tree.objects("leaf", "VDI") if vdi["name_label"].startswith("celltree image"))


def _later(tree: Tree, seconds: float) -> None:
    tree.clock.advance(seconds)
    tree.run(3)


def test_unused_image_is_removed_after_its_time_and_a_used_one_is_not(tree: Tree) -> None:
    server = tree.build("top")
    tree.run(6)
    _later(tree, DAY)
    _later(tree, DAY)
    assert _images(tree) == 1, "a server uses it"
    tree.ask("top", server, DeleteServer(build_deadline=NEVER))
    tree.run(6)
    _later(tree, 3700)
    assert _images(tree) == 1, "its time begins now"
    _later(tree, DAY)
    assert _images(tree) == 0
