"""Classes network and PIF."""

from __future__ import annotations

from typing import Any

from xenapi_host.simulator.call import Call
from xenapi_host.simulator.dispatch import method
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.implicit import construct
from xenapi_host.simulator.model import model


def new_bridge(engine: Engine) -> str:
    taken = {row["bridge"] for row in engine.db.all("network")}
    return next(f"xapi{n}" for n in range(len(taken) + 1) if f"xapi{n}" not in taken)


@method("network.create")
def create(call: Call, given: Any) -> str:
    fields = construct(model().classes["network"], given)
    fields["bridge"] = fields.get("bridge") or new_bridge(call.engine)
    fields.setdefault("managed", True)
    fields["default_locking_mode"] = "unlocked"
    return call.db.create("network", fields).ref


@method("network.destroy")
def destroy(call: Call, ref: str) -> str:
    network = call.row("network", ref)
    attached = [v for v in network["VIFs"] if call.db.rows[v]["currently_attached"]]
    if attached:
        raise Failure("NETWORK_CONTAINS_VIF", *attached)
    if network["PIFs"]:
        raise Failure("NETWORK_CONTAINS_PIF", *network["PIFs"])
    for vif in list(network["VIFs"]):
        call.db.delete(call.db.rows[vif])
    call.db.delete(network)
    return ""


@method("network.set_default_locking_mode")
def set_default_locking_mode(call: Call, ref: str, mode: str) -> str:
    call.db.set(call.row("network", ref), "default_locking_mode", mode)
    return ""


@method("PIF.plug")
def plug(call: Call, ref: str) -> str:
    call.db.set(call.row("PIF", ref), "currently_attached", True)
    return ""


@method("PIF.unplug")
def unplug(call: Call, ref: str) -> str:
    pif = call.row("PIF", ref)
    if pif["management"]:
        raise Failure("PIF_IS_MANAGEMENT_INTERFACE", ref)
    call.db.set(pif, "currently_attached", False)
    return ""
