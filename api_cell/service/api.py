"""What every service function works with: the cell's store, images, clock and settings, and who is asking."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from api_cell.images import Images
from api_cell.settings import Settings
from cells.errors import AmbiguousCommit, Conflict
from cells.ports import Clock, NewId, Store, Unit

T = TypeVar("T")

_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks. `reader`: may look and change nothing. `image` and `purpose` are set when the caller is a leaf that
    moves the bytes of one image."""

    user: str
    project: str
    admin: bool = False
    reader: bool = False
    image: str = ""
    purpose: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The front door's hands. `poke` tells the cell's daemon of work; it may be lost, the daemon polls too. `keep`: a
    secret as it may lie in the database, for the daemon to open; without it none is taken. `pause`: wait so many
    seconds."""

    settings: Settings
    store: Store
    images: Images
    poke: Callable[[], None]
    clock: Clock
    ids: NewId
    keep: Callable[[bytes], bytes] | None = None
    pause: Callable[[float], None] = time.sleep

    def read(self, act: Callable[[Unit], T]) -> T:
        """Look at rows without locking them."""
        return self._in_unit(act, lock=False)

    def change(self, act: Callable[[Unit], T], landed: Callable[[Unit], T | None] | None = None) -> T:
        """Change rows in one transaction; decided again on fresh rows when another one won the race.

        `landed` tells, of a commit whose outcome nobody knows, what it gave if it is there; without it, doing `act`
        twice must be harmless."""
        return self._in_unit(act, lock=True, landed=landed)

    def _in_unit(self, act: Callable[[Unit], T], *, lock: bool, landed: Callable[[Unit], T | None] | None = None) -> T:
        for left in reversed(range(_TRIES)):
            try:
                with self.store.unit(lock=lock) as unit:
                    return act(unit)
            except Conflict:
                if not left:
                    raise
            except AmbiguousCommit:
                if not left:
                    raise
                found = self.read(landed) if landed is not None else None
                if found is not None:
                    return found
        raise AssertionError("unreachable")
