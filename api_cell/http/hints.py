"""Scheduler hints of a create request, checked and made plain: a name and a text each, lists joined by commas."""

from typing import Any

from api_cell.errors import Invalid
from cells.errors import BadInput
from cells.names import cell_name, id_from_text

# Hints that are about servers, and those about cells.
_OF_SERVERS = ("near", "far", "same_host", "different_host")
_OF_CELLS = ("target_cell", "different_cell")
KNOWN = (*_OF_SERVERS, *_OF_CELLS)


def hints_of(body: dict[str, Any]) -> dict[str, str]:
    """Invalid for a hint that nobody would act on: silence would look like obedience."""
    given = {**body.get("os:scheduler_hints", {}), **body.get("OS-SCH-HNT:scheduler_hints", {})}
    hints = {}
    for name, value in given.items():
        field = f"os:scheduler_hints.{name[:80]}"
        if name not in KNOWN:
            raise Invalid(f"{field}: is not a hint that is understood here; use one of {', '.join(KNOWN)}")
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not values:
            raise Invalid(f"{field}: must be a text or a list of texts")
        try:
            for text in values:
                if name in _OF_SERVERS:
                    id_from_text(text)
                else:
                    cell_name(text)
        except BadInput as error:
            raise Invalid(f"{field}: {error}") from None
        hints[name] = ",".join(values)
    return hints
