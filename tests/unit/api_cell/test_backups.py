"""Backups with rotation: which are kept, and from REST to the image that goes."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api_cell.backups import Rotation, too_old
from api_cell.front import FIRST_FLAVORS, Front
from api_cell.http.app import Application, make_app
from api_cell.http.signing import ImageTokens, Purpose
from api_cell.images import FolderImages, Image
from api_cell.rows import FlavorRow
from api_cell.settings import Auth, Settings
from cells.model import BackupMark, ImagePart
from cells.names import id_text
from cells.rows import StoryRow
from compute_cell.rows import InstanceRow
from tests.support.api_house import Bytes
from tests.support.embedded import Tree, make_tree
from tests.support.invariants import validate_quiet
from tests.support.requests import ask

DAILY = Rotation(server="s", project="p", kind="daily", keep=2)


def _image(number: int, **fields: Any) -> Image:
    plain: dict[str, Any] = {"owner": "p", "created": number, "updated": 0, "status": "active"}
    return Image(id=str(number), name="b", properties={"backup_type": "daily"}, **(plain | fields))


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


def _backup(house: House, server: str, name: str, metadata: dict[str, str] | None = None) -> str:
    body = {"createBackup": {"name": name, "backup_type": "daily", "rotation": 5, "metadata": metadata or {}}}
    answer = house.ask("POST", f"/servers/{server}/action", body)
    assert answer.status_code == 202, answer.text
    image: str = answer.json["image_id"]
    house.images.fill(image, Bytes(b"light"))
    house.tree.run(10)
    return image


def test_incremental_backup_is_asked_for_in_its_metadata_and_the_story_says_what_it_became(house: House) -> None:
    wish = {"server": {"name": "vm", "imageRef": house.image, "flavorRef": "1", "networks": "none"}}
    server = house.ask("POST", "/servers", wish).json["server"]["id"]
    house.tree.run(20)
    first = _backup(house, server, "one", {"incremental": "true", "purpose": "test"})
    second = _backup(house, server, "two", {"incremental": "true"})
    whole = _backup(house, server, "three")
    told = "\n".join(line.text for line in house.tree.rows("east", StoryRow))
    assert f"backup {first} is a full one: the server's disk has no base on its storage" in told
    assert f"backup {second} builds upon {first}" in told
    assert f"backup {whole} " not in told
    made = house.images.get(first)
    assert made is not None and made.properties["purpose"] == "test" and "incremental" not in made.properties
    validate_quiet(house.tree)

    house.images.delete(second)
    fourth = _backup(house, server, "four", {"incremental": "true"})
    told = "\n".join(line.text for line in house.tree.rows("east", StoryRow))
    assert f"backup {fourth} is a full one: the image {second}, which it would build upon" in told
    house.ask("DELETE", f"/servers/{server}")
    house.tree.run(10)
    validate_quiet(house.tree)


def test_incremental_that_is_neither_true_nor_false_is_refused(house: House) -> None:
    body = {"name": "b", "backup_type": "daily", "rotation": 1, "metadata": {"incremental": "perhaps"}}
    server = house.tree.house.new_id()
    answer = house.ask("POST", f"/servers/{id_text(server)}/action", {"createBackup": body})
    assert answer.status_code == 400 and "neither true nor false" in answer.text


def test_image_that_another_builds_upon_is_not_deleted_and_a_snapshot_does_not_inherit_the_marks(house: House) -> None:
    house.images.change(house.image, properties={"os_type": "linux"})
    made = house.images.create(name="inc", owner="local", disk_format="vhd", container_format="ovf")
    house.images.fill(made, Bytes(b"light"))
    house.images.change(made, properties={BackupMark.PARENT: house.image, "os_type": "linux"})
    refused = ask(house.app, "DELETE", f"/image/v2/images/{house.image}")
    assert refused.status_code == 409 and "builds upon it" in refused.text
    wish = {"server": {"name": "vm", "imageRef": made, "flavorRef": "1", "networks": "none"}}
    server = house.ask("POST", "/servers", wish).json["server"]["id"]
    house.tree.run(20)
    answer = house.ask("POST", f"/servers/{server}/action", {"createImage": {"name": "snap"}})
    snap = house.images.get(answer.json["image_id"])
    (row,) = house.tree.rows("leaf", InstanceRow)
    assert row.spec.image.parents == (ImagePart(id=house.image, checksum=hashlib.md5(b"light").hexdigest()),)
    assert snap is not None and BackupMark.PARENT not in snap.properties and snap.properties["os_type"] == "linux"


def test_token_of_an_incremental_image_reads_what_it_builds_upon_and_writes_nothing_there(house: House) -> None:
    made = house.images.create(name="inc", owner="local", properties={BackupMark.PARENT: house.image})
    other = house.images.create(name="other", owner="local", disk_format="vhd", container_format="ovf")
    settings = Settings(cell="east", image_secret=b"secret", auth=Auth.HTTP_BASIC)
    cell, clock = house.tree["east"], house.tree.clock
    app = make_app(settings, cell.store, house.images, cell.node.poke, clock, house.tree.house.new_id)
    tokens = ImageTokens(b"secret", clock, 60)

    def status(method: str, image: str, purpose: Purpose) -> int:
        headers = {"X-Auth-Token": tokens.token_for(made, purpose), "Content-Type": "application/octet-stream"}
        return ask(app, method, f"/image/v2/images/{image}/file", headers=headers).status_code

    assert status("GET", house.image, Purpose.READ) == 200
    assert status("GET", other, Purpose.READ) == 404
    assert status("PUT", house.image, Purpose.WRITE) == 404
    house.images.change(house.image, owner="somebody else")
    assert status("GET", house.image, Purpose.READ) == 404
