"""Light hosts answer as the full simulator does: one script of calls, played on both faces."""

import re

from tests.xenserver.simulated import MIB, a_disk, a_pool, a_vbd, a_vif, a_vm, logged_in
from xenapi_host.simulator.light import LightPool
from xenapi_host.simulator.worlds import HostShape

SHAPE = HostShape(cpu_objects=False)
_OWN = re.compile(r"(OpaqueRef:)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# Measured in the real world (time, bytes on disk, paths, random numbers), so only there.
MEASURED = {
    "physical_utilisation",
    "snapshot_time",
    "start_time",
    "last_updated",
    "created",
    "finished",
    "generation_id",
    "device_config",
    "MAC",
    "timestamp",
    "snapshot_metadata",
}


class Script:
    """Plays calls on one face and keeps what came back, with identities replaced by their order of appearance."""

    def __init__(self, call):
        self._call = call
        self.seen = []
        self._names = {}

    def __call__(self, method, *params):
        try:
            value = self._call(method, *params)
            self.seen.append((method, self._plain(value)))
            return value
        except Exception as error:
            if not hasattr(error, "details"):
                raise
            self.seen.append((method, "Failure", self._plain(error.details)))
            return None

    def _plain(self, value):
        if isinstance(value, dict):
            return {self._plain(k): self._plain(v) for k, v in value.items() if k not in MEASURED}
        if isinstance(value, list):
            return [self._plain(item) for item in value]
        if isinstance(value, str):
            return _OWN.sub(lambda found: f"#{self._names.setdefault(found.group(), len(self._names))}", value)
        return value if isinstance(value, (bool, int, float)) else "time"


def play(call):
    do = Script(call)
    pool = do("pool.get_all")[0]
    host, other = do("host.get_all")
    sr = do("pool.get_default_SR", pool)
    network = do("network.get_all")[0]
    do("host.get_record", host)
    do("host.compute_free_memory", host)
    do("SR.get_record", sr)
    vm = do("VM.create", a_vm(other_config={"mac_seed": "fixed"}))
    disk = do("VDI.create", a_disk(sr))
    vbd = do("VBD.create", a_vbd(vm, disk))
    vif = do("VIF.create", a_vif(vm, network, MAC="02:00:00:00:00:09"))
    for class_name, ref in (("VM", vm), ("VDI", disk), ("VBD", vbd), ("VIF", vif)):
        do(f"{class_name}.get_record", ref)
    do("VM.add_to_xenstore_data", vm, "vm-data/a", "b")
    do("VM.add_to_xenstore_data", vm, "vm-data/a", "c")
    do("VM.start_on", vm, other, False, False)  # its disk is on the other host's own storage
    do("VM.start_on", vm, host, True, False)
    do("VM.get_record", vm)
    do("VM.unpause", vm)
    do("VM.start", vm, False, False)
    do("VDI.destroy", disk)
    snapshot = do("VDI.snapshot", disk, {})
    do("VDI.get_record", snapshot)
    clone = do("VDI.clone", snapshot, {})
    do("SR.get_VDIs", sr)
    do("VDI.resize", clone, str(32 * MIB))
    do("VDI.resize", clone, str(8 * MIB))
    do("VM.snapshot", vm, "whole")
    for operation in ("suspend", "resume", "clean_reboot", "pause", "hard_reboot", "clean_shutdown"):
        do(f"VM.{operation}", vm, *([False, False] if operation == "resume" else []))
        do("VM.get_power_state", vm)
        do("VM.get_allowed_operations", vm)
        do("VM.get_domid", vm)
    task = do("Async.VM.start", vm, False, False)
    while call("task.get_status", task) == "pending":
        pass
    do("task.get_result", task)
    do("VM.hard_shutdown", vm)
    do("VM.get_all_records_where", 'field "is_control_domain"="false" and field "power_state"="Halted"')
    do("VBD.destroy", vbd)
    do("VDI.destroy", snapshot)
    do("VDI.destroy", clone)
    do("SR.scan", sr)
    do("VDI.get_record", disk)
    do("VM.destroy", vm)
    do("VM.get_record", vm)
    do("VM.nonsense", vm)
    do("VM.start", vm)
    return do.seen


def test_light_hosts_answer_as_the_full_simulator(tmp_path):
    light = LightPool(hosts=2, shape=SHAPE, name="demo", seed=1).login()
    with a_pool(tmp_path, hosts=2, shape=SHAPE) as pool, logged_in(pool) as session:
        full = play(lambda method, *params: session.xenapi_request(method, params))
    in_process = play(light.call)
    assert len(full) > 60
    for there, here in zip(full, in_process, strict=True):
        assert here == there
