"""Guests of classic Xen become servers, asked for at the top of the embedded tree."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from api_cell.front import FIRST_FLAVORS
from api_cell.http.app import Application, make_app
from api_cell.images import FolderImages
from api_cell.rows import FlavorRow
from api_cell.settings import Settings
from cells.model import Flavor
from tests.support.api_house import Bytes
from tests.support.embedded import Tree, make_tree
from tests.support.requests import ask

SOURCE = {"name": "old", "command": ["classic-source"]}
DISKLESS = Flavor(id="none", name="none", vcpus=1, ram_mib=512, disk_gib=0)


@dataclass
class Administrator:
    """Who asks the API of `east` for migrations; every leaf has the source `old`."""

    tree: Tree
    app: Application
    kit: str
    disk: str

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return ask(self.app, method, f"/v2.1{path}", body, version="2.61")

    def migrate(self, **fields: Any) -> Any:
        asked = {"name": "web1", "flavorRef": "1", "imageRef": self.kit, "source": "old", "guest": "web1", **fields}
        return self.ask("POST", "/os-classic-migrations", {"classic_migration": asked})


@pytest.fixture
def administrator(tmp_path: Path) -> Iterator[Administrator]:
    tree = make_tree(compute={"classic_sources": [SOURCE]})
    cell = tree["east"]
    with cell.store.unit() as unit:
        unit.save(*(FlavorRow(id=f.id, name=f.name, flavor=f) for f in (*FIRST_FLAVORS, DISKLESS)))
    images = FolderImages(tmp_path, url="http://127.0.0.1:9/image", clock=tree.clock, ids=tree.house.new_id)
    properties = {"classic_kit": "true", "vm_mode": "xen"}
    kit = images.create(name="kit", owner="local", disk_format="raw", container_format="bare", properties=properties)
    disk = images.create(name="demo", owner="local", disk_format="vhd", container_format="ovf")
    for image in (kit, disk):
        images.fill(image, Bytes(b"light"))
    app = make_app(Settings(cell="east"), cell.store, images, cell.node.poke, tree.clock, tree.house.new_id)
    yield Administrator(tree, app, kit, disk)
    tree.close()


def test_a_classic_guest_becomes_a_server_that_runs(administrator: Administrator) -> None:
    answer = administrator.migrate()
    assert answer.status_code == 202, answer.text
    server = answer.json["server"]["id"]
    administrator.tree.run(20)
    assert administrator.ask("GET", f"/servers/{server}").json["server"]["status"] == "ACTIVE"
    asked = [pool.engine for pool in administrator.tree.pools.values()]
    assert len(asked) == 3
    assert administrator.ask("DELETE", f"/servers/{server}").status_code == 204
    administrator.tree.run(20)
    assert not any(administrator.tree.vms(leaf) for leaf in administrator.tree.pools)


def test_a_source_that_no_leaf_has_leaves_the_server_in_error_with_the_reason(administrator: Administrator) -> None:
    server = administrator.migrate(source="new").json["server"]["id"]
    administrator.tree.run(20)
    shown = administrator.ask("GET", f"/servers/{server}").json["server"]
    assert shown["status"] == "ERROR"
    assert "lacks trait classic:new" in shown["fault"]["message"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"guest": "../web1"}, "guest"),
        ({"source": "-e sh"}, "source"),
        ({"flavorRef": "none"}, "has no disk"),
        ({"name": ""}, "name"),
    ],
)
def test_a_migration_that_cannot_be_is_refused(administrator: Administrator, fields: Any, reason: str) -> None:
    answer = administrator.migrate(**fields)
    assert answer.status_code == 400
    assert reason in answer.text


def test_a_kit_is_no_disk_and_a_disk_is_no_kit(administrator: Administrator) -> None:
    answer = administrator.migrate(imageRef=administrator.disk)
    assert answer.status_code == 400
    assert "classic_kit=true" in answer.text
    body = {"server": {"name": "vm", "imageRef": administrator.kit, "flavorRef": "1", "networks": "none"}}
    answer = administrator.ask("POST", "/servers", body)
    assert answer.status_code == 400
    assert "kit for classic guests" in answer.text
