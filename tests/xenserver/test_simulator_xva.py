"""VMs out and in as XVA archives: every byte comes back, other programs read them, hostile ones change nothing."""

import gzip
import hashlib
import http.client
import io
import random
import re
import shutil
import subprocess
import tarfile
from contextlib import suppress

import pytest
import xxhash

from tests.xenserver.simulated import MIB, a_disk, a_vbd, a_vif, a_vm, failure_of
from tests.xenserver.test_simulator_disks import house
from xenapi_host import vhd

__all__ = ["house"]

SIZE = 6 * MIB
DATA = random.Random(3).randbytes(MIB + 5) + bytes(3 * MIB) + b"x" + bytes(MIB - 6) + bytes(MIB)


class Guest:
    """A halted VM with a disk of a known content, an empty CD drive and a card."""

    def __init__(self, house):
        api = house.api
        self.ref = api.VM.create(a_vm(name_label="kept", other_config={"mac_seed": "seed", "note": "é<&>"}))
        self.uuid = api.VM.get_uuid(self.ref)
        self.disk = api.VDI.create(a_disk(house.sr, size=SIZE, name_label="root"))
        house.write(self.disk, 0, DATA[: 4 * MIB])
        snapshot = api.VDI.snapshot(self.disk)
        house.write(self.disk, 4 * MIB, DATA[4 * MIB :])
        api.VDI.destroy(snapshot)
        api.VBD.create(a_vbd(self.ref, self.disk, other_config={"owner": ""}))
        api.VBD.create(a_vbd(self.ref, "OpaqueRef:NULL", type="CD", mode="RO", empty=True, userdevice="3"))
        network = api.network.get_all()[0]
        self.card = api.VIF.create(a_vif(self.ref, network, MAC="02:11:22:33:44:55"))


@pytest.fixture
def guest(house):
    return Guest(house)


def _ask(house, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", house.pool.server.port, timeout=30)
    with suppress(ConnectionError):  # the pool hangs up as soon as it knows
        connection.request(method, f"{path}&session_id={house.session.handle}", body)
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response, data


def _export(house, guest, query="", path="/export"):
    response, data = _ask(house, "GET", f"{path}?uuid={guest.uuid}{query}")
    assert house.api.task.get_status(response.getheader("task-id")) == "success"
    return data


def _import(house, body, query="", path="/import"):
    """PUT an archive; the VMs that the task names, or its error."""
    task = house.api.task.create("import", "")
    with suppress(ConnectionError):
        response, _ = _ask(house, "PUT", f"{path}?task_id={task}{query}", body)
        assert response.status == 200
    record = house.api.task.get_record(task)
    if record["status"] != "success":
        return record["error_info"]
    return re.findall(r"OpaqueRef:[-0-9a-f]+", record["result"])


def _members(archive):
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def _disk(house, vm):
    (disk,) = [vbd["VDI"] for vbd in map(house.api.VBD.get_record, house.api.VM.get_VBDs(vm)) if vbd["type"] == "Disk"]
    return disk


@pytest.mark.parametrize("query", ["", "&use_compression=true", "&use_compression=gzip"])
def test_a_vm_comes_back_as_another_with_equal_bytes(house, guest, query):
    archive = _export(house, guest, query)
    assert (archive[:2] == b"\x1f\x8b") is bool(query)
    (new,) = _import(house, archive)
    old, vm = house.api.VM.get_record(guest.ref), house.api.VM.get_record(new)
    for field in ("name_label", "memory_static_max", "VCPUs_max", "platform", "HVM_boot_params", "VCPUs_params"):
        assert vm[field] == old[field]
    assert vm["uuid"] != old["uuid"]
    assert vm["other_config"]["note"] == "é<&>"
    assert vm["other_config"]["mac_seed"] != "seed"
    assert house.api.VIF.get_MAC(vm["VIFs"][0]) != "02:11:22:33:44:55"
    assert house.api.VIF.get_network(vm["VIFs"][0]) == house.api.VIF.get_network(guest.card)
    assert sorted(house.api.VBD.get_userdevice(vbd) for vbd in vm["VBDs"]) == ["0", "3"]
    assert house.read(_disk(house, new)) == DATA == house.read(guest.disk)
    house.api.VM.start(new, False, False)


def test_blocks_of_zeros_are_left_out_and_the_rest_has_its_checksum(house, guest):
    members = _members(_export(house, guest))
    disk = next(name for name in members if name != "ova.xml").partition("/")[0]
    blocks = {f"{disk}/{number:08d}" for number in (0, 1, 4, 5)}
    assert set(members) == {"ova.xml", *blocks, *(f"{name}.checksum" for name in blocks)}
    for name in blocks:
        assert members[f"{name}.checksum"].decode() == hashlib.sha1(members[name], usedforsecurity=False).hexdigest()


def test_another_program_reads_the_disk(house, guest, tmp_path):
    if shutil.which("xva-img") is None:
        pytest.skip("xva-img is not installed")
    with tarfile.open(fileobj=io.BytesIO(_export(house, guest))) as tar:
        tar.extractall(tmp_path, filter="data")
    (disk,) = tmp_path.glob("Ref:*")
    subprocess.run(["xva-img", "-p", "disk-export", str(disk), str(tmp_path / "raw")], check=True, capture_output=True)
    assert (tmp_path / "raw").read_bytes()[: len(DATA)] == DATA


def test_a_restored_vm_is_the_same_one_and_only_where_the_first_is_gone(house, guest):
    archive = _export(house, guest)
    assert _import(house, archive, "&restore=true") == ["DUPLICATE_VM", guest.ref]
    house.api.VDI.destroy(guest.disk)
    house.api.VM.destroy(guest.ref)
    (new,) = _import(house, archive, "&restore=true")
    vm = house.api.VM.get_record(new)
    assert (vm["uuid"], vm["other_config"]["mac_seed"]) == (guest.uuid, "seed")
    assert house.api.VIF.get_MAC(vm["VIFs"][0]) == "02:11:22:33:44:55"
    twin = house.api.VM.create(a_vm(other_config={"mac_seed": "seed"}))
    house.api.VM.destroy(new)
    assert _import(house, archive, "&restore=true") == ["DUPLICATE_MAC_SEED", "seed"]
    house.api.VM.destroy(twin)


def test_a_vm_goes_into_the_repository_that_is_asked_for(house, guest):
    (host,) = house.api.host.get_all()
    other = house.api.SR.create(host, {}, str(2**30), "other", "", "ext", "user", False, {})
    archive = _export(house, guest)
    for query in (f"&sr_id={other}", f"&sr_uuid={house.api.SR.get_uuid(other)}"):
        (new,) = _import(house, archive, query)
        assert house.api.VDI.get_SR(_disk(house, new)) == other
    assert _import(house, archive, "&sr_id=OpaqueRef:none") == ["HANDLE_INVALID", "SR", "OpaqueRef:none"]
    small = house.api.SR.create(host, {}, str(MIB), "small", "", "ext", "user", False, {})
    assert _import(house, archive, f"&sr_id={small}")[0] == "SR_FULL"


def test_metadata_alone_finds_the_disks_that_are_there(house, guest):
    described = _export(house, guest, path="/export_metadata")
    assert set(_members(described)) == {"ova.xml"}
    house.api.VM.destroy(guest.ref)
    (new,) = _import(house, described, "&restore=true", path="/import_metadata")
    assert (house.api.VM.get_uuid(new), _disk(house, new)) == (guest.uuid, guest.disk)
    house.api.VM.destroy(new)
    house.api.VDI.destroy(guest.disk)
    assert _import(house, described, path="/import_metadata")[0] == "VDI_LOCATION_MISSING"
    (new,) = _import(house, described, "&force=true", path="/import_metadata")
    assert [house.api.VBD.get_type(vbd) for vbd in house.api.VM.get_VBDs(new)] == ["CD"]


def test_a_running_vm_is_kept_by_way_of_its_snapshot(house, guest):
    house.api.VM.start(guest.ref, False, False)
    taken = house.api.VM.snapshot(guest.ref, "kept for later")
    house.write(guest.disk, 0, b"written later")
    house.api.VM.set_is_a_template(taken, False)
    _, archive = _ask(house, "GET", f"/export?ref={taken}")
    (new,) = _import(house, archive)
    vm = house.api.VM.get_record(new)
    assert (vm["name_label"], vm["is_a_snapshot"], vm["is_a_template"]) == ("kept for later", False, False)
    assert house.read(_disk(house, new)) == DATA
    house.api.VM.start(new, False, False)


def test_what_runs_is_not_exported_and_what_is_exported_is_not_started(house, guest):
    house.api.VM.start(guest.ref, False, False)
    response, page = _ask(house, "GET", f"/export?uuid={guest.uuid}")
    assert response.status == 500
    assert b"VM_BAD_POWER_STATE" in page


def test_checksums_of_either_kind_are_checked_unless_forced(house, guest):
    members = _members(_export(house, guest))
    other = {}
    for name, data in members.items():
        if name.endswith(".checksum"):
            block = members[name.removesuffix(".checksum")]
            other[name.replace(".checksum", ".xxhash")] = xxhash.xxh64(block).hexdigest().upper().encode()
        else:
            other[name] = data
    (new,) = _import(house, _archive(other))
    assert house.read(_disk(house, new)) == DATA
    for kind in (members, other):
        name = max(name for name in kind if name.endswith(("checksum", "xxhash")))
        spoilt = _archive({**kind, name: b"0" * len(kind[name])})
        assert _import(house, spoilt) == ["IMPORT_ERROR_SOME_CHECKSUMS_FAILED"]
        (new,) = _import(house, spoilt, "&force=true")
        assert house.read(_disk(house, new)) == DATA


def _archive(members, kinds=()):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if name in dict(kinds):
                info.type, info.size, info.linkname = dict(kinds)[name], 0, "/etc/passwd"
            tar.addfile(info, io.BytesIO(data if info.size else b""))
    return out.getvalue()


def _hostile(good):
    """(what is wrong, archive, the error's code)"""
    xml = good["ova.xml"]
    blocks = {name: data for name, data in good.items() if name != "ova.xml"}
    first, second = [name for name in blocks if not name.endswith("checksum")][:2]
    disk = first.partition("/")[0]
    sha = hashlib.sha1(b"", usedforsecurity=False).hexdigest().encode()
    swapped = {second: good[second], f"{second}.checksum": good[f"{second}.checksum"]}
    swapped |= {first: good[first], f"{first}.checksum": good[f"{first}.checksum"]}
    entity = xml.replace(b"<?xml version='1.0'?>", b"<!DOCTYPE a [<!ENTITY b 'c'>]>")
    unexpected, generic = "IMPORT_ERROR_UNEXPECTED_FILE", "IMPORT_ERROR_GENERIC"
    return {
        "no tar": (b"garbage" * 1000, generic),
        "empty": (b"", "IMPORT_ERROR_PREMATURE_EOF"),
        "no description": (_archive(blocks), unexpected),
        "description is a link": (_archive(good, [("ova.xml", tarfile.SYMTYPE)]), unexpected),
        "a device": (_archive({**good, "dev": b""}, [("dev", tarfile.CHRTYPE)]), unexpected),
        "entities": (_archive({**good, "ova.xml": entity}), generic),
        "no xml": (_archive({"ova.xml": b"<value>"}), generic),
        "no objects": (_archive({"ova.xml": b"<value><struct></struct></value>"}), generic),
        "newer": (
            _archive({**good, "ova.xml": xml.replace(b"<i4>21</i4>", b"<i4>99</i4>")}),
            "IMPORT_INCOMPATIBLE_VERSION",
        ),
        "a path": (_archive({"ova.xml": xml, "../../etc/passwd": b"x"}), unexpected),
        "another disk": (
            _archive({"ova.xml": xml, "Ref:99/00000000": b"", "Ref:99/00000000.checksum": sha}),
            "IMPORT_ERROR_PREMATURE_EOF",
        ),
        "behind the end": (
            _archive({**good, f"{disk}/00000099": bytes(MIB), f"{disk}/00000099.checksum": sha}),
            unexpected,
        ),
        "backwards": (_archive({"ova.xml": xml, **swapped}), unexpected),
        "no checksum": (_archive({"ova.xml": xml, first: good[first], second: good[second]}), unexpected),
        "large block": (_archive({"ova.xml": xml, first: bytes(2 * MIB), f"{first}.checksum": sha}), unexpected),
        "cut off": (_archive(good)[: 3 * MIB], "IMPORT_ERROR_PREMATURE_EOF"),
        "blocks missing": (
            _archive({"ova.xml": xml, first: good[first], f"{first}.checksum": good[f"{first}.checksum"]}),
            "IMPORT_ERROR_PREMATURE_EOF",
        ),
        "cut off gzip": (gzip.compress(_archive(good))[:-100000], "IMPORT_ERROR_GENERIC"),
        "bad gzip": (b"\x1f\x8b" + b"x" * 1000, "IMPORT_ERROR_GENERIC"),
        "zstd": (b"\x28\xb5\x2f\xfd" + bytes(100), generic),
        "huge disk": (
            _archive({**good, "ova.xml": xml.replace(b"<value>%d</value>" % SIZE, b"<value>%d</value>" % 2**60)}),
            "SR_BACKEND_FAILURE_79",
        ),
        "dangling drive": (
            _archive(
                {
                    **good,
                    "ova.xml": xml.replace(f"<name>VDI</name><value>{disk}".encode(), b"<name>VDI</name><value>Ref:77"),
                }
            ),
            "IMPORT_ERROR_FAILED_TO_FIND_OBJECT",
        ),
    }


def test_hostile_archives_are_refused_and_leave_nothing_behind(house, guest):
    cases = _hostile(_members(_export(house, guest)))
    house.settle()
    before = house.api.VM.get_all(), house.known(), house.names()
    for what, (archive, code) in cases.items():
        error = _import(house, archive)
        assert error[0] == code, (what, error)
        house.settle()
        assert (house.api.VM.get_all(), house.known(), house.names()) == before, what
    vhd.check_chain(house.path(guest.disk))
    assert failure_of(house.api.VM.get_by_uuid, "none")[0] == "UUID_INVALID"
