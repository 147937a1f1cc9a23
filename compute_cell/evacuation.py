"""Servers of a host that is confirmed dead: brought up on another host that reaches their disks, or told to be in
ERROR until somebody decides. Pure.

Nothing is done for a host that only does not answer: its servers may still run there (DESIGN, P3). The word comes from
`celltree host confirm-dead`, and the driver asks the pool once more.
"""

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

from cells.decision import NOTHING, Decision
from cells.errors import Refusal
from cells.messages import EvacuateServer, RefusalCode
from cells.model import PowerState, VmState
from cells.names import Instant
from cells.ports import View, Where
from compute_cell import hosts, moves
from compute_cell.answers import NO_JOB, Here, fault
from compute_cell.command import Begun, Done
from compute_cell.rows import HostRow, HostState, InstanceRow, Phase
from compute_cell.tasks import EvacuateTask
from compute_cell.watching import DEAD, story

OF_HOST = "host.evacuate"
_AT_REST: Mapping[PowerState, VmState] = {PowerState.SUSPENDED: VmState.SUSPENDED}


class Policy(StrEnum):
    """What becomes of the servers of a dead host. LEAVE: they are shown as they last were, until the host returns.
    ASK: they are in ERROR until an administrator evacuates them. EVACUATE: at once."""

    LEAVE = "leave"
    ASK = "ask"
    EVACUATE = "evacuate"


def look(here: Here, view: View, policy: Policy, now: Instant) -> Decision:
    """At each tick: what is to be done for servers on dead hosts."""
    if policy is Policy.LEAVE:
        return NOTHING
    decision = NOTHING
    for host in view.all(HostRow):
        if host.state is HostState.DEAD:
            for row in view.find(InstanceRow, Where(column="host", op="=", value=host.uuid)):
                if _is_settled(row):
                    step = _one(here, view, row, host, policy, now)
                    if step is not NOTHING:
                        return decision + step  # one at a time: the next claim must see this one
    return decision


def _is_settled(row: InstanceRow) -> bool:
    is_idle = row.phase is Phase.GRANTED and row.job == NO_JOB and not row.moving and not row.stale
    return is_idle and bool(row.state.launched_at)


def _one(here: Here, view: View, row: InstanceRow, host: HostRow, policy: Policy, now: Instant) -> Decision:
    if row.state.vm_state is VmState.ERROR and not _says_dead(row):
        return NOTHING
    if policy is Policy.ASK:
        return _error(here, row, f"{DEAD} ({host.name}); an administrator may evacuate it.", now)
    if row.before is not None:
        return _error(here, row, f"{DEAD} ({host.name}), and a resize waits to be confirmed or reverted.", now)
    if not host.group:
        return _error(here, row, f"{DEAD} ({host.name}), and so are its disks until the host returns.", now)
    try:
        claim, move = moves.elsewhere(view, row, block=False)
    except Refusal as refusal:
        return _error(here, row, f"{DEAD} ({host.name}); {refusal}", now)
    task = _task(row, claim.host)
    job = here.job(OF_HOST, replace(row, host=claim.host.uuid), task)
    going = replace(row, job=job.id, moving=move)
    line = story(here, row, "evacuating", f"from {host.name} to {claim.host.name}", now)
    decision = Decision(save=(*claim.rows, line), do=(job,), notes=(f"evacuated to {claim.host.name}",))
    return decision + here.changed(going, now, task_state="rebuilding")


def _says_dead(row: InstanceRow) -> bool:
    return row.state.fault is not None and row.state.fault.message.startswith(DEAD)


def _error(here: Here, row: InstanceRow, why: str, now: Instant) -> Decision:
    if row.state.vm_state is VmState.ERROR:
        return NOTHING
    line = story(here, row, "host dead", why, now)
    return Decision(save=(line,), notes=(why,)) + here.changed(row, now, vm_state=VmState.ERROR, fault=fault(why, now))


def _task(row: InstanceRow, to: HostRow) -> EvacuateTask:
    # The power state is the one the server had when its host was last heard, also while it is in ERROR since.
    start = row.state.power_state in (PowerState.RUNNING, PowerState.PAUSED)
    return EvacuateTask(pool=row.pool, dead=row.host, on=hosts.facts(to), start=start)


def begin(here: Here, view: View, instance: InstanceRow, body: EvacuateServer, request: str) -> Begun:
    """An administrator's wish: as the policy does, to the named host if one is named."""
    host = view.get(HostRow, instance.host)
    if host is None or host.state is not HostState.DEAD:
        name = host.name if host is not None else "its host"
        raise Refusal(
            RefusalCode.UNSUPPORTED, f"{name} is not confirmed dead; see `celltree host confirm-dead`, or migrate it"
        )
    if instance.before is not None:
        raise Refusal(RefusalCode.UNSUPPORTED, "a resize waits to be confirmed or reverted")
    if not host.group:
        raise Refusal(RefusalCode.UNSUPPORTED, f"its disks are on {host.name} alone, until that returns")
    claim, move = moves.elsewhere(view, instance, host=body.host, block=False)
    return Begun(
        job=here.job("server.evacuate", replace(instance, host=claim.host.uuid), _task(instance, claim.host), request),
        task_state="rebuilding",
        instance=replace(instance, moving=move),
        save=claim.rows,
    )


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
    return replace(after, state=state), rows


def broken(view: View, instance: InstanceRow, error: str, now: Instant) -> Done:
    """It could not be brought up: it is in ERROR with the reason, and counts where it was."""
    after, rows = moves.stayed(view, instance)
    state = replace(after.state, vm_state=VmState.ERROR, fault=fault(f"{DEAD}; {error}", now))
    return replace(after, state=state), rows
