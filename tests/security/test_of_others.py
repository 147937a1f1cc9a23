"""What belongs to somebody and is no server or image: key pairs, private flavors, quotas, usage, projects. Another
tenant is told the same whether it is there or not: 404, or 403 where the rule says that only an administrator may ask.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import falcon.testing
import pytest

from api_cell.http.call import Route, Rule
from api_cell.http.routes import ROUTES
from tests.security.conftest import Person, Street

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43
SPEC = "shares_class"

# What a path names: who owns it, and what another tenant is told of it where the route is for tenants.
OWNED = {"keypair": 404, "flavor": 404}
# Of these only the owner's own name is of use to a tenant: policy, not existence, is what is told.
OF_PROJECTS = {"/v2.1/os-quota-sets/{project}": 403, "/v2.1/os-simple-tenant-usage/{project}": 403}
# Servers and images are in test_front_door_advisories; what is below them goes with them. The others have no owner: a
# volume is looked for among the tenant's own servers' pools, and that is asked below.
ELSEWHERE = {"server", "image", "label", "key", "tag", "request", "volume", "name", "alias"}


@dataclass(frozen=True, kw_only=True)
class Things:
    """What ann has, and the private flavor that only her project may use."""

    street: Street
    keypair: str = "annkey"
    flavor: str = "private"
    project: str = "red"

    def place(self, route: Route, **instead: str) -> str:
        """The route's path to her things, or to others."""
        names = {"keypair": self.keypair, "flavor": self.flavor, "project": self.project, "key": SPEC, **instead}
        return re.sub(r"\{([a-z]+)\}", lambda found: names[found[1]], route.path)

    def state(self) -> Any:
        """All of it, as its owner and the administrator see it."""
        root, ann = self.street.root, self.street.ann
        return [
            ann.ask("GET", "/v2.1/os-keypairs").json,
            ann.ask("GET", f"/v2.1/flavors/{self.flavor}").json,
            root.ask("GET", f"/v2.1/flavors/{self.flavor}/os-flavor-access").json,
            root.ask("GET", f"/v2.1/flavors/{self.flavor}/os-extra_specs").json,
            root.ask("GET", f"/v2.1/os-quota-sets/{self.project}").json,
        ]


@pytest.fixture(scope="module")
def things(street: Street) -> Iterator[Things]:
    root, ann = street.root, street.ann
    flavor = {"name": "hers", "id": "private", "vcpus": 1, "ram": 512, "disk": 1, "os-flavor-access:is_public": False}
    done = [
        ann.ask("POST", "/v2.1/os-keypairs", {"keypair": {"name": "annkey", "public_key": KEY}}),
        root.ask("POST", "/v2.1/flavors", {"flavor": flavor}),
        root.ask("POST", "/v2.1/flavors/private/action", {"addTenantAccess": {"tenant": "red"}}),
        root.ask("POST", "/v2.1/flavors/private/os-extra_specs", {"extra_specs": {SPEC: "gold"}}),
        root.ask("PUT", "/v2.1/os-quota-sets/red", {"quota_set": {"cores": 77}}),
    ]
    assert [answer.status_code for answer in done] == [201, 200, 200, 200, 200], [answer.text for answer in done]
    yield Things(street=street)


_BODIES: dict[str, Any] = {
    "PUT /v2.1/flavors/{flavor}": {"flavor": {"description": "stolen"}},
    "POST /v2.1/flavors/{flavor}/os-extra_specs": {"extra_specs": {SPEC: "stolen"}},
    "PUT /v2.1/flavors/{flavor}/os-extra_specs/{key}": {SPEC: "stolen"},
    "PUT /v2.1/os-quota-sets/{project}": {"quota_set": {"cores": 1}},
}
_ARGUMENTS = {"addTenantAccess": {"tenant": "blue"}, "removeTenantAccess": {"tenant": "red"}}


def _asked(person: Person, route: Route, path: str) -> falcon.testing.Result:
    body = {route.action: _ARGUMENTS[route.action]} if route.action else _BODIES.get(f"{route.method} {route.path}")
    return person.ask(route.method, path, body)


def _names(route: Route) -> set[str]:
    return set(re.findall(r"\{([a-z]+)\}", route.path))


def test_every_name_in_a_path_is_some_ones_or_known_to_be_nobodys() -> None:
    named = set().union(*(_names(route) for route in ROUTES))
    assert named == {*OWNED, "project", *ELSEWHERE}


def _expected(route: Route) -> int:
    if route.rule is Rule.ADMIN:
        return 403
    for start, code in OF_PROJECTS.items():
        if route.path.startswith(start):
            return code
    return OWNED.get(next(iter(_names(route) & OWNED.keys()), ""), 404)


@pytest.mark.parametrize(
    "route",
    [route for route in ROUTES if _names(route) & {*OWNED, "project"}],
    ids=lambda route: f"{route.method} {route.path} {route.action}",
)
def test_what_is_anothers_is_told_of_as_what_never_was(things: Things, route: Route) -> None:
    before = things.state()
    hers = _asked(things.street.mallory, route, things.place(route))
    none = _asked(
        things.street.mallory, route, things.place(route, keypair="nokey0", flavor="nothere", project="neither")
    )
    assert hers.status_code == _expected(route), hers.text
    assert none.status_code == hers.status_code
    assert _without_names(hers.text) == _without_names(none.text)
    assert things.state() == before


def _without_names(text: str) -> str:
    return re.sub(r"annkey|nokey0|private|nothere|\bred\b|neither", "_", text)


@pytest.mark.parametrize(
    "route",
    [route for route in ROUTES if _names(route) & {*OWNED, "project"} and route.method == "GET"],
    ids=lambda route: route.path,
)
def test_it_is_there_for_its_owner_or_the_administrator(things: Things, route: Route) -> None:
    """Or the test above would find nothing where nothing is."""
    who = things.street.root if route.rule is Rule.ADMIN else things.street.ann
    assert _asked(who, route, things.place(route)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v2.1/os-keypairs?user_id=ann", None),
        ("GET", "/v2.1/os-keypairs/annkey?user_id=ann", None),
        ("DELETE", "/v2.1/os-keypairs/annkey?user_id=ann", None),
        ("POST", "/v2.1/os-keypairs", {"keypair": {"name": "mine", "user_id": "ann", "public_key": KEY}}),
        ("GET", "/v2.1/servers?all_tenants=1", None),
        ("GET", "/v2.1/os-simple-tenant-usage", None),
    ],
)
def test_nobody_but_an_administrator_asks_in_anothers_name(things: Things, method: str, path: str, body: Any) -> None:
    before = things.state()
    answer = things.street.mallory.ask(method, path, body)
    assert answer.status_code == 403, answer.text
    assert things.state() == before
    if method == "GET":
        assert things.street.root.ask(method, path, body).status_code == 200


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/v2.1/os-keypairs", "annkey"),
        ("/v2.1/flavors/detail", "private"),
        ("/v2.1/flavors/detail?is_public=false", "private"),
        ("/v2.1/flavors/detail?is_public=none", "private"),
        ("/v2.1/servers/detail?project_id=red", "ann's"),
        ("/v2.1/servers/detail?tenant_id=red", "ann's"),
        ("/v2.1/servers/detail?user_id=ann", "ann's"),
        ("/image/v2/images?owner=red", "ann's picture"),
        ("/image/v2/images?visibility=all", "ann's picture"),
        ("/v2.1/limits?tenant_id=red", "77"),
    ],
)
def test_no_list_and_no_filter_shows_what_is_anothers(things: Things, path: str, key: str) -> None:
    street = things.street
    street.ann.a_server(name="ann's")
    street.house.images.create(name="ann's picture", owner="red", disk_format="vhd", container_format="ovf")
    assert key not in street.mallory.ask("GET", path).text
    owner = street.root if "is_public" in path else street.ann
    assert key in owner.ask("GET", path).text


@pytest.mark.parametrize("kind", ["server", "deleted", "image", "keypair"])
def test_a_marker_does_not_tell_whether_anothers_thing_is_there(things: Things, kind: str) -> None:
    """Nor, by its place in an order of names, what it is called."""
    street = things.street
    hers = street.house.images.create(name="hers", owner="red") if kind == "image" else "annkey"
    path = "/image/v2/images" if kind == "image" else "/v2.1/os-keypairs"
    orders = [""]
    if kind in ("server", "deleted"):
        hers, path = street.ann.a_server(), "/v2.1/servers"
        orders = ["", "&sort_key=display_name", "&sort_key=display_name&sort_dir=asc", "&sort_key=vm_state"]
        if kind == "deleted":
            street.ann.ask("DELETE", f"/v2.1/servers/{hers}")
            street.house.daemon.step()
    none = hers[:-1] + ("0" if hers[-1] != "0" else "1")
    for order in orders:
        told = [street.mallory.ask("GET", f"{path}?marker={each}{order}") for each in (hers, none)]
        assert told[0].status_code == 400
        assert told[0].text.replace(hers, "_") == told[1].text.replace(none, "_")


def test_no_server_is_built_with_what_is_anothers(things: Things) -> None:
    street = things.street
    plain = {"name": "x", "imageRef": street.house.an_image(), "flavorRef": "1", "networks": "none"}
    for field, hers, none in (("key_name", "annkey", "nokey0"), ("flavorRef", "private", "nothere")):
        told = [
            street.mallory.ask("POST", "/v2.1/servers", {"server": {**plain, field: each}}) for each in (hers, none)
        ]
        assert [answer.status_code for answer in told] == [400, 400]
        assert _without_names(told[0].text) == _without_names(told[1].text)
        assert street.ann.ask("POST", "/v2.1/servers", {"server": {**plain, field: hers}}).status_code == 202
