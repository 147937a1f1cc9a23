"""What every service function works with: the cell's store, images, clock and settings, and who is asking."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from api_cell.images import Images
from api_cell.settings import Settings
from cells.errors import Conflict
from cells.ports import Clock, NewId, Store, Unit

T = TypeVar("T")

_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks. `image` and `purpose` are set when the caller is a leaf that moves the bytes of one image."""

    user: str
    project: str
    admin: bool = False
    image: str = ""
    purpose: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The front door's hands. `poke` tells the cell's daemon of work; it may be lost, the daemon polls too."""

    settings: Settings
    store: Store
    images: Images
    poke: Callable[[], None]
    clock: Clock
    ids: NewId

    def read(self, act: Callable[[Unit], T]) -> T:
        """Look at rows without locking them."""
        return self._in_unit(act, lock=False)

    def change(self, act: Callable[[Unit], T]) -> T:
        """Change rows in one transaction; decided again on fresh rows when another one won the race."""
        return self._in_unit(act, lock=True)

    def _in_unit(self, act: Callable[[Unit], T], *, lock: bool) -> T:
        for last in (False,) * (_TRIES - 1) + (True,):
            try:
                with self.store.unit(lock=lock) as unit:
                    return act(unit)
            except Conflict:
                if last:
                    raise
        raise AssertionError("unreachable")
