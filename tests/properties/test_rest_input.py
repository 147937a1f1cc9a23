"""Whatever a client sends, the front door answers in words of its own: never a 500, and a no changes nothing."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api_cell.http.routes import ROUTES
from tests.support.api_house import ApiHouse, an_api_house

FINE = {200, 201, 202, 204, 400, 403, 404, 409, 413, 501}
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

text = st.text(max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
GOOD = {
    "name": "web",
    "flavorRef": "1",
    "networks": "none",
    "metadata": {"a": "b"},
    "min_count": 1,
    "max_count": 1,
    "block_device_mapping_v2": [{"source_type": "image", "destination_type": "local", "boot_index": 0}],
    "key_name": "k",
    "config_drive": True,
    "availability_zone": "nova",
    "tags": ["x"],
    "description": "d",
    "user_data": "x",
    "security_groups": [{"name": "default"}],
    "OS-DCF:diskConfig": "MANUAL",
}
BODIES = {
    "reboot": {"type": "SOFT"},
    "resize": {"flavorRef": "2"},
    "createImage": {"name": "n", "metadata": {}},
    "flavor": {"name": "n", "vcpus": 1, "ram": 1, "disk": 1, "id": "i", "swap": 0, "rxtx_factor": 1.0},
    "keypair": {"name": "k", "public_key": "ssh-rsa AAAA", "type": "ssh"},
    "quota_set": {"instances": 1, "cores": -1},
    "extra_specs": {"a": "b"},
    "metadata": {"a": "b"},
    "meta": {"key": "b"},
    "tags": ["x"],
    "volumeAttachment": {"volumeId": "6f1c1e3e-0000-4000-8000-00000000abcd", "device": "/dev/xvdi"},
    "celltree-setShares": {"quota:vcpu_weight": "64", "quota:vcpu_cap": "50"},
    "celltree-createHostSnapshot": {"name": "n"},
}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ApiHouse]:
    with an_api_house(tmp_path) as house:
        # What a leaf is asked is answered while the request waits.
        house.app.api = replace(house.app.api, pause=lambda seconds: house.daemon.step())
        yield house


@QUICK
@given(data=st.data())
def test_a_create_request_with_a_field_gone_wrong_is_refused_or_done(house: ApiHouse, data: st.DataObject) -> None:
    images = house.images.find("demo")
    body: dict[str, Any] = {**GOOD, "imageRef": images[0].id if images else house.an_image()}
    for name in data.draw(st.lists(st.sampled_from(sorted(body)), max_size=3)):
        body[name] = data.draw(values)
    for name in data.draw(st.lists(st.sampled_from(sorted(body)), max_size=12)):
        body.pop(name, None)
    whole = {"server": body} | data.draw(st.sampled_from([{}, {"os:scheduler_hints": {"target_cell": "a"}}]))
    if data.draw(st.booleans()) and "os:scheduler_hints" in whole:
        whole["os:scheduler_hints"] = data.draw(values)
    version = f"2.{data.draw(st.integers(1, 61))}"
    answer = house.ask("POST", "/v2.1/servers", whole, version=version)
    assert answer.status_code in FINE, answer.text


@QUICK
@given(data=st.data())
def test_no_body_makes_any_route_fail(house: ApiHouse, data: st.DataObject) -> None:
    route = data.draw(st.sampled_from([route for route in ROUTES if route.schema is not None]))
    known = house.ask("GET", "/v2.1/servers").json["servers"]
    server = known[0]["id"] if known else house.a_server()
    (image, *_) = house.images.find("demo")
    path = route.path.format(
        server=server,
        flavor="1",
        key="key",
        project="p",
        image=image.id,
        keypair="k",
        request="r",
        label="l",
        tag="t",
        name="default",
    )
    key = route.action or data.draw(st.sampled_from([*BODIES, "server"]))
    inner: Any = data.draw(st.sampled_from([BODIES.get(key, {}), None]) | values)
    if isinstance(inner, dict) and inner and data.draw(st.booleans()):
        inner = {**inner, data.draw(st.sampled_from(sorted(inner))): data.draw(values)}
    body = data.draw(st.sampled_from([{key: inner}, inner, [{"op": "add", "path": "/x", "value": inner}]]))
    answer = house.ask(route.method, path, body, version="2.61", headers={"Content-Type": route.media[0]})
    assert answer.status_code in FINE, (route.method, path, body, answer.text)
    house.daemon.step()


QUERIES = ("name", "status", "limit", "marker", "sort_key", "sort_dir", "changes-since", "image", "flavor", "deleted")


@QUICK
@given(data=st.data())
def test_no_query_makes_any_list_fail(house: ApiHouse, data: st.DataObject) -> None:
    listed = ("servers", "servers/detail", "flavors/detail", "os-keypairs", "limits", "os-quota-sets/p")
    paths = [f"/v2.1/{path}" for path in listed] + ["/image/v2/images"]
    names = (*QUERIES, "all_tenants", "uuid", "minDisk", "is_public", "id", "sort", "visibility", "os_hidden")
    query = data.draw(st.lists(st.tuples(st.sampled_from(names), text | st.sampled_from(["1", "in:a,b"])), max_size=4))
    path = data.draw(st.sampled_from(paths))
    asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in query)
    answer = house.ask("GET", f"{path}?{asked}", version=f"2.{data.draw(st.integers(1, 61))}")
    assert answer.status_code in FINE, (path, query, answer.text)
