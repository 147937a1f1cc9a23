"""Types of the data model as functions: what came over the wire in, the value we keep out, or a refusal.

Kept values are the values a client of the SDK sees: integers as decimal text, dates as xmlrpc DateTime. XAPI answers a
wrong type with INTERNAL_ERROR and the text of its marshaller, not with FIELD_TYPE_ERROR (see the recordings).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from xmlrpc.client import Binary, DateTime

from xenapi_host.simulator.failure import internal

Value = Any
Coercion = Callable[[Value], Value]

EPOCH_TEXT = "19700101T00:00:00Z"
_DATE = re.compile(r"\d{4}-?\d\d-?\d\dT\d\d:\d\d:\d\d(\.\d+)?Z?\Z")
_DEEPEST = 100
_INT64 = range(-(2**63), 2**63)
_INTEGER = re.compile(r"(?P<sign>[-+]?)(?P<base>0[xXoObBuU])?(?P<digits>[0-9a-fA-F][0-9a-fA-F_]*)\Z")
_BASES = {"": 10, "0x": 16, "0o": 8, "0b": 2, "0u": 10}


def shown(value: Value, depth: int = 0) -> str:
    """A value as XAPI's marshaller prints it in a refusal; to a depth that no client means."""
    if depth > _DEEPEST:
        return "..."
    if isinstance(value, bool):
        return f"B({str(value).lower()})"
    if isinstance(value, int):
        return f"I({value})"
    if isinstance(value, float):
        return f"F({value:g})"
    if isinstance(value, list):
        return "[" + ";".join(shown(v, depth + 1) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ";".join(f"{k}:{shown(v, depth + 1)}" for k, v in value.items()) + "}"
    if value is None:
        return "N"
    if isinstance(value, DateTime):
        return f"D({value.value})"
    if isinstance(value, Binary):
        return f"B64({value.data.decode(errors='replace')})"
    return f"S({value})"


def text(value: Value) -> str:
    if type(value) is str:
        return value
    raise internal(f"Failure(\"Expected string, got '{shown(value)}'\")")


def boolean(value: Value) -> bool:
    if type(value) is bool:
        return value
    raise internal(f"Failure(\"Expected bool, got '{shown(value)}'\")")


def integer(value: Value) -> str:
    if type(value) is int:
        return _held(value)
    if type(value) is not str:
        raise internal(f"Failure(\"Expected int64, got '{shown(value)}'\")")
    found = _INTEGER.match(value)
    if found is None:
        raise internal('Failure("Int64.of_string")')
    sign, digits, base = found["sign"], found["digits"], _BASES[(found["base"] or "").lower()]
    try:
        number = int(digits.replace("_", ""), base)
    except ValueError:
        raise internal('Failure("Int64.of_string")') from None
    return _held(-number if sign == "-" else number)


def _held(number: int) -> str:
    """What 64 bits hold."""
    if number not in _INT64:
        raise internal('Failure("Int64.of_string")')
    return str(number)


def real(value: Value) -> float:
    if type(value) in (float, int):
        return float(value)
    if type(value) is not str:
        raise internal(f"Failure(\"Expected float, got '{shown(value)}'\")")
    try:
        return float(value)
    except ValueError:
        raise internal('Failure("float_of_string")') from None


def date(value: Value) -> DateTime:
    if isinstance(value, DateTime):
        return value
    if type(value) is str and _DATE.match(value):
        return DateTime(value.replace("-", ""))
    raise internal(f"Failure(\"Expected DateTime, got '{shown(value)}'\")")


def _set_of(element: Coercion) -> Coercion:
    def coerce(value: Value) -> list[Value]:
        if type(value) is not list:
            raise internal(f"Failure(\"Expecting Rpc.Enum, but found '{shown(value)}'\")")
        return [element(item) for item in value]

    return coerce


def _map_of(key: Coercion, value_of: Coercion) -> Coercion:
    def coerce(value: Value) -> dict[str, Value]:
        if type(value) is not dict:
            raise internal(f"Failure(\"Expecting Rpc.Dict, but found '{shown(value)}'\")")
        return {key(k): value_of(v) for k, v in value.items()}

    return coerce


def _one_of(values: list[str]) -> Coercion:
    known = {value.lower(): value for value in values}

    def coerce(value: Value) -> str:
        found = known.get(text(value).lower())
        if found is None:
            raise internal('Failure("Unknown tag/contents")')
        return found

    return coerce


def _record(value: Value) -> dict[str, Value]:
    if type(value) is not dict:
        raise internal('Failure("bad __structure")')
    return value


def _any(value: Value) -> Value:
    return value


_SCALARS: dict[str, Coercion] = {"string": text, "bool": boolean, "int": integer, "float": real, "datetime": date}


def coercion(kind: str, enums: dict[str, list[str]]) -> Coercion:
    """The coercion for one type of the model, such as `(string -> VDI ref) map`."""
    if kind in _SCALARS:
        return _SCALARS[kind]
    if kind.endswith(" ref"):
        return text
    if kind.endswith(" set"):
        return _set_of(coercion(kind.removesuffix(" set"), enums))
    if kind.endswith(" map"):
        key, _, value = kind.removesuffix(" map").strip("()").partition(" -> ")
        return _map_of(coercion(key, enums), coercion(value, enums))
    if kind.startswith("enum "):
        return _one_of(enums.get(kind.removeprefix("enum "), []))
    if kind.endswith(" record"):
        return _record
    return _any


def zero(kind: str) -> Value:
    """What a field of this type holds when nothing was ever said about it."""
    if kind.endswith(" set"):
        return []
    if kind.endswith(" map"):
        return {}
    if kind.endswith(" ref"):
        return "OpaqueRef:NULL"
    return {"bool": False, "int": "0", "float": 0.0, "datetime": DateTime(EPOCH_TEXT)}.get(kind, "")
