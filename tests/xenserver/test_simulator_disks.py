"""Disks of the full simulator are real VHD files, and no way of snapshots, scans and copies loses a byte."""

import os
import random
from contextlib import contextmanager
from itertools import pairwise

import pytest
import pyvhdi

from tests.xenserver.simulated import MIB, a_disk, a_pool, a_vbd, a_vm, failure_of, logged_in
from xenapi_host import vhd
from xenapi_host.simulator.worlds import HostShape


class House:
    def __init__(self, pool, session):
        self.pool, self.session, self.api = pool, session, session.xenapi
        self.sr = self.api.pool.get_default_SR(self.api.pool.get_all()[0])
        self.folder = pool.storage.folder(self.api.SR.get_uuid(self.sr))

    def path(self, vdi):
        return self.folder / f"{self.api.VDI.get_uuid(vdi)}.vhd"

    def write(self, vdi, offset, data):
        with vhd.Disk.open(self.path(vdi), writable=True) as disk:
            disk.pwrite(offset, data)

    def read(self, vdi):
        """The disk's bytes as libvhdi sees them."""
        files = []
        for path in vhd.chain(self.path(vdi)):
            file = pyvhdi.file()
            file.open(str(path))
            files.append(file)
        for child, parent in pairwise(files):
            child.set_parent(parent)
        data = files[0].read_buffer(files[0].get_media_size())
        for file in files:
            file.close()
        return data

    def settle(self):
        """Scan, and wait until the collector has done its work."""
        self.api.SR.scan(self.sr)
        self.pool.settle()

    def names(self):
        return {name.removesuffix(".vhd") for name in os.listdir(self.folder)}

    def known(self):
        return {self.api.VDI.get_uuid(ref) for ref in self.api.SR.get_VDIs(self.sr)}


@pytest.fixture
def house(tmp_path):
    with a_house(tmp_path) as made:
        yield made


@contextmanager
def a_house(folder, **options):
    with a_pool(folder, **options) as pool, logged_in(pool) as session:
        yield House(pool, session)


def test_snapshot_makes_a_hidden_base_copy_and_the_live_disk_keeps_its_uuid(house):
    disk = house.api.VDI.create(a_disk(house.sr))
    house.write(disk, 0, b"before")
    uuid = house.api.VDI.get_uuid(disk)
    snapshot = house.api.VDI.snapshot(disk)
    house.write(disk, 0, b"after!")
    assert house.api.VDI.get_uuid(disk) == uuid
    assert house.read(disk)[:6] == b"after!"
    assert house.read(snapshot)[:6] == b"before"
    (base,) = house.known() - {uuid, house.api.VDI.get_uuid(snapshot)}
    record = house.api.VDI.get_record(house.api.VDI.get_by_uuid(base))
    assert (record["name_label"], record["managed"], record["read_only"]) == ("base copy", False, True)
    assert vhd.info(house.folder / f"{base}.vhd").hidden
    assert house.api.VDI.get_sm_config(disk)["vhd-parent"] == base


def test_destroying_a_snapshot_leaves_one_plain_file_with_the_live_content(house):
    disk = house.api.VDI.create(a_disk(house.sr))
    house.write(disk, 5 * MIB, b"old")
    snapshot = house.api.VDI.snapshot(disk)
    house.write(disk, 9 * MIB, b"new")
    house.api.VDI.destroy(snapshot)
    house.settle()
    assert house.names() == house.known() == {house.api.VDI.get_uuid(disk)}
    assert house.api.VDI.get_sm_config(disk) == {}
    data = house.read(disk)
    assert data[5 * MIB : 5 * MIB + 3] == b"old"
    assert data[9 * MIB : 9 * MIB + 3] == b"new"


@pytest.mark.parametrize("seed", range(4))
def test_random_snapshots_clones_and_deletions_never_change_what_a_disk_holds(house, seed):
    rng = random.Random(seed)
    first = house.api.VDI.create(a_disk(house.sr, size=4 * MIB))
    held = {first: bytearray(4 * MIB)}
    for step in range(30):
        disk = rng.choice(sorted(held))
        move = rng.random()
        if move < 0.45:
            offset, data = rng.randrange(0, 4 * MIB - 512, 512), bytes([step + 1]) * 512
            house.write(disk, offset, data)
            held[disk][offset : offset + 512] = data
        elif move < 0.75:
            copied = rng.choice([house.api.VDI.snapshot, house.api.VDI.clone])(disk)
            held[copied] = bytearray(held[disk])
        elif len(held) > 1:
            house.api.VDI.destroy(disk)
            del held[disk]
            house.settle()
    for disk, data in held.items():
        assert house.read(disk) == data, disk
        vhd.check_chain(house.path(disk))
    house.settle()
    assert house.names() == house.known()


def test_a_file_put_into_the_folder_is_found_by_a_scan_and_by_introduce(house):
    for name in ("0b0b0b0b-0000-4000-8000-000000000001", "0b0b0b0b-0000-4000-8000-000000000002"):
        vhd.create_dynamic(house.folder / f"{name}.vhd", 8 * MIB)
    arguments = ["0b0b0b0b-0000-4000-8000-000000000001", "mine", "", house.sr, "user", False, False, {"k": "v"}]
    made = house.api.VDI.introduce(*arguments, "0b0b0b0b-0000-4000-8000-000000000001.vhd")
    assert house.api.VDI.get_virtual_size(made) == str(8 * MIB)
    assert failure_of(house.api.VDI.introduce, *arguments, "gone")[0] == "SR_BACKEND_FAILURE_46"
    house.settle()
    found = house.api.VDI.get_by_uuid("0b0b0b0b-0000-4000-8000-000000000002")
    assert (house.api.VDI.get_name_label(found), house.api.VDI.get_managed(found)) == ("", True)
    assert house.api.VDI.get_name_label(made) == "mine"
    os.unlink(house.path(found))
    house.settle()
    assert house.known() == {"0b0b0b0b-0000-4000-8000-000000000001"}


def test_copying_to_the_other_hosts_disk_flattens_the_chain(tmp_path):
    with a_house(tmp_path, hosts=2) as house:
        (other,) = [sr for sr in house.api.SR.get_all() if sr != house.sr]
        disk = house.api.VDI.create(a_disk(house.sr))
        house.write(disk, 0, b"low")
        house.api.VDI.snapshot(disk)
        house.write(disk, 6 * MIB, b"high")
        copy = house.api.VDI.copy(disk, other)
        path = house.pool.storage.path(house.api.SR.get_uuid(other), house.api.VDI.get_uuid(copy))
        assert vhd.info(path).parent_uuid is None
        with vhd.Disk.open(path) as opened:
            assert opened.pread(0, 3) == b"low"
            assert opened.pread(6 * MIB, 4) == b"high"


def test_a_full_repository_refuses_a_new_disk(tmp_path):
    with a_house(tmp_path, shape=HostShape(disk_bytes=4096)) as house:
        assert failure_of(house.api.VDI.create, a_disk(house.sr))[0] == "SR_FULL"


def test_a_pool_opened_again_has_its_disks_and_running_vms(tmp_path):
    with a_house(tmp_path) as house:
        disk = house.api.VDI.create(a_disk(house.sr))
        house.write(disk, 0, b"kept")
        house.api.VDI.snapshot(disk)
        vm = house.api.VM.create(a_vm())
        house.api.VBD.create(a_vbd(vm, disk))
        house.api.VM.start(vm, False, False)
        before, known = house.api.VM.get_record(vm), house.known()
    with a_house(tmp_path) as house:
        after = house.api.VM.get_record(vm)
        assert {k: str(v) for k, v in after.items()} == {k: str(v) for k, v in before.items()}
        assert house.known() == known
        assert house.read(disk)[:4] == b"kept"
        house.api.VM.hard_reboot(vm)
        assert int(house.api.VM.get_domid(vm)) > int(before["domid"])


@pytest.mark.parametrize("name", ["../elsewhere", "/{outside}", "..", ".", "a/b", "\u0000", "x" * 300])
def test_a_name_that_a_client_chooses_leads_to_no_file_but_ours(tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    name = name.format(outside=outside)
    with a_pool(tmp_path / "pool") as pool, logged_in(pool) as session:

        def call(method, *params):  # a NUL comes by JSON only
            return pool.engine.call(method, [session.handle, *params])

        told = failure_of(call, "SR.introduce", name, "sr", "", "ext", "user", False, {})
        assert told == ["UUID_INVALID", "SR", name]
        sr = session.xenapi.SR.get_by_name_label("Local storage")[0]
        told = failure_of(call, "VDI.introduce", name, "", "", sr, "user", False, False, {}, name, {}, {})
        assert told[0] == "SR_BACKEND_FAILURE_46"
    assert (outside / "precious").read_text() == "kept"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["outside", "pool"]
