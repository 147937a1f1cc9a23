"""Volumes at their leaf: attached and detached one by one; those that a server has are part of its state. Pure.

Whose a volume is, the driver reads off the volume itself; the project is the one that the instance was built for.
"""

from collections.abc import Callable
from dataclasses import replace

from cells.codec import unpack_record
from cells.errors import Refusal
from cells.messages import AttachVolume, DetachVolume, RefusalCode
from cells.model import Volume
from cells.names import Instant
from cells.ports import View
from compute_cell.answers import Here
from compute_cell.command import Begun, Done, refuse_unsettled
from compute_cell.rows import InstanceRow
from compute_cell.tasks import AttachTask, DetachTask
from xenapi_host import guests

ATTACH, DETACH, UNDO_ATTACH = "server.attach_volume", "server.detach_volume", "server.undo_attach"


def begin_attach(here: Here, view: View, instance: InstanceRow, body: AttachVolume, request: str) -> Begun:
    refuse_unsettled(instance)
    for volume in instance.state.volumes:
        if volume.id == body.volume:
            raise Refusal(RefusalCode.UNSUPPORTED, f"volume {body.volume} is attached already")
        if volume.device == body.device:
            raise Refusal(RefusalCode.UNSUPPORTED, f"volume {volume.id} is attached there already")
    task = AttachTask(
        pool=instance.pool,
        volume=body.volume,
        project=instance.spec.project,
        device=body.device,
        host=instance.host,
        shares=guests.disk_shares(instance.state.flavor),
    )
    return Begun(job=here.job(ATTACH, instance, task, request), task_state="", instance=instance)


def begin_detach(here: Here, view: View, instance: InstanceRow, body: DetachVolume, request: str) -> Begun:
    refuse_unsettled(instance)
    task = DetachTask(pool=instance.pool, volume=body.volume)
    return Begun(job=here.job(DETACH, instance, task, request), task_state="", instance=instance)


def attached(view: View, instance: InstanceRow, now: Instant) -> Done:
    body = _command(instance)
    assert isinstance(body, AttachVolume)
    return _with(lambda volumes: (*volumes, Volume(id=body.volume, device=body.device)), instance), ()


def detached(view: View, instance: InstanceRow, now: Instant) -> Done:
    body = _command(instance)
    return _with(lambda volumes: tuple(each for each in volumes if each.id != body.volume), instance), ()


def _command(instance: InstanceRow) -> AttachVolume | DetachVolume:
    assert instance.command is not None
    body: AttachVolume | DetachVolume = unpack_record(instance.command.data).body
    return body


def _with(change: Callable[[tuple[Volume, ...]], tuple[Volume, ...]], instance: InstanceRow) -> InstanceRow:
    return replace(instance, state=replace(instance.state, volumes=change(instance.state.volumes)))
