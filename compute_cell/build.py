"""A build at its leaf: accept and claim, prepare, wait for the grant, start; or undo. Pure.

    BuildServer -> PREPARING --job ends--> PREPARED --Grant--> GRANTED --job ends--> ACTIVE
                       |  Grant may come first: GRANTED, and the start follows the preparation's end
                       +-- Discard, GrantDue, DeleteServer --> UNDOING --job ends--> GONE (a tombstone)

The VM is started only after the grant, and the owner grants one attempt only: so one VM of a build at most is started.
"""

from dataclasses import replace

from cells.codec import pack, unpack
from cells.decision import NOTHING, Decision, Job, Remove, Wake
from cells.errors import Refusal
from cells.messages import (
    Accepted,
    BuildServer,
    DeleteServer,
    DestroyDue,
    Discard,
    Forget,
    GoOn,
    Grant,
    GrantDue,
    JobEnded,
    RecallServer,
    RefusalCode,
    Refused,
)
from cells.model import BuildSpec, CellState, Flavor, ImageRef, InstanceState, PowerState, VmState
from cells.names import SECOND, CellName, Instant
from cells.ports import View
from cells.record import Received, Record
from cells.rows import CounterRow, SettingRow, StoryRow
from compute_cell import hosts
from compute_cell.answers import NO_JOB, Here, fault, released, told
from compute_cell.rows import GroupRow, HostRow, InstanceRow, Phase
from compute_cell.tasks import DestroyTask, PrepareTask, Sought, StartTask
from xenapi_host import guests

GENERATION = "generation"
EPOCH = "epoch"
STATE = "state"
RESTORING = "restoring"
STARTING = "spawning"


def accept(here: Here, view: View, received: Received, body: BuildServer, now: Instant) -> Decision:
    """Claim a host for a build and begin to prepare it, or refuse with the reason."""
    record = received.record
    trail = tuple((hop.cell, hop.at) for hop in received.trail)
    known = view.get(InstanceRow, record.server)
    try:
        if known is not None:
            return _again(here, known, record, body)
        _check(view, record, now)
        claim = hosts.choose(body.spec, body.spec.flavor, view.all(HostRow), view.all(GroupRow))
    except Refusal as refusal:
        code = RefusalCode(refusal.code)
        answer = Refused(attempt=body.attempt, code=code, reason=str(refusal), trail=trail)
        return Decision(send=(here.record(record.origin, answer, record),), notes=(f"refused: {refusal}",))
    epoch, sequence = _next_generation(view)
    job_id = here.new_id()
    instance = InstanceRow(
        id=record.server,
        owner=record.origin,
        request=record.request,
        attempt=body.attempt,
        phase=Phase.PREPARING,
        version=1,
        unseen=True,
        updated=now,
        host=claim.host.uuid,
        pool=claim.host.pool,
        spec=body.spec,
        state=InstanceState(
            vm_state=VmState.BUILDING,
            task_state="block_device_mapping",
            flavor=body.spec.flavor,
            host=claim.host.name,
        ),
        number=record.number,
        job=job_id,
        proof=body.proof,
    )
    job = here.job(
        "build.prepare",
        instance,
        _preparation(instance, claim.host),
    )
    accepted = Accepted(
        attempt=body.attempt, host=claim.host.name, epoch=epoch.value, sequence=sequence.value, trail=trail
    )
    story = StoryRow(
        id=here.new_id(),
        server=record.server,
        request=record.request,
        at=now,
        cell=here.name,
        event="claimed",
        text=f"host {claim.host.name}",
        trail=trail,
    )
    return Decision(
        save=(instance, *claim.rows, epoch, sequence, story),
        send=(here.record(record.origin, accepted, record), here.report(instance)),
        do=(replace(job, id=job_id),),
        wake=(here.wake(now + body.lease * SECOND, GrantDue(attempt=body.attempt), instance),),
        notes=(f"accepted on host {claim.host.name}",),
    )


def _again(here: Here, known: InstanceRow, record: Record, body: BuildServer) -> Decision:
    if known.phase in (Phase.GONE, Phase.UNDOING):
        raise Refusal(RefusalCode.DELETED, "the server was deleted or discarded here")
    if body.attempt != known.attempt:
        raise Refusal(RefusalCode.EXPIRED, f"attempt {known.attempt} of this build is here already")
    return Decision(send=(here.report(known),))


def _check(view: View, record: Record, now: Instant) -> None:
    if record.deadline < now:
        raise Refusal(RefusalCode.EXPIRED, "the build's deadline has passed")
    state = view.get(SettingRow, STATE)
    if state is not None and state.value != CellState.ENABLED:
        raise Refusal(RefusalCode.DRAINING, f"the cell is {state.value}")
    if restoring(view) is not None:
        raise Refusal(RefusalCode.DRAINING, "the cell was put back to a backup and looks for its servers")


def restoring(view: View) -> frozenset[CellName] | None:
    """After the database was put back to a backup: the owners whose servers are not all found again; None else."""
    awaited = view.get(SettingRow, RESTORING)
    return None if awaited is None else frozenset(name for name in awaited.value.split(",") if name)


def _next_generation(view: View) -> tuple[CounterRow, CounterRow]:
    epoch = view.get(CounterRow, EPOCH) or CounterRow(name=EPOCH, value=1)
    sequence = view.get(CounterRow, GENERATION) or CounterRow(name=GENERATION, value=0)
    return epoch, replace(sequence, value=sequence.value + 1)


def grant(here: Here, view: View, received: Received, body: Grant, now: Instant) -> Decision:
    """The owner's yes: start, now or when prepared."""
    instance = view.get(InstanceRow, received.record.server)
    if instance is None:
        lost = here.record(received.record.origin, RecallServer(), received.record)
        return Decision(send=(lost,), notes=("granted, but not here",))
    if not _is_open(instance, received.record.origin, body.attempt):
        return NOTHING
    granted = replace(instance, phase=Phase.GRANTED, number=max(instance.number, received.record.number))
    if instance.phase is Phase.PREPARING:
        return Decision(save=(granted,), notes=("granted while preparing",))
    return _start(here, view, granted, now)


def _is_open(instance: InstanceRow, owner: CellName, attempt: int) -> bool:
    return (
        instance.owner == owner and instance.attempt == attempt and instance.phase in (Phase.PREPARING, Phase.PREPARED)
    )


def _start(here: Here, view: View, instance: InstanceRow, now: Instant) -> Decision:
    host = view.get(HostRow, instance.host)
    task = StartTask(
        pool=instance.pool,
        attempt=instance.attempt,
        host=instance.host,
        agent=guests.has_agent(instance.spec.image),
        sealed=instance.spec.sealed,
        classic=_preparation(instance, host) if instance.spec.classic and host is not None else None,
    )
    job = here.job("build.start", instance, task)
    starting = replace(instance, job=job.id)
    return Decision(do=(job,), notes=("granted, starting",)) + here.changed(starting, now, task_state=STARTING)


def again(here: Here, view: View, instance: InstanceRow, now: Instant) -> Decision:
    """Go on with a build whose job was stopped: it finds what it has made."""
    if instance.phase is Phase.PREPARED:
        return here.changed(instance, now)
    if instance.phase is Phase.GRANTED and instance.state.task_state == STARTING:
        return _start(here, view, instance, now)
    host = view.get(HostRow, instance.host)
    if host is None:
        return _failed(here, instance, "its host has left the cell meanwhile", now)
    job = here.job("build.prepare", instance, _preparation(instance, host))
    return Decision(do=(job,)) + here.changed(replace(instance, job=job.id), now)


def _preparation(instance: InstanceRow, host: HostRow) -> PrepareTask:
    return PrepareTask(
        pool=instance.pool,
        owner=instance.owner,
        attempt=instance.attempt,
        spec=instance.spec,
        on=hosts.facts(host),
    )


def discard(here: Here, view: View, received: Received, body: Discard, now: Instant) -> Decision:
    """The owner's no to an acceptance: undo what was prepared. What we have forgotten may be on a host all the same."""
    record = received.record
    instance = view.get(InstanceRow, record.server)
    if instance is None:
        task = DestroyTask(pool="", owner=record.origin, attempt=body.attempt)
        job = Job(id=here.new_id(), kind="build.discard", server=record.server, lane="discard", body=pack(task))
        return Decision(do=(job,), notes=("not known here: the hosts are looked over",))
    if not _is_open(instance, record.origin, body.attempt):
        return NOTHING
    return undo(here, instance, now)


def grant_due(here: Here, view: View, received: Received, body: GrantDue, now: Instant) -> Decision:
    """No grant came within the lease: give the host back and say so."""
    instance = view.get(InstanceRow, received.record.server)
    if instance is None or not _is_open(instance, instance.owner, body.attempt):
        return NOTHING
    if instance.stale:  # it may have been granted before our database was put back
        return Decision(wake=(here.wake(now + 60 * SECOND, body, instance),))
    reason = "no grant came within the lease"
    answer = Refused(attempt=body.attempt, code=RefusalCode.EXPIRED, reason=reason, undone=True)
    return undo(here, instance, now) + Decision(send=(here.record(instance.owner, answer, instance),), notes=(reason,))


def delete(here: Here, view: View, received: Received, body: DeleteServer, now: Instant) -> Decision:
    """Overtake whatever goes on. A server that is not known here may be on a host all the same, if our database was put
    back to a backup; then a tombstone keeps a late build out."""
    record = received.record
    instance = view.get(InstanceRow, record.server)
    if instance is None:
        return _tombstone(here, view, record, body, now)
    if instance.owner != record.origin:
        return Decision(notes=(f"{record.origin} may not delete a server of {instance.owner}",))
    numbered = replace(instance, number=max(instance.number, record.number), forget=body.build_deadline)
    if instance.phase is Phase.GONE:
        return here.changed(numbered, now)
    if instance.phase is Phase.UNDOING:
        return Decision(save=(numbered,))
    return undo(here, numbered, now) + Decision(notes=("deleting",))


def _tombstone(here: Here, view: View, record: Record, body: DeleteServer, now: Instant) -> Decision:
    flavor = Flavor(id="", name="", vcpus=0, ram_mib=0, disk_gib=0)
    spec = BuildSpec(name="", project="", user="", flavor=flavor, image=ImageRef(id=""))
    row = InstanceRow(
        id=record.server,
        owner=record.origin,
        request=record.request,
        attempt=0,
        phase=Phase.UNDOING,
        version=0,
        unseen=True,
        updated=now,
        host="",
        pool="",
        spec=spec,
        state=InstanceState(vm_state=VmState.BUILDING, flavor=flavor),
        number=record.number,
        forget=body.build_deadline,
    )
    job = here.job("build.destroy", row, _all_of(row))
    return Decision(save=(replace(row, job=job.id),), do=(job,), notes=("not known here: the hosts are looked over",))


def undo(here: Here, instance: InstanceRow, now: Instant) -> Decision:
    """Remove everything of a server from its host; a job under way is asked to stop first."""
    leaving = replace(without_secrets(instance), phase=Phase.UNDOING, queue=(), command=None, stale=False)
    if instance.job != NO_JOB:
        return Decision(stop=(instance.job,)) + here.changed(leaving, now, task_state="deleting")
    return _destroy(here, leaving, now)


def _destroy(here: Here, instance: InstanceRow, now: Instant) -> Decision:
    job = here.job("build.destroy", instance, _all_of(instance))
    return Decision(do=(job,)) + here.changed(replace(instance, job=job.id), now, task_state="deleting")


def gone(here: Here, instance: InstanceRow, now: Instant) -> Decision:
    """Only a tombstone is left, with no claim on a host."""
    over = replace(instance, phase=Phase.GONE, job=NO_JOB, before=None, old_host="", moving=None, stale=False)
    wake = here.wake(max(over.forget, now + here.remember), Forget(), over)
    return Decision(wake=(wake,)) + here.changed(
        over,
        now,
        vm_state=VmState.DELETED,
        task_state="",
        power_state=PowerState.HALTED,
        terminated_at=now,
    )


def not_theirs(here: Here, instance: InstanceRow, now: Instant) -> Decision:
    """There is a server of this id, and another API cell owns it: the one that asked has none here, and nothing of it
    is kept that would stand in the way of the other's."""
    told = here.changed(replace(instance, phase=Phase.GONE, job=NO_JOB), now, vm_state=VmState.DELETED, task_state="")
    note = f"is not a server of {instance.owner}, which asked for it: left alone"
    return Decision(save=(Remove(row=InstanceRow, key=(instance.id,)),), send=told.send, notes=(note,))


def forget(here: Here, view: View, received: Received, body: Forget, now: Instant) -> Decision:
    """A tombstone has served its time, unless its owner has not seen it yet."""
    instance = view.get(InstanceRow, received.record.server)
    if instance is None or instance.phase is not Phase.GONE:
        return NOTHING
    if instance.unseen:
        return Decision(wake=(here.wake(now + 3600 * SECOND, body, instance),))
    return Decision(save=(Remove(row=InstanceRow, key=(instance.id,)),))


# --- ends of jobs ---


def prepared(here: Here, view: View, instance: InstanceRow, end: JobEnded, now: Instant) -> Decision:
    idle = replace(instance, job=NO_JOB, state=told(instance.state, end))
    if not guests.has_agent(instance.spec.image) and instance.spec.classic is None:
        idle = without_secrets(idle)  # those for the image and the config drive have served
    if instance.phase is Phase.UNDOING:
        return _destroy(here, idle, now)
    if end.error:
        return _failed(here, idle, end.error, now)
    if instance.phase is Phase.GRANTED:
        return _start(here, view, idle, now)
    ready = replace(idle, phase=Phase.PREPARED)
    return Decision(save=(ready,), notes=("prepared, waits for the grant",))


def _failed(here: Here, instance: InstanceRow, error: str, now: Instant) -> Decision:
    if instance.phase is not Phase.GRANTED:
        # Nobody was promised anything yet: the owner may try another leaf.
        answer = Refused(attempt=instance.attempt, code=RefusalCode.UNSUPPORTED, reason=error, undone=True)
        told = Decision(send=(here.record(instance.owner, answer, instance),), notes=(f"preparing failed: {error}",))
        return told + _destroy(here, replace(instance, phase=Phase.UNDOING), now)
    job = here.job("build.destroy", instance, _all_of(instance))
    broken = replace(instance, job=job.id)
    return Decision(do=(job,), notes=(f"build failed: {error}",)) + here.changed(
        broken,
        now,
        vm_state=VmState.ERROR,
        task_state="",
        power_state=PowerState.UNKNOWN,
        fault=fault(error, now),
    )


def without_secrets(instance: InstanceRow) -> InstanceRow:
    """What was sealed for us has served, or will never."""
    return replace(instance, spec=replace(instance.spec, sealed=b"")) if instance.spec.sealed else instance


def started(here: Here, view: View, instance: InstanceRow, end: JobEnded, now: Instant) -> Decision:
    idle = without_secrets(replace(instance, job=NO_JOB))
    if instance.phase is Phase.UNDOING:
        return _destroy(here, idle, now)
    if end.error:
        return _failed(here, idle, end.error, now)
    notes = [note for note in (idle.state.note, told(idle.state, end).note) if note]
    return Decision(notes=("active",), wake=waiting(here, idle, now)) + here.changed(
        idle,
        now,
        note="; ".join(dict.fromkeys(notes)),
        vm_state=VmState.ACTIVE,
        task_state="",
        power_state=PowerState.RUNNING,
        launched_at=now,
        progress=100,
    )


def waiting(here: Here, instance: InstanceRow, now: Instant) -> tuple[Wake, ...]:
    """Commands that have come meanwhile begin in a decision of their own, which sees the rows of this one."""
    return (here.wake(now, GoOn(), instance),) if instance.queue else ()


def destroyed(here: Here, view: View, instance: InstanceRow, end: JobEnded, now: Instant) -> Decision:
    """The host is clean: the claims go back. A build that failed stays as an ERROR without anything on a host."""
    idle = replace(instance, job=NO_JOB)
    if end.error:
        return _destroy_again(here, idle, end, now)
    rows = released(view, *claims(instance))
    sequence = _next_generation(view)
    if instance.phase is Phase.UNDOING and _is_anothers(end):
        return Decision(save=(*rows, *sequence)) + not_theirs(here, idle, now)
    if instance.phase is Phase.UNDOING:
        return Decision(save=(*rows, *sequence), notes=("gone",)) + gone(here, replace(idle, host="", pool=""), now)
    return Decision(save=(*rows, *sequence), wake=waiting(here, idle, now)) + here.changed(
        replace(idle, host="", pool="", moving=None), now, host=""
    )


def _is_anothers(end: JobEnded) -> bool:
    said: Sought | None = unpack(Sought | None, end.result) if end.result else None
    return said is not None and said.others


def _destroy_again(here: Here, instance: InstanceRow, end: JobEnded, now: Instant) -> Decision:
    # Giving up would leave disks behind: the job is put again, a minute later, for as long as it takes.
    wake = here.wake(now + 60 * SECOND, DestroyDue(), instance)
    return Decision(save=(instance,), wake=(wake,), notes=(f"removing it from its host failed: {end.error}",))


def destroy_due(here: Here, view: View, received: Received, now: Instant) -> Decision:
    instance = view.get(InstanceRow, received.record.server)
    if instance is None or not _is_to_go(instance):
        return NOTHING
    if instance.job != NO_JOB:
        return Decision(wake=(here.wake(now + 60 * SECOND, DestroyDue(), instance),))
    job = here.job("build.destroy", instance, _all_of(instance))
    return Decision(save=(replace(instance, job=job.id),), do=(job,))


def _is_to_go(instance: InstanceRow) -> bool:
    return instance.phase is Phase.UNDOING or (never_ran(instance) and bool(instance.pool))


def never_ran(instance: InstanceRow) -> bool:
    """Whether this is a granted build that failed: what it had on its host is removed, nothing can be done with it."""
    return instance.state.vm_state is VmState.ERROR and not instance.state.launched_at


def undone_while_busy(here: Here, instance: InstanceRow, now: Instant) -> Decision:
    """A job of a server ended that is to be removed: now its host is free for that."""
    return _destroy(here, instance, now) if instance.phase is Phase.UNDOING else Decision(save=(instance,))


def _all_of(instance: InstanceRow) -> DestroyTask:
    moving = instance.moving
    also = moving.pool if moving and moving.pool != instance.pool else ""
    return DestroyTask(pool=instance.pool, owner=instance.owner, also=also)


def claims(instance: InstanceRow) -> tuple[tuple[str, Flavor], ...]:
    """(host, flavor) of every claim an instance has: two while a resize waits for its confirmation, or a move goes
    on."""
    held = ((instance.host, instance.state.flavor),) if instance.host else ()
    if instance.before is not None and instance.old_host:
        held = (*held, (instance.old_host, instance.before.flavor))
    if instance.moving is not None:
        held = (*held, (instance.moving.host, instance.moving.room))
    return held
