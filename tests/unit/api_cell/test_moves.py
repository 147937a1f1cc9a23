"""Moves asked for at the REST API, over the whole embedded tree."""

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
from cells.names import id_from_text
from compute_cell.rows import HostRow, InstanceRow
from tests.support.api_house import Bytes
from tests.support.embedded import Tree, make_tree
from tests.support.requests import ask
from xenapi_host.simulator.worlds import HostShape

LOCAL = HostShape(cpu_objects=False)
SHARED = HostShape(cpu_objects=False, sr_type="nfs")


@dataclass(kw_only=True)
class Administrator:
    """Somebody who may move servers, at the API of `east`; one leaf with two hosts below it."""

    tree: Tree
    app: Application
    image: str

    def ask(self, method: str, path: str, body: Any = None, version: str = "2.61") -> Any:
        return ask(self.app, method, f"/v2.1{path}", body, version=version)

    def built(self) -> str:
        body = {"server": {"name": "vm", "imageRef": self.image, "flavorRef": "1", "networks": "none"}}
        server = str(self.ask("POST", "/servers", body).json["server"]["id"])
        self.tree.run(20)
        assert self.shown(server)["status"] == "ACTIVE"
        return server

    def act(self, server: str, action: str, argument: Any = None, seconds: float = 20) -> Any:
        answer = self.ask("POST", f"/servers/{server}/action", {action: argument})
        assert answer.status_code in (200, 202, 204), answer.text
        self.tree.run(seconds)
        return answer

    def shown(self, server: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"/servers/{server}").json["server"])

    def instance(self, server: str) -> InstanceRow:
        found = self.tree.instance("leaf", id_from_text(server, "server"))
        assert found is not None
        return found

    def vm_hosts(self) -> list[str]:
        """The uuids of the hosts that servers run on."""
        names = {host["uuid"]: host for host in self.tree.objects("leaf", "host")}
        session = self.tree.pools["leaf"].login()
        found = [session.call("host.get_uuid", vm["resident_on"]) for vm in self.tree.vms("leaf")]
        session.close()
        assert set(found) <= set(names)
        return found

    def claims_add_up(self) -> None:
        """Each host's free room is what it has less what its servers take."""
        servers = self.tree.rows("leaf", InstanceRow)
        for host in self.tree.rows("leaf", HostRow):
            taken = sum(row.state.flavor.ram_mib for row in servers if row.host == host.uuid)
            assert host.ram_mib - host.free_ram_mib == taken, host.name


def _administrator(tmp_path: Path, shape: HostShape, **settings: Any) -> Iterator[Administrator]:
    tree = make_tree({"east": (), "leaf": ("east",)}, host=shape, **settings)
    cell = tree["east"]
    with cell.store.unit() as unit:
        unit.save(*(FlavorRow(id=f.id, name=f.name, flavor=f) for f in FIRST_FLAVORS))
    ids = tree.house.new_id
    images = FolderImages(tmp_path, url="http://127.0.0.1:9/image", clock=tree.clock, ids=ids)
    image = images.create(name="demo-linux", owner="local", disk_format="vhd", container_format="ovf")
    images.fill(image, Bytes(b"light"))
    app = make_app(Settings(cell="east"), cell.store, images, cell.node.poke, tree.clock, ids)
    yield Administrator(tree=tree, app=app, image=image)
    tree.close()


@pytest.fixture(params=[LOCAL, SHARED], ids=["local disks", "shared storage"])
def admin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Administrator]:
    yield from _administrator(tmp_path, request.param)


def test_a_server_is_moved_live_to_the_host_that_was_named_and_back(admin: Administrator) -> None:
    server = admin.built()
    before = admin.instance(server)
    other = next(host for host in admin.tree.rows("leaf", HostRow) if host.uuid != before.host)
    admin.act(server, "os-migrateLive", {"host": other.name, "block_migration": "auto"})
    shown = admin.shown(server)
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("ACTIVE", None)
    assert admin.instance(server).host == other.uuid
    assert admin.vm_hosts() == [other.uuid]
    admin.claims_add_up()
    admin.act(server, "os-migrateLive", {"host": None, "block_migration": "auto"})
    assert admin.vm_hosts() == [before.host]
    admin.claims_add_up()


def test_a_server_is_migrated_cold_confirmed_and_keeps_its_flavor(admin: Administrator) -> None:
    server = admin.built()
    before = admin.instance(server).host
    admin.act(server, "migrate")
    assert admin.shown(server)["status"] == "VERIFY_RESIZE"
    admin.act(server, "confirmResize")
    assert admin.shown(server)["status"] == "ACTIVE"
    assert admin.instance(server).host != before
    admin.claims_add_up()


def test_a_move_to_a_host_that_is_not_there_leaves_the_server_as_it_was(admin: Administrator) -> None:
    server = admin.built()
    before = admin.instance(server).host
    admin.act(server, "os-migrateLive", {"host": "nowhere", "block_migration": "auto"})
    assert admin.shown(server)["status"] == "ACTIVE"
    assert admin.vm_hosts() == [before]
    assert "there is no other host 'nowhere'" in (admin.instance(server).failed or (0, ""))[1]
    admin.claims_add_up()


@pytest.mark.parametrize(
    ("version", "argument", "code"),
    [
        ("2.24", {"host": "x", "block_migration": "auto", "disk_over_commit": False}, 400),
        ("2.24", {"host": "x", "block_migration": False, "disk_over_commit": False}, 404),
        ("2.25", {"host": None, "block_migration": "auto"}, 404),
        ("2.29", {"host": None, "block_migration": "auto", "force": True}, 400),
        ("2.61", {"block_migration": "auto"}, 400),
    ],
)
def test_live_migration_takes_the_body_of_its_microversion(
    admin: Administrator, version: str, argument: Any, code: int
) -> None:
    path = "/servers/0194c1de-0000-7000-8000-000000000000/action"
    assert admin.ask("POST", path, {"os-migrateLive": argument}, version=version).status_code == code
