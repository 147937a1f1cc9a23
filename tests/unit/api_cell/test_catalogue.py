"""Flavors, key pairs, quotas and zones over REST."""

import base64

from tests.support.api_house import ApiHouse

BLOB = (11).to_bytes(4, "big") + b"ssh-ed25519" + (32).to_bytes(4, "big") + bytes(32)
KEY = f"ssh-ed25519 {base64.b64encode(BLOB).decode()} ann@home"


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


def test_there_is_a_default_zone(house: ApiHouse) -> None:
    (zone,) = house.ask("GET", "/v2.1/os-availability-zone").json["availabilityZoneInfo"]
    assert zone["zoneName"] == "nova"
