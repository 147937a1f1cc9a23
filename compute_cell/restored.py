"""A leaf whose database was put back to an old backup. It hears so when a neighbour shows it its own signature under a
newer generation than it has; then it doubts every server it knows, and those it has forgotten come up when its
digests are compared. Each is made good by what its owner knows and what is so on the hosts. Pure.

    doubted, or not known --RecallServer--> owner --RememberServer--> job server.find --ends--> as it is, reported

Until every owner agrees with it, the leaf takes no builds: it does not know what room it has. Until a server's own
owner does, no command of it begins.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from cells.codec import pack, unpack
from cells.decision import NOTHING, Decision, Job, Remove
from cells.messages import (
    Digest,
    GoOn,
    HeldServer,
    JobEnded,
    RecallServer,
    RefusalCode,
    Refused,
    RememberServer,
)
from cells.model import Flavor, Generation, InstanceState, VmState
from cells.names import NEVER, CellName, Instant, id_text
from cells.ports import View, Where
from cells.record import Received, Record
from cells.rows import CounterRow, JobRow, SettingRow
from compute_cell import build
from compute_cell.answers import NO_JOB, Here, claimed, quiet, released
from compute_cell.commands import next_one
from compute_cell.reports import sums_for
from compute_cell.rows import HostRow, InstanceRow, Phase, PoolRow
from compute_cell.tasks import FindTask, RevertTask, Sought, Watched
from compute_cell.watching import SHOWN
from xenapi_host.facts import Refound

FIND = "server.find"
UNDO = "server.undo_found"
MOST_AT_ONCE = 200
GONE = "its cell was put back to a backup, and nothing of it is on its hosts"


def put_back(view: View, said: Generation, owners: Iterable[CellName], now: Instant) -> Decision:
    """Doubt everything, under a generation that nobody has heard yet. Jobs end: their servers may have gone on long
    since. The commands wait for their owner to say which of them are over, the builds for its word that they are not.
    """
    epoch = view.get(CounterRow, build.EPOCH) or CounterRow(name=build.EPOCH, value=1)
    doubted: list[InstanceRow] = []
    dropped: list[bytes] = []
    for row in view.find(InstanceRow, Where(column="phase", op="!=", value=Phase.GONE)):
        if row.phase is Phase.UNDOING:
            continue
        if row.state.launched_at or row.state.vm_state is VmState.BUILDING:  # what is left of a failed build may go
            dropped += [row.job] if row.job != NO_JOB else []
            begun = (row.command,) if row.command is not None else ()
            row = replace(row, job=NO_JOB, command=None, queue=(*begun, *row.queue))
        doubted.append(replace(row, stale=True))
    return Decision(
        save=(
            replace(epoch, value=max(epoch.value, said.epoch) + 1),
            SettingRow(name=build.RESTORING, value=",".join(sorted(owners))),
            *doubted,
            *(Remove(row=JobRow, key=(job,)) for job in dropped),
        ),
        stop=tuple(dropped),
        notes=(f"this database was put back to a backup: {len(doubted)} servers are looked for anew",),
    )


def asking(here: Here, view: View, owners: Iterable[CellName], now: Instant) -> Decision:
    """At each tick: ask once more for what is doubted, and let the owners that are awaited compare. An owner that is
    above this cell no longer is not awaited."""
    doubted = view.find(InstanceRow, Where(column="stale", op="=", value=True), limit=MOST_AT_ONCE)
    ask = tuple(recall(here, row) for row in doubted if row.job == NO_JOB)
    decision = Decision(send=ask)
    awaited = build.restoring(view)
    if awaited is None:
        return decision
    left = awaited & frozenset(owners)
    for owner in sorted(left):
        body = Digest(buckets=sums_for(view, owner), answer=True)
        record = Record(id=here.new_id(), body=body, origin=here.name, destination=owner, deadline=NEVER)
        decision += Decision(send=(record,))
    return decision if left else decision + _over(here, view, now)


def agreed(here: Here, view: View, owner: CellName, now: Instant) -> Decision:
    """An owner knows the same servers, at the same versions. One less to wait for, if none of its is doubted."""
    awaited = build.restoring(view)
    mine = view.find(InstanceRow, Where(column="owner", op="=", value=owner))
    if awaited is None or owner not in awaited or any(row.stale for row in mine):
        return NOTHING
    left = awaited - {owner}
    if not left:
        return _over(here, view, now)
    decision = Decision(save=(SettingRow(name=build.RESTORING, value=",".join(sorted(left))),))
    return decision + _going_on(here, mine, now)


def _over(here: Here, view: View, now: Instant) -> Decision:
    decision = Decision(save=(Remove(row=SettingRow, key=(build.RESTORING,)),), notes=("every server is known again",))
    return decision + _going_on(here, view.find(InstanceRow), now)


def _going_on(here: Here, rows: Iterable[InstanceRow], now: Instant) -> Decision:
    return Decision(wake=tuple(here.wake(now, GoOn(), row) for row in rows if row.queue))


def unclaimed(here: Here, view: View, said: Watched, owners: Iterable[CellName]) -> Decision:
    """Servers on a host of which we know nothing: every owner is asked. One that has deleted it, or has it elsewhere,
    says so, and it goes. What no owner knows stays."""
    known = view.get_many(InstanceRow, [(seen.server,) for seen in said.servers])
    unknown = [seen for seen in said.servers if (seen.server,) not in known]
    return Decision(
        send=tuple(
            Record(
                id=here.new_id(),
                body=RecallServer(attempt=seen.attempt, on_host=True),
                origin=here.name,
                destination=owner,
                server=seen.server,
            )
            for seen in unknown
            for owner in owners
        ),
        notes=tuple(f"server {id_text(seen.server)} is on a host and nobody's so far" for seen in unknown),
    )


def go_on(here: Here, view: View, received: Received, now: Instant) -> Decision:
    instance = view.get(InstanceRow, received.record.server)
    return NOTHING if instance is None else next_one(here, view, instance, now)


def recall(here: Here, row: InstanceRow) -> Record:
    return here.record(row.owner, RecallServer(attempt=row.attempt), row)


# --- the owner's answer ---


def remember(here: Here, view: View, received: Received, body: RememberServer, now: Instant) -> Decision:
    """What the owner knows of a server that is doubted here, or not known: look for it, unless it never ran."""
    record = received.record
    known = view.get(InstanceRow, record.server)
    ran = body.state is not None and bool(body.state.launched_at)
    if known is None:
        known = _blank(record, body, view, now)
        if body.state is not None and body.state.vm_state is VmState.ERROR and not ran:
            return here.changed(known, now)
        return _look(here, view, known, ran)
    if known.owner != record.origin or known.phase is Phase.UNDOING or known.job != NO_JOB:
        return NOTHING
    if known.phase is Phase.GONE:
        return here.changed(known, now)
    if not known.stale:
        return NOTHING
    known = replace(known, attempt=body.attempt, proof=body.proof)  # the backup may have an earlier one
    if not ran and not known.state.launched_at:
        # It was being built, and still is: the grant comes with the owner's answer, if it was granted.
        sure = replace(known, stale=False, version=max(known.version, body.version))
        return (
            build.again(here, view, sure, now) if known.state.vm_state is VmState.BUILDING else _sure(here, sure, now)
        )
    freed = released(view, *build.claims(known))
    number = max(known.number, body.number)
    queue = tuple(waiting for waiting in known.queue if waiting.number > number)
    base = replace(known, phase=Phase.GRANTED, host="", old_host="", moving=None, number=number, queue=queue)
    if body.state is not None and body.version >= known.version:
        base = replace(base, spec=body.spec, state=body.state, version=body.version, before=None)
    return Decision(save=freed) + _look(here, view, base, True)


def _blank(record: Record, body: RememberServer, view: View, now: Instant) -> InstanceRow:
    flavor = body.spec.flavor
    state = body.state or InstanceState(vm_state=VmState.BUILDING, flavor=flavor)
    pools = view.all(PoolRow)
    host = _named(view, state.host)
    return InstanceRow(
        id=record.server,
        owner=record.origin,
        request=record.request,
        attempt=body.attempt,
        phase=Phase.GRANTED,
        version=body.version,
        unseen=True,
        updated=now,
        host="",
        pool=host.pool if host is not None else pools[0].name if pools else "",
        spec=body.spec,
        state=state,
        number=body.number,
        proof=body.proof,
    )


def _look(here: Here, view: View, row: InstanceRow, ran: bool) -> Decision:
    task = FindTask(pools=tuple(pool.name for pool in view.all(PoolRow)), owner=row.owner, ran=ran)
    job = Job(id=here.new_id(), kind=FIND, server=row.id, lane=f"find {row.pool}", body=pack(task), request=row.request)
    return Decision(save=(replace(row, stale=True, job=job.id),), do=(job,), notes=("is looked for on the hosts",))


def found(here: Here, view: View, instance: InstanceRow, end: JobEnded, now: Instant) -> Decision:
    """The hosts have been looked at: the server is as it is there, with the room it takes."""
    idle = replace(instance, job=NO_JOB)
    if instance.phase is Phase.UNDOING:
        return build.undone_while_busy(here, idle, now)
    if end.error:
        return Decision(save=(idle,), notes=(f"not looked for yet: {end.error}",))
    said: Sought = unpack(Sought, end.result)
    sure = replace(idle, stale=False)
    if said.others:
        return build.not_theirs(here, sure, now)
    if said.seen is None:
        return _lost(here, sure, now)
    if said.seen.kept is not None and sure.state.vm_state is not VmState.RESIZED:
        return _undo(here, view, idle, said.seen)
    after = _as_it_is(view, sure, said.seen)
    # It is there, so it is counted, whatever else was given the room meanwhile.
    decision = Decision(save=claimed(view, *build.claims(after)), notes=("found again",))
    return decision + _sure(here, replace(after, state=quiet(after.state)), now)


def _undo(here: Here, view: View, row: InstanceRow, seen: Refound) -> Decision:
    """A resize was left off half way. Its owner may wish it again, or not, or too late: it is as before first."""
    host = _host(view, seen.kept_host) or _host(view, seen.host)
    job = here.job(UNDO, row, RevertTask(pool=host.pool if host is not None else row.pool), row.request)
    return Decision(save=(replace(row, job=job.id),), do=(job,), notes=("a resize left off half way is undone",))


def undone(here: Here, view: View, instance: InstanceRow, end: JobEnded, now: Instant) -> Decision:
    """The half resize is gone, so the server is looked for once more; else its owner is asked again first."""
    idle = replace(instance, job=NO_JOB)
    if instance.phase is Phase.UNDOING:
        return build.undone_while_busy(here, idle, now)
    if end.error:
        return Decision(save=(idle,), notes=(f"not undone yet: {end.error}",))
    return _look(here, view, idle, True)


def _sure(here: Here, row: InstanceRow, now: Instant) -> Decision:
    return here.changed(row, now) + Decision(wake=build.waiting(here, row, now))


def _lost(here: Here, instance: InstanceRow, now: Instant) -> Decision:
    told = NOTHING
    if not instance.state.launched_at:
        answer = Refused(attempt=instance.attempt, code=RefusalCode.EXPIRED, reason=GONE, undone=True)
        told = Decision(send=(here.record(instance.owner, answer, instance),))
    return told + Decision(notes=(GONE,)) + build.gone(here, instance, now)


def _as_it_is(view: View, row: InstanceRow, seen: Refound) -> InstanceRow:
    state = row.state
    is_resized = state.vm_state is VmState.RESIZED
    host = _host(view, seen.host) or _named(view, state.host) or _host(view, row.host)
    vm_state = SHOWN.get(seen.power_state, state.vm_state)
    if state.vm_state is VmState.RESCUED or (is_resized and seen.kept is not None):
        vm_state = state.vm_state
    before, old_host = None, ""
    older = row.before.flavor if row.before is not None else row.spec.flavor
    flavor = _fitting(seen, state.flavor, older)
    if is_resized and seen.kept is not None:
        left = _host(view, seen.kept_host) or host
        old_host = left.uuid if left is not None else ""
        before = row.before or InstanceState(
            vm_state=SHOWN.get(seen.kept, VmState.STOPPED),
            power_state=seen.kept,
            flavor=older,
            host=left.name if left is not None else "",
            launched_at=state.launched_at,
        )
    return replace(
        row,
        host=host.uuid if host is not None else "",
        pool=host.pool if host is not None else row.pool,
        old_host=old_host,
        before=before,
        state=replace(
            state,
            vm_state=vm_state,
            power_state=seen.power_state,
            flavor=flavor,
            host=host.name if host is not None else "",
            launched_at=state.launched_at or row.updated,
            fault=state.fault if vm_state is VmState.ERROR else None,
            volumes=seen.volumes,
        ),
    )


def _fitting(seen: Refound, *flavors: Flavor) -> Flavor:
    return next((flavor for flavor in flavors if flavor.ram_mib == seen.ram_mib), flavors[0])


def _host(view: View, uuid: str) -> HostRow | None:
    return view.get(HostRow, uuid) if uuid else None


def _named(view: View, name: str) -> HostRow | None:
    return next((host for host in view.all(HostRow) if name and host.name == name), None)


# --- an owner that was put back ---


def held(here: Here, view: View, received: Received, forgotten: Mapping[bytes, int] | None, now: Instant) -> Decision:
    """Tell an owner that has lost a server, or its place, what is here of it: with its own proof of having asked.
    `forgotten`: attempts of servers on the hosts that may be in no row; None where that is not known yet, and then it
    asks again."""
    record = received.record
    row = view.get(InstanceRow, record.server)
    if row is None and forgotten is None:
        return Decision(notes=("the hosts are looked at first",))
    if row is None and forgotten is not None and record.server in forgotten:
        here_it_is = RecallServer(attempt=forgotten[record.server], on_host=True)
        return Decision(send=(here.record(record.origin, here_it_is, record),), notes=("not known, but on a host",))
    if row is not None and row.phase is Phase.UNDOING:
        return NOTHING  # it is asked again when the host is clean
    if row is None or row.owner != record.origin or (row.phase is Phase.GONE and not row.proof):
        return Decision(send=(here.record(record.origin, HeldServer(), record),))
    answer = HeldServer(
        attempt=row.attempt,
        granted=row.phase is Phase.GRANTED,
        spec=replace(row.spec, sealed=b"", flavor=(row.before or row.state).flavor),
        proof=row.proof,
        version=row.version,
        number=row.number,
        state=row.state,
        request=row.request,
    )
    return Decision(send=(here.record(record.origin, answer, row),))
