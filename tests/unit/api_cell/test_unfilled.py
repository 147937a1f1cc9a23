"""Images that were made for snapshots and will never get data go; all others stay."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from api_cell.front import Front
from api_cell.images import FolderImages
from tests.support.api_house import Bytes
from tests.support.embedded import Tree, make_tree

DAY = 24 * 3600
OF_A_SERVER = {"instance_uuid": "0194c1de-0000-7000-8000-000000000000"}
SNAPSHOT = {"image_type": "snapshot", **OF_A_SERVER}


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = make_tree({"east": (), "leaf": ("east",)})
    yield tree
    tree.close()


def test_images_of_snapshots_that_nobody_has_filled_for_a_day_go(tree: Tree, tmp_path: Path) -> None:
    front: Front | None = tree["east"].role.front  # type: ignore[attr-defined]
    if front is None:
        pytest.fail("the API cell of the embedded tree has no front door")
    images = FolderImages(tmp_path, url="http://127.0.0.1:9/image", clock=tree.clock, ids=tree.house.new_id)
    front.images = images

    def image(properties: dict[str, str], *, filled: bool = False) -> str:
        made = images.create(name="i", owner="local", disk_format="vhd", container_format="ovf", properties=properties)
        if filled:
            images.fill(made, Bytes(b"light"))
        return made

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
