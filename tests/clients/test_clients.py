"""An unmodified openstackclient and openstacksdk do what a newcomer does, with both kinds of authentication."""

import filecmp
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_cell.http.auth import hash_password
from api_cell.settings import Auth, User
from tests.clients.programs import Door
from tests.support.api_house import ApiHouse, an_api_house, served

pytestmark = pytest.mark.clients

ROOT = User(name="root", project="ops", secret=hash_password("root:pw", os.urandom(8)), admin=True)


@pytest.fixture(params=["none", "http_basic"])
def door(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Door]:
    settings = {"auth": Auth.HTTP_BASIC, "users": (ROOT,)} if request.param == "http_basic" else {}
    with an_api_house(tmp_path, **settings) as house, served(house) as server:
        house.an_image("demo-linux")
        login = {"user": "root", "password": "root:pw"} if settings else {}
        yield Door(port=server.port, **login)


@pytest.fixture
def open_house(tmp_path: Path) -> Iterator[tuple[ApiHouse, Door]]:
    with an_api_house(tmp_path) as house, served(house) as server:
        house.an_image("demo-linux")
        yield house, Door(port=server.port)


def test_openstackclient_walks_a_server_through_its_life(door: Door) -> None:
    assert [f["Name"] for f in door.ask("flavor", "list")] == ["m1.tiny", "m1.small", "m1.large"]
    assert [i["Name"] for i in door.ask("image", "list")] == ["demo-linux"]
    create = ("server", "create", "--image", "demo-linux", "--flavor", "m1.tiny", "--nic", "none", "--wait", "web")
    assert door.ask(*create)["status"] == "ACTIVE"
    (listed,) = door.ask("server", "list")
    assert (listed["Name"], listed["Status"], listed["Image"], listed["Flavor"]) == (
        "web",
        "ACTIVE",
        "demo-linux",
        "m1.tiny",
    )
    assert door.ask("server", "show", "web")["name"] == "web"
    assert door.ask("server", "image", "create", "--name", "snap", "--wait", "web")["status"] == "active"
    door.run("server", "resize", "--flavor", "m1.small", "--wait", "web")
    assert door.ask("server", "show", "web")["status"] == "VERIFY_RESIZE"
    door.run("server", "resize", "confirm", "web")
    door.run("server", "stop", "web")
    assert door.ask("server", "show", "web")["status"] == "SHUTOFF"
    door.run("server", "start", "web")
    door.run("server", "reboot", "--hard", "--wait", "web")
    door.run("server", "delete", "--wait", "web")
    assert door.ask("server", "list") == []


def test_openstackclient_uploads_and_saves_an_image(door: Door, tmp_path: Path) -> None:
    data, back = tmp_path / "data", tmp_path / "back"
    data.write_bytes(os.urandom(3_000_000))
    create = ("image", "create", "--disk-format", "vhd", "--container-format", "ovf", "--file", str(data), "mine")
    assert door.ask(*create)["status"] == "active"
    door.run("image", "save", "--file", str(back), "mine")
    assert filecmp.cmp(data, back, shallow=False)
    door.run("image", "set", "--property", "os_type=linux", "--min-disk", "1", "mine")
    shown = door.ask("image", "show", "mine")
    assert (shown["min_disk"], shown["properties"]["os_type"]) == (1, "linux")
    door.run("image", "delete", "mine")


def test_openstackclient_finds_its_way_around(open_house: tuple[ApiHouse, Door]) -> None:
    house, door = open_house
    for name in ("web-1", "web-2", "db"):
        house.a_server(name, imageRef=house.images.find("demo-linux")[0].id)
    assert {s["Name"] for s in door.ask("server", "list", "--name", "web")} == {"web-1", "web-2"}
    assert [s["Name"] for s in door.ask("server", "list", "--limit", "1")] == ["db"]
    assert door.ask("server", "list", "--status", "SHUTOFF") == []
    assert len(door.ask("server", "list", "--all-projects", "--long")) == 3
    assert "already exists" in door.run(
        "flavor", "create", "--vcpus", "1", "--ram", "1", "--disk", "1", "m1.tiny", fails=True
    )
    door.run("server", "set", "--name", "db-2", "--property", "k=v", "db")
    assert door.ask("server", "show", "db-2")["properties"] == {"k": "v"}
    assert door.ask("server", "event", "list", "db-2")[0]["Action"] == "create"
    door.run("quota", "set", "--instances", "3", "local")
    refused = door.run(
        *("server", "create", "--image", "demo-linux", "--flavor", "m1.tiny", "--nic", "none", "more"), fails=True
    )
    assert "Quota exceeded" in refused
    assert "vm_state active" in door.run("server", "start", "db-2", fails=True)
    assert door.ask("availability", "zone", "list", "--compute")[0]["Zone Name"] == "nova"
    assert "No Server found" in door.run("server", "show", "nobody", fails=True)


_SDK = """
import json, openstack
conn = openstack.connect()
image = conn.image.find_image("demo-linux")
flavor = conn.compute.find_flavor("m1.tiny")
server = conn.compute.create_server(name="sdk", image_id=image.id, flavor_id=flavor.id, networks="none")
server = conn.compute.wait_for_server(server, interval=1, wait=60)
seen = [server.status]
snap = conn.compute.create_server_image(server, "sdk-snap", wait=True, timeout=60)
seen.append(snap.status)
conn.compute.resize_server(server, conn.compute.find_flavor("m1.small").id)
seen.append(conn.compute.wait_for_server(server, status="VERIFY_RESIZE", interval=1, wait=60).status)
conn.compute.confirm_server_resize(server)
seen.append(conn.compute.wait_for_server(server, interval=1, wait=60).status)
conn.compute.stop_server(server)
seen.append(conn.compute.wait_for_server(server, status="SHUTOFF", interval=1, wait=60).status)
conn.compute.start_server(server)
conn.compute.wait_for_server(server, interval=1, wait=60)
for n in range(4):
    conn.compute.create_server(name=f"p{n}", image_id=image.id, flavor_id=flavor.id, networks="none")
paged = [s.name for s in conn.compute.servers(limit=2)]
found = conn.compute.find_server("sdk").id == server.id
conn.compute.delete_server(server)
conn.compute.wait_for_delete(server, interval=1, wait=60)
print(json.dumps({"seen": seen, "paged": paged, "found": found, "left": len(list(conn.compute.servers()))}))
"""


def test_openstacksdk_does_the_same_from_python(door: Door) -> None:
    told = door.python(_SDK)
    assert told["seen"] == ["ACTIVE", "active", "VERIFY_RESIZE", "ACTIVE", "SHUTOFF"]
    assert sorted(told["paged"]) == ["p0", "p1", "p2", "p3", "sdk"]
    assert told["found"] and told["left"] == 4


def test_openstackclient_attaches_lists_and_detaches_a_volume(open_house: tuple[ApiHouse, Door]) -> None:
    house, door = open_house
    server, volume = house.a_server("web"), "6f1c1e3e-0000-4000-8000-00000000abcd"
    house.daemon.volumes.add(volume)
    made = door.ask("server", "add", "volume", "web", volume)
    assert (made["Volume ID"], made["Server ID"], made["Device"]) == (volume, server, "/dev/xvdi")
    (listed,) = door.ask("server", "volume", "list", "web")
    assert (listed["Volume ID"], listed["Device"]) == (volume, "/dev/xvdi")
    assert door.ask("server", "show", "web")["volumes_attached"] == [{"id": volume, "delete_on_termination": False}]
    door.run("server", "remove", "volume", "web", volume)
    assert door.ask("server", "volume", "list", "web") == []
    nowhere = "6f1c1e3e-0000-4000-8000-00000000ffff"
    assert "not by its name" in door.run("server", "add", "volume", "web", nowhere, fails=True)
