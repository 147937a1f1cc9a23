"""Data sources and the rrd handlers: figures that follow from the pool's state, in XML and JSON."""

import http.client
import json
import time

import pytest
from defusedxml import ElementTree

from tests.xenserver.simulated import MIB, a_disk, a_vif, a_vm, failure_of
from tests.xenserver.test_simulator_disks import a_house, house
from xenapi_host.simulator.light import LightPool

__all__ = ["house"]

STEP = 5


@pytest.fixture
def guest(house):
    vm = house.api.VM.create(a_vm())
    network = house.api.network.get_all()[0]
    house.api.VIF.create(a_vif(vm, network))
    house.api.VM.start(vm, False, False)
    return vm


def _get(house, path, host="127.0.0.1", **headers):
    connection = http.client.HTTPConnection(host, house.pool.server.port, timeout=30)
    connection.request("GET", path, headers={"Cookie": f"session_id={house.session.handle}", **headers})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def _measured(house, steps=4):
    """Samples at times to come, which the pool's own meter does not reach; the first of them."""
    start = (int(time.time()) // STEP + 100) * STEP
    for step in range(steps):
        house.pool.meter.sample(start + step * STEP)
    return start


def test_a_running_vm_tells_what_it_has_and_nothing_of_what_nobody_knows(house, guest):
    sources = {source["name_label"]: source for source in house.api.VM.get_data_sources(guest)}
    assert set(sources) == {"cpu0", "cpu1", "memory", "memory_target", "vif_0_rx", "vif_0_tx"}
    assert sources["memory"]["value"] == 512 * MIB == house.api.VM.query_data_source(guest, "memory")
    assert house.api.VM.query_data_source(guest, "cpu1") == 0.0
    assert failure_of(house.api.VM.query_data_source, guest, "memory_internal_free")[0] == "INTERNAL_ERROR"
    house.api.VM.record_data_source(guest, "memory")
    house.api.VM.hard_shutdown(guest)
    assert failure_of(house.api.VM.get_data_sources, guest)[0] == "VM_BAD_POWER_STATE"


def test_a_host_and_a_repository_tell_what_their_records_say(house, guest):
    (host,) = house.api.host.get_all()
    free = house.api.host.query_data_source(host, "memory_free_kib")
    assert free * 1024 == int(house.api.host.compute_free_memory(host))
    assert house.api.host.query_data_source(host, "running_domains") == 2  # dom0 is one
    assert house.api.host.query_data_source(host, "running_vcpus") == 4
    house.api.VDI.create(a_disk(house.sr))
    used = house.api.SR.query_data_source(house.sr, "physical_utilisation")
    assert used == int(house.api.SR.get_physical_utilisation(house.sr)) > 0


def test_light_hosts_tell_the_same_as_full_ones(house):
    names = {source["name_label"] for source in house.api.host.get_data_sources(house.api.host.get_all()[0])}
    light = LightPool(hosts=1).login()
    (host,) = light.call("host.get_all")
    assert {source["name_label"] for source in light.call("host.get_data_sources", host)} == names


def test_updates_have_a_column_a_source_and_a_row_a_step_newest_first(house, guest):
    start = _measured(house)
    uuid = house.api.VM.get_uuid(guest)
    response, body = _get(house, f"/rrd_updates?start={start}&cf=AVERAGE&host=true")
    assert response.getheader("content-type") == "text/xml"
    tree = ElementTree.fromstring(body)
    legend = [entry.text for entry in tree.iter("entry")]
    assert {f"AVERAGE:vm:{uuid}:memory", f"AVERAGE:vm:{uuid}:cpu0"} < set(legend)
    assert any(entry.startswith("AVERAGE:host:") and entry.endswith(":memory_free_kib") for entry in legend)
    meta = {child.tag: child.text for child in tree.find("meta")}
    times = [int(row.findtext("t")) for row in tree.iter("row")]
    assert times == [start + 15, start + 10, start + 5]
    assert (meta["step"], meta["rows"], meta["columns"]) == ("5", "3", str(len(legend)))
    assert (meta["start"], meta["end"]) == (str(times[-1]), str(times[0]))
    column = legend.index(f"AVERAGE:vm:{uuid}:memory")
    for row in tree.iter("row"):
        values = [value.text for value in row.iter("v")]
        assert len(values) == len(legend)
        assert values[column] == f"{512 * MIB:.4f}"


def test_json_says_the_same_as_xml(house, guest):
    start = _measured(house)
    path = f"/rrd_updates?start={start}&sr_uuid=all"
    tree = ElementTree.fromstring(_get(house, path)[1])
    for response, body in (_get(house, path + "&json=true"), _get(house, path, Accept="application/json")):
        assert response.getheader("content-type") == "application/json"
        table = json.loads(body)
        assert table["meta"]["legend"] == [entry.text for entry in tree.iter("entry")]
        assert {entry.split(":")[1] for entry in table["meta"]["legend"]} == {"vm", "sr"}
        for row, data in zip(tree.iter("row"), table["data"], strict=True):
            assert int(row.findtext("t")) == data["t"]
            assert [float(value.text) for value in row.iter("v")] == data["values"]


def test_coarser_steps_come_with_older_starts_and_larger_intervals(house, guest):
    start = _measured(house)
    for query, step in ((f"start={start}&interval=60", 60), (f"start={start - 7000}", 60), ("start=1", 86400)):
        table = json.loads(_get(house, f"/rrd_updates?{query}&json=true")[1])
        assert table["meta"]["step"] == step
    assert _get(house, "/rrd_updates?start=soon")[0].status == 400


def test_a_whole_history_has_every_archive(house, guest):
    _measured(house)
    uuid, sr = house.api.VM.get_uuid(guest), house.api.SR.get_uuid(house.sr)
    for path, source in ((f"/vm_rrd?uuid={uuid}", "memory"), ("/host_rrd?", "loadavg"), (f"/sr_rrd?uuid={sr}", "size")):
        tree = ElementTree.fromstring(_get(house, path)[1])
        names = [ds.findtext("name") for ds in tree.iter("ds") if ds.find("name") is not None]
        assert source in names
        shapes = [(rra.findtext("cf"), int(rra.findtext("pdp_per_row"))) for rra in tree.iter("rra")]
        assert shapes == [(cf, samples) for cf in ("AVERAGE", "MIN", "MAX") for samples in (1, 12, 720, 17280)]
        rows = [list(rra.find("database")) for rra in tree.iter("rra")]
        assert all(len(row) == len(names) for archive in rows for row in archive)
        assert len(rows[0]) == 120
        assert json.loads(_get(house, f"{path}&json=true")[1])["step"] == STEP
    assert _get(house, "/vm_rrd?uuid=nobody")[0].status == 404


def test_each_host_tells_of_its_own_vms(tmp_path):
    with a_house(tmp_path, hosts=2) as house:
        first, second = house.api.host.get_all()
        vms = {}
        for host in (first, second):
            vm = house.api.VM.create(a_vm())
            house.api.VM.start_on(vm, host, False, False)
            vms[house.api.host.get_address(host)] = house.api.VM.get_uuid(vm)
        start = _measured(house)
        for address, uuid in vms.items():
            _, body = _get(house, f"/rrd_updates?start={start}&json=true", host=address)
            told = {entry.split(":")[2] for entry in json.loads(body)["meta"]["legend"]}
            assert told & set(vms.values()) == {uuid}
