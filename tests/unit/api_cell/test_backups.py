"""Backups with rotation: which are kept, and from REST to the image that goes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api_cell.backups import Rotation, too_old
from api_cell.front import FIRST_FLAVORS, Front
from api_cell.http.app import Application, make_app
from api_cell.images import FolderImages, Image
from api_cell.rows import FlavorRow
from api_cell.settings import Settings
from tests.support.api_house import Bytes
from tests.support.embedded import Tree, make_tree
from tests.support.requests import ask

DAILY = Rotation(server="s", project="p", kind="daily", keep=2)


def _image(number: int, **fields: Any) -> Image:
    return Image(
        id=str(number), name="b", **({"owner": "p", "created": number, "updated": 0, "status": "active"} | fields)
    )


def test_the_newest_whole_backups_of_the_project_itself_are_kept() -> None:
    found = [_image(n) for n in range(1, 5)]
    assert {image.id for image in too_old(found, DAILY)} == {"1", "2"}
    assert too_old([_image(1), _image(2), _image(3, status="queued")], DAILY) == ()
    assert too_old([_image(1, owner="other"), _image(2), _image(3)], DAILY) == ()
    assert too_old([_image(1, protected=True), _image(2), _image(3)], DAILY) == ()


class House:
    """REST at the top of a tree whose API cell has a folder of images."""

    def __init__(self, tree: Tree, app: Application, images: FolderImages, image: str) -> None:
        self.tree, self.app, self.images, self.image = tree, app, images, image

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return ask(self.app, method, f"/v2.1{path}", body, version="2.61")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    tree = make_tree({"east": (), "leaf": ("east",)})
    cell = tree["east"]
    with cell.store.unit() as unit:
        unit.save(*(FlavorRow(id=f.id, name=f.name, flavor=f) for f in FIRST_FLAVORS))
    ids = tree.house.new_id
    images = FolderImages(tmp_path, url="http://127.0.0.1:9/image", clock=tree.clock, ids=ids)
    image = images.create(name="demo-linux", owner="local", disk_format="vhd", container_format="ovf")
    images.fill(image, Bytes(b"light"))
    front: Front | None = cell.role.front  # type: ignore[attr-defined]
    if front is None:
        pytest.fail("the API cell of the embedded tree has no front door")
    front.images = images
    app = make_app(Settings(cell="east"), cell.store, images, cell.node.poke, tree.clock, ids)
    yield House(tree, app, images, image)
    tree.close()


def test_older_backups_of_a_kind_go_when_a_newer_one_is_whole(house: House) -> None:
    wish = {"server": {"name": "vm", "imageRef": house.image, "flavorRef": "1", "networks": "none"}}
    server = house.ask("POST", "/servers", wish).json["server"]["id"]
    house.tree.run(20)
    made = []
    for name, kind in (("mon", "daily"), ("week", "weekly"), ("tue", "daily"), ("wed", "daily")):
        body = {"createBackup": {"name": name, "backup_type": kind, "rotation": 2}}
        answer = house.ask("POST", f"/servers/{server}/action", body)
        assert answer.status_code == 202, answer.text
        made.append(answer.json["image_id"])
        house.images.fill(made[-1], Bytes(b"light"))
        house.tree.run(10)
    left = [name for name, image in zip(("mon", "week", "tue", "wed"), made, strict=True) if house.images.get(image)]
    assert left == ["week", "tue", "wed"]
    kept = house.images.get(made[1])
    assert kept is not None
    assert kept.properties["image_type"] == "backup" and kept.properties["backup_type"] == "weekly"
    assert house.images.get(house.image) is not None


def test_a_rotation_that_would_keep_nothing_is_refused(house: House) -> None:
    body = {"createBackup": {"name": "b", "backup_type": "daily", "rotation": 0}}
    path = "/servers/0194c1de-0000-7000-8000-000000000000/action"
    assert house.ask("POST", path, body).status_code == 400
