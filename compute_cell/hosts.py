"""Hosts and what is free on them: choosing one, claiming, giving back. Pure; the rows are saved by who calls.

A leaf's choice is exact: the claim is in the same transaction as the instance, so a host is never overfilled.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cells.errors import BadInput, Refusal
from cells.messages import RefusalCode
from cells.model import BuildSpec, Capacity, Flavor, FreeShape, HostClass, StorageGroup
from compute_cell.rows import GroupRow, HostRow, HostState
from routing.demand import Demand, demand_of, room_of
from xenapi_host.facts import HostFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Host and storage rows with a flavor's needs taken off (or given back)."""

    host: HostRow
    group: GroupRow | None = None

    @property
    def rows(self) -> tuple[HostRow | GroupRow, ...]:
        return (self.host,) if self.group is None else (self.host, self.group)


def choose(
    spec: BuildSpec, flavor: Flavor, hosts: Sequence[HostRow], groups: Sequence[GroupRow], avoid: Iterable[str] = ()
) -> Claim:
    """The host with most free memory that has room, not one to avoid if another will do; its rows with the claim taken.
    Refusal(no_room) says how many hosts lacked what. What a host must be able to do is judged as placing judges it."""
    avoided = set(avoid)
    by_name = {group.name: group for group in groups}
    try:
        demand = demand_of(replace(spec, flavor=flavor))
    except BadInput as error:
        raise Refusal(RefusalCode.UNSUPPORTED, str(error)) from None
    lacking: dict[str, int] = {}
    best: HostRow | None = None
    for host in hosts:
        reason = _lacks(host, by_name.get(host.group), demand)
        if reason:
            lacking[reason] = lacking.get(reason, 0) + 1
        elif best is None or _rank(host, avoided) > _rank(best, avoided):
            best = host
    if best is None:
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(lacking.items())) or "no hosts are registered"
        raise Refusal(RefusalCode.NO_ROOM, f"no host has room for {flavor.name}: {why}")
    return take(best, by_name.get(best.group), flavor)


def _rank(host: HostRow, avoided: set[str]) -> tuple[bool, int, str]:
    return host.uuid not in avoided, host.free_ram_mib, host.uuid


def _lacks(host: HostRow, group: GroupRow | None, demand: Demand) -> str:
    if host.state is not HostState.ENABLED:
        return str(host.state)
    if why := demand.why_not(_class_of(host)):
        return why
    room = demand.room
    if host.free_ram_mib < room.ram_mib:
        return "short of memory"
    if host.free_vcpus < room.vcpus:
        return "short of vCPUs"
    if (group.free_disk_gib if group is not None else host.free_disk_gib) < room.disk_gib:
        return "short of disk"
    return ""


def _class_of(host: HostRow) -> HostClass:
    return HostClass(hypervisor_version=host.hypervisor_version, traits=host.traits, zone=host.zone)


def take(host: HostRow, group: GroupRow | None, flavor: Flavor) -> Claim:
    """The rows with this flavor's needs taken off."""
    return _change(host, group, flavor, -1)


def give_back(host: HostRow, group: GroupRow | None, flavor: Flavor) -> Claim:
    """The rows with this flavor's needs returned."""
    return _change(host, group, flavor, 1)


def _change(host: HostRow, group: GroupRow | None, flavor: Flavor, sign: int) -> Claim:
    room = room_of(flavor)
    changed = replace(
        host,
        free_ram_mib=host.free_ram_mib + sign * room.ram_mib,
        free_vcpus=host.free_vcpus + sign * room.vcpus,
    )
    disk = sign * room.disk_gib
    if group is None:
        return Claim(host=replace(changed, free_disk_gib=changed.free_disk_gib + disk))
    return Claim(host=changed, group=replace(group, free_disk_gib=group.free_disk_gib + disk))


def facts(host: HostRow) -> HostFacts:
    """The host as a build plan wants it."""
    return HostFacts(
        uuid=host.uuid,
        name=host.name,
        version=host.hypervisor_version,
        traits=host.traits,
        storage=host.sr,
        network=host.network,
    )


def capacity(hosts: Iterable[HostRow], groups: Iterable[GroupRow], servers: int) -> Capacity:
    """What the cell says of itself: equal hosts counted together, so that 200 hosts are a few dozen shapes."""
    classes: dict[tuple[str, tuple[str, ...], str], dict[tuple[int, int, int, str], int]] = {}
    count = ram = vcpus = disk = 0
    for host in hosts:
        if host.state is HostState.DEAD:
            continue
        count += 1
        ram += host.ram_mib
        vcpus += host.vcpus
        disk += 0 if host.group else host.disk_gib
        if host.state is not HostState.ENABLED:
            continue
        shapes = classes.setdefault((host.hypervisor_version, host.traits, host.zone), {})
        shape = (
            max(0, host.free_ram_mib),
            max(0, host.free_vcpus),
            0 if host.group else max(0, host.free_disk_gib),
            host.group,
        )
        shapes[shape] = shapes.get(shape, 0) + 1
    shared = tuple(
        StorageGroup(name=group.name, free_gib=max(0, group.free_disk_gib), total_gib=group.disk_gib)
        for group in groups
    )
    return Capacity(
        classes=tuple(
            HostClass(
                hypervisor_version=version,
                traits=traits,
                zone=zone,
                shapes=tuple(
                    FreeShape(ram_mib=r, vcpus=v, disk_gib=d, group=group, hosts=n)
                    for (r, v, d, group), n in sorted(shapes.items())
                ),
            )
            for (version, traits, zone), shapes in sorted(classes.items())
        ),
        groups=shared,
        hosts=count,
        total_ram_mib=ram,
        total_vcpus=vcpus,
        total_disk_gib=disk + sum(group.total_gib for group in shared),
        servers=servers,
    )
