"""Names, ids and time as values. Read by every module; nothing here touches a clock or a random source.

An id is 16 bytes, a UUIDv7 (RFC 9562), so that ids sort by the time they were made (cells.ids makes them). An instant
is a whole number of microseconds since 1970 in UTC: exact in every database and on the wire.
"""

import re
import uuid
from datetime import UTC, datetime
from typing import Annotated

from cells.errors import BadInput

Instant = int
SECOND = 1_000_000
NEVER: Instant = 2**62

CellName = str
Id = Annotated[bytes, "id"]


def is_due(at: Instant, every: Instant, now: Instant) -> bool:
    """Whether something that is done every so often is to be done: its time has come, or lies further off than it can,
    because the clock was put back."""
    return not now < at <= now + every


_CELL_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def cell_name(text: object) -> CellName:
    """A valid cell name: lower case letters, digits and inner hyphens, at most 63 characters (a DNS label)."""
    if isinstance(text, str) and _CELL_NAME.fullmatch(text):
        return text
    raise BadInput(
        f"cell name {text!r} is not valid: use 1 to 63 lower case letters, digits and inner hyphens, like 'dfw-1'"
    )


def id_text(value: bytes) -> str:
    """The usual text of an id, 8-4-4-4-12 hexadecimal digits."""
    return str(uuid.UUID(bytes=value))


def id_from_text(text: object, what: str = "id") -> bytes:
    """The 16 bytes of a uuid given as text; BadInput names the field when it is not one."""
    try:
        return uuid.UUID(str(text)).bytes
    except ValueError:
        raise BadInput(f"{what} {text!r} is not a uuid") from None


def iso(at: int) -> str:
    """An instant as OpenStack's Compute API writes it: 2026-01-31T12:00:00Z."""
    return datetime.fromtimestamp(at // SECOND, UTC).replace(tzinfo=None).isoformat() + "Z"
