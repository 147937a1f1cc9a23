"""Tasks that are cancelled: the work ends with TASK_CANCELLED and leaves no half of itself."""

from contextlib import contextmanager

import pytest

from tests.xenserver.simulated import a_disk, a_pool, a_vbd, a_vm, failure_of, logged_in
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.faults import Fault
from xenapi_host.simulator.light import LightSession
from xenapi_host.simulator.mishaps import kill_host
from xenapi_host.simulator.worlds import HostShape, demo_pool

MIB = 2**20


class House:
    """A pool without HTTP whose tasks run in threads, and a VM with a disk on the first host."""

    def __init__(self):
        self.engine = Engine(seed=1)
        demo_pool(self.engine, hosts=2, shape=HostShape(cpu_objects=False, sr_type="nfs"))
        self.session = LightSession(self.engine, "root", "xen")
        self.sr = self("SR.get_all")[0]
        self.vm = self("VM.create", a_vm(name_label="mine"))
        self.disk = self("VDI.create", a_disk(self.sr))
        self("VBD.create", a_vbd(self.vm, self.disk))

    def __call__(self, method, *params):
        return self.session.call(method, *params)

    def until(self, said):
        """Wait until this is so."""
        with self.engine.lock:
            while not said():
                self.engine.wait_for_change(0.05)

    @contextmanager
    def held(self, method, *params, when="during"):
        """A task whose work is held there by a fault; released at the end, and waited for."""
        fault = self.engine.faults.add(Fault(method=method, when=when, hang=True))
        task = self(f"Async.{method}", *params)
        self.until(lambda: fault.struck)
        yield task
        with self.engine.lock:
            self.engine.clear_faults()
        self.until(lambda: self.engine.db.rows[task]["status"] != "pending")

    def end_of(self, task):
        record = self("task.get_record", task)
        assert (record["progress"], record["allowed_operations"], record["result"]) == (1.0, [], "")
        return record["status"], record["error_info"]

    def picture(self):
        """All VMs, disks and devices, and what is under way."""
        kinds = ("VM", "VDI", "VBD", "VM_metrics")
        records = {kind: self(f"{kind}.get_all_records") for kind in kinds}
        return {kind: {ref: {**r, "snapshot_time": ""} for ref, r in found.items()} for kind, found in records.items()}


@pytest.fixture
def house():
    return House()


RUNNING = ("clean_shutdown", "clean_reboot", "suspend", "pause", "snapshot", "checkpoint", "pool_migrate")
HALTED = ("start", "start_on", "clone", "copy", "snapshot", "provision")


def arguments(house, operation):
    other = house("host.get_all")[1]
    return {
        "start": (False, False),
        "start_on": (other, False, False),
        "clone": ("twin",),
        "copy": ("twin", house.sr),
        "snapshot": ("kept",),
        "checkpoint": ("kept",),
        "pool_migrate": (other, {}),
    }.get(operation, ())


@pytest.mark.parametrize(("operation", "runs"), [(o, True) for o in RUNNING] + [(o, False) for o in HALTED])
def test_a_cancelled_operation_leaves_the_vm_as_it_was(house, operation, runs):
    if operation == "provision":
        house("VM.set_is_a_template", house.vm, True)
    if runs:
        house("VM.start_on", house.vm, house("host.get_all")[0], False, False)
    before = house.picture()
    with house.held(f"VM.{operation}", house.vm, *arguments(house, operation)) as task:
        assert house("task.get_allowed_operations", task) == ["cancel"]
        assert house("VM.get_current_operations", house.vm) == {task: operation}
        house("task.cancel", task)
        house.until(lambda: house.engine.db.rows[task]["status"] != "pending")
    assert house.end_of(task) == ("cancelled", ["TASK_CANCELLED", task])
    assert house.picture() == before


def test_cancelling_after_the_effect_is_too_late(house):
    with house.held("VM.start", house.vm, False, False, when="after") as task:
        house("task.cancel", task)
    assert house("task.get_status", task) == "success"
    assert house("VM.get_power_state", house.vm) == "Running"


def test_watchers_see_a_task_pending_then_cancelled(house):
    token = house("event.from", ["task"], "", 0.0)["token"]
    with house.held("VM.start", house.vm, False, False) as task:
        batch = house("event.from", ["task"], token, 10.0)
        (event,) = [event for event in batch["events"] if event["ref"] == task]
        assert (event["operation"], event["snapshot"]["status"]) == ("add", "pending")
        house("task.cancel", task)
        house.until(lambda: house.engine.db.rows[task]["status"] != "pending")
    batch = house("event.from", ["task"], batch["token"], 10.0)
    (event,) = [event for event in batch["events"] if event["ref"] == task]
    assert event["snapshot"]["status"] == "cancelled"


def test_evacuating_a_host_stops_where_it_is_cancelled(house):
    here, other = house("host.get_all")
    vms = [house("VM.create", a_vm()) for _ in range(3)]
    for vm in vms:
        house("VM.start_on", vm, here, False, False)
    house("host.disable", here)
    fault = house.engine.faults.add(Fault(method="host.evacuate", when="during", hang=True, nth=2))
    task = house("Async.host.evacuate", here)
    house.until(lambda: fault.struck)
    house("task.cancel", task)
    house.until(lambda: house.engine.db.rows[task]["status"] != "pending")
    assert house("task.get_status", task) == "cancelled"
    assert sorted(house("VM.get_resident_on", vm) for vm in vms) == sorted([here, here, other])


def test_a_host_that_dies_fails_what_it_is_at_and_nothing_stays_under_way(house):
    other = house("host.get_all")[1]
    with house.held("VM.start_on", house.vm, other, False, False) as task:
        kill_host(house.engine, other)
        house.until(lambda: house.engine.db.rows[task]["status"] != "pending")
    assert house.end_of(task) == ("failure", ["CANNOT_CONTACT_HOST", other])
    assert house("VM.get_current_operations", house.vm) == {}
    assert house("VM.get_power_state", house.vm) == "Halted"


def test_a_migration_whose_source_dies_leaves_the_vm_there(house):
    here, other = house("host.get_all")
    house("VM.start_on", house.vm, other, False, False)
    with house.held("VM.pool_migrate", house.vm, here, {}) as task:
        kill_host(house.engine, other)
        house.until(lambda: house.engine.db.rows[task]["status"] != "pending")
    assert house.end_of(task) == ("failure", ["CANNOT_CONTACT_HOST", other])
    assert house("VM.get_resident_on", house.vm) == other
    assert failure_of(house.session.call, "VM.hard_shutdown", house.vm) == ["HOST_OFFLINE", other]


def test_a_disk_of_a_dead_hosts_own_repository_is_out_of_reach():
    engine = Engine(seed=1)
    demo_pool(engine, hosts=2, shape=HostShape(cpu_objects=False))
    session = LightSession(engine, "root", "xen")
    other = session.call("host.get_all")[1]
    pbd = session.call("host.get_PBDs", other)[0]
    sr = session.call("PBD.get_SR", pbd)
    disk = session.call("VDI.create", a_disk(sr))
    kill_host(engine, other)
    for method, *params in (("VDI.create", a_disk(sr)), ("VDI.destroy", disk), ("SR.scan", sr), ("VDI.clone", disk)):
        assert failure_of(session.call, method, *params) == ["HOST_OFFLINE", other]


@pytest.mark.parametrize("method", ["VDI.copy", "VM.copy"])
def test_a_copy_cancelled_on_its_way_leaves_no_half(tmp_path, method):
    with a_pool(tmp_path, hosts=2) as pool, logged_in(pool) as session:
        here, there = session.xenapi.SR.get_all()
        disk = session.xenapi.VDI.create(a_disk(here, 32 * MIB))
        vm = session.xenapi.VM.create(a_vm())
        session.xenapi.VBD.create(a_vbd(vm, disk))
        pool.storage.write(session.xenapi.SR.get_uuid(here), session.xenapi.VDI.get_uuid(disk), 0, b"x" * 24 * MIB)
        halfway = pool.engine.faults.add(Fault(method=method, when="during", hang=True, nth=7))
        params = (disk, there) if method == "VDI.copy" else (vm, "copy", there)
        task = session.xenapi_request(f"Async.{method}", params)
        with pool.engine.lock:
            while not halfway.struck:
                pool.engine.wait_for_change(0.05)
        assert 0.2 < session.xenapi.task.get_progress(task) < 0.5
        session.xenapi.task.cancel(task)
        pool.workers.join()
        assert session.xenapi.task.get_status(task) == "cancelled"
        assert session.xenapi.VM.get_by_name_label("copy") == []
        session.xenapi.SR.scan(there)
        assert session.xenapi.SR.get_VDIs(there) == []
        assert session.xenapi.VDI.get_current_operations(disk) == {}


@pytest.mark.parametrize(
    ("method", "more", "shown"),
    [
        ("VDI.destroy", (), "destroy"),
        ("VDI.snapshot", ({},), "snapshot"),
        ("VDI.clone", ({},), "clone"),
        ("VDI.resize", (str(64 * MIB),), "resize"),
        ("VDI.copy", (), "copy"),
        ("SR.scan", (), "scan"),
        ("VBD.plug", (), "plug"),
    ],
)
def test_an_object_shows_what_is_done_to_it_and_is_as_it_was_when_that_is_cancelled(house, method, more, shown):
    kind = method.partition(".")[0]
    if kind == "VBD":
        house("VM.start", house.vm, False, False)
    loose = house("VDI.create", a_disk(house.sr))
    position = a_vbd(house.vm, loose, userdevice="1") if kind == "VBD" else None
    ref = {"VDI": loose, "SR": house.sr}.get(kind) or house("VBD.create", position)
    before = house.picture()
    with house.held(method, ref, *(more if method != "VDI.copy" else (house.sr,))) as task:
        assert house(f"{kind}.get_current_operations", ref) == {task: shown}
        assert house(f"{kind}.get_allowed_operations", ref) == []
        if kind == "VDI":
            busy = ["OTHER_OPERATION_IN_PROGRESS", "VDI", ref, shown, task]
            assert failure_of(house.session.call, "VDI.destroy", ref) == busy
        house("task.cancel", task)
        house.until(lambda: house.engine.db.rows[task]["status"] != "pending")
    assert house.end_of(task) == ("cancelled", ["TASK_CANCELLED", task])
    assert house(f"{kind}.get_current_operations", ref) == {}
    assert house.picture() == before


def test_hosts_show_that_a_vm_is_being_started_there(house):
    other = house("host.get_all")[1]
    with house.held("VM.start_on", house.vm, other, False, False) as task:
        assert house("host.get_current_operations", other) == {task: "vm_start"}
    assert house("host.get_current_operations", other) == {}
