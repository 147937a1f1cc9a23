"""Scheduler hints of a create request, checked and made plain: a name and a text each, lists joined by commas."""

from typing import Any

from api_cell.errors import Invalid
from cells.errors import BadInput
from cells.names import cell_name

# Hints that placing acts on; each names cells.
KNOWN = ("target_cell", "different_cell")


def hints_of(body: dict[str, Any]) -> dict[str, str]:
    """Invalid for a hint that nobody would act on: silence would look like obedience."""
    given = {**body.get("os:scheduler_hints", {}), **body.get("OS-SCH-HNT:scheduler_hints", {})}
    hints = {}
    for name, value in given.items():
        field = f"os:scheduler_hints.{name[:80]}"
        if name not in KNOWN:
            raise Invalid(f"{field}: is not a hint that is understood here; use one of {', '.join(KNOWN)}")
        values = value.split(",") if isinstance(value, str) else value
        if not isinstance(values, list) or not values:
            raise Invalid(f"{field}: must be a text or a list of texts")
        try:
            hints[name] = ",".join(cell_name(text) for text in values)
        except BadInput as error:
            raise Invalid(f"{field}: {error}") from None
    return hints
