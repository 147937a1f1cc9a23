"""What a guest may write onto its own disk: the beginnings of other formats, partition tables and file systems that
lie. Whatever is done to the server then, its bytes are bytes: nobody asks them what they are, nothing that they name is
read, the tools end, and the server is there or the reason is.
"""

import io
import re
import struct
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cells.errors import CelltreeError
from cells.model import ImageRef
from tests.support.xen_hosts import SERVER, KeptJournal, a_spec
from tests.xenserver.glance_twin import Glance
from tests.xenserver.test_driver_disks import MIB, ONE, TWO, Desk
from xenapi_host import driver, tags, vhd
from xenapi_host.facts import GIB
from xenapi_host.plan import plan_build, plan_rescue
from xenapi_host.session import Session
from xenapi_host.simulator.full import FullPool

SECRET = b"Canary-c0de of another tenant " * 64
THREE = replace(TWO, id="3", name="m1.three", disk_gib=3)
MOST_SECONDS = 60  # of one operation; each takes about one


@pytest.fixture
def desk(tmp_path: Path, pool: FullPool, session: Session, glance: Glance) -> Desk:
    return Desk(tmp_path, pool, session, glance)


def _qcow2(secret: Path) -> bytes:
    """With the secret as its backing file."""
    name = str(secret).encode()
    return b"QFI\xfb" + struct.pack(">IQIIQ", 3, 104, len(name), 16, GIB) + bytes(72) + name


def _qcow2_with_data_file(secret: Path) -> bytes:
    name = b'json:{"file.filename": "%s"}' % str(secret).encode()
    return (
        b"QFI\xfb"
        + struct.pack(">IQIIQ", 3, 112, len(name), 16, GIB)
        + bytes(40)
        + b"\0" * 7
        + b"\4"
        + bytes(32)
        + name
    )


def _vmdk(secret: Path) -> bytes:
    return f'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 2048 FLAT "{secret}" 0\n'.encode()


def _vhd(secret: Path) -> bytes:
    """A differencing one, whose parent is the secret."""
    base, leaf = secret.parent / "liar-base.vhd", secret.parent / "liar.vhd"
    vhd.create_dynamic(base, 4 * MIB)
    vhd.create_child(leaf, base)
    written = leaf.read_bytes()
    for path in (base, leaf):
        path.unlink()
    return written.replace(b"liar-base.vhd", b"another's.vhd")


def _table(start: int, sectors: int) -> bytes:
    """A partition table with one partition."""
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", start, sectors)
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def _file_system(**changed: tuple[int, str, int]) -> bytes:
    """What an ext4 superblock might say, with fields changed: name=(place, kind, value)."""
    block = bytearray(1024)
    struct.pack_into("<IIIIIIIII", block, 0, 8192, 32768, 0, 30000, 8000, 1, 0, 0, 8192)
    struct.pack_into("<H", block, 56, 0xEF53)
    struct.pack_into("<III", block, 92, 0x04, 0x40, 0)
    for place, kind, value in changed.values():
        struct.pack_into(kind, block, place, value)
    return bytes(1024) + bytes(block)


def _lying_table(_: Path) -> bytes:
    return _table(2048, 0xFFFFFFFF)


def _huge_file_system(_: Path) -> bytes:
    """2^64 blocks of 2^265 bytes, one inode for a group."""
    return _file_system(
        blocks=(4, "<I", 0xFFFFFFFF), more=(0x150, "<I", 0xFFFFFFFF), shift=(24, "<I", 255), bits=(96, "<I", 0xC0)
    )


def _endless_groups(_: Path) -> bytes:
    return _file_system(blocks=(4, "<I", 0xFFFFFFFF), per_group=(32, "<I", 1), inodes=(40, "<I", 1))


def _foreign_journal(_: Path) -> bytes:
    return _file_system(journal=(0xE0, "<I", 0), device=(0xE4, "<I", 0x0801))


LIARS: dict[str, Callable[[Path], bytes]] = {
    "qcow2": _qcow2,
    "qcow2 with a data file": _qcow2_with_data_file,
    "VMDK": _vmdk,
    "VHD": _vhd,
    "a partition beyond the disk": _lying_table,
    "a file system of 2^64 blocks": _huge_file_system,
    "a file system of 2^32 groups": _endless_groups,
    "a file system with another device's journal": _foreign_journal,
}


class Victim:
    """A server whose guest has written `lie` at the beginning of its disk."""

    def __init__(self, desk: Desk, make: Callable[[Path], bytes]) -> None:
        self.desk = desk
        self.image = desk.image(partitioned=True)
        self.secret = desk.folder / "secret"
        self.secret.write_bytes(SECRET)
        self.lie = make(self.secret)
        self.plan = desk.plan(self.image, TWO)
        desk.build(self.plan)
        disk = desk.file(0).stem
        desk.pool.engine.storage.write(self.plan.storage, disk, 0, self.lie)
        self.began = time.monotonic()

    def ended(self) -> None:
        """In time, and with nothing of the secret anywhere on storage."""
        assert time.monotonic() - self.began < MOST_SECONDS
        self.desk.pool.settle()
        files = [path for path in (self.desk.pool.data / "sr").rglob("*") if path.is_file()]
        assert files
        assert not [path for path in files if SECRET[:64] in path.read_bytes()]
        state = driver.find(self.desk.session, SERVER)
        assert state is not None and state.power_state == "Running"

    def root(self, device: int = 0, name: str = tags.vm_name(SERVER)) -> bytes:
        """The first bytes of the disk, as many as were written."""
        with vhd.Disk.open(self.desk.file(device, name)) as disk:
            return disk.pread(0, len(self.lie))

    def own_partition(self) -> tuple[bytes, bytes]:
        """What it wrote and what is there, but for the length that its partition has on a larger disk."""
        there = self.root()
        return self.lie[:446] + self.lie[462:], there[:446] + there[462:]


FORMATS = [name for name in LIARS if name[0] in "qV"]
LAYOUTS = [name for name in LIARS if name not in FORMATS]


@pytest.fixture
def victim(request: pytest.FixtureRequest, desk: Desk) -> Victim:
    return Victim(desk, LIARS[request.param])


def _refusal(act: Callable[[], object]) -> str:
    """Why it was not done; "" if it was."""
    try:
        act()
    except CelltreeError as error:
        assert "Traceback" not in str(error) and str(error)
        return str(error)
    return ""


@pytest.mark.parametrize("victim", ["qcow2", "VHD", *LAYOUTS], indirect=True)
def test_ossa_2016_007_what_a_guest_wrote_is_resized_as_bytes(victim: Victim) -> None:
    desk = victim.desk
    why = _refusal(lambda: driver.resize(desk.session, desk.plan(victim.image, THREE, serial=3, host=1), KeptJournal()))
    assert why == ""
    driver.confirm_resize(desk.session, SERVER)
    wrote, there = victim.own_partition()
    assert there == wrote
    with vhd.Disk.open(desk.file(0)) as disk:
        assert disk.size == 3 * GIB
    victim.ended()


@pytest.mark.parametrize("victim", LAYOUTS[1:], indirect=True)
def test_ossa_2026_002_a_file_system_that_lies_is_not_made_smaller_and_the_server_runs_on(victim: Victim) -> None:
    """Only one that the tools find sound is shrunk; the reason tells what was found instead."""
    desk, before = victim.desk, victim.desk.file(0)
    why = _refusal(lambda: driver.resize(desk.session, desk.plan(victim.image, ONE, serial=3), KeptJournal()))
    assert re.search("the (disk|partition) holds|file system", why)
    assert desk.file(0) == before and victim.root() == victim.lie
    victim.ended()


@pytest.mark.parametrize("victim", ["qcow2", LAYOUTS[0]], indirect=True)
def test_ossa_2026_002_a_lie_before_a_sound_file_system_stays_when_that_is_made_smaller(victim: Victim) -> None:
    desk = victim.desk
    driver.resize(desk.session, desk.plan(victim.image, ONE, serial=3), KeptJournal())
    driver.confirm_resize(desk.session, SERVER)
    wrote, there = victim.own_partition()
    assert there == wrote
    with vhd.Disk.open(desk.file(0)) as disk:
        assert disk.size == GIB
        assert int.from_bytes(disk.pread(458, 4), "little") * 512 <= GIB, "the table says no more than there is"
    victim.ended()


@pytest.mark.parametrize("victim", ["qcow2"], indirect=True)
def test_ossa_2014_009_what_a_guest_wrote_is_rescued_as_bytes(victim: Victim) -> None:
    desk = victim.desk
    spec = a_spec(flavor=TWO, image=desk.image("helper"))
    host = driver.measure(desk.session).hosts[0]
    rescuer = plan_rescue(spec, server=SERVER, attempt=1, host=host, serial=4)
    driver.rescue(desk.session, rescuer, KeptJournal())
    assert victim.root(1, rescuer.name) == victim.lie
    driver.unrescue(desk.session, SERVER, victim.plan.host)
    assert victim.root() == victim.lie
    victim.ended()


@pytest.mark.parametrize("victim", FORMATS, indirect=True)
def test_ossa_2016_001_what_a_guest_wrote_is_uploaded_as_bytes(victim: Victim) -> None:
    desk = victim.desk
    snapshot = ImageRef(id="snap", url=desk.glance.url)
    driver.snapshot(desk.session, SERVER, snapshot, KeptJournal(), headers={"X-Auth-Token": "t"})
    taken = desk.glance.taken["snap"]
    folder = desk.folder / "taken"
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(taken)) as archive:
        assert all(member.isfile() and member.name.removesuffix(".vhd").isdigit() for member in archive)
    leaf = vhd.read_image(io.BytesIO(taken), folder)[0]
    with vhd.Disk.open(leaf) as disk:
        assert disk.pread(0, len(victim.lie)) == victim.lie
    assert not [path for path in folder.iterdir() if SECRET[:64] in path.read_bytes()]
    victim.ended()


def test_ossa_2013_037_no_word_of_a_tenant_makes_the_host_keep_another_file(desk: Desk) -> None:
    """A host keeps one file for an image, whatever the properties, flavors and sizes of the servers made of it."""
    image = desk.image()
    host = driver.measure(desk.session).hosts[0]
    for number, kind in enumerate(("linux", "windows", "freebsd")):
        flavor = replace(TWO if number else ONE, id=str(number), ephemeral_gib=number)
        wanted = replace(image, properties={"os_type": kind, "word": "w" * number})
        plan = plan_build(a_spec(flavor=flavor, image=wanted), server=bytes([number + 1]) * 16, attempt=1, host=host)
        driver.prepare_build(desk.session, plan, KeptJournal())
    disks = desk.session.call("VDI.get_all_records").values()
    owned = [vdi["name_label"] for vdi in disks if tags.CLAIM in vdi["other_config"]]
    kept = [vdi["name_label"] for vdi in disks if vdi["managed"] and tags.CLAIM not in vdi["other_config"]]
    assert len(owned) == 5, "three root disks, two ephemeral ones"
    assert kept == [tags.image_name("demo")]
