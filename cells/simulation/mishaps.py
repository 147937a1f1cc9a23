"""How each fault happens to a world, and how it passes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from cells.model import CellState
from cells.simulation import administration, resting
from cells.simulation.plan import PROJECTS, UNTOLD, Fault, Mishap

if TYPE_CHECKING:
    from cells.simulation.world import World

Happen = Callable[["World", Mishap], None]


def _rate(name: str) -> Happen:
    def happen(world: World, mishap: Mishap) -> None:
        setattr(world.network, name, mishap.rate)
        world.later(mishap.lasts, lambda: setattr(world.network, name, 0.0))

    return happen


def _place(name: str, value: object | None = None, calm: object = 0.0) -> Happen:
    def happen(world: World, mishap: Mishap) -> None:
        place = world.places[mishap.cell]
        setattr(place, name, mishap.rate if value is None else value)
        world.later(mishap.lasts, lambda: setattr(place, name, calm))

    return happen


def _cut(world: World, mishap: Mishap) -> None:
    ways = {(mishap.cell, mishap.other), (mishap.other, mishap.cell)}
    world.network.cuts |= ways

    def mend() -> None:
        world.network.cuts -= ways

    world.later(mishap.lasts, mend)


def _broker_down(world: World, mishap: Mishap) -> None:
    exchange = world.network.exchange(mishap.cell)
    exchange.stop()

    def up() -> None:
        exchange.start()
        world.wake(mishap.cell)

    world.later(mishap.lasts, up)


def _broker_wiped(world: World, mishap: Mishap) -> None:
    world.network.exchange(mishap.cell).wipe()


def _crash(world: World, mishap: Mishap) -> None:
    world.crash(mishap.cell, mishap.lasts)


def _crash_at_step(world: World, mishap: Mishap) -> None:
    from cells.simulation.world import Trap

    world.places[mishap.cell].traps.append(Trap(step=mishap.step, left=mishap.nth))


def _freeze(world: World, mishap: Mishap) -> None:
    """Long enough for the leases to run out: another daemon takes the cell over, and then the first is back."""
    other = f"{mishap.cell}/b"
    if mishap.cell not in world.daemons or other in world.daemons:
        return
    world.freeze(mishap.cell)
    world.later(1.0, partial(_stand_in, world, mishap.cell, other))
    world.later(mishap.lasts, partial(world.thaw, mishap.cell))
    world.later(mishap.lasts + 6.0, partial(world.crash, other, None))


def _stand_in(world: World, cell: str, other: str) -> None:
    if cell in world.daemons and other not in world.daemons and not world.healed:
        world.open(other)


def _drain(world: World, mishap: Mishap) -> None:
    administration.set_state(world, mishap.cell, CellState.DRAINING)
    world.later(mishap.lasts, partial(administration.set_state, world, mishap.cell, CellState.ENABLED))


def _edge_added(world: World, mishap: Mishap) -> None:
    if (mishap.cell, mishap.other) not in world.edges:
        administration.add_edge(world, mishap.cell, mishap.other)


def _edge_removed(world: World, mishap: Mishap) -> None:
    """As an administrator may: no API cell loses its way to a leaf."""
    edge = (mishap.cell, mishap.other)
    if edge not in world.edges:
        return
    before = resting.reaches(world)
    world.edges.discard(edge)
    after = resting.reaches(world)
    world.edges.add(edge)
    if before == after:
        administration.remove_edge(world, *edge)


def _restored_row(world: World, mishap: Mishap) -> None:
    desk = world.places[mishap.cell].desk
    backup = [row for ask, server in world.servers.values() if ask.api == mishap.cell and (row := desk.seen(server))]

    def restore() -> None:
        for row in backup:
            if desk.put_back(row):
                world.counts["rows put back"] += 1
                world.memory.set_back(row.id)

    world.later(max(4.0, mishap.lasts), restore)


def _host_crash(world: World, mishap: Mishap) -> None:
    """Half of them are confirmed dead by somebody who has looked, and enabled again when they are back."""
    place = world.places[mishap.cell]
    host = place.pool.kill(mishap.nth)
    if not host:
        return

    def say_dead() -> None:
        place.ground.confirm_dead(host, True)
        world.memory.disks_are_lost(mishap.cell)

    if mishap.rate > 0.5:
        world.later(min(6.0, mishap.lasts / 2), say_dead)

    def back() -> None:
        place.pool.bring_back(host)
        place.ground.confirm_dead(host, False)

    world.later(mishap.lasts, back)


def _skew(world: World, mishap: Mishap) -> None:
    place = world.places[mishap.cell]
    place.skew = mishap.rate
    world.later(mishap.lasts, partial(setattr, place, "skew", 0.0))


def _quota(world: World, mishap: Mishap) -> None:
    desk = world.places[mishap.cell].desk
    desk.limit(PROJECTS, mishap.nth)
    world.later(mishap.lasts, partial(desk.limit, PROJECTS, None))


def _flavor(world: World, mishap: Mishap) -> None:
    desk = world.places[mishap.cell].desk
    desk.change_flavor(str(mishap.nth), 2)
    world.later(mishap.lasts, partial(desk.change_flavor, str(mishap.nth), 1))


def _restored(world: World, mishap: Mishap) -> None:
    """The database as it is now comes back later, when a while of the cell's life has been lost. Nobody restores one
    under running daemons; an administrator says so to an API cell's, unless he forgets it (the step is UNTOLD), a leaf
    hears it from its parents."""
    administration.back_up(world, mishap.cell)
    world.later(mishap.lasts, partial(administration.restore, world, mishap.cell, told=mishap.step != UNTOLD))


HAPPEN: dict[Fault, Happen] = {
    Fault.LOSS: _rate("loss"),
    Fault.COPIES: _rate("copies"),
    Fault.DELAY: _rate("delay"),
    Fault.UNCONFIRMED: _rate("unconfirmed"),
    Fault.CUT: _cut,
    Fault.BROKER_DOWN: _broker_down,
    Fault.BROKER_WIPED: _broker_wiped,
    Fault.CRASH: _crash,
    Fault.CRASH_AT_STEP: _crash_at_step,
    Fault.FREEZE: _freeze,
    Fault.DATABASE: _place("database_fault"),
    Fault.HOST: _place("host_fault"),
    Fault.SLOW_HOST: _place("slow", True, False),
    Fault.HOSTS_DOWN: _place("hosts_down", True, False),
    Fault.DRAIN: _drain,
    Fault.EDGE_ADDED: _edge_added,
    Fault.EDGE_REMOVED: _edge_removed,
    Fault.RESTORED_ROW: _restored_row,
    Fault.HOST_CRASH: _host_crash,
    Fault.SKEW: _skew,
    Fault.QUOTA: _quota,
    Fault.FLAVOR: _flavor,
    Fault.RESTORED: _restored,
}
