"""Every answer of a front door is what its route says: code and body, at the microversion it was given at."""

import json
import re
from functools import cache
from typing import Any

import falcon.testing
import jsonschema

from api_cell.http.call import Route
from api_cell.http.routes import ROUTES


@cache
def _patterns() -> list[tuple[str, "re.Pattern[str]", Route]]:
    """Paths with fewer names in them first: /servers/detail is no server."""
    ordered = sorted(ROUTES, key=lambda route: route.path.count("{"))
    return [(each.method, re.compile(re.sub(r"\{[a-z]+\}", "[^/]+", each.path) + "/?"), each) for each in ordered]


def _route_of(method: str, path: str, action: str, version: int) -> Route | None:
    for wanted, pattern, route in _patterns():
        if wanted == method and pattern.fullmatch(path) and route.action == action and route.serves(version):
            return route
    return None


_validators: dict[tuple[str, str, str, int, int], Any] = {}


def _check(route: Route, version: int, code: int, value: Any) -> None:
    key = (route.method, route.path, route.action, version, code)
    if key not in _validators:
        _validators[key] = jsonschema.Draft202012Validator(route.gives_at(version)[code])
    _validators[key].validate(value)


def refuse_undeclared(method: str, path: str, body: Any, answer: falcon.testing.Result) -> None:
    """AssertionError for an answer of a route that the table of routes does not have like this."""
    if answer.status_code >= 400:
        _refuse_odd_fault(answer)
        return
    path = path.partition("?")[0]
    version = int(answer.headers.get("X-OpenStack-Nova-API-Version", "2.1").partition(".")[2])
    is_action = path.endswith("/action") and isinstance(body, dict) and len(body) == 1
    route = _route_of(method, path, next(iter(body)) if is_action else "", version)
    assert route is not None, f"{method} {path} is answered, and no route is there"
    gives = route.gives_at(version)
    assert answer.status_code in gives, f"{method} {path} answers {answer.status_code}, declared: {sorted(gives)}"
    schema = gives[answer.status_code]
    if schema is None:
        assert not answer.content, f"{method} {path} answers {answer.status_code} with a body"
    elif "contentMediaType" not in schema:
        _check(route, version, answer.status_code, json.loads(answer.content))


def _refuse_odd_fault(answer: falcon.testing.Result) -> None:
    if answer.headers.get("content-type", "").startswith("text/plain"):
        return  # A probe.
    ((_, inner),) = answer.json.items()
    assert set(inner) == {"code", "message"} and inner["code"] == answer.status_code and inner["message"], inner
