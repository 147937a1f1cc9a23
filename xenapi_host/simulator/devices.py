"""Classes VBD and VIF: a VM's disks and network cards, plugged and unplugged."""

from __future__ import annotations

import ipaddress
import re
from contextlib import AbstractContextManager
from typing import Any

from xenapi_host.simulator import chains, dom0_disks
from xenapi_host.simulator.call import Call
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.dispatch import method
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import NULL, Failure, internal
from xenapi_host.simulator.implicit import computed, construct
from xenapi_host.simulator.model import model
from xenapi_host.simulator.vm_operations import need_power_state

MAX_VBD, MAX_VIF = 255, 7
_NAMED = re.compile(r"(xvd|hd|sd)([a-z]+)\Z")
_MAC = re.compile(r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}\Z")


def position(userdevice: str) -> int | None:
    """The number of a userdevice, given as a number or as a Linux or Xen device name; None for neither."""
    if re.fullmatch(r"-?\d+", userdevice):
        return int(userdevice)
    named = _NAMED.match(userdevice)
    if named is None:
        return None
    number = 0
    for letter in named.group(2):
        number = number * 26 + ord(letter) - ord("a") + 1
    return number - 1


def device_name(userdevice: str) -> str:
    number = position(userdevice) or 0
    letters = ""
    number += 1
    while number > 0:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return "xvd" + letters


@computed("VBD", "allowed_operations")
def vbd_operations(engine: Engine, vbd: Row) -> list[str]:
    vm = engine.db.find("VM", vbd["VM"])
    if vm is None or vm["is_a_snapshot"] or vbd["current_operations"]:
        return []
    cd = vbd["type"] == "CD"
    media = (["insert"] if vbd["empty"] else ["eject"]) if cd else []
    if vm["power_state"] == "Running":
        moves = ["unplug", "unplug_force"] if vbd["currently_attached"] else ["plug"]
        return ["attach", "unpause", "pause", *media, *([] if cd else moves)]
    if vm["power_state"] == "Paused":
        return ["attach", "unpause", "pause", *media]
    return ["attach", *media] if vm["power_state"] == "Halted" else ["attach"]


@computed("VIF", "allowed_operations")
def vif_operations(engine: Engine, vif: Row) -> list[str]:
    vm = engine.db.find("VM", vif["VM"])
    if vm is None or vif["current_operations"]:
        return []
    if vm["power_state"] != "Running":
        return ["attach"]
    return ["attach", "unplug" if vif["currently_attached"] else "plug"]


def taken_devices(call: Call, vm: Row) -> set[int]:
    return {p for ref in vm["VBDs"] if (p := position(call.db.rows[ref]["userdevice"])) is not None}


@method("VM.get_allowed_VBD_devices")
def allowed_vbd_devices(call: Call, ref: str) -> list[str]:
    taken = taken_devices(call, call.row("VM", ref))
    return [str(n) for n in range(MAX_VBD) if n not in taken]


@method("VM.get_allowed_VIF_devices")
def allowed_vif_devices(call: Call, ref: str) -> list[str]:
    taken = {call.db.rows[vif]["device"] for vif in call.row("VM", ref)["VIFs"]}
    return [str(n) for n in range(MAX_VIF) if str(n) not in taken]


@method("VBD.create")
def vbd_create(call: Call, given: Any) -> str:
    fields = construct(model().classes["VBD"], given)
    if fields["type"] == "CD" and fields["mode"] != "RO":
        raise Failure("VBD_CDS_MUST_BE_READONLY")
    vm = call.row("VM", fields["VM"])
    if not fields["empty"]:
        chains.need_data(call.row("VDI", fields["VDI"]))
    elif fields["type"] != "CD":
        raise Failure("VBD_NOT_REMOVABLE_MEDIA", NULL)
    else:
        fields["VDI"] = NULL  # whatever was given: nothing is in it
    wanted = fields["userdevice"]
    taken = taken_devices(call, vm)
    if wanted == "autodetect":
        fields["userdevice"] = str(next(n for n in range(MAX_VBD) if n not in taken))
    elif position(wanted) is None or fields["type"] == "Floppy":
        raise Failure("INVALID_DEVICE", wanted)
    elif position(wanted) in taken:
        raise Failure("DEVICE_ALREADY_EXISTS", wanted)
    return vbd_row(call.engine, fields).ref


def vbd_row(engine: Engine, fields: dict[str, Any]) -> Row:
    fields = {k: v for k, v in fields.items() if k not in ("currently_attached", "device", "uuid")}
    return engine.db.create("VBD", {**fields, "metrics": engine.new_ref()})


def _running(call: Call, device: Row) -> Row:
    vm = call.row("VM", device["VM"])
    need_power_state(vm, ("Running",))
    return vm


def attach(engine: Engine, vbd: Row) -> None:
    """Give the disk to its VM; a disk written by another running VM is refused."""
    vdi = engine.db.find("VDI", vbd["VDI"])
    if vdi is not None:
        refuse_disk(engine, vdi, vbd)
        engine.db.touch(vdi)
    engine.db.update(vbd, {"currently_attached": True, "device": device_name(vbd["userdevice"])})


def refuse_disk(engine: Engine, vdi: Row, vbd: Row) -> None:
    if not vdi["managed"]:
        raise Failure("VDI_NOT_MANAGED", vbd.ref)
    if vdi["sharable"]:
        return
    for ref in vdi["VBDs"]:
        other = engine.db.rows[ref]
        if other is not vbd and other["currently_attached"] and "RW" in (other["mode"], vbd["mode"]):
            raise Failure("VDI_IN_USE", vdi.ref)


def detach(engine: Engine, device: Row) -> None:
    engine.db.set(device, "currently_attached", False)
    vdi = engine.db.find("VDI", device["VDI"]) if device.class_name == "VBD" else None
    if vdi is not None:
        engine.db.touch(vdi)


def _plugging(call: Call, device: Row, *, plug: bool) -> AbstractContextManager[None]:
    """The work of the host on which the device's VM runs."""
    for task, running in device["current_operations"].items():
        raise Failure("OTHER_OPERATION_IN_PROGRESS", device.class_name, device.ref, running, task)
    call.at = call.row("VM", device["VM"])["resident_on"]
    if call.at in call.engine.down:
        raise Failure("HOST_OFFLINE", call.at)
    return call.at_work(plug=device) if plug else call.at_work(unplug=device)


@method("VBD.plug")
def vbd_plug(call: Call, ref: str) -> str:
    vbd = call.row("VBD", ref)
    _running(call, vbd)
    if vbd["currently_attached"]:
        raise Failure("DEVICE_ALREADY_ATTACHED", ref)
    with _plugging(call, vbd, plug=True):
        attach(call.engine, vbd)
        dom0_disks.show(call.engine, vbd)
    return ""


@method("VBD.unplug", "VBD.unplug_force")
def vbd_unplug(call: Call, ref: str) -> str:
    vbd = call.row("VBD", ref)
    _running(call, vbd)
    if not vbd["currently_attached"]:
        raise Failure("DEVICE_ALREADY_DETACHED", ref)
    with _plugging(call, vbd, plug=False):
        dom0_disks.take_back(call.engine, vbd)
        detach(call.engine, vbd)
    return ""


@method("VBD.destroy")
def vbd_destroy(call: Call, ref: str) -> str:
    vbd = call.row("VBD", ref)
    if vbd["currently_attached"]:
        vm = call.row("VM", vbd["VM"])
        raise Failure("OPERATION_NOT_ALLOWED", f"VBD '{vbd['uuid']}' still attached to '{vm['uuid']}'")
    call.db.delete(vbd)
    return ""


@method("VBD.insert")
def insert(call: Call, ref: str, vdi_ref: str) -> str:
    vbd, vdi = call.row("VBD", ref), call.row("VDI", vdi_ref)
    if vbd["type"] != "CD":
        raise Failure("VBD_NOT_REMOVABLE_MEDIA", ref)
    if not vbd["empty"]:
        raise Failure("VBD_NOT_EMPTY", ref)
    chains.need_managed(vdi)
    vm = call.row("VM", vbd["VM"])
    if vm["power_state"] == "Running" and not vbd["currently_attached"]:
        device = device_name(vbd["userdevice"])
        raise internal(f"Object with type VM and id {vm['uuid']}/vbd.{device} does not exist in xenopsd")
    call.db.update(vbd, {"VDI": vdi.ref, "empty": False})
    return ""


@method("VBD.eject")
def eject(call: Call, ref: str) -> str:
    vbd = call.row("VBD", ref)
    if vbd["type"] != "CD":
        raise Failure("VBD_NOT_REMOVABLE_MEDIA", ref)
    if vbd["empty"]:
        raise Failure("VBD_IS_EMPTY", ref)
    call.db.update(vbd, {"VDI": NULL, "empty": True})
    return ""


@method("VBD.assert_attachable")
def assert_attachable(call: Call, ref: str) -> str:
    vbd = call.row("VBD", ref)
    vdi = call.row("VDI", vbd["VDI"])
    chains.need_plugged(call.db, call.row("SR", vdi["SR"]))
    refuse_disk(call.engine, vdi, vbd)
    return ""


@method("VBD.set_mode")
def set_mode(call: Call, ref: str, mode: str) -> str:
    vbd = call.row("VBD", ref)
    need_power_state(call.row("VM", vbd["VM"]), ("Halted",))
    call.db.set(vbd, "mode", mode)
    return ""


# -- network cards --


@method("VIF.create")
def vif_create(call: Call, given: Any) -> str:
    fields = construct(model().classes["VIF"], given)
    vm = call.row("VM", fields["VM"])
    call.row("network", fields["network"])
    if not re.fullmatch(r"\d+", fields["device"]):
        raise Failure("INVALID_DEVICE", fields["device"])
    if any(call.db.rows[ref]["device"] == fields["device"] for ref in vm["VIFs"]):
        raise Failure("DEVICE_ALREADY_EXISTS", fields["device"])
    if fields["MAC"] and not _MAC.match(fields["MAC"]):
        raise Failure("MAC_INVALID", fields["MAC"])
    return vif_row(call.engine, fields).ref


def vif_row(engine: Engine, fields: dict[str, Any]) -> Row:
    fields = {k: v for k, v in fields.items() if k not in ("currently_attached", "uuid")}
    if not fields["MAC"]:
        fields |= {"MAC": new_mac(engine), "MAC_autogenerated": True}
    return engine.db.create("VIF", {**fields, "metrics": engine.new_ref()})


def new_mac(engine: Engine) -> str:
    """A locally administered address."""
    digits = f"{engine.random.getrandbits(48):012x}"
    first = f"{int(digits[:2], 16) & 0xFC | 0x02:02x}"
    return ":".join([first, *(digits[n : n + 2] for n in range(2, 12, 2))])


@method("VIF.plug")
def vif_plug(call: Call, ref: str) -> str:
    vif = call.row("VIF", ref)
    _running(call, vif)
    if vif["currently_attached"]:
        raise Failure("DEVICE_ALREADY_ATTACHED", ref)
    with _plugging(call, vif, plug=True):
        call.db.set(vif, "currently_attached", True)
    return ""


@method("VIF.unplug", "VIF.unplug_force")
def vif_unplug(call: Call, ref: str) -> str:
    vif = call.row("VIF", ref)
    _running(call, vif)
    if not vif["currently_attached"]:
        raise Failure("DEVICE_ALREADY_DETACHED", ref)
    with _plugging(call, vif, plug=False):
        call.db.set(vif, "currently_attached", False)
    return ""


@method("VIF.destroy")
def vif_destroy(call: Call, ref: str) -> str:
    vif = call.row("VIF", ref)
    if vif["currently_attached"]:
        raise Failure("OPERATION_NOT_ALLOWED", "VIF currently attached to a running VM")
    call.db.delete(vif)
    return ""


@method("VIF.move")
def vif_move(call: Call, ref: str, network: str) -> str:
    call.db.set(call.row("VIF", ref), "network", call.row("network", network).ref)
    return ""


@method("VIF.set_locking_mode")
def set_locking_mode(call: Call, ref: str, mode: str) -> str:
    call.db.set(call.row("VIF", ref), "locking_mode", mode)
    return ""


@method("VIF.set_ipv4_allowed", "VIF.set_ipv6_allowed")
def set_allowed(call: Call, ref: str, addresses: list[str]) -> str:
    field = call.method.removeprefix("VIF.set_")
    call.db.set(call.row("VIF", ref), field, [_address(a, field) for a in addresses])
    return ""


def _address(text: str, field: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise Failure("INVALID_IP_ADDRESS_SPECIFIED", field) from None


@method("VIF.add_ipv4_allowed", "VIF.add_ipv6_allowed")
def add_allowed(call: Call, ref: str, address: str) -> str:
    field = call.method.removeprefix("VIF.add_")
    vif = call.row("VIF", ref)
    call.db.set(vif, field, [*[a for a in vif[field] if a != address], _address(address, field)])
    return ""


@method("VIF.remove_ipv4_allowed", "VIF.remove_ipv6_allowed")
def remove_allowed(call: Call, ref: str, address: str) -> str:
    field = call.method.removeprefix("VIF.remove_")
    vif = call.row("VIF", ref)
    call.db.set(vif, field, [a for a in vif[field] if a != address])
    return ""


@method("VIF.configure_ipv4", "VIF.configure_ipv6")
def configure(call: Call, ref: str, mode: str, address: str = "", gateway: str = "") -> str:
    family = call.method.removeprefix("VIF.configure_")
    static = mode == "Static"
    fields: dict[str, Any] = {
        f"{family}_configuration_mode": mode,
        f"{family}_addresses": [address] if static and address else [],
        f"{family}_gateway": gateway if static else "",
    }
    call.db.update(call.row("VIF", ref), fields)
    return ""
