"""Hosts as their pools describe them, into rows. Pure. What is free follows totals by difference: claims stay."""

from collections.abc import Iterable
from dataclasses import replace

from cells.names import Instant
from cells.ports import View
from compute_cell.rows import GroupRow, HostRow, HostState, PoolRow
from compute_cell.tasks import Measured, MeasuredHost


def measured(view: View, said: Measured, now: Instant) -> tuple[HostRow | GroupRow | PoolRow, ...]:
    """Rows that changed. A host the pool no longer names is DOWN; one disabled here stays so."""
    known = {host.uuid: host for host in view.all(HostRow) if host.pool == said.pool}
    groups = {group.name: group for group in view.all(GroupRow)}
    changed: list[HostRow | GroupRow | PoolRow] = []
    for host in said.hosts:
        row = _row(said.pool, host, known.pop(host.uuid, None))
        changed.append(row)
    for gone in known.values():
        if gone.state in (HostState.ENABLED, HostState.DISABLED):
            changed.append(replace(gone, state=HostState.DOWN))
    for name, total, sr in _shared(said.hosts):
        before = groups.get(name) or GroupRow(name=name, pool=said.pool, sr=sr, disk_gib=0, free_disk_gib=0)
        grown = total - before.disk_gib
        changed.append(replace(before, disk_gib=total, free_disk_gib=before.free_disk_gib + grown))
    pool = view.get(PoolRow, said.pool)
    if pool is not None:
        changed.append(replace(pool, heard=now, error=said.trouble[:500]))
    return tuple(changed)


def unreachable(view: View, pool: str, error: str) -> tuple[HostRow | PoolRow, ...]:
    """The pool did not answer: its hosts take no builds until it does."""
    row = view.get(PoolRow, pool)
    down = tuple(
        replace(host, state=HostState.DOWN)
        for host in view.all(HostRow)
        if host.pool == pool and host.state is HostState.ENABLED
    )
    return down if row is None else (*down, replace(row, error=error[:500]))


def _row(pool: str, said: MeasuredHost, before: HostRow | None) -> HostRow:
    if before is None:
        return HostRow(
            uuid=said.uuid,
            pool=pool,
            name=said.name,
            state=HostState.ENABLED if said.ready else HostState.DOWN,
            ram_mib=said.ram_mib,
            physical_mib=said.physical_mib,
            vcpus=said.vcpus,
            disk_gib=said.disk_gib,
            free_ram_mib=said.ram_mib,
            free_vcpus=said.vcpus,
            free_disk_gib=said.disk_gib,
            sr=said.sr,
            network=said.network,
            group=said.group,
            hypervisor_version=said.version,
            traits=said.traits,
        )
    state, fenced_from = state_of(said, before)
    # Free memory on the host has our own servers taken off already: what counts is whether the host itself grew.
    more_ram = said.physical_mib - before.physical_mib
    return replace(
        before,
        name=said.name,
        state=state,
        fenced_from=fenced_from,
        ram_mib=before.ram_mib + more_ram,
        physical_mib=said.physical_mib,
        vcpus=said.vcpus,
        disk_gib=said.disk_gib,
        free_ram_mib=before.free_ram_mib + more_ram,
        free_vcpus=before.free_vcpus + said.vcpus - before.vcpus,
        free_disk_gib=before.free_disk_gib + said.disk_gib - before.disk_gib,
        sr=said.sr,
        network=said.network,
        group=said.group,
        hypervisor_version=said.version,
        traits=said.traits,
    )


def state_of(said: MeasuredHost, before: HostRow) -> tuple[HostState, str]:
    """The state of a host now, and what it was before its pool fenced it. What a person has said stays."""
    if said.fenced and before.state is not HostState.DEAD:
        return HostState.DEAD, HostState.ENABLED if before.state is HostState.DOWN else before.state
    if before.state is HostState.DEAD and before.fenced_from and said.ready:
        return HostState(before.fenced_from), ""
    if before.state in (HostState.ENABLED, HostState.DOWN):
        return (HostState.ENABLED if said.ready else HostState.DOWN), ""
    return before.state, before.fenced_from


def _shared(hosts: Iterable[MeasuredHost]) -> list[tuple[str, int, str]]:
    return sorted({(host.group, host.disk_gib, host.sr) for host in hosts if host.group})
