"""What has gone wrong at the front doors of OpenStack, tried at this one; each test is named by its advisory."""

import re
import uuid
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from api_cell.http.call import Rule
from api_cell.http.routes import ROUTES
from tests.security.conftest import Street, basic

ELSEWHERE = str(uuid.UUID(int=7))


def _is_of_a_thing(route: Any) -> bool:
    """Whether its path names something that a tenant owns."""
    return bool(re.search(r"{(server|image)}", route.path))


@pytest.mark.parametrize(
    "route", [r for r in ROUTES if _is_of_a_thing(r)], ids=lambda r: f"{r.method} {r.path} {r.action}"
)
def test_ossa_2012_001_nothing_of_another_project_is_there_on_any_route(street: Street, route: Any) -> None:
    """Also OSSA-2013-006, 2014-011, 2014-035, 2012-017: servers, actions, consoles and images of others, by id."""
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


def test_ossa_2014_024_a_wrong_name_is_refused_as_a_wrong_password_is(street: Street) -> None:
    """Both take a hash, and say the same."""
    answers = [street.house.ask("GET", "/v2.1/servers", headers=basic(name, "wrong")) for name in ("ann", "nobody")]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].json == answers[1].json


@pytest.mark.parametrize("place", ["build", "resize"])
def test_ossa_2013_019_a_private_flavor_is_not_there_even_by_its_id(street: Street, place: str) -> None:
    """Also OSSA-2013-024, OSSA-2013-027."""
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
        ("metadata", {f"k{n}": "v" for n in range(129)}),
        ("tags", ["t" * 61]),
        ("tags", [str(n) for n in range(51)]),
        ("availability_zone", "z" * 256),
        ("user_data", "a" * 65_536),
        ("max_count", 10**9),
        ("flavorRef", "f" * 1025),
        ("description", "d" * 65_536),
    ],
)
def test_ossa_2012_003_long_values_are_refused_before_anything_is_done_or_logged(
    street: Street, field: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Also OSSA-2012-005 (lists) and OSSA-2013-026 (a text of 65 kB that hung the messaging)."""
    image, before = street.house.an_image(), street.mallory.used()
    caplog.set_level("DEBUG")
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


def test_ossa_2013_004_xml_is_not_read_at_all(street: Street) -> None:
    """Also OSSA-2013-023."""
    bomb = b'<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><server name="&b;"/>'
    for media in ("application/xml", "text/xml", "application/soap+xml"):
        answer = street.mallory.ask("POST", "/v2.1/servers", raw=bomb, headers={"Content-Type": media})
        assert answer.status_code == 415


def test_ossa_2019_003_a_fault_of_ours_tells_nothing_of_the_inside(own_street: Street) -> None:
    """Also OSSA-2013-002, OSSA-2013-007."""
    server = own_street.ann.a_server()
    own_street.house.app.api = replace(own_street.house.app.api, store=None)  # type: ignore[arg-type]
    answer = own_street.ann.ask("GET", f"/v2.1/servers/{server}")
    assert answer.status_code == 500
    assert not re.search(r"NoneType|Traceback|sqlite|File|\.py|callable", answer.text)


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
    path = path.replace("ACTION", f"/v2.1/servers/{street.ann.a_server()}/action")
    answer = street.ann.ask("POST", path, body, version="2.50")
    assert answer.status_code == 400
    assert "Canary" not in answer.text + caplog.text
    assert re.search("adminPass|user_data|personality|changePassword", answer.text)


def test_ossa_2015_005_the_address_of_a_console_is_for_administrators(street: Street) -> None:
    """Also OSSA-2020-001, OSSA-2021-002: there is no proxy, hence no token and no redirect of one."""
    server = street.ann.a_server()
    for kind in ("novnc", "xvpvnc"):
        wish = {"remote_console": {"protocol": "vnc", "type": kind}}
        answer = street.ann.ask("POST", f"/v2.1/servers/{server}/remote-consoles", wish)
        assert answer.status_code in (400, 403) and "http" not in answer.text
    assert street.house.ask("GET", "//evil.example.com/%2F..").status_code == 404


@pytest.mark.parametrize("name", ["url", "locations", "location", "direct_url", "file", "self", "copy_from"])
def test_ossa_2026_004_no_field_of_an_image_sends_a_leaf_somewhere_else(street: Street, name: str) -> None:
    """The server-side request forgery doors of Glance: where an image is fetched from is the operator's word alone."""
    evil = "http://169.254.169.254/latest"
    answer = street.mallory.ask(
        "POST", "/image/v2/images", {"name": "x", "disk_format": "vhd", "container_format": "ovf", name: evil}
    )
    if answer.status_code == 201:
        assert street.house.images.ref(answer.json["id"]).url == street.house.images.url
        assert answer.json["file"] == f"/v2/images/{answer.json['id']}/file"
    else:
        assert answer.status_code in (400, 403)


@pytest.mark.parametrize(
    "image", ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e", "x/../../etc", "a" * 5000, "\x00", "C:\\x"]
)
def test_ossa_2011_001_the_id_of_an_image_is_never_a_path(street: Street, image: str) -> None:
    """Also OSSA-2012-008, OSSA-2014-041, OSSA-2015-002."""
    for method, path in (("GET", "/file"), ("GET", ""), ("DELETE", ""), ("PUT", "/file")):
        place = f"/image/v2/images/{image if '%' in image else quote(image, safe='')}{path}"
        headers = {"Content-Type": "application/octet-stream"}
        answer = street.root.ask(method, place, raw=b"x", headers=headers)
        assert answer.status_code in (400, 404, 405), answer.text
    for field in ("imageRef", "flavorRef"):
        wish = {"name": "x", "imageRef": street.house.an_image(), "flavorRef": "1", "networks": "none", field: image}
        assert street.root.ask("POST", "/v2.1/servers", {"server": wish}).status_code == 400


@pytest.mark.parametrize("path", ["../etc/shadow", "/../etc/shadow", "/a/../../etc", "//", "/etc\n/x", "/a,b"])
def test_ossa_2012_011_the_path_of_an_injected_file_stays_inside_the_guest(street: Street, path: str) -> None:
    file = {"path": path, "contents": "YQ=="}
    wish = {"name": "x", "imageRef": street.house.an_image(), "flavorRef": "1", "networks": "none"}
    answer = street.mallory.ask("POST", "/v2.1/servers", {"server": {**wish, "personality": [file]}}, version="2.50")
    assert answer.status_code == 400 and "personality" in answer.text


def test_ossa_2014_028_what_is_uploaded_is_bounded_and_leaves_nothing_when_refused(own_street: Street) -> None:
    """Also OSSA-2015-020, OSSA-2013-012."""
    own_street.house.images._largest = 1000
    image = own_street.house.images.create(name="x", owner="blue", disk_format="vhd", container_format="ovf")
    headers = {"Content-Type": "application/octet-stream"}
    answer = own_street.mallory.ask("PUT", f"/image/v2/images/{image}/file", raw=b"x" * 1001, headers=headers)
    assert answer.status_code == 413
    assert own_street.house.images.need(image).status == "queued"
    folder = own_street.house.images._folder
    assert not [p for p in folder.iterdir() if ".part" in p.name or p.suffix == ".data"]


def test_ossa_2015_014_an_uploaded_image_is_taken_for_what_it_is_said_to_be(street: Street) -> None:
    """Nobody looks into it for a format of its own choice (also OSSA-2016-001, OSSA-2024-001)."""
    image = street.house.images.create(name="x", owner="blue", disk_format="raw", container_format="bare")
    headers = {"Content-Type": "application/octet-stream"}
    liar = b"QFI\xfb\x00\x00\x00\x03" + b"/etc/shadow".rjust(600, b"\x00") + b"conectix"
    assert street.mallory.ask("PUT", f"/image/v2/images/{image}/file", raw=liar, headers=headers).status_code == 204
    assert street.mallory.ask("GET", f"/image/v2/images/{image}/file").content == liar
    assert street.house.images.ref(image).disk_format == "raw"
    change = [{"op": "replace", "path": "/disk_format", "value": "qcow2"}]
    patch = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    assert street.mallory.ask("PATCH", f"/image/v2/images/{image}", change, headers=patch).status_code == 403
