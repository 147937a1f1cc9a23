"""Placement a second time, host by host and without any cleverness, to hold the fast one against."""

from collections import defaultdict
from collections.abc import Iterable

from cells.model import Capacity, HostClass
from routing.capacity import UNBOUNDED
from routing.demand import Demand
from routing.reservations import Reservation


def buildable(capacity: Capacity, demand: Demand) -> int:
    """How many servers a leaf could build: each host by itself, and at the end each storage group."""
    room = demand.room
    own = 0
    shared: dict[str, int] = defaultdict(int)
    for known in capacity.classes:
        if not suits(known, demand):
            continue
        for shape in known.shapes:
            for _ in range(shape.hosts):
                sizes = [(shape.ram_mib, room.ram_mib), (shape.vcpus, room.vcpus)]
                if not shape.group:
                    sizes.append((shape.disk_gib, room.disk_gib))
                fits = min((free // size for free, size in sizes if size), default=UNBOUNDED)
                if shape.group:
                    shared[shape.group] += fits
                else:
                    own += fits
    for name, fits in shared.items():
        free = next((group.free_gib for group in capacity.groups if group.name == name), 0)
        own += min(fits, free // room.disk_gib) if room.disk_gib else fits
    return own


def suits(known: HostClass, demand: Demand) -> bool:
    return (
        (not demand.zone or demand.zone == known.zone)
        and all(trait in known.traits for trait in demand.required)
        and not any(trait in known.traits for trait in demand.forbidden)
    )


def reserved(leaf: str, demand: Demand, held: Iterable[Reservation]) -> int:
    """The most servers of this demand that the reservations at a leaf may take away, one by one."""
    total = 0
    for reservation in held:
        if reservation.leaf != leaf:
            continue
        most = 1 if reservation.room == demand.room else 0
        for gone, size in (
            (reservation.room.ram_mib, demand.room.ram_mib),
            (reservation.room.vcpus, demand.room.vcpus),
            (reservation.room.disk_gib, demand.room.disk_gib),
        ):
            units = 0
            while size and units * size < gone:
                units += 1
            most = max(most, units)
        total += most
    return total
