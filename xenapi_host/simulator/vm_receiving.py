"""A VM that another pool hands over: its objects are made here, and when the other has let it go, it runs here.

Twice the same is once: the VM is known by its uuid. So a sender that has lost an answer may ask again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from xenapi_host.simulator.database import Row
from xenapi_host.simulator.devices import vbd_row, vif_row
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.http_wire import Request, Response, trouble
from xenapi_host.simulator.journal import as_json, from_json
from xenapi_host.simulator.model import model
from xenapi_host.simulator.vm import boot, vm_row

_OWN_OF_VM = {
    *("VBDs", "VIFs", "VTPMs", "VGPUs", "consoles", "metrics", "guest_metrics", "snapshots", "children", "parent"),
    *("current_operations", "power_state", "domid", "resident_on", "scheduled_to_be_resident_on", "affinity"),
    *("suspend_VDI", "attached_PCIs", "appliance", "protection_policy", "snapshot_schedule", "blobs", "crash_dumps"),
}
_OWN_OF_DEVICE = {"metrics", "current_operations", "currently_attached", "device", "uuid", "VM"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """A VM as its sender describes it, with the disks, networks and host of the pool that receives it.

    `power_state` is what it shall have now: Halted while its sender still runs it, in the end its own."""

    vm: dict[str, Any]
    vbds: list[dict[str, Any]]
    vifs: list[dict[str, Any]]
    host: str
    power_state: str
    suspend_image: str | None = None

    def packed(self) -> bytes:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps(fields, default=as_json).encode()

    @classmethod
    def unpacked(cls, data: bytes) -> Handover:
        """Raises ValueError, TypeError for what is no handover."""
        given = json.loads(data, object_hook=from_json)
        if not isinstance(given, dict):
            raise TypeError("a handover is an object")
        return cls(**given)


def describe(vm: Row) -> dict[str, Any]:
    """What of a VM goes along."""
    return {field: value for field, value in vm.items() if field not in _OWN_OF_VM}


def describe_devices(engine: Engine, refs: list[str]) -> list[dict[str, Any]]:
    """A VM's VBDs or VIFs, in the order in which they were made."""
    return [
        {field: value for field, value in engine.db.rows[ref].items() if field not in _OWN_OF_DEVICE}
        for ref in reversed(refs)
    ]


def answer(engine: Engine, request: Request) -> Response:
    """PUT /services/xenops of another simulator."""
    try:
        handover = Handover.unpacked(request.body())
    except (ValueError, TypeError) as error:
        return trouble(f'Failure("no handover: {error}")')
    outcome: dict[str, Any] = {"result": None, "error": None}
    with engine.lock:
        try:
            outcome["result"] = receive(engine, handover)
        except Failure as failure:
            outcome["error"] = failure.details
        finally:
            engine.after_call()
    return Response(body=json.dumps(outcome).encode(), content_type="application/json")


def receive(engine: Engine, handover: Handover) -> str:
    """Make the VM, or find it, and give it its power state. The lock is held."""
    known = engine.db.by_uuid("VM", str(handover.vm.get("uuid", "")))
    vm = engine.db.get("VM", known) if known is not None else _make(engine, handover)
    if vm["power_state"] == "Halted" and handover.power_state in ("Running", "Paused"):
        boot(engine, vm, engine.db.get("host", handover.host), paused=handover.power_state == "Paused")
    elif vm["power_state"] == "Halted" and handover.power_state == "Suspended" and handover.suspend_image:
        image = engine.db.get("VDI", handover.suspend_image)
        engine.db.update(vm, {"power_state": "Suspended", "suspend_VDI": image.ref})
    return vm.ref


def _make(engine: Engine, handover: Handover) -> Row:
    db = engine.db
    for vbd in handover.vbds:
        if not vbd.get("empty"):
            db.get("VDI", vbd["VDI"])
    for vif in handover.vifs:
        db.get("network", vif["network"])
    seed = handover.vm.get("other_config", {}).get("mac_seed")
    if seed and any(vm["other_config"].get("mac_seed") == seed and not vm["is_a_snapshot"] for vm in db.all("VM")):
        raise Failure("DUPLICATE_MAC_SEED", seed)
    vm = vm_row(engine, _known("VM", handover.vm, _OWN_OF_VM))
    for vbd in handover.vbds:
        vbd_row(engine, {**_known("VBD", vbd, _OWN_OF_DEVICE), "VM": vm.ref})
    for vif in handover.vifs:
        vif_row(engine, {**_known("VIF", vif, _OWN_OF_DEVICE), "VM": vm.ref})
    return vm


def _known(class_name: str, given: dict[str, Any], own: set[str]) -> dict[str, Any]:
    """The fields that the model has, of the model's types: a neighbour is not believed blindly."""
    fields = model().classes[class_name].fields
    return {name: fields[name].coerce(value) for name, value in given.items() if name in fields and name not in own}
