"""Flavors, key pairs, quotas and zones over REST."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_cell.settings import Auth
from tests.support.api_house import ApiHouse, an_api_house
from tests.unit.api_cell.test_doors import USERS, basic

BLOB = (11).to_bytes(4, "big") + b"ssh-ed25519" + (32).to_bytes(4, "big") + bytes(32)
KEY = f"ssh-ed25519 {base64.b64encode(BLOB).decode()} ann@home"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[ApiHouse]:
    with an_api_house(tmp_path, auth=Auth.HTTP_BASIC, users=USERS) as house:
        yield house


def test_flavors_list_filter_and_page(house: ApiHouse) -> None:
    def names(query: str) -> list[str]:
        return [f["name"] for f in house.ask("GET", f"/v2.1/flavors/detail?{query}").json["flavors"]]

    assert names("") == ["m1.tiny", "m1.small", "m1.large"]
    assert names("minRam=1024") == ["m1.small", "m1.large"]
    assert names("minDisk=80") == ["m1.large"]
    first = house.ask("GET", "/v2.1/flavors?limit=2").json
    assert len(first["flavors"]) == 2 and "marker=2" in first["flavors_links"][0]["href"]
    assert names("limit=2&marker=2") == ["m1.large"]
    assert house.ask("GET", "/v2.1/flavors?marker=none").status_code == 400
    assert house.ask("GET", "/v2.1/flavors/m1.tiny").status_code == 404


def test_flavors_show_what_their_microversion_shows(house: ApiHouse) -> None:
    old = house.ask("GET", "/v2.1/flavors/2", version="2.54").json["flavor"]
    new = house.ask("GET", "/v2.1/flavors/2", version="2.61").json["flavor"]
    assert "description" not in old and "extra_specs" not in old
    assert new["extra_specs"] == {"class": "standard"} and new["description"] is None


def test_an_administrator_makes_and_removes_flavors(house: ApiHouse) -> None:
    body = {"flavor": {"name": "big", "vcpus": 8, "ram": 4096, "disk": 20, "id": "auto"}}
    made = house.ask("POST", "/v2.1/flavors", body)
    assert made.status_code == 200
    flavor = made.json["flavor"]["id"]
    assert house.ask("POST", "/v2.1/flavors", body).status_code == 409
    path = f"/v2.1/flavors/{flavor}/os-extra_specs"
    assert house.ask("POST", path, {"extra_specs": {"a": "1"}}).json == {"extra_specs": {"a": "1"}}
    assert house.ask("PUT", f"{path}/b", {"b": "2"}).json == {"b": "2"}
    assert house.ask("DELETE", f"{path}/a").status_code == 200
    assert house.ask("GET", path).json == {"extra_specs": {"b": "2"}}
    assert house.ask("DELETE", f"/v2.1/flavors/{flavor}").status_code == 202
    assert house.ask("GET", f"/v2.1/flavors/{flavor}").status_code == 404


def test_a_flavor_that_is_not_public_is_for_projects_with_access(guarded: ApiHouse) -> None:
    root, ann, bob = basic("root", "root-pw"), basic("ann", "ann-pw"), basic("bob", "bob-pw")
    body = {
        "flavor": {"name": "own", "vcpus": 1, "ram": 64, "disk": 1, "id": "own", "os-flavor-access:is_public": False}
    }
    assert guarded.ask("POST", "/v2.1/flavors", body, headers=root).status_code == 200
    path = "/v2.1/flavors/own"

    def act(action: str, flavor: str = path) -> tuple[int, list[str]]:
        answer = guarded.ask("POST", f"{flavor}/action", {action: {"tenant": "red"}}, headers=root)
        return answer.status_code, [each["tenant_id"] for each in answer.json.get("flavor_access", [])]

    def seen(headers: dict[str, str]) -> tuple[int, bool]:
        listed = guarded.ask("GET", "/v2.1/flavors", headers=headers).json["flavors"]
        return guarded.ask("GET", path, headers=headers).status_code, "own" in [flavor["id"] for flavor in listed]

    assert seen(ann) == (404, False)
    assert act("addTenantAccess") == (200, ["red"]) and act("addTenantAccess")[0] == 409
    assert seen(ann) == (200, True) and seen(bob) == (404, False)
    (access,) = guarded.ask("GET", f"{path}/os-flavor-access", headers=root).json["flavor_access"]
    assert access == {"flavor_id": "own", "tenant_id": "red"}
    image = guarded.an_image()
    wish = {"server": {"name": "web", "imageRef": image, "flavorRef": "own", "networks": "none"}}
    assert guarded.ask("POST", "/v2.1/servers", wish, version="2.61", headers=bob).status_code == 400
    assert guarded.ask("POST", "/v2.1/servers", wish, version="2.61", headers=ann).status_code == 202
    assert act("removeTenantAccess") == (200, []) and act("removeTenantAccess")[0] == 404
    assert seen(ann) == (404, False)
    assert guarded.ask("GET", "/v2.1/flavors/1/os-flavor-access", headers=root).status_code == 404
    assert act("addTenantAccess", "/v2.1/flavors/1")[0] == 409


@pytest.mark.parametrize("factor", [2, "2.0", 2.0])
def test_the_network_factor_of_a_flavor_is_shown_as_it_was_given(house: ApiHouse, factor: object) -> None:
    body = {"flavor": {"name": "fast", "vcpus": 1, "ram": 64, "disk": 1, "id": "f", "rxtx_factor": factor}}
    assert house.ask("POST", "/v2.1/flavors", body).json["flavor"]["rxtx_factor"] == 2.0
    body["flavor"] |= {"name": "none", "id": "g", "rxtx_factor": 0}
    assert house.ask("POST", "/v2.1/flavors", body).status_code == 400


def test_extensions_are_told_to_clients_that_still_ask(house: ApiHouse) -> None:
    every = house.ask("GET", "/v2.1/extensions").json["extensions"]
    one = house.ask("GET", "/v2.1/extensions/os-keypairs").json["extension"]
    assert one in every and one["alias"] == "os-keypairs"
    assert house.ask("GET", "/v2.1/extensions/os-networks").status_code == 404


def test_key_pairs_are_imported_listed_used_and_deleted(house: ApiHouse) -> None:
    made = house.ask("POST", "/v2.1/os-keypairs", {"keypair": {"name": "k", "public_key": KEY}}, version="2.2")
    assert made.status_code == 201 and len(made.json["keypair"]["fingerprint"].split(":")) == 16
    again = house.ask("POST", "/v2.1/os-keypairs", {"keypair": {"name": "k", "public_key": KEY}}, version="2.2")
    assert again.status_code == 409
    server = house.a_server(key_name="k")
    assert house.server(server)["key_name"] == "k"
    assert [k["keypair"]["name"] for k in house.ask("GET", "/v2.1/os-keypairs").json["keypairs"]] == ["k"]
    assert house.ask("DELETE", "/v2.1/os-keypairs/k", version="2.2").status_code == 204
    assert house.ask("GET", "/v2.1/os-keypairs/k").status_code == 404


def test_keys_that_are_none_are_refused(house: ApiHouse) -> None:
    for name in ("a/b", " a", "a@b", "", "x" * 256):
        body = {"keypair": {"name": name, "public_key": KEY}}
        assert house.ask("POST", "/v2.1/os-keypairs", body).status_code == 400
    for key in ("hello", "ssh-rsa !!!", f"ssh-rsa {base64.b64encode(BLOB).decode()}"):
        body = {"keypair": {"name": "k", "public_key": key}}
        answer = house.ask("POST", "/v2.1/os-keypairs", body)
        assert answer.status_code == 400 and "public_key" in answer.json["badRequest"]["message"]
    missing = house.ask("POST", "/v2.1/os-keypairs", {"keypair": {"name": "k"}})
    assert missing.status_code == 400 and "ssh-keygen" in missing.json["badRequest"]["message"]


def test_quotas_are_set_shown_and_forgotten(house: ApiHouse) -> None:
    path = "/v2.1/os-quota-sets/red"
    assert house.ask("PUT", path, {"quota_set": {"cores": 7, "ram": "-1"}}).status_code == 200
    shown = house.ask("GET", path, version="2.57").json["quota_set"]
    assert (shown["cores"], shown["ram"], shown["instances"]) == (7, -1, 1000)
    assert "fixed_ips" not in shown
    assert house.ask("PUT", path, {"quota_set": {"floating_ips": 7}}).status_code == 400
    assert house.ask("DELETE", path).status_code == 202
    assert house.ask("GET", path).json["quota_set"]["cores"] == 4000


def test_the_default_class_is_the_quota_of_projects_without_their_own(house: ApiHouse) -> None:
    path = "/v2.1/os-quota-class-sets/default"
    house.ask("PUT", "/v2.1/os-quota-sets/red", {"quota_set": {"ram": 512}})
    made = house.ask("PUT", path, {"quota_class_set": {"cores": 5}})
    assert made.status_code == 200 and made.json["quota_class_set"]["cores"] == 5
    assert house.ask("GET", path).json["quota_class_set"]["id"] == "default"
    assert house.ask("GET", "/v2.1/os-quota-sets/blue").json["quota_set"]["cores"] == 5
    assert house.ask("GET", "/v2.1/os-quota-sets/red").json["quota_set"]["cores"] == 4000
    assert house.ask("GET", "/v2.1/os-quota-sets/red/defaults").json["quota_set"]["cores"] == 5
    assert house.ask("PUT", path, {"quota_class_set": {"key_pairs": 1}}).status_code == 400
    assert house.ask("GET", "/v2.1/os-quota-class-sets/gold").status_code == 404


@pytest.mark.parametrize(
    ("version", "there", "gone"),
    [
        ("2.49", "fixed_ips", "server_groups"),
        ("2.50", "server_groups", "fixed_ips"),
        ("2.57", "cores", "injected_files"),
    ],
)
def test_a_quota_class_has_what_its_microversion_has(house: ApiHouse, version: str, there: str, gone: str) -> None:
    limits = house.ask("GET", "/v2.1/os-quota-class-sets/default", version=version).json["quota_class_set"]
    assert there in limits and gone not in limits


def test_limits_tell_how_many_files_a_server_may_be_given(house: ApiHouse) -> None:
    absolute = house.ask("GET", "/v2.1/limits").json["limits"]["absolute"]
    files = [{"path": f"f{n}", "contents": ""} for n in range(absolute["maxPersonality"] + 1)]
    body = {"server": {"name": "web", "imageRef": house.an_image(), "flavorRef": "1", "personality": files}}
    assert absolute["maxPersonalitySize"] == 10240
    assert house.ask("POST", "/v2.1/servers", body).status_code == 403


def test_there_is_a_default_zone(house: ApiHouse) -> None:
    (zone,) = house.ask("GET", "/v2.1/os-availability-zone").json["availabilityZoneInfo"]
    assert zone["zoneName"] == "nova"
