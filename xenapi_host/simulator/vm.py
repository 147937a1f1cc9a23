"""Class VM: made, started, stopped, suspended, destroyed. Its fields are in vm_fields.py, copies in vm_copies.py."""

from __future__ import annotations

from typing import Any

from xenapi_host.simulator import chains, domains, memory
from xenapi_host.simulator.call import Call
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.devices import attach, detach, refuse_disk
from xenapi_host.simulator.dispatch import method
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import NULL, Failure, internal
from xenapi_host.simulator.implicit import construct
from xenapi_host.simulator.model import model
from xenapi_host.simulator.placement import boot_refusal, choose_host, live
from xenapi_host.simulator.vm_operations import operation, refuse
from xenapi_host.simulator.wire_types import EPOCH_TEXT, date

CPU_FEATURES = "1fc9cbf5-f6fa3203-2c100800-00000121-0000000f-219c01a9-00000008-00000000-00001000-9c000400"
DEVICE_MODEL = "qemu-upstream-compat"
BIOS_STRINGS = {
    "bios-vendor": "Xen",
    "bios-version": "",
    "system-manufacturer": "Xen",
    "system-product-name": "HVM domU",
    "system-version": "",
    "system-serial-number": "",
    "baseboard-manufacturer": "",
    "enclosure-asset-tag": "",
    "hp-rombios": "",
    "oem-1": "Xen",
}
_MIB = 1024 * 1024


@method("VM.create")
def create(call: Call, given: Any) -> str:
    fields = construct(model().classes["VM"], given)
    if call.engine.db.by_uuid("VM", fields.get("uuid", "")) is not None:
        raise Failure("UUID_ALREADY_EXISTS", "VM", fields["uuid"])
    # A new VM is halted and nobody's snapshot, whatever a copied record says.
    for field in ("power_state", "suspend_VDI", "is_a_snapshot", "snapshot_of", "snapshot_time", "last_booted_record"):
        fields.pop(field, None)
    fields["platform"] = fields.get("platform", {})
    config = fields["other_config"]
    if "mac_seed" not in config:
        fields["other_config"] = {**config, "mac_seed": call.engine.new_uuid()}
    if fields.get("domain_type", "unspecified") == "unspecified":
        fields["domain_type"] = "hvm" if fields["HVM_boot_policy"] else "pv"
    if "has_vendor_device" not in given:
        fields["has_vendor_device"] = True
    fields["hardware_platform_version"] = "2"
    return vm_row(call.engine, fields).ref


def vm_row(engine: Engine, fields: dict[str, Any]) -> Row:
    """A VM's object with the objects that live and die with it."""
    metrics = engine.db.create("VM_metrics", {"VCPUs_utilisation": {}})
    vm = engine.db.create("VM", {**fields, "metrics": metrics.ref, "domid": "-1"})
    engine.db.set(vm, "memory_overhead", str(memory.overhead(vm)))
    return vm


@method("VM.destroy")
def destroy(call: Call, ref: str) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "destroy")
    with operation(call, vm, "destroy"):
        remove(call.engine, vm)
    return ""


def remove(engine: Engine, vm: Row) -> None:
    """The VM and what is its own; its disks stay, as XAPI leaves them."""
    db = engine.db
    suspended = db.find("VDI", vm["suspend_VDI"])
    if suspended is not None:
        chains.remove(engine, suspended)
    engine.told_operations.pop(vm.ref, None)
    for child in list(vm["children"]):
        db.set(db.rows[child], "parent", vm["parent"])
    for ref in [*vm["VBDs"], *vm["VIFs"], *vm["consoles"], vm["metrics"], vm["guest_metrics"]]:
        row = db.rows.get(ref)
        if row is not None:
            db.delete(row)
    db.delete(vm)


# -- starting --


def _need_sound(vm: Row) -> None:
    cores = vm["platform"].get("cores-per-socket", "")
    if cores:
        if not cores.isdigit() or int(cores) < 1:
            raise Failure("INVALID_VALUE", "platform:cores-per-socket", cores)
        if vm.number("VCPUs_max") % int(cores):
            raise Failure("VCPU_MAX_NOT_CORES_PER_SOCKET_MULTIPLE", vm["VCPUs_max"], cores)


@method("VM.start")
def start(call: Call, ref: str, start_paused: bool, force: bool) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "start")
    _need_sound(vm)
    _refuse_shared_disks(call.engine, vm)
    host = choose_host(call.engine, vm)
    with operation(call, vm, "start", at=host.ref, there="vm_start"):
        if boot_refusal(call.engine, vm, host) is not None:  # others took its room meanwhile
            host = choose_host(call.engine, vm)
        boot(call.engine, vm, host, paused=start_paused)
    return ""


@method("VM.start_on")
def start_on(call: Call, ref: str, host_ref: str, start_paused: bool, force: bool) -> str:
    vm = call.row("VM", ref)
    host = call.row("host", host_ref)
    refuse(vm, "start_on")
    _need_sound(vm)
    refused = boot_refusal(call.engine, vm, host)
    if refused is not None:
        raise refused
    _refuse_shared_disks(call.engine, vm)
    with operation(call, vm, "start_on", at=host.ref, there="vm_start"):
        refused = boot_refusal(call.engine, vm, host)
        if refused is not None:
            raise refused
        boot(call.engine, vm, host, paused=start_paused)
    return ""


def _refuse_shared_disks(engine: Engine, vm: Row) -> None:
    for ref in vm["VBDs"]:
        vbd = engine.db.rows[ref]
        vdi = engine.db.find("VDI", vbd["VDI"])
        if vdi is not None:
            refuse_disk(engine, vdi, vbd)


def new_domid(engine: Engine, host: Row) -> str:
    number = engine.next_domid.get(host.ref, 0) + 1
    engine.next_domid[host.ref] = number
    return str(number)


def boot(engine: Engine, vm: Row, host: Row, *, paused: bool) -> None:
    """A new domain: devices, metrics, console, and the fields that tell of it."""
    db = engine.db
    hvm = vm["domain_type"] == "hvm"
    platform = vm["platform"]
    if hvm and "device-model" not in platform:
        platform = {"device-model": DEVICE_MODEL, **platform}
    changes: dict[str, Any] = {
        "domid": new_domid(engine, host),
        "resident_on": host.ref,
        "power_state": "Paused" if paused else "Running",
        "memory_target": vm["memory_dynamic_max"],
        "platform": platform,
        "last_boot_CPU_flags": {"vendor": "GenuineIntel", "features": CPU_FEATURES},
        "scheduled_to_be_resident_on": NULL,
    }
    if vm["generation_id"] == "0:0":
        changes["generation_id"] = new_generation(engine)
    if not vm["bios_strings"]:
        changes["bios_strings"] = BIOS_STRINGS
    for ref in vm["VBDs"]:
        vbd = db.rows[ref]
        if not vbd["empty"]:
            attach(engine, vbd)
    for ref in vm["VIFs"]:
        db.set(db.rows[ref], "currently_attached", True)
    db.update(vm, changes)
    tell_dependants(engine, vm)
    _measure(engine, vm, start_time=engine.now())
    _open_console(engine, vm, host)
    domains.began(engine, vm)
    if vm["suspend_VDI"] == NULL:
        _meet_guest(engine, vm)


def tell_dependants(engine: Engine, vm: Row) -> None:
    """A new power state changes what may be done to the VM, its devices and snapshots: watchers are told of them."""
    engine.told_operations.pop(vm.ref, None)
    for ref in [*vm["VBDs"], *vm["VIFs"], *vm["snapshots"], vm["guest_metrics"]]:
        row = engine.db.rows.get(ref)
        if row is not None:
            engine.db.touch(row)


def new_generation(engine: Engine) -> str:
    return f"{engine.random.getrandbits(62)}:{engine.random.getrandbits(62)}"


def _measure(engine: Engine, vm: Row, *, start_time: Any) -> None:
    metrics = engine.db.find("VM_metrics", vm["metrics"])
    if metrics is None:
        return
    on = start_time is not None
    engine.db.touch(metrics)  # measured anew, even where nothing has changed
    engine.db.update(
        metrics,
        {
            "VCPUs_number": vm["VCPUs_at_startup"] if on else "0",
            "memory_actual": vm["memory_dynamic_max"] if on else "0",
            "start_time": start_time or date(EPOCH_TEXT),
            "hvm": on and vm["domain_type"] == "hvm",
            "current_domain_type": vm["domain_type"] if on else "unspecified",
        },
    )


def _open_console(engine: Engine, vm: Row, host: Row) -> None:
    for ref in vm["consoles"]:
        engine.db.delete(engine.db.rows[ref])
    ref = engine.new_ref()
    location = f"https://{host['address']}/console?ref={ref}"
    engine.db.create("console", {"protocol": "rfb", "location": location, "VM": vm.ref}, ref)


def _meet_guest(engine: Engine, vm: Row) -> None:
    """What the guest's tools report; every simulated guest has them."""
    old = engine.db.find("VM_guest_metrics", vm["guest_metrics"])
    if old is not None:
        engine.db.delete(old)
    fields: dict[str, Any] = {
        "os_version": {"name": "Simulated Linux", "distro": "debian"},
        "PV_drivers_version": {"major": "9", "minor": "3", "micro": "0", "build": "1"},
        "PV_drivers_up_to_date": True,
        "PV_drivers_detected": True,
        "other": {"feature-shutdown": "1", "feature-reboot": "1", "feature-suspend": "1"},
        "last_updated": engine.now(),
        "live": True,
    }
    engine.db.set(vm, "guest_metrics", engine.db.create("VM_guest_metrics", fields).ref)


# -- stopping --


def release(engine: Engine, vm: Row, power_state: str) -> None:
    """The domain is gone: no domid, no host, nothing attached."""
    db = engine.db
    domains.ended(engine, vm)
    for ref in [*vm["VBDs"], *vm["VIFs"]]:
        if db.rows[ref]["currently_attached"]:
            detach(engine, db.rows[ref])
    for ref in list(vm["consoles"]):
        db.delete(db.rows[ref])
    changes: dict[str, Any] = {"power_state": power_state, "domid": "-1", "resident_on": NULL}
    if power_state == "Halted":
        changes["memory_target"] = "0"
        changes["last_boot_CPU_flags"] = {"vendor": "GenuineIntel", "features": ""}
        _measure(engine, vm, start_time=None)
    db.update(vm, changes)
    tell_dependants(engine, vm)


def halt(engine: Engine, vm: Row) -> None:
    suspended = engine.db.find("VDI", vm["suspend_VDI"])
    if vm["power_state"] == "Suspended":
        kept = {field: vm[field] for field in ("last_boot_CPU_flags", "memory_target")}
        release(engine, vm, "Halted")
        engine.db.update(vm, {**kept, "suspend_VDI": NULL})
    else:
        release(engine, vm, "Halted")
    if suspended is not None:
        chains.remove(engine, suspended)


@method("VM.clean_shutdown", "VM.hard_shutdown", "VM.shutdown")
def shutdown(call: Call, ref: str) -> str:
    vm = call.row("VM", ref)
    name = call.method.removeprefix("VM.")
    refuse(vm, name)
    with operation(call, vm, "hard_shutdown" if name == "shutdown" else name):
        _after(call.engine, vm, "shutdown")
    return ""


@method("VM.clean_reboot", "VM.hard_reboot")
def reboot(call: Call, ref: str) -> str:
    vm = call.row("VM", ref)
    name = call.method.removeprefix("VM.")
    refuse(vm, name)
    with operation(call, vm, name):
        _after(call.engine, vm, "reboot")
    return ""


def _after(engine: Engine, vm: Row, event: str) -> None:
    """What the VM's actions_after_* ask for when its domain ends."""
    if vm["power_state"] != "Suspended" and vm[f"actions_after_{event}"] == "restart":
        host = engine.db.get("host", vm["resident_on"])
        domains.ended(engine, vm)
        for ref in [*vm["VBDs"], *vm["VIFs"]]:
            if engine.db.rows[ref]["currently_attached"]:
                detach(engine, engine.db.rows[ref])
        boot(engine, vm, host, paused=False)
        return
    halt(engine, vm)


@method("VM.pause")
def pause(call: Call, ref: str) -> str:
    return _switch(call, ref, "pause", "Paused")


@method("VM.unpause")
def unpause(call: Call, ref: str) -> str:
    return _switch(call, ref, "unpause", "Running")


def _switch(call: Call, ref: str, name: str, power_state: str) -> str:
    vm = call.row("VM", ref)
    refuse(vm, name)
    with operation(call, vm, name):
        call.db.set(vm, "power_state", power_state)
        tell_dependants(call.engine, vm)
    return ""


# -- suspending --


def suspend_sr(engine: Engine, vm: Row) -> Row:
    host = engine.db.find("host", vm["resident_on"])
    pool = engine.pool
    for ref in (
        vm["suspend_SR"],
        host["suspend_image_sr"] if host else NULL,
        pool["suspend_image_SR"],
        pool["default_SR"],
    ):
        sr = engine.db.find("SR", ref)
        if sr is not None and chains.plugged(engine.db, sr):
            return sr
    raise Failure("VM_NO_SUSPEND_SR", vm.ref)


def write_image(engine: Engine, vm: Row) -> Row:
    """The disk that holds a suspended VM's memory; XAPI allows for growth and its own records."""
    size = int(vm.number("memory_dynamic_max") * 1.2 + 130.72 * _MIB)
    name = "Suspend image"
    fields = {"name_label": name, "name_description": name, "type": "suspend", "virtual_size": str(size)}
    return chains.make(engine, suspend_sr(engine, vm), fields)


@method("VM.suspend")
def suspend(call: Call, ref: str) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "suspend")
    with operation(call, vm, "suspend"):
        image = write_image(call.engine, vm)
        release(call.engine, vm, "Suspended")
        call.db.set(vm, "suspend_VDI", image.ref)
    return ""


def wake(engine: Engine, vm: Row, host: Row, *, paused: bool) -> None:
    image = engine.db.find("VDI", vm["suspend_VDI"])
    boot(engine, vm, host, paused=paused)
    engine.db.set(vm, "suspend_VDI", NULL)
    if image is not None:
        chains.remove(engine, image)


@method("VM.resume")
def resume(call: Call, ref: str, start_paused: bool, force: bool) -> str:
    vm = call.row("VM", ref)
    refuse(vm, "resume")
    host = choose_host(call.engine, vm)
    with operation(call, vm, "resume", at=host.ref, there="vm_resume"):
        wake(call.engine, vm, host, paused=start_paused)
    return ""


@method("VM.resume_on")
def resume_on(call: Call, ref: str, host_ref: str, start_paused: bool, force: bool) -> str:
    vm = call.row("VM", ref)
    host = call.row("host", host_ref)
    refuse(vm, "resume_on")
    refused = boot_refusal(call.engine, vm, host)
    if refused is not None:
        raise refused
    with operation(call, vm, "resume_on", at=host.ref, there="vm_resume"):
        wake(call.engine, vm, host, paused=start_paused)
    return ""


@method("VM.power_state_reset")
def power_state_reset(call: Call, ref: str) -> str:
    vm = call.row("VM", ref)
    if vm["is_control_domain"]:
        raise internal("Assert_failure")
    if vm["power_state"] == "Running" and live(call.engine, call.row("host", vm["resident_on"])):
        raise Failure("DOMAIN_EXISTS", ref)
    if vm["power_state"] != "Halted":
        halt(call.engine, vm)
    return ""
