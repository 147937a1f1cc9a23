"""Scheduler hints of a create request, checked and made plain: a name and a text each, lists joined by commas."""

from collections.abc import Callable
from typing import Any

from api_cell.errors import Invalid
from cells.errors import BadInput
from cells.names import cell_name, id_from_text, id_text


def _server(text: object) -> str:
    return id_text(id_from_text(text, "server"))


# Hints that placing acts on, and what each names.
KNOWN: dict[str, Callable[[object], str]] = {
    "target_cell": cell_name,
    "different_cell": cell_name,
    "near": _server,
    "far": _server,
}


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
            hints[name] = ",".join(KNOWN[name](text) for text in values)
        except BadInput as error:
            raise Invalid(f"{field}: {error}") from None
    return hints
