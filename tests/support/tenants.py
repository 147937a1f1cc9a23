"""Somebody who talks to the REST API of `east`, at the top of the whole embedded tree over light hosts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import falcon.testing

from api_cell.front import FIRST_FLAVORS
from api_cell.http.app import Application, make_app
from api_cell.images import FolderImages
from api_cell.rows import FlavorRow, ServerRow
from api_cell.settings import Settings
from cells.names import id_from_text
from tests.support.api_house import Bytes
from tests.support.embedded import Tree, make_tree


@dataclass
class Tenant:
    tree: Tree
    app: Application
    images: dict[str, str]

    def ask(self, method: str, path: str, body: Any = None, version: str = "2.50") -> falcon.testing.Result:
        return falcon.testing.TestClient(self.app).simulate_request(
            method, f"/v2.1{path}", json=body, headers={"OpenStack-API-Version": f"compute {version}"}
        )

    def create(self, image: str = "agent", **fields: Any) -> dict[str, Any]:
        body = {"name": "web", "imageRef": self.images[image], "flavorRef": "1", "networks": "none", **fields}
        answer = self.ask("POST", "/servers", {"server": body})
        assert answer.status_code == 202, answer.text
        return dict(answer.json["server"])

    def built(self, image: str = "agent", **fields: Any) -> str:
        server = str(self.create(image, **fields)["id"])
        self.tree.run(10)
        assert self.row(server).status == "ACTIVE"
        return server

    def act(self, server: str, action: str, argument: Any = None, version: str = "2.50") -> falcon.testing.Result:
        return self.ask("POST", f"/servers/{server}/action", {action: argument}, version)

    def row(self, server: str) -> ServerRow:
        return self.tree.server("east", id_from_text(server))

    def vm(self, server: str) -> dict[str, Any]:
        (vm,) = [vm for vm in self.tree.vms(self.row(server).leaf) if server in vm["name_label"]]
        return vm


@contextmanager
def a_tenant(folder: Path) -> Iterator[Tenant]:
    """With two images: "agent", which has a guest agent, and "plain"."""
    tree = make_tree()
    cell = tree["east"]
    with cell.store.unit() as unit:
        unit.save(*(FlavorRow(id=f.id, name=f.name, flavor=f) for f in FIRST_FLAVORS))
    ids = tree.house.new_id
    images = FolderImages(folder, url="http://127.0.0.1:9/image", clock=tree.clock, ids=ids)
    made = {}
    for name, properties in {"agent": {"xenapi_use_agent": "true"}, "plain": {}}.items():
        made[name] = images.create(
            name=name, owner="local", disk_format="vhd", container_format="ovf", properties=properties
        )
        images.fill(made[name], Bytes(b"light"))
    keep = cell.role.front.keep  # type: ignore[attr-defined]
    app = make_app(Settings(cell="east"), cell.store, images, cell.node.poke, tree.clock, ids, keep)
    yield Tenant(tree=tree, app=app, images=made)
    tree.close()
