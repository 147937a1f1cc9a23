"""Resize at its leaf: the new flavor's room is claimed beside the old until confirm or revert gives one back. Pure.

ACTIVE --ResizeServer--> a new copy on the host with room --> RESIZED --ConfirmResize--> the old copy goes
                                                                    +--RevertResize---> the new copy goes
"""

from collections.abc import Sequence
from dataclasses import replace

from cells.errors import Refusal
from cells.messages import ConfirmResize, MigrateServer, RefusalCode, ResizeServer, RevertResize
from cells.model import Flavor, PowerState, VmState
from cells.names import Instant
from cells.ports import View
from compute_cell import hosts
from compute_cell.answers import Here, released
from compute_cell.command import Begun, Done
from compute_cell.rows import GroupRow, HostRow, InstanceRow
from compute_cell.tasks import ConfirmTask, ResizeTask, RevertTask


def begin(here: Here, view: View, instance: InstanceRow, body: ResizeServer, request: str) -> Begun:
    """Claim room for the new flavor, on another host if one has it."""
    if body.auto_disk_config is not None:
        instance = replace(instance, spec=replace(instance.spec, auto_disk_config=body.auto_disk_config))
    return _begin(here, view, instance, body.flavor, _same_pool(view, instance.pool), request)


def begin_migrate(here: Here, view: View, instance: InstanceRow, body: MigrateServer, request: str) -> Begun:
    """Claim the same room on another host."""
    others = [host for host in _same_pool(view, instance.pool) if host.uuid != instance.host]
    if body.host:
        others = [host for host in others if body.host in (host.name, host.uuid)]
        if not others:
            raise Refusal(RefusalCode.NO_ROOM, f"there is no other host {body.host!r} in the server's pool")
    return _begin(here, view, instance, instance.state.flavor, others, request)


def _begin(
    here: Here, view: View, instance: InstanceRow, flavor: Flavor, among: Sequence[HostRow], request: str
) -> Begun:
    if instance.before is not None:
        raise Refusal(RefusalCode.UNSUPPORTED, "an earlier resize is not confirmed or reverted yet")
    claim = hosts.choose(instance.spec, flavor, among, view.all(GroupRow), avoid=(instance.host,))
    assert instance.command is not None
    task = ResizeTask(
        pool=instance.pool,
        owner=instance.owner,
        attempt=instance.attempt,
        number=instance.command.number,
        spec=replace(instance.spec, flavor=flavor),
        on=hosts.facts(claim.host),
    )
    moved = replace(
        instance,
        before=instance.state,
        old_host=instance.host,
        host=claim.host.uuid,
        state=replace(instance.state, flavor=flavor, host=claim.host.name),
    )
    return Begun(
        job=here.job("server.resize", instance, task, request),
        task_state="resize_migrating",
        instance=moved,
        save=claim.rows,
    )


def _same_pool(view: View, pool: str) -> tuple[HostRow, ...]:
    return tuple(host for host in view.all(HostRow) if host.pool == pool)


def done(view: View, instance: InstanceRow, now: Instant) -> Done:
    return replace(instance, state=replace(instance.state, vm_state=VmState.RESIZED)), ()


def failed(view: View, instance: InstanceRow) -> Done:
    """The driver has put the old copy back: give the new claim back too."""
    return _back(view, instance)


def begin_confirm(here: Here, view: View, instance: InstanceRow, body: ConfirmResize, request: str) -> Begun:
    _resized(instance)
    return Begun(
        job=here.job("server.confirm_resize", instance, ConfirmTask(pool=instance.pool), request),
        task_state="",
        instance=instance,
    )


def confirmed(view: View, instance: InstanceRow, now: Instant) -> Done:
    assert instance.before is not None
    rows = released(view, (instance.old_host, instance.before.flavor))
    running = instance.state.power_state is PowerState.RUNNING
    vm_state = VmState.ACTIVE if running else VmState.STOPPED
    kept = replace(instance, before=None, old_host="", state=replace(instance.state, vm_state=vm_state))
    return kept, rows


def begin_revert(here: Here, view: View, instance: InstanceRow, body: RevertResize, request: str) -> Begun:
    _resized(instance)
    task = RevertTask(pool=instance.pool)
    job = here.job("server.revert_resize", instance, task, request)
    return Begun(job=job, task_state="resize_reverting", instance=instance)


def reverted(view: View, instance: InstanceRow, now: Instant) -> Done:
    return _back(view, instance)


def doubted(view: View, instance: InstanceRow) -> Done:
    """One of the two copies may be gone already: which is there, its hosts say (restored.py)."""
    return replace(instance, stale=True), ()


def _back(view: View, instance: InstanceRow) -> Done:
    assert instance.before is not None
    rows = released(view, (instance.host, instance.state.flavor))
    return replace(instance, host=instance.old_host, old_host="", before=None, state=instance.before), rows


def _resized(instance: InstanceRow) -> None:
    if instance.state.vm_state is not VmState.RESIZED or instance.before is None:
        raise Refusal(RefusalCode.UNSUPPORTED, "no resize waits to be confirmed or reverted")
