"""Changed block tracking: what VDI.list_changed_blocks says is what has been written, byte for byte."""

import base64
import http.client
import random
import struct

import pytest

from tests.xenserver.simulated import MIB, a_disk, a_vbd, a_vm, failure_of
from tests.xenserver.test_simulator_disks import a_house, house

BLOCK = 64 * 1024
SIZE = 4 * MIB

__all__ = ["house"]


def _blocks(bitmap):
    bits = base64.b64decode(bitmap)
    assert len(bits) == SIZE // BLOCK // 8
    return {n for n in range(len(bits) * 8) if bits[n // 8] & 0x80 >> n % 8}


def _differing(old, new):
    return {n for n in range(SIZE // BLOCK) if old[n * BLOCK : (n + 1) * BLOCK] != new[n * BLOCK : (n + 1) * BLOCK]}


@pytest.fixture
def tracked(house):
    disk = house.api.VDI.create(a_disk(house.sr, size=SIZE))
    house.write(disk, 0, b"old" * 1000)
    house.api.VDI.enable_cbt(disk)
    return disk


def test_changed_blocks_are_those_that_were_written_whatever_storage_has_merged(house, tracked):
    rng = random.Random(7)
    snapshots, contents = [], []
    for step in range(6):
        for _ in range(3):
            house.write(tracked, rng.randrange(0, SIZE - 4096), bytes([step + 1]) * rng.randrange(1, 4096))
        snapshots.append(house.api.VDI.snapshot(tracked))
        contents.append(house.read(snapshots[-1]))
        if step in (2, 4):  # the chain is merged, the log is not
            house.api.VDI.data_destroy(snapshots[step - 1])
            house.settle()
    for since in range(6):
        for until in range(since + 1, 6):
            found = _blocks(house.api.VDI.list_changed_blocks(snapshots[since], snapshots[until]))
            assert found == _differing(contents[since], contents[until]), (since, until)
    assert _blocks(house.api.VDI.list_changed_blocks(snapshots[-1], tracked)) == set()
    house.write(tracked, 3 * MIB, b"x")
    assert _blocks(house.api.VDI.list_changed_blocks(snapshots[-1], tracked)) == {3 * MIB // BLOCK}


def test_a_snapshot_without_its_data_takes_no_room_and_is_good_for_nothing_else(house, tracked):
    first = house.api.VDI.snapshot(tracked)
    house.write(tracked, 2 * MIB, b"new")
    second = house.api.VDI.snapshot(tracked)
    house.api.VDI.data_destroy(first)
    house.api.VDI.data_destroy(first)
    house.settle()
    record = house.api.VDI.get_record(first)
    assert (record["type"], record["cbt_enabled"], record["physical_utilisation"]) == ("cbt_metadata", True, "0")
    assert (record["is_a_snapshot"], record["snapshot_of"]) == (True, tracked)
    assert record["allowed_operations"] == ["forget", "destroy"]
    refused = ["VDI_INCOMPATIBLE_TYPE", first, "cbt_metadata"]
    vm = house.api.VM.create(a_vm())
    for call, *params in (
        (house.api.VDI.snapshot, first, {}),
        (house.api.VDI.clone, first, {}),
        (house.api.VDI.copy, first, house.sr),
        (house.api.VDI.resize, first, str(8 * MIB)),
        (house.api.VDI.get_nbd_info, first),
        (house.api.VBD.create, a_vbd(vm, first)),
    ):
        assert failure_of(call, *params) == refused
    assert _blocks(house.api.VDI.list_changed_blocks(first, second)) == {2 * MIB // BLOCK}
    house.api.VDI.destroy(first)
    assert failure_of(house.api.VDI.get_record, first)[0] == "HANDLE_INVALID"


def test_a_destroyed_snapshot_hands_its_changes_to_the_next(house, tracked):
    taken = []
    for step in range(3):
        taken.append(house.api.VDI.snapshot(tracked))
        house.write(tracked, step * MIB, bytes([step + 1]))
    house.api.VDI.destroy(taken[1])
    assert _blocks(house.api.VDI.list_changed_blocks(taken[0], taken[2])) == {0, MIB // BLOCK}


def test_whatever_writes_is_noted_and_restarts_forget_nothing(tmp_path):
    with a_house(tmp_path) as house:
        disk, source = (house.api.VDI.create(a_disk(house.sr, size=SIZE)) for _ in range(2))
        house.api.VDI.enable_cbt(disk)
        first = house.api.VDI.snapshot(disk)
        body = struct.pack("<qi", MIB, 3) + b"abc" + struct.pack("<qi", 0, 0)
        connection = http.client.HTTPConnection("127.0.0.1", house.pool.server.port, timeout=30)
        query = f"vdi={disk}&chunked=true&session_id={house.session.handle}"
        connection.request("PUT", f"/import_raw_vdi?{query}", body)
        connection.getresponse().read()
        connection.close()
    with a_house(tmp_path) as house:
        second = house.api.VDI.snapshot(disk)
        house.write(source, 3 * MIB, b"xyz")
        house.api.VDI.copy(source, "OpaqueRef:NULL", "OpaqueRef:NULL", disk)
        third = house.api.VDI.snapshot(disk)
        assert _blocks(house.api.VDI.list_changed_blocks(first, second)) == {MIB // BLOCK}
        assert 3 * MIB // BLOCK in _blocks(house.api.VDI.list_changed_blocks(second, third))


def test_a_grown_disk_has_a_grown_bitmap(house, tracked):
    first = house.api.VDI.snapshot(tracked)
    house.api.VDI.resize(tracked, str(2 * SIZE))
    house.write(tracked, 2 * SIZE - 1, b"!")
    bits = base64.b64decode(house.api.VDI.list_changed_blocks(first, tracked))
    assert bits == bytes(15) + b"\x01"


def test_what_cannot_be_tracked_or_compared_is_refused_as_xapi_does(house, tracked):
    other = house.api.VDI.create(a_disk(house.sr))
    snapshot, plain = house.api.VDI.snapshot(tracked), house.api.VDI.snapshot(other)
    clone = house.api.VDI.clone(tracked)
    assert not house.api.VDI.get_cbt_enabled(clone)
    assert failure_of(house.api.VDI.enable_cbt, snapshot) == ["OPERATION_NOT_ALLOWED", f"VDI is a snapshot: {snapshot}"]
    assert failure_of(house.api.VDI.data_destroy, tracked)[0] == "OPERATION_NOT_ALLOWED"
    assert failure_of(house.api.VDI.data_destroy, plain) == ["VDI_NO_CBT_METADATA", plain]
    assert failure_of(house.api.VDI.list_changed_blocks, plain, other) == ["VDI_NO_CBT_METADATA", plain]
    assert failure_of(house.api.VDI.list_changed_blocks, tracked, snapshot)[0] == "SR_BACKEND_FAILURE_460"
    assert failure_of(house.api.VDI.list_changed_blocks, tracked, tracked)[0] == "SR_BACKEND_FAILURE_460"
    assert house.api.VDI.get_nbd_info(tracked) == []
    house.api.VDI.enable_cbt(tracked)  # again: nothing changes
    assert _blocks(house.api.VDI.list_changed_blocks(snapshot, tracked)) == set()
    house.api.VDI.disable_cbt(tracked)
    assert failure_of(house.api.VDI.list_changed_blocks, snapshot, tracked)[0] == "SR_BACKEND_FAILURE_460"
    assert not house.api.VDI.get_cbt_enabled(tracked)
