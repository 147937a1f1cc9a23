"""The production shape's logins: a real Keystone, openstackclient with a password, tokens of all sorts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from api_cell.settings import Auth
from api_cell.settings import Keystone as KeystoneSettings
from tests.clients.programs import Door
from tests.support.api_house import ApiHouse, an_api_house, served
from tests.support.keystone import Keystone, a_keystone

# keystonemiddleware stands on WebOb, which imports cgi until Python has it no more.
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore:'cgi' is deprecated:DeprecationWarning")]

PASSWORD = "a-password"
ROLES = {"ann": "member", "ray": "reader", "mallory": "member", "root": "admin"}
PROJECTS = {"ann": "red", "ray": "red", "mallory": "blue", "root": "red"}


@dataclass(frozen=True, kw_only=True)
class Region:
    """A front door that is in a Keystone's catalog."""

    house: ApiHouse
    keystone: Keystone
    port: int

    def door(self, user: str) -> Door:
        login = {"user": user, "password": PASSWORD, "project": PROJECTS[user]}
        return Door(port=self.port, keystone=self.keystone.url, **login)

    def token(self, user: str) -> str:
        return self.keystone.login(user, PASSWORD, PROJECTS[user])

    def code(self, method: str, path: str, token: str, **headers: str) -> int:
        headers = {"X-Auth-Token": token, **headers} if token else headers
        return self.house.ask(method, path, headers=headers).status_code


@pytest.fixture
def region(tmp_path: Path) -> Iterator[Region]:
    with a_keystone(tmp_path) as keystone:
        _people(keystone)
        settings = KeystoneSettings(url=keystone.url, remember=0)
        door = an_api_house(
            tmp_path, auth=Auth.KEYSTONE, keystone=settings, keystone_password=PASSWORD, image_secret=b"s" * 32
        )
        with door as house, served(house) as server:
            house.an_image("demo-linux")
            for kind, path in (("compute", "v2.1"), ("image", "image")):
                service = keystone.make("service", type=kind, name=kind)
                url = f"http://127.0.0.1:{server.port}/{path}"
                keystone.make("endpoint", service_id=service, interface="public", url=url, region_id="RegionOne")
            yield Region(house=house, keystone=keystone, port=server.port)


def _people(keystone: Keystone) -> None:
    projects = {name: keystone.make("project", name=name, domain_id="default") for name in set(PROJECTS.values())}
    projects["service"] = keystone.make("project", name="service", domain_id="default")
    for user, role in {**ROLES, "celltree": "service"}.items():
        made = keystone.make("user", name=user, password=PASSWORD, domain_id="default")
        keystone.grant(made, role, projects[PROJECTS.get(user, "service")])


def test_keystone_says_who_comes_and_a_token_that_was_revoked_is_nobodys_ossa_2016_005(region: Region) -> None:
    _ann_walks(region)
    _others_stay_outside(region)
    _tokens_end(region)


def _ann_walks(region: Region) -> None:
    ann = region.door("ann")
    create = ("server", "create", "--image", "demo-linux", "--flavor", "m1.tiny", "--nic", "none", "--wait", "web")
    made = ann.ask(*create)
    assert (made["status"], made["project_id"]) == ("ACTIVE", region.keystone.project_named("red"))
    assert [server["Name"] for server in ann.ask("server", "list")] == ["web"]
    used = ann.ask("usage", "show", "--start", "2000-01-01", "--end", "2100-01-01")
    assert [server["name"] for server in used["Servers"]] == ["web"] and used["RAM MB-Hours"] > 0
    assert "Policy doesn't allow" in ann.run("flavor", "create", "--vcpus", "1", "mine", fails=True)
    assert region.door("mallory").ask("server", "list") == []


def _others_stay_outside(region: Region) -> None:
    (server,) = region.house.ask("GET", "/v2.1/servers", headers={"X-Auth-Token": region.token("ann")}).json["servers"]
    path = f"/v2.1/servers/{server['id']}"
    forged = {"X-Roles": "admin", "X-Project-Id": region.keystone.project_named("red"), "X-User-Id": "root"}
    forged |= {"X-Identity-Status": "Confirmed"}
    assert region.code("GET", path, "") == 401
    assert region.code("GET", path, "", **forged) == 401
    assert region.code("GET", path, "no-token-at-all", **forged) == 401
    mallory, ray = region.token("mallory"), region.token("ray")
    assert region.code("GET", path, mallory, **forged) == 404
    assert region.code("GET", "/v2.1/servers?all_tenants=1", mallory, **forged) == 403
    assert region.code("GET", path, ray) == 200
    assert region.code("DELETE", path, ray) == 403
    unscoped = region.keystone.login("ann", PASSWORD, None)
    assert region.code("GET", path, unscoped) == 403
    assert region.code("GET", "/v2.1/servers?all_tenants=1", region.token("root")) == 200
    assert region.code("GET", "/v2.1", "") == 200
    told = region.house.ask("GET", path)
    assert told.headers["WWW-Authenticate"] == f'Keystone uri="{region.keystone.url}"'


def _tokens_end(region: Region) -> None:
    """OSSA-2016-005: a token that was revoked is no token."""
    token = region.token("ann")
    assert region.code("GET", "/v2.1/servers", token) == 200
    region.keystone.revoke(token)
    assert region.code("GET", "/v2.1/servers", token) == 401
