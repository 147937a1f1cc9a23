"""One request as a handler sees it, and what a handler answers. Falcon stays in api_cell.http.app."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import IO, Any

from api_cell.errors import Invalid
from api_cell.http.metrics import Metrics
from api_cell.http.signing import ImageTokens
from api_cell.images import FolderImages
from api_cell.service.api import Api, Caller


class Query:
    """The query string: each name with its values in order. Nothing in it is trusted."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs

    def __contains__(self, name: str) -> bool:
        return any(key == name for key, _ in self._pairs)

    def names(self) -> set[str]:
        return {key for key, _ in self._pairs}

    def pairs(self) -> list[tuple[str, str]]:
        return list(self._pairs)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self._pairs if key == name]

    def text(self, name: str, default: str = "") -> str:
        """The last value of this name."""
        values = self.all(name)
        return values[-1] if values else default

    def number(self, name: str, default: int) -> int:
        """A whole number from 0 on."""
        if name not in self:
            return default
        text = self.text(name)
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise Invalid(f"{name}: {text[:40]!r} is not a whole number from 0 on")
        return int(text)

    def truth(self, name: str, default: bool = False) -> bool:
        """A yes or no in any of the usual words."""
        if name not in self:
            return default
        text = self.text(name).lower()
        if text in ("1", "t", "true", "on", "y", "yes"):
            return True
        if text in ("0", "f", "false", "off", "n", "no"):
            return False
        raise Invalid(f"{name}: {text[:40]!r} is neither true nor false")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """`version` is the microversion's second number; `params` are the path's; `base` is this API's URL as the client
    sees it, without /v2.1; `body` has passed the route's schema; `stream` is a body that is not JSON, `length`
    its length where the client told it.
    `chosen`: the client chose the request id."""

    api: Api
    tokens: ImageTokens
    folder: FolderImages | None
    metrics: Metrics
    caller: Caller
    version: int
    request_id: str
    chosen: bool
    params: dict[str, str]
    query: Query
    base: str
    path: str
    body: Any = None
    stream: IO[bytes] | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back. `stream` is sent instead of `body`, `length` bytes of it."""

    code: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    stream: IO[bytes] | None = None
    length: int = 0
    media: str = "application/json"


class Rule(StrEnum):
    """Who may use a route. OPEN: anybody, not logged in. TENANT: any user, for what is of its project. ADMIN: an
    administrator. IMAGE: a tenant, or a leaf with a token for that image."""

    OPEN = "open"
    TENANT = "tenant"
    ADMIN = "admin"
    IMAGE = "image"


Handler = Callable[[Call], Answer]
Schema = dict[str, Any]
# What an answer's body is, by status code; None: there is no body.
Gives = Mapping[int, Schema | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One line of the API. `since` and `until` bound the microversions it is there in. `action` is the key of an
    action's body. `schema` is what its JSON body must be, by microversion where that differs; none: no body is read.
    `gives` is what it answers when all is well, `query` what may be asked in the query string."""

    method: str
    path: str
    handler: Handler
    gives: Gives | Callable[[int], Gives]
    rule: Rule = Rule.TENANT
    since: int = 1
    until: int | None = None
    action: str = ""
    schema: Schema | Callable[[int], Schema] | None = None
    media: tuple[str, ...] = ("application/json",)
    streams: bool = False
    query: Mapping[str, Schema] = field(default_factory=dict)

    def serves(self, version: int) -> bool:
        return self.since <= version and (self.until is None or version <= self.until)

    def schema_at(self, version: int) -> Schema | None:
        return self.schema(version) if callable(self.schema) else self.schema

    def gives_at(self, version: int) -> Gives:
        return self.gives(version) if callable(self.gives) else self.gives
