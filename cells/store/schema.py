"""Whether a database's schema fits this version, and bringing it up to date. Called by `celltree db` and at start.

The history itself is the package `migrations`, which stands aside and is found by name.
"""

import importlib
from typing import Any

from cells.errors import Permanent
from cells.store.failures import typed


def _history() -> Any:
    return importlib.import_module("migrations")


def current(url: str) -> str:
    """The revision the database is at; empty when nothing is there yet."""
    try:
        return str(_history().current(url))
    except Exception as error:
        raise typed(error) from error


def head(role: str) -> str:
    """The revision this version of celltree wants."""
    return str(_history().head(role))


def upgrade(url: str, role: str) -> str:
    """Bring the database to the schema this version wants; its revision. Permanent where it must not be touched."""
    at = current(url)
    if at:
        _of_this_role(at, role)
    try:
        _history().upgrade(url, role)
    except Exception as error:
        raise typed(error) from error
    return head(role)


def check(url: str, role: str, cell: str = "NAME") -> None:
    """Permanent, with the remedy, unless the database's schema is the one this version wants."""
    at, wanted = current(url), head(role)
    if at == wanted:
        return
    if at:
        _of_this_role(at, role)
    found = f"is at {at}" if at else "has no tables"
    raise Permanent(
        f"the database {found}, this version of celltree wants {wanted}: run celltree db upgrade --cell {cell}"
    )


def _of_this_role(revision: str, role: str) -> None:
    whose = _history().role_of(revision)
    if not whose:
        raise Permanent(
            f"the database is at {revision}, which this version of celltree does not know: it is newer. Install that "
            "version of celltree on this machine; celltree db upgrade --cell NAME with this one cannot help"
        )
    if whose != role:
        raise Permanent(
            f"the database is of a cell with the role {whose!r}, not {role!r}: "
            "check the cell's database URL before celltree db upgrade --cell NAME"
        )
