"""Rows of every kind of column, for tests of the store."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cells.names import Id, Instant
from cells.rows import Text, row


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    name: str
    size: int = 0


@row("things", key=("id",), indexes=(("project", "created", "id"),))
@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """`group` and `order` are words of SQL, so that quoting is seen to."""

    id: Id
    project: str = "p"
    created: Instant = 0
    group: str = ""
    order: int = 0
    colour: Colour = Colour.RED
    notes: Text = ""
    ratio: float = 0.0
    on: bool = False
    data: bytes = b""
    maybe: int | None = None
    tint: Colour | None = None
    part: Part = Part(name="first")
    parts: tuple[Part, ...] = ()
    spare: Part | None = None
    extra: dict[str, Any] | None = None


@row("pairs", key=("owner", "name"))
@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    owner: str
    name: str
    value: int = 0


THINGS: tuple[type, ...] = (Thing, Pair)


def id_of(number: int) -> bytes:
    return number.to_bytes(16, "big")


def thing(number: int, **fields: Any) -> Thing:
    return Thing(id=id_of(number), **fields)
