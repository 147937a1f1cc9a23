"""What a look over a pool changes in the rows: the leaf's view follows what is so on the hosts. Pure.

A job of each pool waits for events and looks (work.py); its end is a record to ourselves, so that what it saw is
decided on like all else. A server that a command has worked on since the look began is passed over and looked at again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from cells.decision import NOTHING, Decision
from cells.model import PowerState, VmState
from cells.names import Instant
from cells.ports import View, Where
from cells.rows import StoryRow
from compute_cell import hosts, moves
from compute_cell.answers import NO_JOB, Here, fault, released
from compute_cell.rows import GroupRow, HostRow, HostState, InstanceRow, Phase
from compute_cell.tasks import SeenServer, Watched

GONE = "Its virtual machine is gone from its host: somebody else has removed it there."
SHOWN: Mapping[PowerState, VmState] = {
    PowerState.RUNNING: VmState.ACTIVE,
    PowerState.HALTED: VmState.STOPPED,
    PowerState.PAUSED: VmState.PAUSED,
    PowerState.SUSPENDED: VmState.SUSPENDED,
}
_WATCHED = (*SHOWN.values(), VmState.ERROR)
_WATCHED_RESIZED = (VmState.RESIZED, VmState.ERROR)


@dataclass(slots=True)
class Watch:
    """What this daemon remembers of one pool. Losing it costs one look at everything. `due`: when to look next;
    `full`: when to compare every server, changed or not; `again`: to look without waiting for an event; `seen`: what
    was decided on already."""

    token: str = ""
    due: Instant = 0
    full: Instant = 0
    again: bool = False
    seen: dict[bytes, SeenServer] = field(default_factory=dict)


def settle(here: Here, view: View, watch: Watch, said: Watched, now: Instant, *, whole: bool) -> Decision:
    """Take over what is so of the servers whose VM has changed since the last look, or of all if `whole`."""
    found = {server.server: server for server in said.servers}
    if whole:
        rows = view.find(InstanceRow, Where(column="pool", op="=", value=said.pool))
    else:
        news = [key for key, state in found.items() if watch.seen.get(key) != state]
        news += [key for key in watch.seen if key not in found]
        rows = tuple(view.get_many(InstanceRow, [(key,) for key in news]).values())
    decision = NOTHING
    later: set[bytes] = set()
    claims_moved = False
    for row in rows:
        if not _is_watched(row, said.pool):
            continue
        if row.job != NO_JOB or row.command is not None or row.updated >= said.began:
            later.add(row.id)
            continue
        step = _settle_one(here, view, row, found.get(row.id), now)
        moves_claims = any(isinstance(each, HostRow) for each in step.save)
        if moves_claims and claims_moved:
            later.add(row.id)  # the second change of a host's room must see the first
            continue
        claims_moved = claims_moved or moves_claims
        decision += step
    watch.seen = {key: state for key, state in found.items() if key not in later}
    for key in later - found.keys():  # so that it is missed at the next look, too
        watch.seen[key] = SeenServer(server=key, power_state=PowerState.UNKNOWN, host="")
    watch.again = bool(later) or claims_moved
    if not claims_moved:
        decision += Decision(save=_foreign(view, said))
    return decision


def _is_watched(row: InstanceRow, pool: str) -> bool:
    pools = (row.pool, row.moving.pool if row.moving is not None else "")
    return (
        pool in pools
        and row.phase is Phase.GRANTED
        and bool(row.state.launched_at)
        and not row.stale
        and row.state.vm_state in (_WATCHED if row.before is None else _WATCHED_RESIZED)
    )


def _settle_one(here: Here, view: View, row: InstanceRow, seen: SeenServer | None, now: Instant) -> Decision:
    if row.before is not None:
        return _resized(here, view, row, seen, now)
    if seen is None:
        return _vanished(here, view, row, now)
    if row.state.vm_state is VmState.ERROR and not _is_ours_to_mend(row):
        return NOTHING
    after, rows = _follow(view, row, seen.host)
    host = view.get(HostRow, after.host)
    if host is not None and host.state is HostState.DEAD:
        return NOTHING  # the pool's memory of a host that is off
    vm_state = SHOWN.get(seen.power_state, row.state.vm_state)
    mended = row.state.vm_state is VmState.ERROR
    if after == row and vm_state is row.state.vm_state and seen.power_state is row.state.power_state:
        return NOTHING
    told = f"is {seen.power_state.value.lower()}" + (f", now on {after.state.host}" if after.host != row.host else "")
    decision = Decision(save=(*rows, story(here, row, "seen", told, now)), notes=(f"seen: {told}",))
    return decision + here.changed(
        after,
        now,
        vm_state=vm_state,
        power_state=seen.power_state,
        fault=None if mended else row.state.fault,
    )


def _resized(here: Here, view: View, row: InstanceRow, seen: SeenServer | None, now: Instant) -> Decision:
    """A server that waits for the resize to be confirmed or reverted stays so; its new copy's power is followed."""
    host = view.get(HostRow, row.host)
    is_dead = host is None or host.state is HostState.DEAD
    if seen is None or is_dead or (row.state.vm_state is VmState.ERROR and not _is_ours_to_mend(row)):
        return NOTHING
    if row.state.vm_state is VmState.RESIZED and seen.power_state is row.state.power_state:
        return NOTHING
    return Decision(notes=(f"seen: is {seen.power_state.value.lower()}",)) + here.changed(
        row, now, vm_state=VmState.RESIZED, power_state=seen.power_state, fault=None
    )


def _vanished(here: Here, view: View, row: InstanceRow, now: Instant) -> Decision:
    if row.moving is not None or row.state.vm_state is VmState.ERROR:
        return NOTHING  # the other pool's look tells of a move; an ERROR has its reason already
    decision = Decision(save=(story(here, row, "vanished", GONE, now),), notes=("its VM has vanished",))
    return decision + here.changed(
        row, now, vm_state=VmState.ERROR, power_state=PowerState.UNKNOWN, fault=fault(GONE, now)
    )


def _is_ours_to_mend(row: InstanceRow) -> bool:
    """Whether an ERROR was told by a look, so that a look may take it back."""
    error = row.state.fault
    return error is not None and (error.message == GONE[:255] or error.message.startswith(DEAD))


def _follow(view: View, row: InstanceRow, uuid: str) -> tuple[InstanceRow, tuple[HostRow | GroupRow, ...]]:
    """The claim goes where the VM is: after a move whose end we missed, or one that we did not ask for."""
    if row.moving is not None and uuid:
        return moves.arrived(view, row) if uuid == row.moving.host else moves.stayed(view, row)
    if not uuid or uuid == row.host:
        return row, ()
    to, left = view.get(HostRow, uuid), view.get(HostRow, row.host)
    if to is None or left is None:
        return row, ()
    flavor = row.state.flavor
    if left.group and left.group == to.group:
        flavor = moves.without_disks(flavor)
    group = view.get(GroupRow, to.group) if to.group and to.group != left.group else None
    claim = hosts.take(to, group, flavor)
    rows = (*released(view, (row.host, flavor)), *claim.rows)
    return replace(row, host=uuid, state=replace(row.state, host=to.name)), rows


def _foreign(view: View, said: Watched) -> tuple[HostRow, ...]:
    """Hosts on which other things than our servers take more or less memory than before: their room follows."""
    taken = {each.host: each.memory_mib for each in said.foreign}
    changed = []
    for host in view.all(HostRow):
        if host.pool != said.pool or host.foreign_mib == taken.get(host.uuid, 0):
            continue
        # What ran when the host was measured first is not in its room anyway.
        more = taken.get(host.uuid, 0) - host.foreign_mib if host.foreign_mib >= 0 else 0
        changed.append(
            replace(
                host,
                foreign_mib=taken.get(host.uuid, 0),
                ram_mib=host.ram_mib - more,
                free_ram_mib=host.free_ram_mib - more,
            )
        )
    return tuple(changed)


# --- hosts that fall silent, and hosts that are dead ---

DEAD = "Its host is dead"


_NEWS = {HostState.DOWN: "host down", HostState.DEAD: "host fenced by its pool"}


def told_of_hosts(here: Here, view: View, rows: Iterable[object], now: Instant) -> Decision:
    """A line in the story of each server whose host has fallen silent, or answers again."""
    decision = NOTHING
    for after in rows:
        before = view.get(HostRow, after.uuid) if isinstance(after, HostRow) else None
        if not isinstance(after, HostRow) or before is None or before.state is after.state:
            continue
        word = _NEWS.get(after.state, "host up")
        servers = view.find(InstanceRow, Where(column="host", op="=", value=after.uuid))
        lines = tuple(story(here, row, word, after.name, now) for row in servers if row.phase is Phase.GRANTED)
        decision += Decision(save=lines, notes=(f"{word}: {after.name}, {len(lines)} servers",))
    return decision


def story(here: Here, row: InstanceRow, event: str, text: str, now: Instant) -> StoryRow:
    return StoryRow(
        id=here.new_id(), server=row.id, request=row.request, at=now, cell=here.name, event=event, text=text
    )
