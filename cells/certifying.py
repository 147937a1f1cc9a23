"""Changing whom the tree believes: a new key for a cell, and cells that are gone for good. An administrator's doing,
with the tree's folder and its root key at hand.

What is believed no longer stands on one list, signed by the root. It is written into the database of every cell that
can be reached; the others hear of it from their neighbours (cells.withdrawing).
"""

from contextlib import suppress

from cells import resealing
from cells.config import CellConfig, identity
from cells.decision import Remove
from cells.errors import Permanent, Temporary
from cells.identity import Identity
from cells.names import CellName, Instant
from cells.registering import open_store
from cells.rows import EdgeRow, RosterRow, SettingRow
from cells.topology_file import API
from cells.tree_folder import RandomBytes, TreeFolder
from cells.withdrawing import WITHDRAWN

_PASSES = {
    "jobs": "work under way",
    "instances": "servers being made or changed, or commands that wait for them",
    "wakes": "what is to be decided soon",
    "servers": "wishes that are not over",
    "outbox": "commands on their way to it",
    "parked": "messages that could not be used: celltree messages list, then replay or drop",
}


def rotate(folder: TreeFolder, name: CellName, random_bytes: RandomBytes, now: Instant) -> CellConfig:
    """Give a cell a new key and certificate; those it has count as well, until `finish_rotation`."""
    return folder.renew(name, random_bytes, now)


def finish_rotation(folder: TreeFolder, name: CellName, now: Instant) -> tuple[CellName, ...]:
    """Withdraw the cell's certificates before its newest and take its former keys out of its key file, once every
    daemon of it signs with the newest key and nothing is left that a former key must open; gives the cells that could
    not be told. Permanent says what is in the way: nothing has been changed then."""
    config = folder.config(name)
    own = identity(config)
    with open_store(config) as store, store.unit(lock=False) as unit:
        late = resealing.late(unit, own, now)
    if late:
        raise Permanent(
            f"{name}: daemon {', '.join(late)} still signs with another key; bring the new key and certificate to its "
            "machine, send it SIGHUP, and try again"
        )
    if own.former_marks:
        # What others have on its way to the cell first: it may arrive before we look at the cell itself.
        for other in folder.configs():
            if other.role == API and other.cell != name:
                _check_sender(other, own)
        _refuse_needed(f"{name} itself", config, own)
    untold = _withdraw(folder, name, own.says.issued, now)
    folder.forget_former_keys(name)
    return untold


def _check_sender(config: CellConfig, own: Identity) -> None:
    """That an API cell seals for the newest key, and has nothing on its way that was sealed for a former one."""
    with open_store(config) as store, store.unit(lock=False) as unit:
        known = unit.get(RosterRow, own.name)
    if known is not None and known.certificate != own.certificate:
        raise Permanent(
            f"{config.cell} still knows {own.name} by a former certificate and would seal for that key; try again when "
            f"it has heard from {own.name}"
        )
    _refuse_needed(config.cell, config, own)


def _refuse_needed(where: str, config: CellConfig, own: Identity) -> None:
    with open_store(config, whole=True) as store:
        held = store.holding(own.former_marks)
    if held:
        kept = "sealed anew at the next tick of a running daemon"
        told = "; ".join(f"{count} rows of {table} ({_PASSES.get(table, kept)})" for table, count in held.items())
        raise Permanent(
            f"{own.name} still needs its former keys. What is sealed with them at {where}: {told}. Try again soon"
        )


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
