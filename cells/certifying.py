"""Changing whom the tree believes: a new key for a cell, and cells that are gone for good. An administrator's doing,
with the tree's folder and its root key at hand.

What is believed no longer stands on one list, signed by the root. It is written into the database of every cell that
can be reached; the others hear of it from their neighbours (cells.withdrawing).
"""

from contextlib import suppress

from cells.config import CellConfig, identity
from cells.decision import Remove
from cells.errors import Permanent, Temporary
from cells.identity import fingerprint
from cells.names import SECOND, CellName, Instant
from cells.registering import open_store
from cells.rows import DaemonRow, EdgeRow, RosterRow, SettingRow
from cells.tree_folder import RandomBytes, TreeFolder
from cells.withdrawing import WITHDRAWN

LIVING = 60 * SECOND
"""A daemon seen so lately counts as running."""


def rotate(folder: TreeFolder, name: CellName, random_bytes: RandomBytes, now: Instant) -> CellConfig:
    """Give a cell a new key and certificate; those it has count as well, until `finish_rotation`."""
    return folder.renew(name, random_bytes, now)


def finish_rotation(folder: TreeFolder, name: CellName, now: Instant) -> tuple[CellName, ...]:
    """Withdraw the cell's certificates before its newest, once every daemon of it signs with the newest key; gives the
    cells that could not be told."""
    config = folder.config(name)
    says = identity(config).says
    with open_store(config) as store, store.unit(lock=False) as unit:
        living = [row for row in unit.all(DaemonRow) if row.seen + LIVING > now]
    late = sorted(row.name for row in living if row.signer != fingerprint(says.key))
    if late:
        raise Permanent(
            f"{name}: daemon {', '.join(late)} still signs with another key; bring the new key and certificate to its "
            "machine, send it SIGHUP, and try again"
        )
    return _withdraw(folder, name, says.issued, now)


def remove(folder: TreeFolder, name: CellName, now: Instant, *, force: bool = False) -> tuple[CellName, ...]:
    """Take a cell out of the tree for good: nobody believes its certificates any more. Gives the cells that could not
    be told. With `force` also a cell that has edges, or that cannot be reached."""
    config = folder.config(name)
    if not force and (neighbours := _neighbours(config)):
        raise Permanent(
            f"{name} still has edges to {', '.join(neighbours)}; celltree cell detach comes first, or --force"
        )
    issued = identity(config).says.issued
    for other in folder.names():
        if other != name:
            with suppress(Temporary), open_store(folder.config(other)) as store, store.unit() as unit:
                unit.save(Remove(row=EdgeRow, key=(name,)), Remove(row=RosterRow, key=(name,)))
    folder.remove(name)
    return _withdraw(folder, name, max(now, issued + 1), now)


def _neighbours(config: CellConfig) -> list[CellName]:
    with open_store(config) as store, store.unit(lock=False) as unit:
        return sorted(edge.neighbour for edge in unit.all(EdgeRow))


def _withdraw(folder: TreeFolder, name: CellName, before: Instant, now: Instant) -> tuple[CellName, ...]:
    wire = folder.withdraw(name, before, now)
    untold = []
    for config in folder.configs():
        try:
            with open_store(config) as store, store.unit() as unit:
                unit.save(SettingRow(name=WITHDRAWN, value=wire.hex()))
        except Temporary:
            untold.append(config.cell)
    return tuple(untold)
