"""The calls the driver makes, alike on light hosts, the simulator and a real XAPI: what they take and give, how they
are refused, what watchers are told. On a real pool it makes one small VM and its disks, and removes them."""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from xenapi_host.session import Session, XenFailure, run_task

MIB = 2**20
NAME = "celltree contract"
NULL = "OpaqueRef:NULL"
GONE = "OpaqueRef:deaddead-0000-4000-8000-000000000001"


class Made:
    """A halted VM with a disk and an interface on the pool's master, and what a test adds to it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.host = self("pool.get_master", self("pool.get_all")[0])
        self.sr = self._storage()
        self.vm = self("VM.create", _vm(self.host))
        self.disk = self("VDI.create", _disk(self.sr))
        self.vbd = self("VBD.create", _vbd(self.vm, self.disk))
        network = next(pif["network"] for pif in self("PIF.get_all_records").values() if pif["management"])
        self.vif = self("VIF.create", _vif(self.vm, network))

    def __call__(self, method: str, *params: Any) -> Any:
        return self.session.call(method, *params)

    def task(self, method: str, *params: Any) -> Any:
        return run_task(self.session, f"Async.{method}", *params, limit=120.0)

    def refusal(self, method: str, *params: Any) -> tuple[str, tuple[str, ...]]:
        with pytest.raises(XenFailure) as refused:
            self(method, *params)
        return refused.value.code, refused.value.parameters

    def _storage(self) -> str:
        """A repository that the master sees and that clones disks: the pool's default one, or any."""
        default = self("pool.get_all_records").popitem()[1]["default_SR"]
        seen = {p["SR"] for p in self("PBD.get_all_records").values() if p["host"] == self.host}
        kinds = {ref: sr["type"] for ref, sr in self("SR.get_all_records").items() if ref in seen}
        fit = [ref for ref, kind in kinds.items() if kind in ("ext", "nfs")]
        return default if default in fit else fit[0]

    def remove(self) -> None:
        for vm in self("VM.get_by_name_label", NAME):
            with suppress(XenFailure):
                self("VM.hard_shutdown", vm)
        for vdi, record in self("VDI.get_all_records").items():
            if record["name_label"] == NAME:
                with suppress(XenFailure):
                    self("VDI.destroy", vdi)
        for vm in self("VM.get_by_name_label", NAME):
            self("VM.destroy", vm)


def _vm(host: str) -> dict[str, Any]:
    memory = str(128 * MIB)
    return {
        "name_label": NAME,
        "name_description": "",
        "user_version": "0",
        "is_a_template": False,
        "affinity": host,
        "memory_static_min": "0",
        "memory_static_max": memory,
        "memory_target": memory,
        "memory_dynamic_min": memory,
        "memory_dynamic_max": memory,
        "VCPUs_max": "1",
        "VCPUs_at_startup": "1",
        "VCPUs_params": {"weight": "256", "cap": "0"},
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "destroy",
        **dict.fromkeys(("PV_bootloader", "PV_kernel", "PV_ramdisk", "PV_args", "PV_bootloader_args"), ""),
        "PV_legacy_args": "",
        "PCI_bus": "",
        "recommendations": "",
        "blocked_operations": {},
        "tags": [],
        "HVM_boot_policy": "BIOS order",
        "HVM_boot_params": {"order": "dc"},
        "platform": {"nx": "true"},
        "ha_always_run": False,
        "ha_restart_priority": "",
        "xenstore_data": {},
        "other_config": {"mark": "1"},
    }


def _disk(sr: str) -> dict[str, Any]:
    return {
        "name_label": NAME,
        "name_description": "",
        "SR": sr,
        "virtual_size": str(64 * MIB),
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {"mark": "1"},
        "xenstore_data": {},
        "sm_config": {},
        "tags": [],
    }


def _vbd(vm: str, disk: str, device: str = "0") -> dict[str, Any]:
    return {
        "VM": vm,
        "VDI": disk,
        "userdevice": device,
        "bootable": True,
        "mode": "RW",
        "type": "Disk",
        "unpluggable": True,
        "empty": False,
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }


def _vif(vm: str, network: str) -> dict[str, Any]:
    return {
        "VM": vm,
        "network": network,
        "device": "0",
        "MAC": "02:00:00:c0:ff:ee",
        "MTU": "1500",
        "other_config": {},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }


@pytest.fixture
def made(session: Session) -> Iterator[Made]:
    things = Made(session)
    yield things
    things.remove()


def test_vm_is_found_by_name_uuid_and_query(made: Made) -> None:
    record = made("VM.get_record", made.vm)
    assert made("VM.get_by_name_label", NAME) == [made.vm]
    assert made("VM.get_by_uuid", record["uuid"]) == made.vm
    found = made("VM.get_all_records_where", f'field "name__label" = "{NAME}" and field "is_a_template" = "false"')
    assert list(found) == [made.vm]
    assert (record["power_state"], record["domid"], record["resident_on"]) == ("Halted", "-1", NULL)
    assert (record["memory_static_max"], record["VCPUs_max"]) == (str(128 * MIB), "1")
    assert record["VBDs"] == made("VM.get_VBDs", made.vm) == [made.vbd]
    assert made.refusal("VM.get_by_uuid", "deaddead-0000-4000-8000-000000000001")[0] == "UUID_INVALID"


def test_maps_take_a_key_once_and_lose_one_that_was_never_there(made: Made) -> None:
    for method, field in (("VM", "other_config"), ("VM", "xenstore_data"), ("VDI", "other_config")):
        ref = made.vm if method == "VM" else made.disk
        made(f"{method}.add_to_{field}", ref, "vm-data/key", "one")
        code, parameters = made.refusal(f"{method}.add_to_{field}", ref, "vm-data/key", "two")
        assert (code, parameters) == ("MAP_DUPLICATE_KEY", (method, field, ref, "vm-data/key"))
        made(f"{method}.remove_from_{field}", ref, "vm-data/key")
        made(f"{method}.remove_from_{field}", ref, "vm-data/key")
        assert "vm-data/key" not in made(f"{method}.get_{field}", ref)
    made("VM.remove_from_VCPUs_params", made.vm, "weight")
    made("VM.add_to_VCPUs_params", made.vm, "weight", "512")
    assert made("VM.get_VCPUs_params", made.vm) == {"weight": "512", "cap": "0"}
    made("VM.set_name_description", made.vm, "told")
    assert made("VM.get_name_description", made.vm) == "told"


def test_blocked_operation_is_refused_with_its_reason(made: Made) -> None:
    made("VM.set_blocked_operations", made.vm, {"start": "kept for a resize"})
    assert made.refusal("VM.start", made.vm, False, False) == ("OPERATION_BLOCKED", (made.vm, "kept for a resize"))
    made("VM.set_blocked_operations", made.vm, {})


def test_vm_runs_pauses_reboots_and_stops(made: Made) -> None:
    assert made.task("VM.start_on", made.vm, made.host, False, False) == ""
    first = made("VM.get_record", made.vm)
    assert (first["power_state"], first["resident_on"]) == ("Running", made.host)
    assert int(first["domid"]) > 0
    assert made("VBD.get_currently_attached", made.vbd) is True
    assert re.fullmatch("xvda|hda", made("VBD.get_device", made.vbd))
    code, parameters = made.refusal("VM.start", made.vm, False, False)
    assert (code, parameters) == ("VM_BAD_POWER_STATE", (made.vm, "halted", "running"))
    assert made.task("VM.pause", made.vm) == ""
    assert made("VM.get_power_state", made.vm) == "Paused"
    assert made.refusal("VM.pause", made.vm)[1] == (made.vm, "running", "paused")
    assert made.task("VM.unpause", made.vm) == ""
    assert made.task("VM.hard_reboot", made.vm) == ""
    assert made("VM.get_domid", made.vm) != first["domid"]
    assert made.refusal("VM.destroy", made.vm)[0] == "VM_BAD_POWER_STATE"
    assert made.task("VM.hard_shutdown", made.vm) == ""
    assert made.refusal("VM.hard_shutdown", made.vm)[1] == (made.vm, "paused, suspended, running", "halted")
    last = made("VM.get_record", made.vm)
    assert (last["power_state"], last["domid"], last["resident_on"]) == ("Halted", "-1", NULL)
    assert made("VBD.get_currently_attached", made.vbd) is False


def test_disk_in_use_is_neither_resized_nor_destroyed_but_snapshotted(made: Made) -> None:
    made.task("VM.start_on", made.vm, made.host, False, False)
    assert made.refusal("VDI.destroy", made.disk)[0] == "VDI_IN_USE"
    assert made.refusal("VDI.resize", made.disk, str(128 * MIB))[0] == "VDI_IN_USE"
    snapshot = made("VDI.snapshot", made.disk)
    record = made("VDI.get_record", snapshot)
    assert (record["is_a_snapshot"], record["snapshot_of"], record["SR"]) == (True, made.disk, made.sr)
    assert record["virtual_size"] == made("VDI.get_virtual_size", made.disk)
    made.task("VM.hard_shutdown", made.vm)
    made("VDI.destroy", snapshot)


def test_disk_grows_never_shrinks_and_is_cloned_with_its_marks(made: Made) -> None:
    made("VDI.resize", made.disk, str(128 * MIB))
    assert made("VDI.get_virtual_size", made.disk) == str(128 * MIB)
    with pytest.raises(XenFailure):
        made("VDI.resize", made.disk, str(64 * MIB))
    clone = made("VDI.clone", made.disk)
    record = made("VDI.get_record", clone)
    assert (record["other_config"].get("mark"), record["is_a_snapshot"], record["name_label"]) == ("1", False, NAME)
    copy = made.task("VDI.copy", clone, made.sr)
    assert made("VDI.get_record", copy)["virtual_size"] == str(128 * MIB)
    made("SR.scan", made.sr)
    for vdi in (clone, copy):
        made("VDI.destroy", vdi)
    assert made.refusal("VDI.get_record", clone) == ("HANDLE_INVALID", ("VDI", clone))


def test_disk_hangs_on_one_position_and_is_plugged_while_the_vm_runs(made: Made) -> None:
    second = made("VDI.create", _disk(made.sr))
    assert made.refusal("VBD.create", _vbd(made.vm, second)) == ("DEVICE_ALREADY_EXISTS", ("0",))
    vbd = made("VBD.create", _vbd(made.vm, second, "1"))
    assert made.refusal("VBD.plug", vbd)[0] == "VM_BAD_POWER_STATE"
    made("VBD.set_qos_algorithm_type", vbd, "ionice")
    made("VBD.set_qos_algorithm_params", vbd, {"sched": "best-effort", "class": "3"})
    assert made("VBD.get_qos_algorithm_params", vbd) == {"sched": "best-effort", "class": "3"}
    made("VBD.destroy", vbd)
    assert made("VDI.get_VBDs", second) == []


def test_snapshot_of_a_vm_is_a_template_with_disks_of_its_own(made: Made) -> None:
    snapshot = made.task("VM.snapshot", made.vm, NAME)
    record = made("VM.get_record", snapshot)
    assert (record["is_a_snapshot"], record["snapshot_of"], record["is_a_template"]) == (True, made.vm, True)
    (vbd,) = record["VBDs"]
    disk = made("VBD.get_record", vbd)["VDI"]
    assert made("VDI.get_record", disk)["snapshot_of"] == made.disk
    assert made.refusal("VM.start", snapshot, False, False)[0] == "VM_IS_SNAPSHOT"
    made("VDI.destroy", disk)
    made("VM.destroy", snapshot)


def test_watcher_is_told_of_a_change_and_of_the_end_with_the_record_that_is_so(made: Made) -> None:
    token = made("event.from", ["vm"], "", 0.0)["token"]
    made("VM.set_name_description", made.vm, "seen")
    told = made("event.from", ["vm"], token, 30.0)
    (event,) = [event for event in told["events"] if event["ref"] == made.vm]
    assert (event["class"], event["operation"], event["snapshot"]["name_description"]) == ("vm", "mod", "seen")
    assert made("event.inject", "VM", made.vm).count(",") == 1
    told = made("event.from", [f"vm/{made.vm}"], told["token"], 30.0)
    assert [event["ref"] for event in told["events"]] == [made.vm]
    made("VM.destroy", made.vm)
    told = made("event.from", [f"vm/{made.vm}"], told["token"], 30.0)
    assert [(event["operation"], event["ref"]) for event in told["events"]] == [("del", made.vm)]
    assert made.refusal("event.from", ["vm"], "not a token", 0.0)[0] == "EVENT_FROM_TOKEN_PARSE_FAILURE"


def test_task_of_an_operation_that_is_refused_fails_with_the_refusal(made: Made) -> None:
    with pytest.raises(XenFailure) as refused:
        made.task("VM.resume", made.vm, False, False)
    assert (refused.value.code, refused.value.parameters) == (
        "VM_BAD_POWER_STATE",
        (made.vm, "suspended", "halted"),
    )


def test_pool_answers_where_a_vm_may_go(made: Made) -> None:
    network = made("VIF.get_network", made.vif)
    there = made("host.migrate_receive", made.host, network, {})
    assert {"SM", "host", "xenops", "session_id", "master"} <= set(there)
    code, parameters = made.refusal("VM.assert_can_migrate", made.vm, there, True, {made.disk: GONE}, {}, {})
    assert (code, parameters[0]) == ("HANDLE_INVALID", "SR")
    assert made.refusal("VM.pool_migrate", made.vm, made.host, {})[0] == "VM_BAD_POWER_STATE"


def test_hosts_storage_and_time_are_told(made: Made) -> None:
    assert made("host_metrics.get_live", made("host.get_metrics", made.host)) is True
    assert made("VM.get_is_control_domain", made("host.get_control_domain", made.host)) is True
    assert re.fullmatch(r"\d{8}T\d\d:\d\d:\d\dZ", str(made("host.get_servertime", made.host).value))
    sr = made("SR.get_record", made.sr)
    assert int(sr["physical_size"]) > int(sr["physical_utilisation"]) >= 0
    assert made.host in {made("PBD.get_host", pbd) for pbd in made("SR.get_PBDs", made.sr)}
    code, parameters = made.refusal("host.declare_dead", made.host)
    assert code in ("HOST_IS_LIVE", "HOST_CANNOT_DESTROY_SELF")
    assert parameters == (made.host,)
