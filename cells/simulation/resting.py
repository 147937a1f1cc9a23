"""Whether a world is at rest, and what there is to check when it is."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from cells.audit import ImageFact, PoolFacts, Standing
from cells.names import CellName, id_text
from cells.record import NO_SERVER
from cells.rows import JobRow, OutboxRow, ParkedRow
from cells.simulation.invariants import Breach

if TYPE_CHECKING:
    from cells.simulation.world import World


def facts(world: World) -> dict[CellName, PoolFacts]:
    """What is on the hosts."""
    return {name: world.places[name].pool.facts() for name in world.plan.hosts}


def images(world: World) -> dict[CellName, tuple[ImageFact, ...]]:
    """What has become of the images of snapshots, by the API cell that holds them."""
    return {name: world.places[name].desk.images.facts() for name in world.plan.apis}


def parked(world: World) -> dict[CellName, tuple[str, ...]]:
    """What cells could not take, and why, but for what came over an edge that had been taken away."""
    found = {}
    for name, place in world.places.items():
        with place.outside.unit(lock=False) as unit:
            rows = [row for row in unit.find(ParkedRow) if (row.neighbour, name) not in world.changed_edges]
        if rows:
            found[name] = tuple(f"{row.kind} {id_text(row.server)}: {row.reason}" for row in rows)
    return found


def reaches(world: World) -> dict[CellName, frozenset[CellName]]:
    """The leaves below each API cell."""
    children = defaultdict(set)
    for parent, child in world.edges:
        children[parent].add(child)

    def below(name: CellName) -> set[CellName]:
        return {name}.union(*(below(child) for child in children[name]))

    return {api: frozenset(below(api) & set(world.plan.hosts)) for api in world.plan.apis}


def waiting(world: World) -> list[str]:
    """What is not at rest yet, in words."""
    waits = [f"{world.network.on_the_way} bundles on the way"] if world.network.on_the_way else []
    for name, place in world.places.items():
        audit = world.audit(name)
        if audit is None:
            waits.append(f"{name} is not up")
            continue
        for fact in audit.owned:
            if fact.standing is Standing.PENDING or fact.open or fact.status == "UNKNOWN":
                waits.append(f"{name} owns {fact.name} {fact.phase} {fact.status} open {fact.open} at {fact.leaf}")
        for fact in audit.held:
            if fact.standing is Standing.PENDING or not fact.seen:
                waits.append(f"{name} holds {fact.name} {fact.phase} {fact.status} open {fact.open} seen {fact.seen}")
        with place.outside.unit(lock=False) as unit:
            waits += [f"{name} outbox to {row.destination}" for row in unit.find(OutboxRow)]
            waits += [f"{name} job {row.kind}" for row in unit.find(JobRow) if row.server != NO_SERVER]
    return waits


def not_at_rest(world: World) -> Breach:
    """Its patience is over."""
    waits = "; ".join(waiting(world)[:12])
    return Breach(
        name="everything ends",
        promise="P1",
        text=f"not at rest {world.patience:.0f} s after everything healed: {waits}",
    )
