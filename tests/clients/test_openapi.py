"""Every operation of the OpenAPI document, asked by schemathesis with what the document allows and with what it does
not: no answer is a failure of ours, and each is of the code, the media type and the shape that the document says."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi import checks

from api_cell.http import openapi
from api_cell.http.routes import ROUTES
from tests.support.api_house import ApiHouse, an_api_house

CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
# Ends of ranges in which answers look alike: before 2.2, 2.37, 2.48, and the newest.
VERSIONS = (1, 36, 47, 61)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0TJGBzFvzPZgyLfCJWnXrl0CsYHhMFNZBZzSAkPXYZ"
_positive, _negative = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE

schemathesis.serializer.alias([f"application/openstack-images-v2.{n}-json-patch" for n in (0, 1)], "application/json")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiHouse]:
    with an_api_house(tmp_path_factory.mktemp("openapi")) as house:
        # Wishes have their effect at once, and nobody waits.
        house.app.api = replace(house.app.api, poke=lambda: house.daemon.step() and None, pause=lambda _: None)
        yield house


def _whole(app: Any) -> Any:
    """The app, answering in one piece: schemathesis does not close what it has read."""

    def whole(environ: Any, start_response: Any) -> list[bytes]:
        body = app(environ, start_response)
        try:
            return [b"".join(body)]
        finally:
            getattr(body, "close", lambda: None)()

    return whole


def _known(house: ApiHouse, name: str) -> str:
    """What a path calls so, and is there; made anew where an earlier request has removed it."""
    match name:
        case "image":
            images = house.images.find("demo")
            return images[0].id if images else house.an_image()
        case "server":
            found = house.ask("GET", "/v2.1/servers?limit=1").json["servers"]
            if found:
                return str(found[0]["id"])
            house.ask("DELETE", "/v2.1/os-quota-sets/local")  # an earlier request may have set it to anything
            return house.a_server(imageRef=_known(house, "image"), metadata={"k": "v"})
        case "request":
            path = f"/v2.1/servers/{_known(house, 'server')}/os-instance-actions"
            return str(house.ask("GET", path).json["instanceActions"][0]["request_id"])
        case "flavor":
            flavor = {"name": "two", "id": "2", "vcpus": 1, "ram": 1, "disk": 1}
            if house.ask("GET", "/v2.1/flavors/2").status_code == 404:
                house.ask("POST", "/v2.1/flavors", {"flavor": flavor})
                house.ask("POST", "/v2.1/flavors/2/os-extra_specs", {"extra_specs": {"k": "v"}})
            return "2"
        case "keypair":
            if not house.ask("GET", "/v2.1/os-keypairs").json["keypairs"]:
                house.ask("POST", "/v2.1/os-keypairs", {"keypair": {"name": "key", "public_key": KEY}})
            return "key"
    return {"key": "k", "project": "local", "label": "public", "tag": "t"}.get(name, str(UUID(int=7)))


def _operations() -> list[Any]:
    cases = []
    for version in VERSIONS:
        document = schemathesis.openapi.from_dict(openapi.document(ROUTES, version))
        for found in document.get_all_operations():
            operation = found.ok()
            # Which microversion is asked only tells on the Compute API.
            if operation.path.startswith("/v2.1/") or version == VERSIONS[-1]:
                cases.append(pytest.param(operation, version, id=f"{operation.label} 2.{version}"))
    return cases


@pytest.mark.parametrize(("operation", "version"), _operations())
def test_operation_answers_as_the_document_says(house: ApiHouse, operation: Any, version: int) -> None:
    asked = operation.as_strategy(_positive) | operation.as_strategy(_negative)
    examples = 25 if version == VERSIONS[-1] else 6

    @settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=asked, there=st.integers(0, 3))
    def ask(case: Any, there: int) -> None:
        if there:  # Most requests are about something that is there.
            case.path_parameters = {name: _known(house, name) for name in case.path_parameters or {}}
        # Another microversion would be another document's business.
        case.headers = {"OpenStack-API-Version": f"compute 2.{version}"}
        answer = case.call(app=_whole(house.app), base_url="http://localhost")
        # Of the actions, which share a path, some answer with a body and some without.
        case.validate_response(answer, checks=CHECKS if answer.content else [checks.status_code_conformance])

    ask()
