"""What is inside the disks that the driver makes, grows and shrinks on the simulator: looked at with e2fsprogs on the
raw content, the config drive with an ISO 9660 reader of others."""

import io
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pycdlib
import pytest

from cells.errors import Permanent
from cells.model import Flavor, ImageRef
from cells.names import id_text
from tests.support.xen_hosts import SERVER, KeptJournal, a_spec
from tests.xenserver.glance_twin import Glance, Image
from xenapi_host import driver, tags, vhd
from xenapi_host.facts import GIB
from xenapi_host.image_maker import make_image, make_raw
from xenapi_host.plan import BuildPlan, plan_build, plan_rescue
from xenapi_host.session import Session
from xenapi_host.simulator.full import FullPool

MIB = 2**20
ONE = Flavor(id="1", name="m1.one", vcpus=1, ram_mib=512, disk_gib=1)
TWO = Flavor(id="2", name="m1.two", vcpus=1, ram_mib=512, disk_gib=2)
EXTRA = Flavor(id="3", name="m1.extra", vcpus=1, ram_mib=512, disk_gib=1, ephemeral_gib=1, swap_mib=64)
START = 2048 * 512


class Desk:
    """A pool, an image service, and the disks that come of them as raw files."""

    def __init__(self, tmp_path: Path, pool: FullPool, session: Session, glance: Glance) -> None:
        self.folder, self.pool, self.session, self.glance = tmp_path, pool, session, glance
        self.files = tmp_path / "files"
        self.files.mkdir()
        (self.files / "motd").write_text("made for a test\n")

    def image(self, name: str = "demo", **made: Any) -> ImageRef:
        path = self.folder / f"{name}.tar.gz"
        make_image(self.files, path, size=32 * MIB, **made)
        return self.put(name, path.read_bytes())

    def put(self, name: str, data: bytes, **fields: Any) -> ImageRef:
        self.glance.images[name] = Image(data=data)
        return ImageRef(id=name, name=name, url=self.glance.url, **fields)

    def plan(self, image: ImageRef, flavor: Flavor = ONE, *, serial: int = 0, host: int = 0, **spec: Any) -> BuildPlan:
        facts = driver.measure(self.session)
        wanted = replace(a_spec(flavor=flavor, image=image), **{"auto_disk_config": True, **spec})
        return plan_build(wanted, server=SERVER, attempt=1, host=facts.hosts[host], serial=serial)

    def build(self, plan: BuildPlan) -> str:
        """Build and start; the note."""
        note = driver.prepare_build(self.session, plan, KeptJournal()).note
        driver.start_build(self.session, SERVER, 1, plan.host)
        return note

    def raw(self, device: int, name: str = tags.vm_name(SERVER)) -> Path:
        """The disk of a VM (the server's) at a device number, as a raw file."""
        file = self.file(device, name)
        target = self.folder / f"{file.stem}.raw"
        target.unlink(missing_ok=True)
        vhd.export_raw_file(file, target)
        return target

    def file(self, device: int, name: str = tags.vm_name(SERVER)) -> Path:
        """Where it is on storage."""
        vm = self.session.call("VM.get_by_name_label", name)[0]
        for ref in self.session.call("VM.get_VBDs", vm):
            vbd = self.session.call("VBD.get_record", ref)
            if vbd["userdevice"] == str(device):
                uuid = self.session.call("VDI.get_uuid", vbd["VDI"])
                return next((self.pool.data / "sr").rglob(f"{uuid}.vhd"))
        raise AssertionError(f"the server has no disk at device {device}")

    def write_back(self, raw: Path) -> None:
        """What was written into a raw file, onto the disk that it is of, as its guest would have written it."""
        self.pool.settle()
        leaf = next((self.pool.data / "sr").rglob(f"{raw.stem}.vhd"))
        with open(raw, "rb") as source, vhd.Disk.open(leaf, writable=True) as disk:
            vhd.overwrite_raw(source, disk, disk.size)


@pytest.fixture
def desk(tmp_path: Path, pool: FullPool, session: Session, glance: Glance) -> Desk:
    return Desk(tmp_path, pool, session, glance)


def _tool(*command: str) -> str:
    path = shutil.which(command[0], path="/usr/sbin:/sbin:/usr/bin:/bin")
    assert path is not None, f"{command[0]} is not installed"
    ran = subprocess.run([path, *command[1:]], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
    return ran.stdout


def _sound_size(raw: Path, start: int) -> int:
    """Bytes of the file system that begins there; e2fsck finds nothing to put right."""
    where = f"{raw}?offset={start}" if start else str(raw)
    _tool("e2fsck", "-f", "-n", where)
    assert _tool("debugfs", "-R", "cat /motd", where).endswith("made for a test\n")
    fields = dict(
        line.split(":", 1) for line in _tool("debugfs", "-R", "stats -h", where).splitlines() if line.count(":") == 1
    )
    return int(fields["Block count"]) * int(fields["Block size"])


def _partition_bytes(raw: Path) -> int:
    with open(raw, "rb") as disk:
        sector = disk.read(512)
    assert sector[446] == 0x80, "the boot flag is kept"
    assert sector[462:510] == bytes(48), "there is one partition"
    return int.from_bytes(sector[458:462], "little") * 512


@pytest.mark.parametrize(("file_system", "partitioned"), [("ext3", False), ("ext4", True)])
def test_root_file_system_grows_to_the_flavor(desk: Desk, file_system: str, partitioned: bool) -> None:
    note = desk.build(desk.plan(desk.image(file_system=file_system, partitioned=partitioned)))
    raw, start = desk.raw(0), START if partitioned else 0
    assert note == ""
    assert raw.stat().st_size == GIB
    assert _sound_size(raw, start) > GIB - START - MIB
    if partitioned:
        assert _partition_bytes(raw) == GIB - START


def test_without_being_asked_nothing_inside_is_touched(desk: Desk) -> None:
    desk.build(desk.plan(desk.image(partitioned=True), auto_disk_config=False))
    raw = desk.raw(0)
    assert raw.stat().st_size == GIB
    assert _partition_bytes(raw) == 32 * MIB - START


def test_resize_takes_the_file_system_up_and_down_again(desk: Desk) -> None:
    image = desk.image(partitioned=True)
    desk.build(desk.plan(image))
    for flavor, serial, host in ((TWO, 3, 0), (ONE, 5, 1)):
        driver.resize(desk.session, desk.plan(image, flavor, serial=serial, host=host), KeptJournal())
        driver.confirm_resize(desk.session, SERVER)
        raw, size = desk.raw(0), flavor.disk_gib * GIB
        assert raw.stat().st_size == size
        assert _partition_bytes(raw) == size - START
        assert _sound_size(raw, START) > size - START - MIB
    left = [vdi["name_label"] for vdi in desk.session.call("VDI.get_all_records").values() if vdi["managed"]]
    assert sorted(left) == sorted([tags.image_name("demo"), f"{tags.vm_name(SERVER)} root"])


def test_reverted_shrink_leaves_the_first_disk_as_it_was(desk: Desk) -> None:
    image = desk.image(partitioned=True)
    desk.build(desk.plan(image, TWO))
    driver.resize(desk.session, desk.plan(image, ONE, serial=3), KeptJournal())
    driver.revert_resize(desk.session, SERVER)
    raw = desk.raw(0)
    assert _partition_bytes(raw) == 2 * GIB - START
    assert _sound_size(raw, START) > 2 * GIB - START - MIB


def test_shrink_is_refused_when_the_files_do_not_fit(desk: Desk) -> None:
    image = desk.image(partitioned=True)
    desk.build(desk.plan(image, TWO))
    raw = desk.raw(0)
    where = f"{raw}?offset={START}"
    _tool("debugfs", "-w", "-R", f"write {desk.files / 'motd'} big", where)
    _tool("debugfs", "-w", "-R", f"fallocate /big 0 {1200 * MIB // 4096}", where)
    desk.write_back(raw)
    with pytest.raises(Permanent, match=r"what the disk holds needs \d+ MiB"):
        driver.resize(desk.session, desk.plan(image, ONE, serial=3), KeptJournal())
    state = driver.find(desk.session, SERVER)
    assert state is not None
    assert state.power_state == "Running", "the server is as it was"
    names = [vdi["name_label"] for vdi in desk.session.call("VDI.get_all_records").values() if vdi["managed"]]
    assert sorted(names) == sorted([tags.image_name("demo"), f"{tags.vm_name(SERVER)} root"])


def test_shrink_without_auto_disk_config_is_refused(desk: Desk) -> None:
    image = desk.image(partitioned=True)
    desk.build(desk.plan(image, TWO, auto_disk_config=False))
    with pytest.raises(Permanent, match="diskConfig AUTO"):
        driver.resize(desk.session, desk.plan(image, ONE, serial=3, auto_disk_config=False), KeptJournal())


def _two_partitions(sector: bytearray) -> None:
    sector[462:478] = sector[446:462]


def _second_only(sector: bytearray) -> None:
    sector[462:478] = sector[446:462]
    sector[446:462] = bytes(16)


def _gpt(sector: bytearray) -> None:
    sector[450] = 0xEE


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_two_partitions, "2 partitions"),
        (_second_only, "partition is number 2"),
        (_gpt, "GPT"),
    ],
)
def test_other_layouts_are_left_alone_and_the_reason_is_told(desk: Desk, change: Any, why: str) -> None:
    raw, leaf, packed = desk.folder / "odd.raw", desk.folder / "0.vhd", desk.folder / "odd.tar.gz"
    make_raw(desk.files, raw, size=32 * MIB, partitioned=True)
    with open(raw, "r+b") as disk:
        sector = bytearray(disk.read(512))
        change(sector)
        disk.seek(0)
        disk.write(sector)
    vhd.import_raw_file(raw, leaf)
    with open(packed, "wb") as target:
        vhd.write_image(leaf, target)
    note = desk.build(desk.plan(desk.put("odd", packed.read_bytes())))
    assert why in note
    with open(desk.raw(0), "rb") as disk:
        assert disk.read(512) == bytes(sector)


def test_raw_image_becomes_a_server(desk: Desk) -> None:
    raw = desk.folder / "image.raw"
    make_raw(desk.files, raw, size=32 * MIB, partitioned=True)
    image = desk.put("plain", raw.read_bytes(), disk_format="raw", container_format="bare")
    desk.build(desk.plan(image))
    assert _sound_size(desk.raw(0), START) > GIB - START - MIB


def test_ossa_2013_012_image_larger_than_the_flavors_disk_is_refused(desk: Desk) -> None:
    leaf, packed = desk.folder / "0.vhd", desk.folder / "huge.tar.gz"
    vhd.create_dynamic(leaf, 2 * GIB)
    with open(packed, "wb") as target:
        vhd.write_image(leaf, target)
    with pytest.raises(Permanent, match="image refused"):
        driver.prepare_build(desk.session, desk.plan(desk.put("huge", packed.read_bytes())), KeptJournal())


def test_ephemeral_and_swap_disks_are_made_with_their_labels(desk: Desk) -> None:
    desk.build(desk.plan(desk.image(), EXTRA))
    swap, ephemeral = desk.raw(2), desk.raw(4)
    with open(swap, "rb") as disk:
        page = disk.read(4096)
    assert page[4086:] == b"SWAPSPACE2"
    assert page[1052:1068].rstrip(b"\0") == b"swap"
    assert int.from_bytes(page[1028:1032], "little") == 64 * MIB // 4096 - 1, "the whole disk is swap"
    _tool("e2fsck", "-f", "-n", str(ephemeral))
    assert "ephemeral0" in _tool("debugfs", "-R", "stats -h", str(ephemeral))
    assert ephemeral.stat().st_size == GIB


def test_ephemeral_disk_keeps_its_files_over_a_resize_and_is_gone_after_delete(desk: Desk) -> None:
    image = desk.image()
    desk.build(desk.plan(image, EXTRA))
    ephemeral = desk.raw(4)
    marked = desk.folder / "marked"
    marked.write_text("kept\n")
    _tool("debugfs", "-w", "-R", f"write {marked} mark", str(ephemeral))
    desk.write_back(ephemeral)
    larger = replace(EXTRA, id="4", name="m1.larger", disk_gib=2, ephemeral_gib=2)
    for serial, host in ((3, 0), (5, 1)):
        driver.resize(desk.session, desk.plan(image, larger, serial=serial, host=host), KeptJournal())
        driver.confirm_resize(desk.session, SERVER)
        assert _tool("debugfs", "-R", "cat /mark", str(desk.raw(4))).endswith("kept\n")
        assert desk.raw(4).stat().st_size == 2 * GIB
    with pytest.raises(Permanent, match="ephemeral disks cannot shrink"):
        driver.resize(desk.session, desk.plan(image, EXTRA, serial=7), KeptJournal())
    driver.destroy(desk.session, SERVER)
    left = [vdi["name_label"] for vdi in desk.session.call("VDI.get_all_records").values() if vdi["managed"]]
    assert left == [tags.image_name("demo")]


CANARY = b"Canary-7b11 of the tenant before" * 64


def _mark(desk: Desk, device: int) -> None:
    with vhd.Disk.open(desk.file(device), writable=True) as disk:
        disk.pwrite(GIB - 8 * MIB, CANARY)


def _marked(desk: Desk) -> list[Path]:
    """The files of storage that hold the canary."""
    desk.pool.settle()
    return [path for path in (desk.pool.data / "sr").rglob("*") if path.is_file() and CANARY in path.read_bytes()]


def test_ossa_2012_020_a_new_disk_holds_nothing_of_an_earlier_tenant(desk: Desk) -> None:
    image = desk.image()
    desk.build(desk.plan(image, EXTRA))
    for device in (0, 4):
        _mark(desk, device)
    assert len(_marked(desk)) == 2
    driver.destroy(desk.session, SERVER)
    assert _marked(desk) == []
    desk.build(desk.plan(image, EXTRA))
    for device in (0, 4):
        with vhd.Disk.open(desk.file(device)) as disk:
            assert disk.pread(GIB - 8 * MIB, len(CANARY)) != CANARY
    assert _marked(desk) == []


def test_ossa_2014_003_a_server_that_moves_has_nothing_of_its_root_disk_or_image_on_its_ephemeral_one(
    desk: Desk,
) -> None:
    image = desk.image()
    desk.build(desk.plan(image, EXTRA))
    _mark(desk, 0)
    larger = replace(EXTRA, id="4", name="m1.larger", disk_gib=2)
    driver.resize(desk.session, desk.plan(image, larger, serial=3, host=1), KeptJournal())
    driver.confirm_resize(desk.session, SERVER)
    with vhd.Disk.open(desk.file(0)) as root, vhd.Disk.open(desk.file(4)) as ephemeral:
        assert root.pread(GIB - 8 * MIB, len(CANARY)) == CANARY
        assert ephemeral.pread(GIB - 8 * MIB, len(CANARY)) != CANARY
    assert _tool("debugfs", "-R", "cat /motd", str(desk.raw(4))).count("made for a test") == 0
    assert "lost+found" in _tool("debugfs", "-R", "ls", str(desk.raw(4)))


def test_config_drive_says_who_the_server_is(desk: Desk) -> None:
    image = desk.image()
    plan = desk.plan(image, config_drive=True, metadata={"role": "web"}, key_name="k", public_key="ssh-rsa AAAA me")
    desk.build(plan)
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(desk.raw(3).read_bytes()))
    assert iso.pvd.volume_identifier.decode().strip() == "config-2"
    read = io.BytesIO()
    iso.get_file_from_iso_fp(read, joliet_path="/openstack/latest/meta_data.json")
    said = json.loads(read.getvalue())
    assert (said["uuid"], said["hostname"], said["meta"]) == (id_text(SERVER), "web-1", {"role": "web"})
    assert said["public_keys"] == {"k": "ssh-rsa AAAA me"}
    plain = io.BytesIO()
    iso.get_file_from_iso_fp(plain, iso_path="/OPENSTACK/LATEST/NETWORK_DATA.JSON;1")
    assert json.loads(plain.getvalue())["links"][0]["ethernet_mac_address"] == tags.mac(SERVER, 0)
    iso.close()


def test_rescue_shows_the_servers_disk_and_leaves_it_as_it_was(desk: Desk) -> None:
    image = desk.image(partitioned=True)
    plan = desk.plan(image)
    desk.build(plan)
    before = desk.raw(0).name
    spec = replace(a_spec(flavor=ONE, image=desk.image("helper")), config_drive=True)
    host = driver.measure(desk.session).hosts[0]
    rescuer = plan_rescue(spec, server=SERVER, attempt=1, host=host, serial=4)
    driver.rescue(desk.session, rescuer, KeptJournal())
    states = driver.power_states(desk.session)
    assert states[SERVER].power_state == "Running"
    second = desk.raw(1, rescuer.name)
    assert second.name == before
    assert _sound_size(second, START) > GIB - START - MIB
    assert _sound_size(desk.raw(0, rescuer.name), 0) > 0
    driver.unrescue(desk.session, SERVER, plan.host)
    state = driver.find(desk.session, SERVER)
    assert state is not None
    assert state.power_state == "Running"
    assert desk.raw(0).name == before
    left = [vdi["name_label"] for vdi in desk.session.call("VDI.get_all_records").values() if vdi["managed"]]
    assert sorted(left) == sorted([tags.image_name("demo"), tags.image_name("helper"), f"{tags.vm_name(SERVER)} root"])


def test_rebuild_gives_the_server_the_other_images_files(desk: Desk) -> None:
    desk.build(desk.plan(desk.image(), EXTRA))
    (desk.files / "motd").write_text("another image, made for a test\n")
    other = desk.image("other", partitioned=True)
    made = driver.rebuild(desk.session, desk.plan(other, EXTRA, serial=4), KeptJournal())
    assert made.power_state == "Running"
    raw = desk.raw(0)
    assert _sound_size(raw, START) > GIB - START - MIB
    assert _tool("debugfs", "-R", "cat /motd", f"{raw}?offset={START}").startswith("another image")
    names = [vm["name_label"] for vm in desk.session.call("VM.get_all_records").values()]
    assert names.count(tags.vm_name(SERVER)) == 1
    left = [vdi["name_label"] for vdi in desk.session.call("VDI.get_all_records").values() if vdi["managed"]]
    own = [f"{tags.vm_name(SERVER)} {name}" for name in ("root", "swap", "ephemeral0")]
    assert sorted(left) == sorted([tags.image_name("demo"), tags.image_name("other"), *own])
