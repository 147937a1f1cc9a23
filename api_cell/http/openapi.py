"""The API as an OpenAPI 3.1 document, made from the table of routes, so that it cannot say anything else. One document
is of one microversion; what each route asks and answers depends on it."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from api_cell.http import versions
from api_cell.http.call import Route, Rule, Schema

# What any route may say no with. Bodies are alike: one key, which tells the kind of no.
_REFUSALS: Mapping[int, tuple[str, str]] = {
    400: ("badRequest", "The request is wrong; the message names the field and the remedy."),
    401: ("unauthorized", "Who asks is not known."),
    403: ("forbidden", "Who asks may not, or the quota is used up."),
    404: ("itemNotFound", "No such thing, or not yours: the same answer for both."),
    406: ("computeFault", "The microversion is not served."),
    409: ("conflictingRequest", "The state of the thing does not allow it."),
    413: ("overLimit", "More than a request may carry."),
    415: ("badMediaType", "The body is of a kind that is not read here."),
    429: ("overLimit", "Too many requests for now; Retry-After tells when to come again."),
    503: ("serviceUnavailable", "It cannot be done at the moment; Retry-After tells when to try again."),
}
_RULES: Mapping[Rule, str] = {
    Rule.OPEN: "Open to anybody.",
    Rule.TENANT: "For any user, and what is of its project.",
    Rule.ADMIN: "For administrators.",
    Rule.IMAGE: "For any user, and for a leaf with a token for this image.",
}


def document(routes: Iterable[Route], version: int) -> dict[str, Any]:
    """Everything that is served at a microversion, without the actions that are answered with 501."""
    paths: dict[str, dict[str, Any]] = {}
    grouped: dict[tuple[str, str], list[Route]] = {}
    for route in routes:
        if route.serves(version) and route.gives_at(version):
            grouped.setdefault((route.path, route.method.lower()), []).append(route)
    for (path, method), alike in grouped.items():
        paths.setdefault(path, {})[method] = _operation(path, method, alike, version)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "celltree",
            "version": f"2.{version}",
            "description": f"OpenStack Compute v2.1 at microversion 2.{version}, and Glance v2 for a folder of images.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "parameters": {"Microversion": _microversion(version)},
            "responses": {f"Refused{code}": _refusal(key, text) for code, (key, text) in _REFUSALS.items()},
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
            },
        },
    }


def _operation(path: str, method: str, alike: list[Route], version: int) -> dict[str, Any]:
    first = alike[0]
    gives: dict[int, list[Schema | None]] = {}
    for route in alike:
        for code, schema in route.gives_at(version).items():
            gives.setdefault(code, []).append(schema)
    operation: dict[str, Any] = {
        "operationId": _id_of(path, method),
        "description": " ".join(_described(route) for route in alike),
        "parameters": _parameters(first),
        "responses": {
            **{str(code): _response(first, schemas) for code, schemas in sorted(gives.items())},
            **{str(code): {"$ref": f"#/components/responses/Refused{code}"} for code in _REFUSALS},
        },
        "security": [] if first.rule is Rule.OPEN else [{}, {"basic": []}, {"token": []}],
    }
    body = _body(alike, version)
    if body is not None:
        operation["requestBody"] = body
    return operation


def _id_of(path: str, method: str) -> str:
    return "_".join([method, *re.findall(r"[A-Za-z0-9]+", path)])


def _described(route: Route) -> str:
    name = f"`{route.action}`: " if route.action else ""
    since = f" From 2.{route.since} on." if route.since > 1 else ""
    until = f" Up to 2.{route.until}." if route.until is not None else ""
    return f"{name}{_RULES[route.rule]}{since}{until}"


def _parameters(route: Route) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"{([a-z]+)}", route.path)
    ]
    found += [{"name": name, "in": "query", "schema": schema} for name, schema in route.query.items()]
    if versions.versioned(route.path):
        found.append({"$ref": "#/components/parameters/Microversion"})
    return found


def _microversion(version: int) -> dict[str, Any]:
    return {
        "name": versions.NAMES[0],
        "in": "header",
        "required": version != versions.LOWEST,
        "schema": {"const": f"compute 2.{version}"},
        "description": "The microversion asked for. Everything in this document is as it is there.",
    }


def _body(alike: list[Route], version: int) -> dict[str, Any] | None:
    first = alike[0]
    if first.streams:
        return {"required": True, "content": {media: {} for media in first.media}}
    schemas = [schema for route in alike if (schema := route.schema_at(version)) is not None]
    if not schemas:
        return None
    return {"required": True, "content": {media: {"schema": _one_of(schemas)} for media in first.media}}


def _one_of(schemas: list[Schema]) -> Schema:
    return schemas[0] if len(schemas) == 1 else {"oneOf": schemas}


def _response(route: Route, schemas: list[Schema | None]) -> dict[str, Any]:
    """What is answered with one code, by whichever action; some answer with it and no body."""
    bodies = [schema for schema in schemas if schema is not None]
    if not bodies:
        return {"description": "Done."}
    media = bodies[0].get("contentMediaType", "application/json")
    # Several actions may answer alike, so more than one of the schemas may fit.
    schema = bodies[0] if len(bodies) == 1 else {"anyOf": bodies}
    return {"description": "Done.", "content": {media: {"schema": schema}}}


def _refusal(key: str, text: str) -> dict[str, Any]:
    inner = {
        "type": "object",
        "properties": {"code": {"type": "integer"}, "message": {"type": "string", "minLength": 1}},
        "required": ["code", "message"],
        "additionalProperties": False,
    }
    schema = {"type": "object", "properties": {key: inner}, "required": [key], "additionalProperties": False}
    return {"description": text, "content": {"application/json": {"schema": schema}}}
