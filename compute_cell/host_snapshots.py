"""Snapshots that the host keeps, for an administrator: taken before a risky change, dropped after it. Pure."""

from cells.messages import DropHostSnapshot, TakeHostSnapshot
from cells.ports import View
from compute_cell.answers import Here
from compute_cell.command import Begun, refuse_unsettled
from compute_cell.rows import InstanceRow
from compute_cell.tasks import HostSnapshotTask

TAKE, DROP = "server.take_host_snapshot", "server.drop_host_snapshot"


def begin_take(here: Here, view: View, instance: InstanceRow, body: TakeHostSnapshot, request: str) -> Begun:
    refuse_unsettled(instance)
    assert instance.command is not None
    task = HostSnapshotTask(pool=instance.pool, number=instance.command.number, name=body.name)
    return Begun(job=here.job(TAKE, instance, task, request), task_state="", instance=instance)


def begin_drop(here: Here, view: View, instance: InstanceRow, body: DropHostSnapshot, request: str) -> Begun:
    task = HostSnapshotTask(pool=instance.pool, snapshot=body.snapshot)
    return Begun(job=here.job(DROP, instance, task, request), task_state="", instance=instance)
