"""An owner's commands to a server the leaf holds: taken in order of their numbers, one at a time, each a job. Pure.

`take` queues a command and `next_one` starts the first that waits when nothing goes on; the end of its job is
`ended`. What each command does is one entry in COMMANDS: how it begins and what its success changes.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cells.codec import pack_record, unpack_record
from cells.decision import NOTHING, Decision
from cells.errors import Refusal
from cells.messages import (
    AttachVolume,
    ConfirmResize,
    DetachVolume,
    DropHostSnapshot,
    EvacuateServer,
    InjectNetwork,
    JobEnded,
    LiveMigrateServer,
    MigrateServer,
    PauseServer,
    RebootServer,
    RebuildServer,
    RecallServer,
    RefusalCode,
    RenameServer,
    RescueServer,
    ResetNetwork,
    ResizeServer,
    ResumeServer,
    RevertResize,
    SetMetadata,
    SetPassword,
    SetShares,
    SnapshotServer,
    StartServer,
    StopServer,
    SuspendServer,
    TakeHostSnapshot,
    UnpauseServer,
    UnrescueServer,
)
from cells.model import PowerState, VmState
from cells.names import Instant
from cells.ports import View
from cells.record import Received
from compute_cell import evacuation, guest, host_snapshots, moves, remake, resize, shares, volumes
from compute_cell.answers import NO_JOB, Here, fault, told
from compute_cell.build import never_ran, restoring, undone_while_busy, waiting
from compute_cell.command import Begun, Command, Done, Undo
from compute_cell.rows import InstanceRow, Phase, QueuedCommand
from compute_cell.tasks import DetachTask, PowerTask, RevertTask, SnapshotTask, UndoSnapshotTask, UnrescueTask


def take(here: Here, view: View, received: Received, now: Instant) -> Decision:
    """Queue a command; the one that is over, under way or queued already is not queued again. For a server that this
    cell has forgotten it comes again, until the owner has said what the server is."""
    record = received.record
    instance = view.get(InstanceRow, record.server)
    if instance is None:
        # Not taken: it would be lost if the owner's answer came without it, because it was said before.
        return Decision(send=(here.record(record.origin, RecallServer(), record),), notes=("not here",), taken=False)
    if instance.phase is Phase.GONE:
        return here.changed(instance, now)
    if instance.owner != record.origin or instance.phase is Phase.UNDOING:
        return NOTHING
    waiting = (*instance.queue, *((instance.command,) if instance.command else ()))
    if record.number <= instance.number or any(queued.number == record.number for queued in waiting):
        return Decision(send=(here.report(instance),))
    queued = QueuedCommand(number=record.number, data=pack_record(record))
    queue = tuple(sorted((*instance.queue, queued), key=lambda each: each.number))
    return next_one(here, view, replace(instance, queue=queue), now)


def next_one(here: Here, view: View, instance: InstanceRow, now: Instant) -> Decision:
    """Begin the first command that waits, if the server is ready for one; one that cannot be done is over at once."""
    busy = instance.job != NO_JOB or instance.command is not None or instance.phase is not Phase.GRANTED
    doubted = instance.stale or instance.owner in (restoring(view) or ())
    if busy or not instance.queue or doubted:
        return Decision(save=(instance,))
    first, *rest = instance.queue
    record = unpack_record(first.data)
    current = replace(instance, queue=tuple(rest), command=first)
    if record.deadline < now:
        return _over(here, view, current, "its deadline passed before the server was ready for it", now)
    if never_ran(instance):
        return _over(here, view, current, "the server was never built", now)
    try:
        begun = COMMANDS[type(record.body)].begin(here, view, current, record.body, record.request)
    except Refusal as refusal:
        return _over(here, view, current, str(refusal), now)
    going = replace(begun.instance, job=begun.job.id)
    note = f"{record.kind.name} {record.number} begins"
    return Decision(save=begun.save, do=(begun.job,), notes=(note,)) + here.changed(
        going, now, task_state=begun.task_state
    )


def ended(here: Here, view: View, instance: InstanceRow, end: JobEnded, now: Instant) -> Decision:
    """The job of the current command is over."""
    idle = replace(instance, job=NO_JOB)
    if end.kind == evacuation.UNDO and instance.command is None:
        return evacuated(here, view, instance, end, now)
    if instance.phase is Phase.UNDOING or instance.command is None:
        return undone_while_busy(here, idle, now)
    record = unpack_record(instance.command.data)
    command = COMMANDS[type(record.body)]
    undo = command.undo
    if undo is not None and end.error and not end.permanent and (end.kind != undo.kind or undo.is_vital):
        job = here.job(undo.kind, idle, undo.task(idle, record.body), record.request)
        return Decision(save=(replace(idle, job=job.id),), do=(job,), notes=(f"given up: {end.error}",))
    if undo is not None and end.kind == undo.kind and end.error and undo.is_vital:
        broken = replace(idle.state, vm_state=VmState.ERROR, fault=fault(end.error, now))
        return _over(here, view, replace(idle, state=broken), end.error, now)
    if undo is not None and end.kind == undo.kind and not end.error:
        idle, end = undo.undone(idle), replace(end, error=undo.says)
    undoing = evacuation.undoing(here, idle, record.request) if end.error and end.kind != evacuation.UNDO else None
    if undoing is not None:
        broken = replace(idle.state, fault=fault(end.error, now))
        return Decision(save=(replace(idle, job=undoing.id, state=broken),), do=(undoing,))
    if end.kind == evacuation.UNDO:
        end = replace(end, error=end.error or _why(idle))
    if end.error and not end.permanent and isinstance(record.body, LiveMigrateServer):
        # Where it is, watching finds out; until then it has room on both hosts.
        return _over(here, view, idle, end.error, now)
    if end.error:
        after, rows = command.failed(view, idle)
        return _over(here, view, after, end.error, now, rows)
    if command.tells:
        idle = replace(idle, state=told(idle.state, end))
    after, rows = command.done(view, idle, now)
    return _over(here, view, after, "", now, rows)


def evacuated(here: Here, view: View, instance: InstanceRow, end: JobEnded, now: Instant) -> Decision:
    """The end of an evacuation that the cell's policy began: what waited meanwhile is next."""
    idle = replace(instance, job=NO_JOB)
    if instance.phase is Phase.UNDOING or instance.moving is None:
        return undone_while_busy(here, idle, now)
    undoing = evacuation.undoing(here, idle) if end.error and end.kind != evacuation.UNDO else None
    if undoing is not None:
        told = here.changed(replace(idle, job=undoing.id), now, fault=fault(end.error, now))
        return Decision(do=(undoing,), notes=(f"given up: {end.error}",)) + told
    if end.kind == evacuation.UNDO:
        end = replace(end, error=end.error or _why(idle))
    if end.error:
        after, rows = evacuation.broken(view, idle, end.error, now)
    else:
        after, rows = evacuation.done(view, idle, now)
    told = here.changed(after, now, task_state="")
    return Decision(save=rows, wake=waiting(here, after, now), notes=(end.error or "evacuated",)) + told


def _why(instance: InstanceRow) -> str:
    return instance.state.fault.message if instance.state.fault is not None else "it could not be made anew"


def _over(
    here: Here, view: View, instance: InstanceRow, error: str, now: Instant, rows: tuple[Any, ...] = ()
) -> Decision:
    """The current command has ended, which changes `rows`; the next one begins."""
    assert instance.command is not None
    number = instance.command.number
    after = replace(
        instance,
        command=None,
        # Its owner sends one after the other: an earlier one is an old copy of what is over.
        queue=tuple(waiting for waiting in instance.queue if waiting.number > number),
        number=number,
        failed=(number, error) if error else instance.failed,
        state=replace(instance.state, task_state="", progress=0),
        version=instance.version + 1,
        unseen=True,
        updated=now,
    )
    word = f"command {number} failed: {error}" if error else f"command {number} is done"
    over = Decision(save=rows, send=(here.report(after),), notes=(word,))
    if rows:  # the next one claims room, too: it must see them
        return over + Decision(save=(after,), wake=waiting(here, after, now))
    return over + next_one(here, view, after, now)


# --- the commands ---


def _power(action: str, task_state: str) -> Callable[[Here, View, InstanceRow, Any, str], Begun]:
    def begin(here: Here, view: View, instance: InstanceRow, body: Any, request: str) -> Begun:
        if instance.state.vm_state is VmState.RESIZED:
            # Its owner would not ask, unless its row was put back; the resize would seem to be over.
            raise Refusal(RefusalCode.UNSUPPORTED, "a resize is not confirmed or reverted yet")
        hard = isinstance(body, RebootServer) and body.hard
        job = here.job(
            "server.power",
            instance,
            PowerTask(pool=instance.pool, action="hard_reboot" if hard else action, host=instance.host),
            request,
        )
        return Begun(job=job, task_state=f"{task_state}_hard" if hard else task_state, instance=instance)

    return begin


def _state(vm_state: VmState, power: PowerState) -> Callable[[View, InstanceRow, Instant], Done]:
    def done(view: View, instance: InstanceRow, now: Instant) -> Done:
        return replace(instance, state=replace(instance.state, vm_state=vm_state, power_state=power, fault=None)), ()

    return done


def _snapshot(here: Here, view: View, instance: InstanceRow, body: SnapshotServer, request: str) -> Begun:
    task = SnapshotTask(pool=instance.pool, image=body.image, sealed=body.sealed, incremental=body.incremental)
    job = here.job("server.snapshot", instance, task, request)
    return Begun(job=job, task_state="image_uploading", instance=instance)


def _unchanged(view: View, instance: InstanceRow, now: Instant) -> Done:
    return instance, ()


def _runs(instance: InstanceRow) -> InstanceRow:
    state = replace(instance.state, vm_state=VmState.ACTIVE, power_state=PowerState.RUNNING)
    return replace(instance, state=state)


_UNDO_SNAPSHOT = Undo(
    kind="server.undo_snapshot",
    task=lambda instance, body: UndoSnapshotTask(pool=instance.pool),
    says="the host could not finish the snapshot in time; nothing of it is left",
)
# Which copy is whole is for people to find out: both keep their room, and a delete removes both.
_UNDO_RESIZE = Undo(
    kind="server.undo_resize",
    task=lambda instance, body: RevertTask(pool=instance.pool),
    says="the host could not finish the resize in time; the server is as it was",
    is_vital=True,
)
_UNDO_RESCUE = Undo(
    kind="server.undo_rescue",
    task=lambda instance, body: UnrescueTask(pool=instance.pool, host=instance.host),
    says="the host could not finish the rescue in time; the server runs as before",
    undone=_runs,
)
# Half attached is not attached.
_UNDO_ATTACH = Undo(
    kind=volumes.UNDO_ATTACH,
    task=lambda instance, body: DetachTask(pool=instance.pool, volume=body.volume),
    says="the host could not attach the volume in time; it is not attached",
)

COMMANDS: dict[type, Command] = {
    StartServer: Command(begin=_power("start", "powering-on"), done=_state(VmState.ACTIVE, PowerState.RUNNING)),
    StopServer: Command(begin=_power("stop", "powering-off"), done=_state(VmState.STOPPED, PowerState.HALTED)),
    RebootServer: Command(begin=_power("reboot", "rebooting"), done=_state(VmState.ACTIVE, PowerState.RUNNING)),
    PauseServer: Command(begin=_power("pause", "pausing"), done=_state(VmState.PAUSED, PowerState.PAUSED)),
    UnpauseServer: Command(begin=_power("unpause", "unpausing"), done=_state(VmState.ACTIVE, PowerState.RUNNING)),
    SuspendServer: Command(begin=_power("suspend", "suspending"), done=_state(VmState.SUSPENDED, PowerState.SUSPENDED)),
    ResumeServer: Command(begin=_power("resume", "resuming"), done=_state(VmState.ACTIVE, PowerState.RUNNING)),
    SnapshotServer: Command(begin=_snapshot, done=_unchanged, tells=True, undo=_UNDO_SNAPSHOT),
    SetPassword: Command(begin=guest.begin_password, done=guest.told),
    SetMetadata: Command(begin=guest.begin_metadata, done=guest.told),
    RenameServer: Command(begin=guest.begin_rename, done=guest.told),
    SetShares: Command(begin=shares.begin, done=shares.given),
    AttachVolume: Command(begin=volumes.begin_attach, done=volumes.attached, undo=_UNDO_ATTACH),
    DetachVolume: Command(begin=volumes.begin_detach, done=volumes.detached),
    TakeHostSnapshot: Command(begin=host_snapshots.begin_take, done=guest.told),
    DropHostSnapshot: Command(begin=host_snapshots.begin_drop, done=guest.told),
    ResetNetwork: Command(begin=guest.begin_reset_network, done=guest.told),
    InjectNetwork: Command(begin=guest.begin_inject_network, done=guest.told),
    RebuildServer: Command(begin=remake.begin_rebuild, done=remake.rebuilt, tells=True),
    RescueServer: Command(begin=remake.begin_rescue, done=remake.rescued, tells=True, undo=_UNDO_RESCUE),
    UnrescueServer: Command(begin=remake.begin_unrescue, done=remake.unrescued),
    ResizeServer: Command(begin=resize.begin, done=resize.done, failed=resize.failed, tells=True, undo=_UNDO_RESIZE),
    MigrateServer: Command(
        begin=resize.begin_migrate, done=resize.done, failed=resize.failed, tells=True, undo=_UNDO_RESIZE
    ),
    EvacuateServer: Command(begin=evacuation.begin, done=evacuation.done, failed=moves.failed),
    LiveMigrateServer: Command(begin=moves.begin, done=moves.done, failed=moves.failed),
    ConfirmResize: Command(begin=resize.begin_confirm, done=resize.confirmed, failed=resize.doubted),
    RevertResize: Command(begin=resize.begin_revert, done=resize.reverted, failed=resize.doubted),
}
