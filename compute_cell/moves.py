"""Moving a running server at its leaf: room on the new host is claimed first, beside the old claim; when the move is
over one of the two is given back. Pure.

Hosts that share the server's storage come first: there only its memory moves, and its disk is not claimed twice. Then
the other hosts of its pool, then those of the leaf's other pools, to which its disks are copied.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from cells.errors import Refusal
from cells.messages import LiveMigrateServer, RefusalCode
from cells.model import Flavor, PowerState, VmState
from cells.names import Instant
from cells.ports import View
from compute_cell import hosts
from compute_cell.answers import Here, released
from compute_cell.command import Begun, Done
from compute_cell.hosts import Claim
from compute_cell.rows import GroupRow, HostRow, InstanceRow, Move
from compute_cell.tasks import MoveTask


def begin(here: Here, view: View, instance: InstanceRow, body: LiveMigrateServer, request: str) -> Begun:
    """Claim room on another host and begin to move there."""
    if instance.before is not None:
        raise Refusal(RefusalCode.UNSUPPORTED, "a resize is not confirmed or reverted yet")
    if instance.moving is not None:
        raise Refusal(RefusalCode.UNSUPPORTED, "where an earlier move has left the server is not known yet")
    claim, move = elsewhere(view, instance, host=body.host, block=body.block)
    task = MoveTask(pool=instance.pool, to_pool=claim.host.pool, on=hosts.facts(claim.host))
    return Begun(
        job=here.job("server.move", instance, task, request),
        task_state="migrating",
        instance=replace(instance, moving=move),
        save=claim.rows,
    )


def elsewhere(view: View, instance: InstanceRow, *, host: str = "", block: bool | None = None) -> tuple[Claim, Move]:
    """Room for a server on another host, the named one if one is named; the claim taken. `block`: whether its disks
    may be copied (True: must be); None: as needed. Refusal when there is none."""
    here = view.get(HostRow, instance.host)
    others = [row for row in view.all(HostRow) if row.uuid != instance.host]
    if host:
        others = [row for row in others if host in (row.name, row.uuid)]
        if not others:
            raise Refusal(RefusalCode.NO_ROOM, f"there is no other host {host!r} in this cell; leave the name out")
    groups, flavor = view.all(GroupRow), instance.state.flavor
    refused: Refusal | None = None
    for flavor_there, found in _tiers(here, others, instance, flavor, block):
        try:
            claim = hosts.choose(instance.spec, flavor_there, found, groups)
        except Refusal as refusal:
            refused = refused or refusal
            continue
        on = claim.host
        return claim, Move(host=on.uuid, pool=on.pool, name=on.name, room=flavor_there)
    raise refused or Refusal(RefusalCode.NO_ROOM, "no other host of this cell fits the way the move was asked for")


def _tiers(
    here: HostRow | None, others: Iterable[HostRow], instance: InstanceRow, flavor: Flavor, block: bool | None
) -> Iterator[tuple[Flavor, list[HostRow]]]:
    """The hosts to try one after the other, and what a server takes of them."""
    group = here.group if here is not None else ""
    sharing = [row for row in others if group and row.group == group]
    if block is not True and sharing:
        yield without_disks(flavor), sharing
    if block is not False:
        apart = [row for row in others if row not in sharing]
        for found in (
            [row for row in apart if row.pool == instance.pool],
            [row for row in apart if row.pool != instance.pool],
        ):
            if found:
                yield flavor, found


def without_disks(flavor: Flavor) -> Flavor:
    """What a server takes of a host besides the storage that it has already."""
    return replace(flavor, disk_gib=0, ephemeral_gib=0, swap_mib=0)


def done(view: View, instance: InstanceRow, now: Instant) -> Done:
    """It runs on its new host: what it leaves is given back."""
    after, rows = arrived(view, instance)
    state = replace(after.state, vm_state=VmState.ACTIVE, power_state=PowerState.RUNNING, fault=None)
    return replace(after, state=state), rows


def failed(view: View, instance: InstanceRow) -> Done:
    """It stays where it was."""
    return stayed(view, instance)


def arrived(view: View, instance: InstanceRow) -> Done:
    """The server counts on the host it moved to."""
    move = instance.moving
    assert move is not None
    flavor = instance.state.flavor
    left = flavor if move.room == flavor else without_disks(flavor)
    rows = released(view, (instance.host, left)) if instance.host else ()
    state = replace(instance.state, host=move.name)
    return replace(instance, host=move.host, pool=move.pool, moving=None, state=state), rows


def stayed(view: View, instance: InstanceRow) -> Done:
    """The room on the new host is given back."""
    move = instance.moving
    if move is None:
        return instance, ()
    return replace(instance, moving=None), released(view, (move.host, move.room))
