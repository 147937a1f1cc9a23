"""How the rotation of a cell's key ends: what lies in the cell's own database sealed with a key it had before is sealed
anew with its newest, until nothing needs the former keys any more.

Done by the daemon that holds the first shard, at its ticks, as long as the key file holds former keys; only once every
living daemon of the cell signs with the newest key, because one that does not could not open what is sealed with it.
What is sealed inside something that passes (a command, a job) is let pass: `celltree cell rotate --finish` says so.
"""

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any, get_type_hints

from cells.identity import Identity, fingerprint
from cells.names import SECOND, Instant
from cells.ports import Store, Unit, View, Where
from cells.rows import DaemonRow, key_of

LIVING = 60 * SECOND
"""A daemon seen so lately counts as running."""
MOST_AT_ONCE = 500


def late(view: View, identity: Identity, now: Instant) -> tuple[str, ...]:
    """The living daemons of the cell that do not sign with its newest key."""
    signer = fingerprint(identity.says.key)
    return tuple(sorted(row.name for row in view.all(DaemonRow) if row.seen + LIVING > now and row.signer != signer))


def may_be_kept(row: type) -> tuple[str, ...]:
    """The columns of a row type that can hold what `Identity.keep` gave: plain bytes, which are not ids."""
    hints = get_type_hints(row, include_extras=True)
    return tuple(each.name for each in fields(row) if hints[each.name] is bytes)


class Resealing:
    """Of one daemon. `rows`: all that the cell's database has."""

    def __init__(
        self, *, store: Store, identity: Identity, rows: Iterable[type], random_bytes: Callable[[int], bytes]
    ) -> None:
        self._store = store
        self._identity = identity
        self._columns = [(row, column) for row in rows for column in may_be_kept(row)]
        self._random_bytes = random_bytes

    def turn(self, now: Instant) -> int:
        """Seal anew what a former key opens; how many rows that were. Raises Temporary, Conflict: the next tick's."""
        marks = self._identity.former_keeps
        if not marks:
            return 0
        with self._store.unit(lock=False) as unit:
            if late(unit, self._identity, now):
                return 0
            found = [each for mark in marks for row, column in self._columns for each in _with(unit, row, column, mark)]
        if found:
            with self._store.unit() as unit:
                for row, column, key in found:
                    self._seal_anew(unit, row, column, key)
        return len(found)

    def _seal_anew(self, unit: Unit, row: type, column: str, key: tuple[Any, ...]) -> None:
        held: Any = unit.get(row, *key)
        if held is None or not getattr(held, column).startswith(self._identity.former_keeps):
            return  # somebody has changed it meanwhile
        secret = self._identity.kept(getattr(held, column))
        unit.save(replace(held, **{column: self._identity.keep(secret, self._random_bytes)}))


def _with(view: View, row: type, column: str, mark: bytes) -> list[tuple[type, str, tuple[Any, ...]]]:
    """The keys of the rows whose column begins with a mark."""
    after = (int.from_bytes(mark, "big") + 1).to_bytes(len(mark), "big")
    begins = (Where(column=column, op=">=", value=mark), Where(column=column, op="<", value=after))
    found: tuple[Any, ...] = view.find(row, *begins, limit=MOST_AT_ONCE)
    return [(row, column, key_of(each)) for each in found]
