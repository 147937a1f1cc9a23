"""Rebuild and rescue at their leaf: a VM of another image takes the server's place, for good or for a while. Pure.

ACTIVE, STOPPED, ERROR --RebuildServer--> the same server with another image
ACTIVE, STOPPED, ERROR --RescueServer--> RESCUED --UnrescueServer--> ACTIVE
"""

from dataclasses import replace
from typing import Any

from cells.codec import unpack_record
from cells.errors import Refusal
from cells.messages import RebuildServer, RefusalCode, RescueServer, UnrescueServer
from cells.model import BuildSpec, PowerState, VmState
from cells.names import Instant
from cells.ports import View
from compute_cell import hosts
from compute_cell.answers import Here
from compute_cell.command import Begun, Done, refuse_unsettled
from compute_cell.rows import HostRow, InstanceRow
from compute_cell.tasks import RemakeTask, UnrescueTask
from xenapi_host import guests
from xenapi_host.facts import HostFacts


def begin_rebuild(here: Here, view: View, instance: InstanceRow, body: RebuildServer, request: str) -> Begun:
    """The claim stays as it is: the flavor is the same, and the old disks go as soon as the new ones are there."""
    refuse_unsettled(instance)
    task = _task(view, instance, replace(_rebuilt_spec(instance, body), sealed=body.sealed))
    task = replace(task, keep_config=body.keep_config)
    return Begun(job=here.job("server.rebuild", instance, task, request), task_state="rebuilding", instance=instance)


def _rebuilt_spec(instance: InstanceRow, body: RebuildServer) -> BuildSpec:
    """What the server is asked to be from now on."""
    return replace(
        instance.spec,
        name=body.name or instance.spec.name,
        image=body.image,
        flavor=instance.state.flavor,
        metadata=instance.spec.metadata if body.metadata is None else body.metadata,
        auto_disk_config=body.auto_disk_config,
        config_drive=instance.spec.config_drive or body.config_drive,
        sealed=b"",
    )


def rebuilt(view: View, instance: InstanceRow, now: Instant) -> Done:
    """As it stands after it, by the power state that the job has told."""
    assert instance.command is not None
    body: Any = unpack_record(instance.command.data).body
    running = instance.state.power_state is PowerState.RUNNING
    state = replace(instance.state, vm_state=VmState.ACTIVE if running else VmState.STOPPED, fault=None)
    return replace(instance, spec=_rebuilt_spec(instance, body), state=state), ()


def begin_rescue(here: Here, view: View, instance: InstanceRow, body: RescueServer, request: str) -> Begun:
    refuse_unsettled(instance)
    spec = replace(instance.spec, image=body.image, flavor=instance.state.flavor, sealed=body.sealed)
    task = _task(view, instance, spec)
    return Begun(job=here.job("server.rescue", instance, task, request), task_state="rescuing", instance=instance)


def rescued(view: View, instance: InstanceRow, now: Instant) -> Done:
    state = replace(instance.state, vm_state=VmState.RESCUED, power_state=PowerState.RUNNING)
    return replace(instance, state=state), ()


def begin_unrescue(here: Here, view: View, instance: InstanceRow, body: UnrescueServer, request: str) -> Begun:
    if instance.state.vm_state is not VmState.RESCUED:
        raise Refusal(RefusalCode.UNSUPPORTED, "the server is not being rescued")
    task = UnrescueTask(pool=instance.pool, host=instance.host)
    return Begun(job=here.job("server.unrescue", instance, task, request), task_state="unrescuing", instance=instance)


def unrescued(view: View, instance: InstanceRow, now: Instant) -> Done:
    state = replace(instance.state, vm_state=VmState.ACTIVE, power_state=PowerState.RUNNING, fault=None)
    return replace(instance, state=state), ()


def _task(view: View, instance: InstanceRow, spec: BuildSpec) -> RemakeTask:
    assert instance.command is not None
    host = view.get(HostRow, instance.host)
    if host is None:
        raise Refusal(RefusalCode.UNSUPPORTED, "the server's host is not known to its cell any more")
    on: HostFacts = hosts.facts(host)
    return RemakeTask(
        pool=instance.pool,
        owner=instance.owner,
        attempt=instance.attempt,
        number=instance.command.number,
        spec=spec,
        on=on,
        agent=guests.has_agent(spec.image),
    )
