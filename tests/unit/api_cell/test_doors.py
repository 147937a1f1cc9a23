"""What holds for every request: versions, who may ask, what a body may be, how errors look, request ids."""

import base64
import os
import re
import uuid
from pathlib import Path

import pytest

from api_cell.http import versions
from api_cell.http.auth import hash_password, read_users
from api_cell.http.call import Route, Rule
from api_cell.http.routes import ROUTES
from api_cell.http.signing import ImageTokens, Purpose
from api_cell.settings import Auth, User
from cells.errors import BadInput
from cells.names import SECOND
from tests.support.api_house import ApiHouse, an_api_house


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def a_user(name: str, project: str, admin: bool = False) -> User:
    return User(name=name, project=project, secret=hash_password(f"{name}-pw", os.urandom(8)), admin=admin)


USERS = (a_user("ann", "red"), a_user("bob", "blue"), a_user("root", "ops", admin=True))


@pytest.fixture
def guarded(tmp_path: Path):
    with an_api_house(tmp_path, auth=Auth.HTTP_BASIC, users=USERS, image_secret=b"s" * 32) as house:
        yield house


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory):
    """One for the many requests that only ask whether they may: verifying a password is slow on purpose."""
    with an_api_house(
        tmp_path_factory.mktemp("shared"), auth=Auth.HTTP_BASIC, users=USERS, image_secret=b"s" * 32
    ) as house:
        yield house


@pytest.mark.parametrize("path", ["/v2.1", "/v2.1/"])
def test_the_version_document_has_what_clients_read(house: ApiHouse, path: str) -> None:
    version = house.ask("GET", path).json["version"]
    assert (version["id"], version["status"], version["version"], version["min_version"]) == (
        "v2.1",
        "CURRENT",
        "2.61",
        "2.1",
    )
    assert house.ask("GET", "/").json["versions"][0]["id"] == "v2.1"
    assert house.ask("GET", "/v3").json["version"]["id"].startswith("v3")
    assert house.ask("GET", "/image/versions").json["versions"][0]["id"].startswith("v2.")


@pytest.mark.parametrize(
    ("headers", "served"),
    [
        ({}, "2.1"),
        ({"OpenStack-API-Version": "compute 2.45"}, "2.45"),
        ({"OpenStack-API-Version": "image 2.3, compute 2.45"}, "2.45"),
        ({"X-OpenStack-Nova-API-Version": "2.30"}, "2.30"),
        ({"OpenStack-API-Version": "compute latest"}, "2.61"),
    ],
)
def test_answers_tell_their_microversion(house: ApiHouse, headers: dict[str, str], served: str) -> None:
    answer = house.ask("GET", "/v2.1/servers", headers=headers)
    assert answer.headers["OpenStack-API-Version"] == f"compute {served}"
    assert answer.headers["X-OpenStack-Nova-API-Version"] == served
    assert "OpenStack-API-Version" in answer.headers["Vary"]


@pytest.mark.parametrize(("asked", "code"), [("2.62", 406), ("3.1", 406), ("2.0", 406), ("two", 400), ("2.01", 406)])
def test_a_microversion_that_is_not_served_is_refused(house: ApiHouse, asked: str, code: int) -> None:
    answer = house.ask("GET", "/v2.1/servers", version=asked)
    assert answer.status_code == code
    assert asked in str(answer.json)


def test_the_highest_microversion_is_the_last_one_any_route_tells_apart(house: ApiHouse) -> None:
    assert max(route.since for route in ROUTES) <= versions.HIGHEST


# --- who may ask ---


def _filled(path: str) -> str:
    return re.sub(r"\{[a-z]+\}", str(uuid.UUID(int=7)), path)


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path} {r.action}")
def test_every_route_asks_who_comes_and_obeys_its_rule(shared: ApiHouse, route) -> None:
    body = {route.action: None} if route.action else {}
    headers = {"Content-Type": route.media[0]}

    version = f"2.{61 if route.until is None else route.until}"  # some routes end before the newest version

    def code(**more: str) -> int:
        return shared.ask(
            route.method, _filled(route.path), body, version=version, headers={**headers, **more}
        ).status_code

    if route.rule is Rule.OPEN:
        assert code() == 200
        return
    assert code() == 401
    assert code(**basic("ann", "wrong")) == 401
    token = shared.app.tokens.token_for(str(uuid.UUID(int=7)), Purpose.WRITE)
    assert (code(**{"X-Auth-Token": token}) == 403) == (route.rule is not Rule.IMAGE)
    if route.rule is Rule.ADMIN:
        assert code(**basic("ann", "ann-pw")) == 403
        assert code(**basic("root", "root-pw")) != 403
        return
    assert code(**basic("ann", "ann-pw")) in _told_a_tenant(route)


def _told_a_tenant(route: Route) -> tuple[int, ...]:
    """What a tenant is told who asks for things that are not there, with a body that may be too little."""
    if "{project}" in route.path and not route.path.startswith("/v3/"):
        return (403,)  # another project's quota and usage
    if "{" in route.path or route.path.endswith("/volumes/detail"):
        return (404,) if route.schema is None else (400, 404)
    return (200,) if route.method == "GET" else (201, 400)


def test_a_401_tells_how_to_log_in(guarded: ApiHouse) -> None:
    answer = guarded.ask("GET", "/v2.1/servers")
    assert answer.status_code == 401 and answer.headers["WWW-Authenticate"].startswith("Basic")
    assert answer.json["unauthorized"]["code"] == 401


def test_projects_do_not_see_each_other_and_an_administrator_sees_all(guarded: ApiHouse) -> None:
    ann, bob, root = basic("ann", "ann-pw"), basic("bob", "bob-pw"), basic("root", "root-pw")
    image = guarded.an_image()
    body = {"server": {"name": "web", "imageRef": image, "flavorRef": "1", "networks": "none"}}
    server = guarded.ask("POST", "/v2.1/servers", body, version="2.61", headers=ann).json["server"]["id"]
    path = f"/v2.1/servers/{server}"
    assert guarded.ask("GET", path, headers=ann).json["server"]["tenant_id"] == "red"
    assert guarded.ask("GET", path, headers=bob).status_code == 404
    assert guarded.ask("DELETE", path, headers=bob).status_code == 404
    assert guarded.ask("POST", f"{path}/action", {"os-stop": None}, headers=bob).status_code == 404
    assert guarded.ask("GET", "/v2.1/servers/detail", headers=bob).json["servers"] == []
    assert guarded.ask("GET", "/v2.1/servers/detail?all_tenants=1", headers=bob).status_code == 403
    assert guarded.ask("GET", "/v2.1/servers/detail?project_id=red", headers=bob).json["servers"] == []
    assert len(guarded.ask("GET", "/v2.1/servers/detail?all_tenants=1", headers=root).json["servers"]) == 1
    assert "OS-EXT-SRV-ATTR:host" not in guarded.ask("GET", path, headers=ann).json["server"]


def test_identity_headers_of_the_client_mean_nothing(guarded: ApiHouse) -> None:
    claims = {"X-User-Id": "root", "X-Project-Id": "red", "X-Roles": "admin", "X-Is-Admin-Project": "True"}
    assert guarded.ask("GET", "/v2.1/servers", headers=claims).status_code == 401
    as_bob = {**claims, **basic("bob", "bob-pw")}
    assert guarded.ask("GET", "/v2.1/servers?all_tenants=1", headers=as_bob).status_code == 403


def test_passwords_are_never_shown(guarded: ApiHouse) -> None:
    assert "scrypt" not in repr(guarded.app.api.settings)


def test_a_users_file_is_read_and_its_mistakes_are_named() -> None:
    bcrypted = "$2b$04$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
    users = read_users(f"# people\nann:{bcrypted}:red\nroot:scrypt$QQ==$QQ==:ops:admin\n")
    assert [(u.name, u.project, u.admin) for u in users] == [("ann", "red", False), ("root", "ops", True)]
    for text in (
        "ann:plain:red",
        "ann:$2b$x",
        "ann:$2b$x:red",
        "ann:scrypt$a:red",
        f"ann:{bcrypted}:red\nann:{bcrypted}:red",
        f"a:{bcrypted}:r:boss",
    ):
        with pytest.raises(BadInput, match="users file line"):
            read_users(text)


def test_a_bcrypt_password_logs_in(tmp_path: Path) -> None:
    # The secret of "U*U", from the test vectors of crypt_blowfish.
    user = User(name="u", project="p", secret="$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW")
    with an_api_house(tmp_path, auth=Auth.HTTP_BASIC, users=(user,)) as house:
        assert house.ask("GET", "/v2.1/servers", headers=basic("u", "U*U")).status_code == 200
        assert house.ask("GET", "/v2.1/servers", headers=basic("u", "U*V")).status_code == 401
        assert house.ask("GET", "/v2.1/servers", headers=basic("u", "x" * 100)).status_code == 401


# --- image tokens ---


def test_an_image_token_is_good_for_its_image_its_purpose_and_its_time_only(guarded: ApiHouse) -> None:
    one, other = guarded.an_image("one", visibility="private"), guarded.an_image("other", visibility="private")
    read = {"X-Auth-Token": guarded.app.tokens.token_for(one, Purpose.READ)}
    assert guarded.ask("GET", f"/image/v2/images/{one}/file", headers=read).content == b"bytes of one"
    assert guarded.ask("GET", f"/image/v2/images/{other}/file", headers=read).status_code == 404
    queued = guarded.images.create(name="q", owner="red", disk_format="vhd", container_format="ovf")
    put = {"Content-Type": "application/octet-stream"}
    path = f"/image/v2/images/{queued}/file"
    reader = {"X-Auth-Token": guarded.app.tokens.token_for(queued, Purpose.READ), **put}
    writer = {"X-Auth-Token": guarded.app.tokens.token_for(queued, Purpose.WRITE), **put}
    assert guarded.ask("PUT", path, raw=b"data", headers=reader).status_code == 404
    assert guarded.ask("PUT", path, raw=b"data", headers=writer).status_code == 204
    assert guarded.images.need(queued).size == 4


def test_a_token_expires_and_cannot_be_altered() -> None:
    now = [1000 * SECOND]
    tokens = ImageTokens(b"secret", lambda: now[0], lifetime=60)
    token = tokens.token_for("abc", Purpose.READ)
    assert tokens.claim(token) == ("abc", Purpose.READ)
    assert tokens.claim(token.replace("read", "write")) is None
    assert tokens.claim(token.replace("abc", "abd")) is None
    assert ImageTokens(b"other", lambda: now[0], lifetime=60).claim(token) is None
    now[0] += 60 * SECOND
    assert tokens.claim(token) is None
    assert ImageTokens(b"", lambda: now[0], lifetime=60).token_for("abc", Purpose.READ) == ""


# --- bodies and errors ---


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "UTF-8"),
        (b'{"server": 1, "server": 2}', "twice"),
        (b'{"server": NaN}', "NaN"),
        (b'{"server": Infinity}', "Infinity"),
        (b'{"server": ' + b"9" * 5000 + b"}", "too large"),
        (b'{"server": ' + b"[" * 50 + b"]" * 50 + b"}", "levels"),
        (b'{"server": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "levels"),
        (b'{"server": "\\ud800"}', "surrogate"),
        (b"[]", "object"),
    ],
)
def test_broken_bodies_are_refused_in_words(house: ApiHouse, raw: bytes, words: str) -> None:
    answer = house.ask("POST", "/v2.1/servers", raw=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert words in answer.json["badRequest"]["message"]


def test_a_body_over_the_limit_is_413(house: ApiHouse) -> None:
    raw = b'{"server": "' + b"x" * 200_000 + b'"}'
    answer = house.ask("POST", "/v2.1/servers", raw=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413 and answer.json["overLimit"]["code"] == 413
    assert "Retry-After" in answer.headers


def test_another_media_type_is_415(house: ApiHouse) -> None:
    answer = house.ask("POST", "/v2.1/servers", raw=b"<server/>", headers={"Content-Type": "application/xml"})
    assert answer.status_code == 415 and "application/json" in answer.json["badMediaType"]["message"]


def test_unknown_paths_methods_and_actions_have_openstack_errors(house: ApiHouse) -> None:
    assert house.ask("GET", "/v2.1/nothing").json["itemNotFound"]["code"] == 404
    wrong = house.ask("DELETE", "/v2.1/servers")
    assert wrong.json["badMethod"]["code"] == 405 and "GET" in wrong.headers["Allow"]
    server = house.a_server()
    unknown = house.act(server, "dance")
    assert unknown.status_code == 400 and "os-stop" in unknown.json["badRequest"]["message"]
    assert house.act(server, "shelve").status_code == 501
    two = house.ask("POST", f"/v2.1/servers/{server}/action", {"os-stop": None, "os-start": None})
    assert two.status_code == 400


def test_an_error_of_ours_shows_nothing_of_the_inside(house: ApiHouse, caplog: pytest.LogCaptureFixture) -> None:
    house.store.close()
    house.images.get = None  # type: ignore[method-assign,assignment]
    body = {"server": {"name": "web", "imageRef": "x", "flavorRef": "1", "networks": "none"}}
    answer = house.ask("POST", "/v2.1/servers", body, version="2.61")
    assert answer.status_code == 500
    fault = answer.json["computeFault"]
    assert answer.headers["X-Openstack-Request-Id"] in fault["message"]
    assert "NoneType" not in answer.text and "NoneType" in caplog.text


def test_request_ids_come_back_on_answers_and_errors(house: ApiHouse) -> None:
    mine = f"req-{uuid.uuid4()}"
    answer = house.ask("GET", "/v2.1/servers/none", headers={"X-Openstack-Request-Id": mine})
    assert answer.status_code == 404 and answer.headers["X-Openstack-Request-Id"] == mine
    odd = house.ask("GET", "/v2.1/servers", headers={"X-Openstack-Request-Id": "anything"})
    assert odd.headers["X-Openstack-Request-Id"].startswith("req-")


def test_probes_and_metrics_answer_operators(house: ApiHouse) -> None:
    assert house.ask("GET", "/healthz").text == "ok\n"
    assert house.ask("GET", "/readyz").text == "ready\n"
    house.ask("GET", f"/v2.1/servers/{uuid.uuid4()}")
    page = house.ask("GET", "/metrics").text
    assert 'celltree_api_requests_total{code="404",method="GET",path="/v2.1/servers/{server}"} 1.0' in page


@pytest.mark.parametrize(
    "query", ["limit=-1", "limit=x", "tags=a", "sort_key=spec", "sort_dir=up", "changes-since=soon", "name=%ff"]
)
def test_queries_that_make_no_sense_are_400(house: ApiHouse, query: str) -> None:
    answer = house.ask("GET", f"/v2.1/servers?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json["badRequest"]["message"]
