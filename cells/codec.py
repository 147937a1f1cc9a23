"""The wire format: bundles, packets, records and bodies to bytes and back. The only place that knows it.

Frames (bundles and packets) are msgpack arrays, so that a relay reads a header without touching what it carries;
bodies are msgpack maps checked against their dataclass while they are decoded: a wrong type, a missing field or a
garbage byte is a BadInput, an unknown field is passed over.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgpack
import msgspec

from cells.errors import BadInput
from cells.messages import REGISTRY, kind_of
from cells.record import MAX_BUNDLE, NO_SERVER, Hop, Packet, Record

WIRE_VERSION = 1
_MOST_ITEMS = 65_536

_encoder = msgspec.msgpack.Encoder()


class NotUnderstood(BadInput):
    """A record that may be sound, of a kind or version that this cell does not know: one of another version sent it."""


@cache
def _decoder(shape: Hashable) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(shape)


def pack(value: Any) -> bytes:
    """Any value made of dataclasses, tuples, dicts, strings, bytes and numbers, as bytes."""
    return _encoder.encode(value)


def plain(value: Any) -> Any:
    """The same value as dicts, lists and scalars only."""
    return msgspec.to_builtins(value, builtin_types=(bytes,))


def unpack(shape: Any, data: bytes) -> Any:
    """The value of the given shape (a dataclass or a type built of them); BadInput when the bytes are not one."""
    try:
        return _decoder(shape).decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:  # ValueError: text that is not UTF-8
        raise BadInput(f"not a {getattr(shape, '__name__', shape)}: {error}") from None


_RECORD_SHAPE = tuple[bytes, str, int, str, str, bytes, int, int, str, bytes]


def pack_record(record: Record) -> bytes:
    kind = kind_of(record.body)
    return _encoder.encode(
        (
            record.id,
            kind.name,
            kind.version,
            record.origin,
            record.destination,
            record.server,
            record.number,
            record.deadline,
            record.request,
            _encoder.encode(record.body),
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Peek:
    """What can be told of a record that may be garbage or of a kind not known here; empty where nothing can."""

    id: bytes = b""
    kind: str = ""
    origin: str = ""
    server: bytes = NO_SERVER


def peek(data: bytes) -> Peek:
    """The outside of a record, whatever its kind and body; never raises."""
    try:
        id_, kind, _, origin, _, server, *_ = unpack(_RECORD_SHAPE, data)
    except BadInput:
        return Peek()
    if len(id_) != 16 or len(server) != 16:
        return Peek()
    return Peek(id=id_, kind=kind[:255], origin=origin, server=server)


def unpack_record(data: bytes) -> Record:
    """BadInput for a body that is not of its kind and ids that are not 16 bytes, NotUnderstood for a kind or version
    that is not known here."""
    id_, kind_name, version, origin, destination, server, number, deadline, request, body = unpack(_RECORD_SHAPE, data)
    kind = REGISTRY.get(kind_name)
    if kind is None:
        raise NotUnderstood(f"unknown record kind {kind_name!r}; a cell of a later version sent it: upgrade this one")
    if version != kind.version:
        raise NotUnderstood(f"{kind_name} version {version} is not understood here (version {kind.version} is)")
    if len(id_) != 16 or len(server) != 16:
        raise BadInput(f"{kind_name}: id and server must be 16 bytes each")
    return Record(
        id=id_,
        body=unpack(kind.body, body),
        origin=origin,
        destination=destination,
        server=server,
        number=number,
        deadline=deadline,
        request=request,
    )


def pack_bundle(packets: list[Packet]) -> bytes:
    framed: bytes = msgpack.packb(
        (
            WIRE_VERSION,
            [
                (
                    p.origin,
                    p.destination,
                    p.serial,
                    p.deadline,
                    p.records,
                    p.signature,
                    p.certificate,
                    p.hops_left,
                    [(hop.cell, hop.at) for hop in p.trail],
                )
                for p in packets
            ],
        )
    )
    return framed


_BUNDLE_PACKETS = list[tuple[str, str, int, int, tuple[bytes, ...], bytes, bytes, int, tuple[tuple[str, int], ...]]]


def unpack_bundle(data: bytes) -> list[Packet]:
    """BadInput for anything that is not a bundle of this wire version within the size limit."""
    if len(data) > MAX_BUNDLE:
        raise BadInput(f"bundle of {len(data)} bytes is over the limit of {MAX_BUNDLE}")
    try:
        frame = msgpack.unpackb(data, max_array_len=_MOST_ITEMS, max_map_len=0, strict_map_key=True)
        if not (isinstance(frame, list) and len(frame) == 2 and isinstance(frame[0], int)):
            raise BadInput("not a bundle")
        if frame[0] != WIRE_VERSION:
            raise BadInput(f"wire version {frame[0]} is not understood here (version {WIRE_VERSION} is)")
        rows = msgspec.convert(frame[1], _BUNDLE_PACKETS, builtin_types=(bytes,))
    except (ValueError, msgpack.UnpackException, msgspec.ValidationError, RecursionError) as error:
        raise BadInput(f"not a bundle: {error or type(error).__name__}") from None
    return [
        Packet(
            origin=origin,
            destination=destination,
            serial=serial,
            deadline=deadline,
            records=records,
            signature=signature,
            certificate=certificate,
            hops_left=hops_left,
            trail=tuple(Hop(cell=cell, at=at) for cell, at in trail),
        )
        for (
            origin,
            destination,
            serial,
            deadline,
            records,
            signature,
            certificate,
            hops_left,
            trail,
        ) in rows
    ]
