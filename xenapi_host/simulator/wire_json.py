"""JSON-RPC 1 and 2 as XAPI speaks them: integers are numbers here, so answers are typed by the model."""

from __future__ import annotations

import json
from typing import Any
from xmlrpc.client import DateTime

from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.faults import ASYNC
from xenapi_host.simulator.model import Message, model


class Malformed(Exception):
    """A body that is no request; its text is XAPI's."""


class Request:
    """One request, with what its answer needs."""

    __slots__ = ("identity", "method", "params", "second")

    def __init__(self, body: bytes) -> None:
        try:
            given = json.loads(body)
            if b"\\u" in body:  # half of a surrogate pair is no character, and could not be answered with
                json.dumps(given, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            text = body.decode(errors="replace")
            raise Malformed(f"Yojson.Json_error(\"Line 1, bytes 0-{len(body)}:\\nInvalid token '{text}'\")") from None
        if not isinstance(given, dict):
            raise _malformed("Invalid request body")
        self.second = "jsonrpc" in given
        if self.second and given["jsonrpc"] != "2.0":
            raise _malformed("Invalid field 'jsonrpc' in request body")
        if "method" not in given:
            raise _malformed("Required field method is missing")
        if "params" not in given:
            raise _malformed("Required field params is missing")
        if given.get("id") is None:
            raise _malformed("Invalid field 'id' in request body")
        if type(given["method"]) is not str:
            raise _malformed("Invalid field 'method' in request body")
        params = given["params"]
        if isinstance(params, dict) and self.second:
            params = [params]
        if not isinstance(params, list):
            raise _malformed("Invalid field 'params' in request body")
        self.method = given["method"]
        self.params: list[Any] = params
        self.identity = given["id"]

    def success(self, value: Any) -> bytes:
        shown = _typed(value, _result_kind(self.method))
        if self.second:
            return _text({"jsonrpc": "2.0", "result": shown, "id": self.identity})
        return _text({"result": shown, "error": None, "id": self.identity})

    def failure(self, failed: Failure) -> bytes:
        code, *data = failed.details
        if self.second:
            error = {"code": 1, "message": code, "data": data}
            return _text({"jsonrpc": "2.0", "error": error, "id": self.identity})
        return _text({"result": None, "error": failed.details, "id": self.identity})


def _malformed(text: str) -> Malformed:
    return Malformed(f'Jsonrpc.Malformed_method_request("{text}")')


def _text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _message(method: str) -> Message | None:
    class_name, _, short = method.partition(".")
    known = model().classes.get(class_name)
    return known.messages.get(short) if known is not None else None


def _result_kind(method: str) -> str:
    if method.startswith(ASYNC):
        return "task ref"
    class_name, _, short = method.partition(".")
    if short == "get_all_records_where":
        return f"({class_name} ref -> {class_name} record) map"
    message = _message(method)
    return message.result if message is not None else "string"


def _typed(value: Any, kind: str) -> Any:
    """The value as JSON: what the model calls an int becomes a number."""
    if kind == "int" and type(value) is str:
        return int(value)
    if isinstance(value, DateTime):
        return value.value
    if kind.endswith(" set") and type(value) is list:
        return [_typed(item, kind.removesuffix(" set")) for item in value]
    if kind.endswith(" map") and type(value) is dict:
        inner = kind.removesuffix(" map").strip("()").partition(" -> ")[2]
        return {key: _typed(item, inner) for key, item in value.items()}
    if kind.endswith(" record") and type(value) is dict:
        return _typed_record(value, kind.removesuffix(" record"))
    if kind == "an event batch":
        return {**value, "events": [_typed_event(event) for event in value["events"]]}
    if type(value) is dict:
        return {key: _typed(item, "") for key, item in value.items()}
    return [_typed(item, "") for item in value] if type(value) is list else value


def _typed_record(value: dict[str, Any], class_name: str) -> dict[str, Any]:
    if class_name == "event":
        return _typed_event(value)
    known = model().classes.get(class_name)
    if known is None:
        return value
    return {k: _typed(v, known.fields[k].kind) if k in known.fields else v for k, v in value.items()}


def _typed_event(event: dict[str, Any]) -> dict[str, Any]:
    shown = {**event, "id": int(event["id"])}
    class_name = model().lower.get(event["class"], "")
    if "snapshot" in event:
        shown["snapshot"] = _typed_record(event["snapshot"], class_name)
    return shown
