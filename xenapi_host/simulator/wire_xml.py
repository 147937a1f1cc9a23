"""XML-RPC as XAPI writes it: strings bare, integers as text, no white space between tags."""

from __future__ import annotations

from typing import Any
from xml.parsers.expat import ExpatError
from xmlrpc.client import DateTime, ExpatParser, Fault, ResponseError, Unmarshaller, loads

from xenapi_host.simulator.failure import Failure

_NOT_IN_XML = {chr(code): "?" for code in (*range(32), 0xFFFE, 0xFFFF) if chr(code) not in "\t\n\r"}
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", **_NOT_IN_XML})
# A body with a document type could name entities without end; no XenAPI client sends one.
_REFUSED = (b"<!DOCTYPE", b"<!ENTITY")


class Malformed(Exception):
    """A body that is no method call."""


def escaped(value: str) -> str:
    return value.translate(_ESCAPES)


def value_text(value: Any) -> str:
    """What stands between <value> and </value>."""
    kind = type(value)
    if kind is str:
        return escaped(value)
    if kind is bool:
        return f"<boolean>{int(value)}</boolean>"
    if kind is int:
        return f"<i4>{value}</i4>"
    if kind is float:
        return f"<double>{value:.15g}</double>"
    if kind is list:
        inner = "".join([f"<value>{value_text(item)}</value>" for item in value])
        return f"<array><data>{inner}</data></array>"
    if kind is dict:
        members = [
            f"<member><name>{escaped(name)}</name><value>{value_text(item)}</value></member>"
            for name, item in value.items()
        ]
        return f"<struct>{''.join(members)}</struct>"
    if isinstance(value, DateTime):
        return f"<dateTime.iso8601>{value.value}</dateTime.iso8601>"
    raise TypeError(f"{kind.__name__} cannot travel")


_HEAD = '<?xml version="1.0"?><methodResponse><params><param><value>'
_FOOT = "</value></param></params></methodResponse>"


def success(value: Any, *, bare: bool = False) -> bytes:
    if bare:
        return f"{_HEAD}{value_text(value)}{_FOOT}".encode()
    answer = (
        "<struct><member><name>Status</name><value>Success</value></member>"
        f"<member><name>Value</name><value>{value_text(value)}</value></member></struct>"
    )
    return f"{_HEAD}{answer}{_FOOT}".encode()


def failure(failed: Failure) -> bytes:
    answer = (
        "<struct><member><name>Status</name><value>Failure</value></member>"
        f"<member><name>ErrorDescription</name><value>{value_text(failed.details)}</value></member></struct>"
    )
    return f"{_HEAD}{answer}{_FOOT}".encode()


def _boolean(values: Unmarshaller, data: str) -> None:
    """XAPI reads 1 as true and whatever else as false."""
    values.append(data == "1")
    values._value = False


class _Values(Unmarshaller):
    dispatch = {**Unmarshaller.dispatch, "boolean": _boolean}


def _read(document: str) -> tuple[tuple[Any, ...], str | None]:
    """The first document there is, as XAPI reads it: what follows is left."""
    first, end, _ = document.partition("</methodCall>")
    values = _Values()
    parser = ExpatParser(values)
    parser.feed(first + end)
    parser.close()
    return values.close(), values.getmethodname()


def method_call(body: bytes) -> tuple[str, list[Any]]:
    """The method and its parameters, or Malformed."""
    if b"<params" not in body:
        raise Malformed('Xmlrpc.Parse_error("close_tag", "open_tag", _)')
    if any(mark in body[:4096] for mark in _REFUSED):
        raise Malformed("a document type is not accepted")
    try:
        params, name = _read(body.decode())
    except (ResponseError, Fault, ExpatError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise Malformed(str(error)) from error
    if not isinstance(name, str):
        raise Malformed("no method name")
    return name, list(params)


def value_from(document: bytes) -> Any:
    """The value of a document that is one <value>, or Malformed."""
    if any(mark in document for mark in _REFUSED):
        raise Malformed("a document type is not accepted")
    start = document.find(b"<value>")
    if start < 0 or document.lstrip()[:5] not in (b"<?xml", b"<valu"):
        raise Malformed("no value")
    wrapped = b"<params><param>" + document[start:] + b"</param></params>"
    try:
        values, _ = loads(wrapped.decode())
    except (ResponseError, Fault, ExpatError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise Malformed(str(error)) from error
    return values[0]


def method_call_text(name: str, params: list[Any]) -> bytes:
    """The call a plugin is started with."""
    inner = "".join(f"<param><value>{value_text(p)}</value></param>" for p in params)
    called = f"<methodName>{escaped(name)}</methodName><params>{inner}</params>"
    return f'<?xml version="1.0"?><methodCall>{called}</methodCall>'.encode()
