"""What one kind of command is made of: how it begins and what its end changes. Filled in by resize, commands."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cells.decision import Job
from cells.errors import Refusal
from cells.messages import RefusalCode
from cells.model import VmState
from cells.names import Instant
from cells.ports import View
from compute_cell.answers import Here
from compute_cell.rows import InstanceRow

Done = tuple[InstanceRow, tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """How a command begins: the job, the task state shown meanwhile, the instance then, rows to save with it."""

    job: Job
    task_state: str
    instance: InstanceRow
    save: tuple[Any, ...] = ()


def as_it_was(view: View, instance: InstanceRow) -> Done:
    """A failure that left nothing to put right."""
    return instance, ()


def refuse_unsettled(instance: InstanceRow) -> None:
    """Refusal while it is not decided which VM the server will have, or not known where it is."""
    if instance.before is not None:
        raise Refusal(RefusalCode.UNSUPPORTED, "a resize is not confirmed or reverted yet")
    if instance.moving is not None:
        raise Refusal(RefusalCode.UNSUPPORTED, "where an earlier move has left the server is not known yet")
    if instance.state.vm_state is VmState.RESCUED:
        raise Refusal(RefusalCode.UNSUPPORTED, "the server is being rescued; unrescue it first")


def _same(instance: InstanceRow) -> InstanceRow:
    return instance


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """What follows a command that was given up half way, before it is over: a job of this kind, with the task for a
    command's body. The command has then failed, as `says` tells, and leaves the instance as `undone`. `is_vital`: it is
    done for as long as the host does not answer, and where the host refuses, the server is broken until somebody looks;
    else it is as it was."""

    kind: str
    task: Callable[[InstanceRow, Any], Any]
    says: str
    undone: Callable[[InstanceRow], InstanceRow] = _same
    is_vital: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """`begin` raises Refusal when it cannot be done; `done` gives the instance after success and rows to save with it;
    `failed` the same after a failure. `tells`: its job gives a tasks.Outcome, put into the
    state before `done`. `undo`: none where a job that was given up leaves nothing."""

    begin: Callable[[Here, View, InstanceRow, Any, str], Begun]
    done: Callable[[View, InstanceRow, Instant], Done]
    failed: Callable[[View, InstanceRow], Done] = as_it_was
    tells: bool = False
    undo: Undo | None = None
