"""Small classes: message, console, blob, Bond, role, SM and the like, as far as they do anything."""

from __future__ import annotations

from typing import Any

from xenapi_host.simulator.call import Call
from xenapi_host.simulator.dispatch import method
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.implicit import record
from xenapi_host.simulator.model import model

METHODS_OF_NO_CLASS = ("system.listMethods",)


def list_methods() -> list[str]:
    """What system.listMethods answers, without a session."""
    names = [f"{name}.{short}" for name, entry in model().classes.items() for short in entry.messages]
    return sorted([*names, *METHODS_OF_NO_CLASS])


@method("message.create")
def message_create(call: Call, name: str, priority: str, kind: str, uuid: str, body: str) -> str:
    fields = {"name": name, "priority": priority, "cls": kind, "obj_uuid": uuid, "body": body}
    return call.db.create("message", {**fields, "timestamp": call.engine.now()}).ref


@method("message.destroy")
def message_destroy(call: Call, ref: str) -> str:
    call.db.delete(call.row("message", ref))
    return ""


@method("message.get")
def message_get(call: Call, kind: str, uuid: str, since: Any) -> dict[str, Any]:
    rows = [row for row in call.db.all("message") if (row["cls"], row["obj_uuid"]) == (kind, uuid)]
    return {row.ref: record(call.engine, row) for row in rows if str(row["timestamp"].value) >= str(since.value)}


@method("message.get_since")
def message_get_since(call: Call, since: Any) -> dict[str, Any]:
    rows = [row for row in call.db.all("message") if str(row["timestamp"].value) >= str(since.value)]
    return {row.ref: record(call.engine, row) for row in rows}


@method("console.destroy")
def console_destroy(call: Call, ref: str) -> str:
    raise Failure("NOT_IMPLEMENTED", "Console.destroy")


@method("blob.destroy")
def blob_destroy(call: Call, ref: str) -> str:
    call.db.delete(call.row("blob", ref))
    return ""


@method("role.get_permissions", "role.get_permissions_name_label")
def role_permissions(call: Call, ref: str) -> list[str]:
    call.row("role", ref)
    return []


@method("subject.add_to_roles")
def add_to_roles(call: Call, ref: str, role: str) -> str:
    subject = call.row("subject", ref)
    if call.db.find("role", role) is None:
        raise Failure("ROLE_NOT_FOUND")
    if role in subject["roles"]:
        raise Failure("ROLE_ALREADY_EXISTS")
    call.db.set(subject, "roles", [role, *subject["roles"]])
    return ""


@method("subject.remove_from_roles")
def remove_from_roles(call: Call, ref: str, role: str) -> str:
    subject = call.row("subject", ref)
    if role not in subject["roles"]:
        raise Failure("ROLE_NOT_FOUND")
    call.db.set(subject, "roles", [known for known in subject["roles"] if known != role])
    return ""


@method("VM_guest_metrics.set_other_config", "VM_metrics.set_other_config")
def set_other_config(call: Call, ref: str, value: dict[str, str]) -> str:
    class_name = call.method.partition(".")[0]
    call.db.set(call.row(class_name, ref), "other_config", value)
    return ""
