"""Class task: work under way and its outcome."""

from __future__ import annotations

from xenapi_host.simulator.call import Call
from xenapi_host.simulator.dispatch import method


@method("task.create")
def create(call: Call, label: str, description: str) -> str:
    task = call.engine.start_task(label, call.session)
    call.db.set(task, "name_description", description)
    return task.ref


@method("task.destroy")
def destroy(call: Call, ref: str) -> str:
    """A pending task of ours is only marked; one made by task.create, and any ended one, goes."""
    task = call.row("task", ref)
    if task["status"] == "pending" and task["name_label"].startswith("Async."):
        call.db.set(task, "current_operations", {**task["current_operations"], "task": "destroy"})
    else:
        call.db.delete(task)
    return ""


@method("task.cancel")
def cancel(call: Call, ref: str) -> str:
    """Asks the work to stop: it ends with TASK_CANCELLED at its next `Call.refuse_interrupted`, and where there is
    none it goes on to its end, as a plugin's does."""
    task = call.row("task", ref)
    key = f"DummyRef:|{call.engine.new_uuid()}|task.cancel"
    call.db.set(task, "current_operations", {**task["current_operations"], key: "cancel"})
    return ""


@method("task.set_status")
def set_status(call: Call, ref: str, status: str) -> str:
    call.db.set(call.row("task", ref), "status", status)
    return ""


@method("task.set_progress", "task.set_result", "task.set_error_info", "task.set_resident_on")
def set_field(call: Call, ref: str, value: object) -> str:
    call.db.set(call.row("task", ref), call.method.removeprefix("task.set_"), value)
    return ""
