"""Servers of a host that is confirmed dead: brought up on another host that reaches their disks, made anew from their
image where the disks are lost with the host, or told to be in ERROR until somebody decides. Pure.

Nothing is done for a host that only does not answer: its servers may still run there (DESIGN, P3). The word comes from
`celltree host confirm-dead` or from the pool's high availability, and the driver asks the pool once more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from cells.decision import NOTHING, Decision, Job
from cells.errors import BadInput, Refusal
from cells.messages import EvacuateServer, RefusalCode
from cells.model import PowerState, VmState
from cells.names import SECOND, Instant
from cells.ports import View, Where
from compute_cell import hosts, moves
from compute_cell.answers import NO_JOB, Here, fault
from compute_cell.command import Begun, Done
from compute_cell.rows import HostRow, HostState, InstanceRow, LostCopyRow, Phase, PoolRow
from compute_cell.tasks import EvacuateTask, ReplaceTask, UndoReplaceTask
from compute_cell.watching import DEAD, story

OF_HOST, UNDO = "host.evacuate", "server.undo_replace"
_ON_HOST_OF_SERVER = "server.evacuate"
_RETRY = 60 * SECOND
_AT_REST: Mapping[PowerState, VmState] = {PowerState.SUSPENDED: VmState.SUSPENDED}


class Policy(StrEnum):
    """What becomes of the servers of a dead host. LEAVE: they are shown as they last were, until the host returns.
    ASK: they are in ERROR until an administrator evacuates them. EVACUATE: at once."""

    LEAVE = "leave"
    ASK = "ask"
    EVACUATE = "evacuate"


class Lost(StrEnum):
    """What EVACUATE does with a server whose disks are in the dead host. ERROR: it waits for the host's return, or for
    an administrator. REBUILD: it is made anew from its image at once."""

    ERROR = "error"
    REBUILD = "rebuild"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """As the cell is set; each pool may have its own."""

    when_host_dies: Policy = Policy.ASK
    when_disks_are_lost: Lost = Lost.ERROR

    def of(self, pool: PoolRow | None) -> "Policies":
        if pool is None:
            return self
        return Policies(
            when_host_dies=Policy(pool.when_host_dies or self.when_host_dies),
            when_disks_are_lost=Lost(pool.when_disks_are_lost or self.when_disks_are_lost),
        )


def policies(when_host_dies: str, when_disks_are_lost: str) -> Policies:
    """The settings of these names; BadInput names the words there are."""
    return Policies(
        when_host_dies=Policy(one_of("when_host_dies", when_host_dies, Policy)),
        when_disks_are_lost=Lost(one_of("when_disks_are_lost", when_disks_are_lost, Lost)),
    )


def one_of(name: str, text: str, words: type[StrEnum]) -> str:
    """The text if it is one of the words."""
    if text not in tuple(words):
        raise BadInput(f"{name}: {text!r} is not known; choose one of {', '.join(words)}")
    return text


def look(here: Here, view: View, cell: Policies, now: Instant) -> Decision:
    """At each tick: what is to be done for servers on dead hosts."""
    for host in view.all(HostRow):
        mine = cell.of(view.get(PoolRow, host.pool)) if host.state is HostState.DEAD else cell
        if host.state is not HostState.DEAD or mine.when_host_dies is Policy.LEAVE:
            continue
        for row in view.find(InstanceRow, Where(column="host", op="=", value=host.uuid)):
            if _is_settled(row):
                step = _one(here, view, row, host, mine, now)
                if step is not NOTHING:
                    return step  # one at a time: the next claim must see this one
    return NOTHING


def _is_settled(row: InstanceRow) -> bool:
    is_idle = row.phase is Phase.GRANTED and row.job == NO_JOB and not row.moving and not row.stale
    return is_idle and bool(row.state.launched_at)


def _one(here: Here, view: View, row: InstanceRow, host: HostRow, mine: Policies, now: Instant) -> Decision:
    if row.state.vm_state is VmState.ERROR and not _says_dead(row):
        return NOTHING
    if _says_dead(row) and now < row.updated + _RETRY:
        return NOTHING
    if mine.when_host_dies is Policy.ASK:
        return _error(here, row, f"{DEAD} ({host.name}); an administrator may evacuate it.", now)
    if row.before is not None:
        return _error(here, row, f"{DEAD} ({host.name}), and a resize waits to be confirmed or reverted.", now)
    if not host.group and mine.when_disks_are_lost is Lost.ERROR:
        return _error(here, row, f"{DEAD} ({host.name}), and so are its disks until the host returns.", now)
    try:
        begun = _begun(here, view, row, host, OF_HOST, serial=-row.version)
    except Refusal as refusal:
        return _error(here, row, f"{DEAD} ({host.name}); {refusal}", now)
    assert begun.instance.moving is not None
    word = "made anew from its image" if begun.instance.moving.serial else "evacuated"
    text = f"{word} on {begun.instance.moving.name}, from {host.name}"
    line = story(here, row, "evacuating", text, now)
    decision = Decision(save=(*begun.save, line), do=(begun.job,), notes=(text,))
    return decision + here.changed(replace(begun.instance, job=begun.job.id), now, task_state="rebuilding")


def _begun(
    here: Here,
    view: View,
    row: InstanceRow,
    dead: HostRow,
    kind: str,
    *,
    serial: int,
    host: str = "",
    sealed: bytes = b"",
    request: str = "",
) -> Begun:
    """Room on another host claimed, and the job that brings the server up there: with its disks where they can be
    reached, else anew from its image, as the VM of this serial. Refusal where there is no room."""
    anew = not dead.group
    claim, move = moves.elsewhere(view, row, host=host, block=anew)
    # The power state is the one the server had when its host was last heard, also while it is in ERROR since.
    start = row.state.power_state in (PowerState.RUNNING, PowerState.PAUSED)
    task: EvacuateTask | ReplaceTask = EvacuateTask(
        pool=row.pool, dead=row.host, on=hosts.facts(claim.host), start=start
    )
    if anew:
        spec = replace(row.spec, flavor=row.state.flavor, sealed=sealed)
        task = ReplaceTask(
            pool=move.pool,
            owner=row.owner,
            old_pool=row.pool,
            dead=row.host,
            attempt=row.attempt,
            serial=serial,
            spec=spec,
            on=hosts.facts(claim.host),
            start=start,
        )
        kind = f"{kind}_anew"
    job = here.job(kind, replace(row, host=claim.host.uuid), task, request)
    moving = replace(move, serial=serial) if anew else move
    return Begun(job=job, task_state="rebuilding", instance=replace(row, moving=moving), save=claim.rows)


def _says_dead(row: InstanceRow) -> bool:
    return row.state.fault is not None and row.state.fault.message.startswith(DEAD)


def _error(here: Here, row: InstanceRow, why: str, now: Instant) -> Decision:
    if row.state.vm_state is VmState.ERROR:
        return NOTHING
    line = story(here, row, "host dead", why, now)
    return Decision(save=(line,), notes=(why,)) + here.changed(row, now, vm_state=VmState.ERROR, fault=fault(why, now))


def begin(here: Here, view: View, instance: InstanceRow, body: EvacuateServer, request: str) -> Begun:
    """An administrator's wish: to the named host if one is named. A server whose disks are lost is made anew from its
    image, as Nova does it; who does not want that waits for the host."""
    host = view.get(HostRow, instance.host)
    if host is None or host.state is not HostState.DEAD:
        name = host.name if host is not None else "its host"
        raise Refusal(
            RefusalCode.UNSUPPORTED, f"{name} is not confirmed dead; see `celltree host confirm-dead`, or migrate it"
        )
    if instance.before is not None:
        raise Refusal(RefusalCode.UNSUPPORTED, "a resize waits to be confirmed or reverted")
    assert instance.command is not None
    number, kind = instance.command.number, _ON_HOST_OF_SERVER
    return _begun(here, view, instance, host, kind, serial=number, host=body.host, sealed=body.sealed, request=request)


def done(view: View, instance: InstanceRow, now: Instant) -> Done:
    """It is on its new host, running if it ran."""
    after, rows = moves.arrived(view, instance)
    power = instance.state.power_state
    running = power in (PowerState.RUNNING, PowerState.PAUSED)
    state = replace(
        after.state,
        vm_state=VmState.ACTIVE if running else _AT_REST.get(power, VmState.STOPPED),
        power_state=PowerState.RUNNING if running else power,
        fault=None,
    )
    move = instance.moving
    if move is None or not move.serial:
        return replace(after, state=state), rows
    if not running:  # what was suspended has lost its memory, too
        state = replace(state, vm_state=VmState.STOPPED, power_state=PowerState.HALTED)
    note = f"made anew from its image on {move.name}: its disks were lost with {instance.state.host}"
    copy = LostCopyRow(server=instance.id, host=instance.host, pool=instance.pool, serial=move.serial)
    return replace(after, state=replace(state, note=note)), (*rows, copy)


def broken(view: View, instance: InstanceRow, error: str, now: Instant) -> Done:
    """It could not be brought up: it is in ERROR with the reason, and counts where it was."""
    after, rows = moves.stayed(view, instance)
    state = replace(after.state, vm_state=VmState.ERROR, fault=fault(f"{DEAD}; {error}", now))
    return replace(after, state=state), rows


def undoing(here: Here, instance: InstanceRow, request: str = "") -> Job | None:
    """After a failure: the job that takes away what there may be of a server that was being made anew."""
    move = instance.moving
    if move is None or not move.serial:
        return None
    task = UndoReplaceTask(pool=move.pool, serial=move.serial)
    return here.job(UNDO, replace(instance, host=move.host), task, request)
