"""What a demo or a lab is made of besides cells (simulator, image maker, pool registration), found by entry point."""

from functools import cache
from importlib.metadata import entry_points
from typing import Any

from cells.errors import BadInput

GROUP = "celltree.parts"


@cache
def part(name: str) -> Any:
    """The object that an installed package offers under this name."""
    for entry in entry_points(group=GROUP, name=name):
        return entry.load()
    raise BadInput(f"no installed package offers {name!r} (entry point group {GROUP}); install celltree whole again")
