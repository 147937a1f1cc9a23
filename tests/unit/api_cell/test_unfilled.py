"""Images that were made for snapshots and will never get data go; all others stay."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from api_cell.front import Front
from api_cell.images import FolderImages
from api_cell.rows import OpenIntent, Phase
from api_cell.unfilled import GIVE_UP, give_up
from cells.codec import unpack
from cells.model import VmState
from tests.support.api_house import Bytes
from tests.support.embedded import Tree, make_tree
from tests.unit.api_cell.test_walk_decisions import Server, active

DAY = 24 * 3600
OF_A_SERVER = {"instance_uuid": "0194c1de-0000-7000-8000-000000000000"}
SNAPSHOT = {"image_type": "snapshot", **OF_A_SERVER}


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = make_tree({"east": (), "leaf": ("east",)})
    yield tree
    tree.close()


@pytest.fixture
def images(tree: Tree, tmp_path: Path) -> FolderImages:
    front: Front | None = tree["east"].role.front  # type: ignore[attr-defined]
    if front is None:
        pytest.fail("the API cell of the embedded tree has no front door")
    front.images = FolderImages(tmp_path, url="http://127.0.0.1:9/image", clock=tree.clock, ids=tree.house.new_id)
    return front.images


def an_image(images: FolderImages, properties: dict[str, str], *, filled: bool = False) -> str:
    made = images.create(name="i", owner="local", disk_format="vhd", container_format="ovf", properties=properties)
    if filled:
        images.fill(made, Bytes(b"light"))
    return made


def snapshot_asked(tree: Tree, image: str, phase: Phase) -> Server:
    server = active(tree)
    wish = OpenIntent(number=2, action="server.snapshot", at=0, request="r", detail=image)
    with tree.stores["east"].inner.unit() as unit:
        unit.save(replace(server.row, number=3, phase=phase, intents=(wish,)))
    return server


def test_delete_that_overtakes_a_snapshot_takes_its_image_along(tree: Tree) -> None:
    server = snapshot_asked(tree, "an image", Phase.DELETING)
    decision = server.report(9, VmState.DELETED, number=3)
    assert [(job.kind, unpack(str, job.body)) for job in decision.do] == [(GIVE_UP, "an image")]


def test_so_does_one_whose_number_the_leaf_reports_before_the_server_is_gone(tree: Tree) -> None:
    server = snapshot_asked(tree, "an image", Phase.DELETING)
    decision = server.report(9, VmState.ACTIVE, number=3)
    assert [(job.kind, unpack(str, job.body)) for job in decision.do] == [(GIVE_UP, "an image")]


def test_snapshot_that_is_done_keeps_its_image(tree: Tree) -> None:
    server = snapshot_asked(tree, "an image", Phase.GRANTED)
    assert server.report(9, VmState.ACTIVE, number=2).do == ()


def test_image_that_got_its_data_stays_though_the_word_of_it_was_lost(images: FolderImages) -> None:
    empty, full = an_image(images, SNAPSHOT), an_image(images, SNAPSHOT, filled=True)
    for image in (empty, full, "gone already"):
        give_up(images, image)
    assert (images.get(empty), images.get(full) is not None) == (None, True)


def test_images_of_snapshots_that_nobody_has_filled_for_a_day_go(tree: Tree, images: FolderImages) -> None:
    image = partial(an_image, images)
    tree.run(5)
    lost = [image(SNAPSHOT), image({"image_type": "backup", **OF_A_SERVER})]
    tenants = [image({}), image({"image_type": "snapshot"}), image(SNAPSHOT, filled=True)]
    tree.clock.advance(DAY - 60)
    young = image(SNAPSHOT)
    tree.run(5)
    assert all(images.get(each) for each in (*lost, *tenants, young))
    tree.clock.advance(3700)
    tree.run(5)
    assert [images.get(each) for each in lost] == [None, None]
    assert all(images.get(each) for each in (*tenants, young))
