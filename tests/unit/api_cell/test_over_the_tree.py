"""REST at the top of the whole embedded tree: what a tenant asks goes down three levels and comes back as a status."""

import json
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
from cells.rows import StoryRow
from tests.support.api_house import Bytes
from tests.support.embedded import Tree, make_tree
from tests.support.requests import ask
from xenapi_host.simulator.failure import Failure


def refuse_image(call: Any, host: Any, args: dict[str, str]) -> str:
    raise Failure("XENAPI_PLUGIN_FAILURE", "download", "PermanentError", "image refused: it is no disk")


def leave_alone(call: Any, host: Any, args: dict[str, str]) -> str:
    return json.dumps({"done": False, "reason": "the disk has a GPT partition table", "size": 0})


HUGE = Flavor(id="huge", name="huge", vcpus=512, ram_mib=1 << 22, disk_gib=1)


@dataclass(kw_only=True)
class Tenant:
    """Somebody who talks to the REST API of `east`."""

    tree: Tree
    app: Application
    image: str
    other: str = ""

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return ask(self.app, method, f"/v2.1{path}", body, version="2.61")

    def create(self, flavor: str = "1", **fields: Any) -> str:
        body = {"server": {"name": "vm", "imageRef": self.image, "flavorRef": flavor, "networks": "none", **fields}}
        answer = self.ask("POST", "/servers", body)
        assert answer.status_code == 202, answer.text
        return str(answer.json["server"]["id"])

    def act(self, server: str, action: str, argument: Any = None) -> Any:
        answer = self.ask("POST", f"/servers/{server}/action", {action: argument})
        assert answer.status_code in (202, 204), answer.text
        return answer

    def shown(self, server: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"/servers/{server}").json["server"])

    def status_after(self, server: str, seconds: float = 20) -> str:
        self.tree.run_until_quiet(seconds)
        return str(self.shown(server)["status"])

    def used(self) -> tuple[int, int]:
        absolute = self.ask("GET", "/limits").json["limits"]["absolute"]
        return absolute["totalInstancesUsed"], absolute["totalRAMUsed"]


@pytest.fixture
def tenant(tmp_path: Path) -> Iterator[Tenant]:
    tree = make_tree()
    cell = tree["east"]
    with cell.store.unit() as unit:
        unit.save(*(FlavorRow(id=f.id, name=f.name, flavor=f) for f in (*FIRST_FLAVORS, HUGE)))
    ids = tree.house.new_id
    images = FolderImages(tmp_path, url="http://127.0.0.1:9/image", clock=tree.clock, ids=ids)
    image = images.create(name="demo-linux", owner="local", disk_format="vhd", container_format="ovf")
    images.fill(image, Bytes(b"light"))
    other = images.create(name="other-linux", owner="local", disk_format="vhd", container_format="ovf")
    images.fill(other, Bytes(b"light"))
    app = make_app(Settings(cell="east"), cell.store, images, cell.node.poke, tree.clock, ids)
    yield Tenant(tree=tree, app=app, image=image, other=other)
    tree.close()


def test_a_server_is_built_stopped_started_rebooted_and_deleted(tenant: Tenant) -> None:
    server = tenant.create()
    assert tenant.shown(server)["status"] == "BUILD"
    assert tenant.status_after(server) == "ACTIVE"
    assert tenant.shown(server)["OS-EXT-SRV-ATTR:host"] in tenant.tree.pools
    tenant.act(server, "os-stop")
    assert tenant.status_after(server) == "SHUTOFF"
    tenant.act(server, "os-start")
    assert tenant.status_after(server) == "ACTIVE"
    tenant.act(server, "reboot", {"type": "HARD"})
    assert tenant.shown(server)["status"] == "HARD_REBOOT"
    assert tenant.status_after(server) == "ACTIVE"
    assert tenant.used() == (1, 512)
    assert tenant.ask("DELETE", f"/servers/{server}").status_code == 204
    tenant.tree.run_until_quiet(20)
    assert tenant.ask("GET", f"/servers/{server}").status_code == 404
    assert tenant.used() == (0, 0)
    assert not any(tenant.tree.vms(leaf) for leaf in tenant.tree.pools)


def test_a_server_is_paused_and_suspended_and_goes_on(tenant: Tenant) -> None:
    server = tenant.create()
    assert tenant.status_after(server) == "ACTIVE"
    for action, status, power in (
        ("pause", "PAUSED", 3),
        ("unpause", "ACTIVE", 1),
        ("suspend", "SUSPENDED", 7),
        ("resume", "ACTIVE", 1),
    ):
        tenant.act(server, action)
        assert tenant.status_after(server) == status
        assert tenant.shown(server)["OS-EXT-STS:power_state"] == power
    assert tenant.ask("POST", f"/servers/{server}/action", {"resume": None}).status_code == 409


def test_a_server_is_rescued_and_comes_back(tenant: Tenant) -> None:
    server = tenant.create()
    assert tenant.status_after(server) == "ACTIVE"
    answer = tenant.ask("POST", f"/servers/{server}/action", {"rescue": None})
    assert (answer.status_code, answer.json) == (200, {"adminPass": ""})
    assert tenant.status_after(server) == "RESCUE"
    leaf = tenant.shown(server)["OS-EXT-SRV-ATTR:host"]
    names = sorted(vm["name_label"].removeprefix("celltree-") for vm in tenant.tree.vms(leaf))
    assert names == [server, f"{server}-rescue"]
    assert tenant.ask("POST", f"/servers/{server}/action", {"rescue": None}).status_code == 409
    tenant.act(server, "unrescue")
    assert tenant.status_after(server) == "ACTIVE"
    assert [vm["name_label"] for vm in tenant.tree.vms(leaf)] == [f"celltree-{server}"]


def test_a_server_is_rebuilt_from_another_image(tenant: Tenant) -> None:
    server = tenant.create(metadata={"a": "1"})
    tenant.tree.run_until_quiet(20)
    answer = tenant.ask(
        "POST", f"/servers/{server}/action", {"rebuild": {"imageRef": tenant.other, "name": "new", "metadata": {}}}
    )
    assert answer.status_code == 202, answer.text
    body = answer.json["server"]
    assert (body["id"], body["name"], body["image"]["id"], body["status"]) == (server, "new", tenant.other, "REBUILD")
    assert tenant.status_after(server) == "ACTIVE"
    shown = tenant.shown(server)
    assert (shown["image"]["id"], shown["name"], shown["metadata"]) == (tenant.other, "new", {})
    (vm,) = tenant.tree.vms(shown["OS-EXT-SRV-ATTR:host"])
    assert vm["other_config"]["celltree_image"] == tenant.other


def test_a_rebuild_that_fails_leaves_the_server_as_it_was(tenant: Tenant) -> None:
    server = tenant.create()
    tenant.tree.run_until_quiet(20)
    leaf = tenant.shown(server)["OS-EXT-SRV-ATTR:host"]
    tenant.tree.pools[leaf].twin("celltree_image.py", "download", refuse_image)
    tenant.ask("POST", f"/servers/{server}/action", {"rebuild": {"imageRef": tenant.other, "name": "new"}})
    assert tenant.status_after(server) == "ACTIVE"
    shown = tenant.shown(server)
    assert (shown["image"]["id"], shown["name"]) == (tenant.image, "vm")
    assert len(tenant.tree.vms(leaf)) == 1


def test_why_a_disk_was_left_alone_is_in_the_story(tenant: Tenant) -> None:
    for pool in tenant.tree.pools.values():
        pool.twin("celltree_disk.py", "grow", leave_alone)
    server = tenant.create("2", **{"OS-DCF:diskConfig": "AUTO"})
    assert tenant.status_after(server) == "ACTIVE"
    assert tenant.shown(server)["OS-DCF:diskConfig"] == "AUTO"
    with tenant.tree["east"].store.unit(lock=False) as unit:
        told = [line.text for line in unit.find(StoryRow) if "GPT" in line.text]
    assert told
    assert told[-1].endswith("the file system was not resized: the disk has a GPT partition table")


def test_a_disk_shrinks_where_its_file_system_may(tenant: Tenant) -> None:
    server = tenant.create("3")
    tenant.tree.run_until_quiet(20)
    refused = tenant.ask("POST", f"/servers/{server}/action", {"resize": {"flavorRef": "2"}})
    assert refused.status_code == 400
    assert "diskConfig AUTO" in refused.text
    tenant.act(server, "resize", {"flavorRef": "2", "OS-DCF:diskConfig": "AUTO"})
    assert tenant.status_after(server) == "VERIFY_RESIZE"
    tenant.act(server, "confirmResize")
    assert tenant.status_after(server) == "ACTIVE"
    assert tenant.shown(server)["OS-DCF:diskConfig"] == "AUTO"


@pytest.mark.parametrize(
    ("verdict", "flavor", "ram"), [("confirmResize", "m1.small", 1024), ("revertResize", "m1.tiny", 512)]
)
def test_a_resize_is_confirmed_or_reverted(tenant: Tenant, verdict: str, flavor: str, ram: int) -> None:
    server = tenant.create()
    tenant.tree.run_until_quiet(20)
    tenant.act(server, "resize", {"flavorRef": "2"})
    assert tenant.status_after(server) == "VERIFY_RESIZE"
    assert tenant.shown(server)["flavor"]["original_name"] == "m1.small"
    assert tenant.used() == (1, 1024)
    tenant.act(server, verdict)
    assert tenant.status_after(server) == "ACTIVE"
    assert tenant.shown(server)["flavor"]["original_name"] == flavor
    assert tenant.used() == (1, ram)


def test_a_snapshot_runs_and_the_server_is_free_for_the_next_wish(tenant: Tenant) -> None:
    server = tenant.create()
    tenant.tree.run_until_quiet(20)
    image = tenant.act(server, "createImage", {"name": "snap"}).json["image_id"]
    assert tenant.shown(server)["OS-EXT-STS:task_state"] == "image_snapshot_pending"
    tenant.tree.run_until_quiet(20)
    assert tenant.shown(server)["OS-EXT-STS:task_state"] is None
    assert ask(tenant.app, "GET", f"/image/v2/images/{image}").json["name"] == "snap"
    tenant.act(server, "os-stop")


def test_a_server_that_fits_nowhere_is_error_with_the_reason_and_can_be_deleted(tenant: Tenant) -> None:
    server = tenant.create("huge")
    assert tenant.status_after(server, 120) == "ERROR"
    assert tenant.shown(server)["fault"]["message"]
    assert tenant.ask("POST", f"/servers/{server}/action", {"os-stop": None}).status_code == 409
    assert tenant.ask("DELETE", f"/servers/{server}").status_code == 204
    tenant.tree.run(5)
    assert tenant.ask("GET", f"/servers/{server}").status_code == 404
    assert tenant.used() == (0, 0)


@pytest.mark.parametrize("seconds", [0, 0.25, 0.5, 1, 2])
def test_a_server_can_be_deleted_at_any_moment_of_its_build(tenant: Tenant, seconds: float) -> None:
    server = tenant.create()
    if seconds:
        tenant.tree.run(seconds)
    assert tenant.ask("DELETE", f"/servers/{server}").status_code == 204
    tenant.tree.run_until_quiet(30)
    assert tenant.ask("GET", f"/servers/{server}").status_code == 404
    assert tenant.used() == (0, 0)
    assert not any(tenant.tree.vms(leaf) for leaf in tenant.tree.pools)


def test_several_servers_of_one_request_all_become_active(tenant: Tenant) -> None:
    tenant.create(min_count=5, max_count=5)
    tenant.tree.run_until_quiet(20)
    listed = tenant.ask("GET", "/servers/detail").json["servers"]
    assert [s["status"] for s in listed] == ["ACTIVE"] * 5
    story = tenant.ask("GET", f"/servers/{listed[0]['id']}/os-instance-actions").json["instanceActions"]
    assert [line["action"] for line in story] == ["create"]
