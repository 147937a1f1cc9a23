"""What a compute cell says when it is audited: the servers it holds and how its hosts' room adds up."""

from collections import defaultdict

from cells.audit import NO_ROOM, Audit, PlaceFact, Room, ServerFact, Standing, capacity_fact
from cells.names import CellName
from cells.ports import View
from compute_cell import hosts
from compute_cell.answers import NO_JOB
from compute_cell.build import claims, never_ran
from compute_cell.rows import GroupRow, HostRow, InstanceRow, Phase
from routing.demand import room_of


def audit(name: CellName, view: View) -> Audit:
    """Everything at once."""
    rows = view.find(InstanceRow)
    found, groups = view.all(HostRow), view.all(GroupRow)
    alive = sum(row.phase is not Phase.GONE for row in rows)
    return Audit(
        cell=name,
        held=tuple(_fact(name, row) for row in rows),
        gone=frozenset(row.id for row in rows if row.phase is Phase.GONE),
        places=_places(found, groups, rows),
        capacity=(capacity_fact(name, hosts.capacity(found, groups, alive)),) if found else (),
    )


def _fact(name: CellName, row: InstanceRow) -> ServerFact:
    waiting = (*row.queue, *((row.command,) if row.command is not None else ()))
    copies = 0 if row.phase is Phase.GONE or never_ran(row) else 2 if row.before is not None else 1
    return ServerFact(
        server=row.id,
        owner=row.owner,
        leaf=name,
        name=row.spec.name,
        project=row.spec.project,
        attempt=row.attempt,
        standing=_standing(row),
        phase=row.phase,
        status=row.state.vm_state,
        version=row.version,
        state=row.state,
        number=row.number,
        open=tuple(queued.number for queued in waiting),
        copies=copies,
        seen=not row.unseen,
        fault=row.state.fault.message if row.state.fault is not None else "",
        updated=row.updated,
    )


def _standing(row: InstanceRow) -> Standing:
    if row.phase is Phase.GONE:
        return Standing.GONE
    if row.phase is not Phase.GRANTED or row.job != NO_JOB or row.queue or row.command is not None:
        return Standing.PENDING
    if never_ran(row):
        return Standing.PENDING if row.host else Standing.FAILED
    return Standing.HELD if row.state.launched_at else Standing.PENDING


def _places(
    found: tuple[HostRow, ...], groups: tuple[GroupRow, ...], rows: tuple[InstanceRow, ...]
) -> tuple[PlaceFact, ...]:
    group_of = {host.uuid: host.group for host in found}
    claimed: dict[str, Room] = defaultdict(lambda: NO_ROOM)
    for row in rows:
        for host, flavor in claims(row) if row.phase is not Phase.GONE else ():
            room = room_of(flavor)
            group = group_of.get(host, "")
            claimed[host] = _sum(claimed[host], (room.ram_mib, room.vcpus, 0 if group else room.disk_gib))
            if group:
                claimed[group] = _sum(claimed[group], (0, 0, room.disk_gib))
    of_hosts = (
        PlaceFact(
            name=host.name,
            total=(host.ram_mib, host.vcpus, 0 if host.group else host.disk_gib),
            free=(host.free_ram_mib, host.free_vcpus, 0 if host.group else host.free_disk_gib),
            claimed=claimed[host.uuid],
        )
        for host in found
    )
    of_groups = (
        PlaceFact(
            name=group.name,
            total=(0, 0, group.disk_gib),
            free=(0, 0, group.free_disk_gib),
            claimed=claimed[group.name],
        )
        for group in groups
    )
    return (*of_hosts, *of_groups)


def _sum(one: Room, other: Room) -> Room:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]
