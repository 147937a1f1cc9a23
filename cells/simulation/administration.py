"""What an administrator does to a world: edges, states, backups and their return."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cells.decision import Remove
from cells.house import save_edge
from cells.model import CellState
from cells.names import CellName
from cells.rows import EdgeRow, SettingRow

if TYPE_CHECKING:
    from cells.simulation.world import World


def back_up(world: World, cell: CellName) -> None:
    """Remember a cell's database, and what the checks know of it, as they are now."""
    world.backups[cell] = (world.places[cell].store.backup(), world.memory.of(cell))


def restore(world: World, cell: CellName, *, told: bool = True) -> None:
    """Put a cell's database back to its backup, all its daemons being stopped; an API cell is `told` so."""
    if world.healed:
        return
    for name in [name for name in world.daemons if name.partition("/")[0] == cell]:
        world.crash(name, None)
    rows, known = world.backups[cell]
    place = world.places[cell]
    place.store.put_back(rows)
    world.memory.put_back(cell, known)
    _register_again(world, cell)
    world.note(f"put back {cell}")
    if place.desk is not None and told:
        place.desk.rebuild()
    for name in world.daemons_of(cell):
        world.later(world.chance.uniform(0.2, 3.0), partial(world.back, name))


def _register_again(world: World, cell: CellName) -> None:
    """Edges that were made or taken away since the backup are an administrator's to make, or take away, again."""
    with world.places[cell].outside.unit(lock=False) as unit:
        there = {row.neighbour for row in unit.find(EdgeRow)}
    wanted = {
        (parent if child == cell else child): (parent, child)
        for parent, child in world.edges
        if cell in (parent, child)
    }
    for neighbour in sorted(wanted.keys() - there):
        add_edge(world, *wanted[neighbour])
    with world.places[cell].outside.unit() as unit:
        unit.save(*(Remove(row=EdgeRow, key=(name,)) for name in sorted(there - wanted.keys())))


def add_edge(world: World, parent: CellName, child: CellName) -> None:
    """Register an edge at both ends, as an administrator does."""
    up, down = world.places[parent], world.places[child]
    for one, other, is_parent in ((up, down, False), (down, up, True)):
        who = world.identity(one.name)
        with one.outside.unit() as unit:
            uuid = world.identity(other.name).says.uuid
            save_edge(unit, who, uuid, other.name, is_parent, other.config.broker, world.random_bytes)
    world.edges.add((parent, child))
    _changed(world, parent, child)


def _changed(world: World, one: CellName, other: CellName) -> None:
    """What is on its way over an edge that is taken away is a stranger's when it comes."""
    if world.time:
        world.changed_edges |= {(one, other), (other, one)}


def remove_edge(world: World, parent: CellName, child: CellName) -> None:
    """Take an edge away at both ends."""
    for one, other in ((parent, child), (child, parent)):
        with world.places[one].outside.unit() as unit:
            unit.save(Remove(row=EdgeRow, key=(other,)))
    world.edges.discard((parent, child))
    _changed(world, parent, child)


def set_state(world: World, cell: CellName, state: CellState) -> None:
    """Enable or drain a cell."""
    with world.places[cell].outside.unit() as unit:
        unit.save(SettingRow(name="state", value=state))
