"""What has gone wrong at the front doors of OpenStack, tried at this one; each test is named by its advisory."""

import base64
import hashlib
import re
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from api_cell.errors import NotFound
from api_cell.http.call import Rule
from api_cell.http.routes import ROUTES
from api_cell.http.signing import Purpose
from cells.masking import masked
from cells.messages import Question
from cells.names import SECOND
from tests.security.conftest import Street, basic
from tests.support.api_house import SAID, START, Bytes

ELSEWHERE = str(uuid.UUID(int=7))


def _of_things(kind: str) -> pytest.MarkDecorator:
    """A test for each route whose path names a server or an image: those of consoles, of administrators, of images, and
    the others."""
    found = [route for route in ROUTES if _kind(route) == kind]
    assert found, kind
    return pytest.mark.parametrize("route", found, ids=lambda r: f"{r.method} {r.path} {r.action}")


def _kind(route: Any) -> str:
    if "{image}" in route.path:
        return "image"
    if "{server}" not in route.path:
        return ""
    if "onsole" in f"{route.path} {route.action}":
        return "console"
    return "administrators" if route.rule is Rule.ADMIN else "server"


@_of_things("server")
def test_ossa_2012_001_a_server_of_another_project_is_not_there_on_any_route(street: Street, route: Any) -> None:
    _nothing_is_there(street, route)


@_of_things("image")
def test_ossa_2012_017_an_image_of_another_project_is_not_there_on_any_route(street: Street, route: Any) -> None:
    _nothing_is_there(street, route)


@_of_things("console")
def test_ossa_2013_006_2014_035_the_console_of_another_project_is_not_there(street: Street, route: Any) -> None:
    _nothing_is_there(street, route)


@_of_things("administrators")
def test_ossa_2014_011_what_is_the_administrators_is_refused_on_every_route(street: Street, route: Any) -> None:
    _nothing_is_there(street, route)


def _nothing_is_there(street: Street, route: Any) -> None:
    """Mallory asks for what is ann's, and is told what is told of what never was."""
    image = street.house.images.create(name="hers", owner="red", disk_format="vhd", container_format="ovf")
    server = street.ann.a_server(metadata={"k": "v"})
    before = street.ann.ask("GET", f"/v2.1/servers/{server}").json
    path = re.sub(r"\{[a-z]+\}", "k", route.path.replace("{server}", server).replace("{image}", image))
    version = f"2.{61 if route.until is None else route.until}"
    headers = {"Content-Type": route.media[0]}
    body = {"rebuild": {"imageRef": street.house.an_image()}} if route.action == "rebuild" else _a_body(route)

    def answered(place: str) -> tuple[int, str]:
        answer = street.mallory.ask(
            route.method, place, body, version=version, headers=headers, raw=None if route.schema else b"x"
        )
        return answer.status_code, answer.text.replace(server, ELSEWHERE).replace(image, ELSEWHERE)

    told = answered(path)
    assert told[0] == (403 if route.rule is Rule.ADMIN else 404), told
    assert told == answered(path.replace(server, ELSEWHERE).replace(image, ELSEWHERE))
    assert street.ann.ask("GET", f"/v2.1/servers/{server}").json == before
    assert street.house.images.need(image).status == "queued"


# What each needs to get as far as asking for the server.
_ARGUMENTS: dict[str, Any] = {
    "reboot": {"type": "HARD"},
    "resize": {"flavorRef": "2"},
    "createImage": {"name": "stolen"},
    "createBackup": {"name": "stolen", "backup_type": "daily", "rotation": 1},
    "changePassword": {"adminPass": "stolen"},
    "os-getConsoleOutput": {},
    "os-getVNCConsole": {"type": "novnc"},
    "celltree-deleteHostSnapshot": {"id": ELSEWHERE},
    "celltree-createHostSnapshot": {"name": "stolen"},
    "celltree-setShares": {},
}
_BODIES: dict[str, Any] = {
    "PUT /v2.1/servers/{server}": {"server": {"name": "stolen"}},
    "PUT /v2.1/servers/{server}/metadata/{key}": {"meta": {"k": "stolen"}},
    "PUT /v2.1/servers/{server}/tags": {"tags": ["stolen"]},
    "POST /v2.1/servers/{server}/remote-consoles": {"remote_console": {"protocol": "vnc", "type": "novnc"}},
    "POST /v2.1/servers/{server}/os-volume_attachments": {"volumeAttachment": {"volumeId": ELSEWHERE}},
    "PATCH /image/v2/images/{image}": [{"op": "replace", "path": "/name", "value": "stolen"}],
}


def _a_body(route: Any) -> Any:
    if route.action:
        return {route.action: _ARGUMENTS.get(route.action)}
    if route.schema is None:
        return None
    return _BODIES.get(f"{route.method} {route.path}", {"metadata": {"k": "stolen"}})


def test_ossa_2026_001_identity_headers_of_a_client_give_no_identity(street: Street) -> None:
    claims = {
        "X-User-Id": "root",
        "X-Project-Id": "red",
        "X-Tenant-Id": "red",
        "X-Roles": "admin",
        "X-Identity-Status": "Confirmed",
        "X-Is-Admin-Project": "True",
        "X-Service-Roles": "admin",
        "OpenStack-System-Scope": "all",
    }
    server = street.ann.a_server()
    assert street.house.ask("GET", "/v2.1/servers", headers=claims).status_code == 401
    assert street.mallory.ask("GET", f"/v2.1/servers/{server}", headers=claims).status_code == 404
    assert street.mallory.ask("GET", "/v2.1/servers?all_tenants=1", headers=claims).status_code == 403


def test_ossa_2014_024_a_wrong_name_is_refused_as_a_wrong_password_is(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both take one slow hash of the same strength, each time anew, and say the same."""
    hashed: list[dict[str, Any]] = []

    def scrypt(password: bytes, **strength: Any) -> bytes:
        salt = strength.pop("salt")
        hashed.append({**strength, "salt": len(salt)})
        return slow(password, salt=salt, **strength)

    slow = hashlib.scrypt
    monkeypatch.setattr(hashlib, "scrypt", scrypt)
    told, costs = [], []
    for name in ("ann", "nobody", "ann", "nobody"):
        before = len(hashed)
        answer = street.house.ask("GET", "/v2.1/servers", headers=basic(name, "wrong"))
        told.append((answer.status_code, answer.json))
        costs.append(hashed[before:])
    assert [status for status, _ in told] == [401] * 4
    assert all(each == told[0] for each in told)
    assert [len(cost) for cost in costs] == [1] * 4
    strength = [{key: value for key, value in cost.items() if key != "salt"} for cost in (costs[0][0], costs[1][0])]
    assert strength[0] == strength[1]


@pytest.mark.parametrize(
    "place", [pytest.param("build", id="ossa_2013_019"), pytest.param("resize", id="ossa_2013_024")]
)
def test_a_private_flavor_is_not_there_even_by_its_id(street: Street, place: str) -> None:
    body = {
        "name": f"secret {place}",
        "id": f"99-{place}",
        "vcpus": 1,
        "ram": 1024,
        "disk": 2,
        "os-flavor-access:is_public": False,
    }
    assert street.root.ask("POST", "/v2.1/flavors", {"flavor": body}).status_code == 200
    assert street.mallory.ask("GET", f"/v2.1/flavors/99-{place}").status_code == 404
    assert "secret" not in street.mallory.ask("GET", "/v2.1/flavors/detail?is_public=none").text
    server = street.mallory.a_server()
    if place == "resize":
        answer = street.mallory.act(server, "resize", {"flavorRef": f"99-{place}"})
    else:
        wish = {"name": "x", "imageRef": street.house.an_image(), "flavorRef": f"99-{place}", "networks": "none"}
        answer = street.mallory.ask("POST", "/v2.1/servers", {"server": wish})
    assert answer.status_code == 400 and "could not be found" in answer.text


@pytest.mark.parametrize("place", ["build", "rebuild", "rescue"])
def test_ossa_2013_027_a_private_image_is_not_there_even_by_its_id(street: Street, place: str) -> None:
    private = street.house.an_image("hers", owner="red", visibility="private")
    server = street.mallory.a_server()
    if place == "build":
        wish = {"name": "x", "imageRef": private, "flavorRef": "1", "networks": "none"}
        answer = street.mallory.ask("POST", "/v2.1/servers", {"server": wish})
    else:
        key = {"rebuild": "imageRef", "rescue": "rescue_image_ref"}[place]
        answer = street.mallory.act(server, place, {key: private})
    assert answer.status_code == 400 and "can not find requested image" in answer.text


def test_ossa_2017_005_a_rebuild_asks_of_its_image_what_a_build_asks(street: Street) -> None:
    server = street.mallory.a_server()
    large = street.house.an_image("large", min_ram=4096)
    answer = street.mallory.act(server, "rebuild", {"imageRef": large})
    assert answer.status_code == 400 and "too small" in answer.text


def test_ossa_2017_006_rebuilding_again_and_again_counts_once(street: Street) -> None:
    server = street.mallory.a_server()
    used = street.mallory.used()
    for _ in range(5):
        assert street.mallory.act(server, "rebuild", {"imageRef": street.house.an_image()}).status_code == 202
        street.house.daemon.step()
    assert street.mallory.used() == used


def test_ossa_2015_017_deleting_while_resizing_gives_the_quota_back_once(street: Street) -> None:
    """Also OSSA-2015-015, OSSA-2016-011, OSSA-2014-037: in loops, asked twice, at every moment."""
    used = street.mallory.used()
    for stepped in (False, True):
        server = street.mallory.a_server()
        assert street.mallory.act(server, "resize", {"flavorRef": "3"}).status_code == 202
        if stepped:
            street.house.daemon.step()
        for _ in range(2):
            assert street.mallory.ask("DELETE", f"/v2.1/servers/{server}").status_code == 204
        street.house.daemon.step()
        assert street.mallory.used() == used


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "n" * 256),
        ("name", "n" * 100_000),
        ("adminPass", "p" * 256),
        ("metadata", {"k": "v" * 256}),
        ("metadata", {"k" * 256: "v"}),
        pytest.param("metadata", {f"k{n}": "v" for n in range(129)}, id="ossa_2012_005-metadata"),
        ("tags", ["t" * 61]),
        pytest.param("tags", [str(n) for n in range(51)], id="ossa_2012_005-tags"),
        ("availability_zone", "z" * 256),
        pytest.param("user_data", "a" * 65_536, id="ossa_2013_026-user_data"),
        ("max_count", 10**9),
        ("flavorRef", "f" * 1025),
        pytest.param("description", "d" * 65_536, id="ossa_2013_026-description"),
    ],
)
def test_ossa_2012_003_long_values_are_refused_before_anything_is_done_or_logged(
    street: Street, field: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Texts, lists (OSSA-2012-005) and what hung the messaging by its 65 kB (OSSA-2013-026)."""
    image, before = street.house.an_image(), street.mallory.used()
    caplog.set_level("DEBUG")
    caplog.set_level("DEBUG", logger="celltree")
    wish = {"name": "x", "imageRef": image, "flavorRef": "1", "networks": "none", field: value}
    answer = street.mallory.ask("POST", "/v2.1/servers", {"server": wish})
    assert answer.status_code in (400, 403)
    assert len(answer.text) < 2000 and len(caplog.text) < 2000
    assert street.mallory.used() == before


def test_ossa_2012_009_scheduler_hints_are_few_and_known(street: Street) -> None:
    image = street.house.an_image()
    for hints in ({f"hint{n}": "x" for n in range(1000)}, {"near": [ELSEWHERE] * 65}, {"near": {"$gt": "x" * 50_000}}):
        wish = {"name": "x", "imageRef": image, "flavorRef": "1", "networks": "none"}
        answer = street.mallory.ask("POST", "/v2.1/servers", {"server": wish, "os:scheduler_hints": hints})
        assert answer.status_code == 400 and len(answer.text) < 2000


@pytest.mark.parametrize(
    "query",
    [
        "name=" + "(a%2B)%2B%24" * 20,
        "ip=" + "%5B" * 500,
        "&".join(f"x{n}=1" for n in range(300)),
        "uuid=" + "&uuid=".join(ELSEWHERE for _ in range(150)),
        "limit=99999999999",
        "sort_key=" + "x" * 5000,
        "marker=" + "x" * 5000,
        "changes-since=" + "9" * 3000,
        "name=" + "x" * 9000,
    ],
)
def test_ossa_2014_038_no_filter_of_a_list_makes_it_slow(street: Street, query: str) -> None:
    street.ann.a_server(name="a" * 255)
    answer = street.ann.ask("GET", f"/v2.1/servers/detail?{query}")
    assert answer.status_code == 400 or answer.json["servers"] == []
    assert len(answer.text) < 1000


@pytest.mark.parametrize(
    "entities",
    [
        pytest.param(b'<!ENTITY a "ha"><!ENTITY b "&a;&a;">', id="ossa_2013_004"),
        pytest.param(b'<!ENTITY b SYSTEM "file:///etc/passwd">', id="ossa_2013_023"),
    ],
)
def test_xml_is_not_read_at_all(street: Street, entities: bytes) -> None:
    bomb = b"<!DOCTYPE l [%b]><server name='&b;'/>" % entities
    for media in ("application/xml", "text/xml", "application/soap+xml"):
        answer = street.mallory.ask("POST", "/v2.1/servers", raw=bomb, headers={"Content-Type": media})
        assert answer.status_code == 415 and "root:" not in answer.text


def test_ossa_2019_003_a_fault_of_ours_tells_nothing_of_the_inside(own_street: Street) -> None:
    """Also OSSA-2013-002, OSSA-2013-007."""
    server = own_street.ann.a_server()
    own_street.house.app.api = replace(own_street.house.app.api, store=None)  # type: ignore[arg-type]
    answer = own_street.ann.ask("GET", f"/v2.1/servers/{server}")
    assert answer.status_code == 500
    assert not re.search(r"NoneType|Traceback|sqlite|File|\.py|callable", answer.text)


def test_ossa_2017_002_a_fault_of_ours_logs_nothing_of_what_was_asked(
    own_street: Street, caplog: pytest.LogCaptureFixture
) -> None:
    """What went wrong is in the log, with its traceback; the request's secrets are not."""
    caplog.set_level("DEBUG")
    caplog.set_level("DEBUG", logger="celltree")
    secrets = {
        "adminPass": "Canary-word",
        "user_data": base64.b64encode(b"Canary-data").decode(),
        "personality": [{"path": "/etc/motd", "contents": base64.b64encode(b"Canary-file").decode()}],
    }
    wish = {"name": "x", "imageRef": own_street.house.an_image(), "flavorRef": "1", "networks": "none", **secrets}
    own_street.house.app.api = replace(own_street.house.app.api, store=None)  # type: ignore[arg-type]
    answer = own_street.ann.ask("POST", "/v2.1/servers", {"server": wish}, version="2.50")
    assert answer.status_code == 500 and "Traceback" in caplog.text
    told = answer.text + caplog.text
    for secret in ("Canary", *(base64.b64encode(word).decode() for word in (b"Canary-data", b"Canary-file"))):
        assert secret not in told
    assert basic("ann", "ann-pw")["Authorization"] not in told


def test_ossa_2014_036_a_command_that_failed_is_logged_without_its_passwords() -> None:
    """As its exception tells it: the whole command line."""
    commands = (
        ["mount", "-o", "username=root,password=Canary", "//filer/vol"],
        ["mysql", "--password=Canary", "nova"],
        ["celltree", "cell", "register", "--broker", "amqp://u:Canary@mq/vhost"],
        ["curl", "-H", "X-Auth-Token: Canary", "http://glance/v2"],
    )
    for command in commands:
        told = str(subprocess.CalledProcessError(1, command, stderr=f"failed: {' '.join(command)}"))
        assert "Canary" in told
        assert "Canary" not in masked(told) + masked(" ".join(command))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2.1/servers", {"server": {"name": "x", "flavorRef": "1", "networks": "none", "adminPass": "Canary\x01"}}),
        ("/v2.1/servers", {"server": {"name": "x", "flavorRef": "1", "networks": "none", "adminPass": ["Canary"]}}),
        (
            "/v2.1/servers",
            {"server": {"name": "x", "flavorRef": "1", "networks": "none", "user_data": {"a": "Canary"}}},
        ),
        ("/v2.1/servers", {"server": {"name": "x", "flavorRef": "1", "networks": "none", "personality": "Canary"}}),
        ("ACTION", {"changePassword": {"adminPass": "Canary\n"}}),
        ("ACTION", {"changePassword": {"adminPass": "Canary", "more": 1}}),
        ("ACTION", {"changePassword": "Canary"}),
        ("ACTION", {"rescue": {"adminPass": ["Canary"]}}),
    ],
)
def test_ossa_2017_001_a_refused_password_is_neither_answered_nor_logged(
    street: Street, path: str, body: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Also OSSA-2014-036: what was refused is named by its field, not by its value."""
    caplog.set_level("DEBUG")
    caplog.set_level("DEBUG", logger="celltree")
    path = path.replace("ACTION", f"/v2.1/servers/{street.ann.a_server()}/action")
    answer = street.ann.ask("POST", path, body, version="2.50")
    assert answer.status_code == 400
    assert "Canary" not in answer.text + caplog.text
    assert re.search("adminPass|user_data|personality|changePassword", answer.text)


def test_ossa_2015_005_the_address_of_a_console_is_for_administrators(street: Street) -> None:
    """There is no proxy, hence no token of one and no origin to be checked."""
    server = street.ann.a_server()
    for kind in ("novnc", "xvpvnc"):
        wish = {"remote_console": {"protocol": "vnc", "type": kind}}
        answer = street.ann.ask("POST", f"/v2.1/servers/{server}/remote-consoles", wish)
        assert answer.status_code in (400, 403) and "http" not in answer.text


def test_ossa_2020_001_the_address_of_a_console_is_in_no_log(
    own_street: Street, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    caplog.set_level("DEBUG", logger="celltree")
    server, address = own_street.ann.a_server(), SAID[Question.CONSOLE_URL].decode()

    def answered(_: float) -> None:
        own_street.house.daemon.step()

    own_street.house.app.api = replace(own_street.house.app.api, pause=answered)
    wish = {"remote_console": {"protocol": "vnc", "type": "xvpvnc"}}
    answer = own_street.root.ask("POST", f"/v2.1/servers/{server}/remote-consoles", wish)
    assert answer.json["remote_console"]["url"] == address
    assert address not in caplog.text and "uuid=1" not in caplog.text


@pytest.mark.parametrize(
    "path", ["//evil.example.com/%2F..", "//evil.example.com", "/\\evil.example.com", "/%2F%2Fevil"]
)
def test_ossa_2021_002_no_path_is_answered_with_another_place_to_go(street: Street, path: str) -> None:
    for person in (None, street.root):
        answer = person.ask("GET", path) if person else street.house.ask("GET", path)
        assert answer.status_code in (400, 404)
        assert "location" not in {name.lower() for name in answer.headers}


@pytest.mark.parametrize("name", ["url", "locations", "location", "direct_url", "file", "self", "copy_from"])
@pytest.mark.parametrize(
    "evil",
    [
        pytest.param("http://169.254.169.254/latest", id="ossa_2026_004"),
        pytest.param("file:///etc/passwd", id="ossa_2014_041"),
        pytest.param("filesystem:///etc/passwd", id="ossa_2015_002"),
    ],
)
def test_ossa_2026_004_no_field_of_an_image_sends_a_leaf_somewhere_else(street: Street, name: str, evil: str) -> None:
    """The doors of Glance to other servers and to its own files: where an image is fetched from is the operator's word
    alone."""
    answer = street.mallory.ask(
        "POST", "/image/v2/images", {"name": "x", "disk_format": "vhd", "container_format": "ovf", name: evil}
    )
    if answer.status_code == 201:
        assert street.house.images.ref(answer.json["id"]).url == street.house.images.url
        assert answer.json["file"] == f"/v2/images/{answer.json['id']}/file"
    else:
        assert answer.status_code in (400, 403)
    mine = street.house.images.create(name="mine", owner="blue", disk_format="vhd", container_format="ovf")
    change = [{"op": "add", "path": f"/{name}", "value": evil}]
    patch = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    changed = street.mallory.ask("PATCH", f"/image/v2/images/{mine}", change, headers=patch)
    assert changed.status_code in (200, 400, 403)
    assert street.house.images.ref(mine).url == street.house.images.url


@pytest.mark.parametrize(
    "image", ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e", "x/../../etc", "a" * 5000, "\x00", "C:\\x"]
)
def test_ossa_2011_001_the_id_of_an_image_is_never_a_path(street: Street, image: str) -> None:
    for method, path in (("GET", "/file"), ("GET", ""), ("DELETE", ""), ("PUT", "/file")):
        place = f"/image/v2/images/{image if '%' in image else quote(image, safe='')}{path}"
        headers = {"Content-Type": "application/octet-stream"}
        answer = street.root.ask(method, place, raw=b"x", headers=headers)
        assert answer.status_code in (400, 404, 405), answer.text
    for field in ("imageRef", "flavorRef"):
        wish = {"name": "x", "imageRef": street.house.an_image(), "flavorRef": "1", "networks": "none", field: image}
        assert street.root.ask("POST", "/v2.1/servers", {"server": wish}).status_code == 400


@pytest.mark.parametrize("path", ["../etc/shadow", "/../etc/shadow", "/a/../../etc", "//", "/etc\n/x", "/a,b"])
def test_ossa_2012_008_the_path_of_an_injected_file_stays_inside_the_guest(street: Street, path: str) -> None:
    file = {"path": path, "contents": "YQ=="}
    wish = {"name": "x", "imageRef": street.house.an_image(), "flavorRef": "1", "networks": "none"}
    answer = street.mallory.ask("POST", "/v2.1/servers", {"server": {**wish, "personality": [file]}}, version="2.50")
    assert answer.status_code == 400 and "personality" in answer.text


def test_ossa_2014_028_what_is_uploaded_is_bounded_and_leaves_nothing_when_refused(own_street: Street) -> None:
    own_street.house.images._largest = 1000
    image = own_street.house.images.create(name="x", owner="blue", disk_format="vhd", container_format="ovf")
    headers = {"Content-Type": "application/octet-stream"}
    answer = own_street.mallory.ask("PUT", f"/image/v2/images/{image}/file", raw=b"x" * 1001, headers=headers)
    assert answer.status_code == 413
    assert own_street.house.images.need(image).status == "queued"
    assert _left(own_street) == []


def _left(street: Street) -> list[Path]:
    """Bytes in the folder of images that belong to no image."""
    folder = street.house.images._folder
    return [
        p for p in folder.iterdir() if ".part" in p.name or (p.suffix == ".data" and not p.with_suffix(".img").exists())
    ]


class _Deletes(Bytes):
    """An upload in whose midst the image is deleted."""

    def __init__(self, data: bytes, delete: Callable[[], None]) -> None:
        super().__init__(data)
        self._delete = delete

    def read(self, size: int) -> bytes:
        data = super().read(size)
        if data:
            self._delete()
        return data


def test_ossa_2015_020_an_upload_that_outlives_its_image_or_its_token_leaves_no_bytes(own_street: Street) -> None:
    images = own_street.house.images
    image = images.create(name="x", owner="blue", disk_format="vhd", container_format="ovf")
    with pytest.raises(NotFound):
        images.fill(image, _Deletes(b"x" * 1000, lambda: images.delete(image)))  # type: ignore[arg-type]
    assert images.get(image) is None and _left(own_street) == []

    late = images.create(name="y", owner="blue", disk_format="vhd", container_format="ovf")
    token = own_street.house.app.tokens.token_for(late, Purpose.WRITE)
    headers = {"Content-Type": "application/octet-stream", "X-Auth-Token": token}
    own_street.house.app.tokens._clock = lambda: START + 10**6 * SECOND
    answer = own_street.house.ask("PUT", f"/image/v2/images/{late}/file", raw=b"x", headers=headers)
    assert answer.status_code == 401
    assert images.need(late).status == "queued" and _left(own_street) == []


_VMDK = b'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 1 FLAT "/etc/shadow" 0\n'
_QCOW2 = b"QFI\xfb\x00\x00\x00\x03" + b"/etc/shadow".rjust(600, b"\x00")
_DATA_FILE = b"QFI\xfb\x00\x00\x00\x03" + b"json:{'file.filename': '/etc/shadow'}".rjust(600, b"\x00")


@pytest.mark.parametrize(
    "liar",
    [
        pytest.param(_QCOW2 + b"conectix", id="ossa_2015_014"),
        pytest.param(_VMDK, id="ossa_2023_002"),
        pytest.param(_DATA_FILE, id="ossa_2024_001"),
        pytest.param(bytes(32768) + b"\x01CD001" + _QCOW2, id="ossa_2024_002"),
    ],
)
def test_an_uploaded_image_is_taken_for_what_it_is_said_to_be(street: Street, liar: bytes) -> None:
    """Nobody looks into it for a format of its own choice."""
    image = street.house.images.create(name="x", owner="blue", disk_format="raw", container_format="bare")
    headers = {"Content-Type": "application/octet-stream"}
    assert street.mallory.ask("PUT", f"/image/v2/images/{image}/file", raw=liar, headers=headers).status_code == 204
    assert street.mallory.ask("GET", f"/image/v2/images/{image}/file").content == liar
    assert street.house.images.ref(image).disk_format == "raw"
    change = [{"op": "replace", "path": "/disk_format", "value": "qcow2"}]
    patch = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    assert street.mallory.ask("PATCH", f"/image/v2/images/{image}", change, headers=patch).status_code == 403
