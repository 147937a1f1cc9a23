"""Guests of classic Xen become servers: a source in folders, real rsync, the plugin in a simulated dom0, real ext4."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cells.errors import Permanent, Temporary
from cells.model import ClassicGuest, ImageRef, PowerState
from tests.support.xen_hosts import SERVER, KeptJournal, a_spec
from tests.xenserver.glance_twin import Glance, Image
from tests.xenserver.simulated import TINY
from xenapi_host import classic_source, driver, vhd
from xenapi_host.driver import ClassicSource
from xenapi_host.plan import BuildPlan, plan_build
from xenapi_host.session import Session
from xenapi_host.simulator.full import FullPool

MIB = 2**20
START = 2**20
HEADERS = {"X-Auth-Token": "t"}


@dataclass
class Scene:
    """A pool, a classic host's folder with the guest `web1`, and a kit in Glance."""

    pool: FullPool
    session: Session
    glance: Glance
    guests: Path
    kit: ImageRef

    @property
    def root(self) -> Path:
        return self.guests / "web1" / "root"

    @property
    def power(self) -> str:
        return (self.guests / "web1" / "power").read_text().strip()

    @property
    def source(self) -> ClassicSource:
        words = ("env", f"PYTHONPATH={os.getcwd()}", sys.executable, "-m", "xenapi_host.classic_source")
        return ClassicSource(name="old", command=(*words, str(self.guests)))

    def plan(self) -> BuildPlan:
        facts = driver.measure(self.session)
        spec = replace(a_spec(flavor=TINY, image=self.kit), classic=ClassicGuest(source="old", name="web1"))
        return plan_build(spec, server=SERVER, attempt=1, host=facts.hosts[0])

    def prepare(self, journal: KeptJournal) -> str:
        return driver.prepare_classic(self.session, self.plan(), journal, source=self.source, guest="web1").note

    def finish(self, journal: KeptJournal) -> tuple[PowerState, str]:
        facts, note = driver.finish_classic(
            self.session, self.plan(), journal, source=self.source, guest="web1", headers=HEADERS
        )
        return facts.power_state, note

    def disk(self, folder: Path) -> Path:
        """The raw bytes of the server's partition."""
        (vdi,) = [
            record
            for record in self.session.call("VDI.get_all_records").values()
            if record["name_label"].endswith(" root") and record["managed"]
        ]
        (leaf,) = (self.pool.data / "sr").rglob(f"{vdi['uuid']}.vhd")
        whole, part = folder / "whole", folder / "partition"
        vhd.export_raw_file(leaf, whole)
        with open(whole, "rb") as reader, open(part, "wb") as writer:
            reader.seek(START)
            shutil.copyfileobj(reader, writer)
        return part


def inside(partition: Path, path: str) -> bytes:
    """A file of an ext file system, as debugfs reads it; empty where there is none."""
    return subprocess.run(["debugfs", "-R", f"cat {path}", partition], capture_output=True, check=True).stdout


def a_kit(**files: bytes) -> bytes:
    """A kit's bytes; names have `__` for slashes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name.replace("__", "/"))
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def scene(tmp_path: Path, pool: FullPool, session: Session, glance: Glance) -> Scene:
    guest = tmp_path / "classic" / "web1"
    for name, data in {"etc/hostname": b"web1\n", "srv/data": b"as it was\n", "srv/old": b"goes away\n"}.items():
        (guest / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (guest / "root" / name).write_bytes(data)
    (guest / "root" / "etc/alias").symlink_to("hostname")
    (guest / "power").write_text("on\n")
    glance.images["kit"] = Image(data=a_kit(boot__vmlinuz=b"kernel", boot__initrd=b"ramdisk", usr__sbin__agent=b"#!"))
    kit = ImageRef(id="kit", name="kit", url=glance.url, properties={"classic_kit": "true", "vm_mode": "xen"})
    return Scene(pool, session, glance, tmp_path / "classic", kit)


def test_guest_runs_until_it_is_granted_and_arrives_with_its_last_bytes(scene: Scene, tmp_path: Path) -> None:
    assert "copied while the guest ran" in scene.prepare(KeptJournal())
    assert scene.power == "on"
    assert not (scene.guests / "web1" / "shown").exists()
    (scene.root / "srv/data").write_bytes(b"changed after the snapshot\n")
    (scene.root / "srv/old").unlink()

    assert scene.finish(KeptJournal())[0] is PowerState.RUNNING
    assert scene.power == "off"
    driver.stop(scene.session, SERVER, clean_seconds=0)
    partition = scene.disk(tmp_path)
    subprocess.run(["e2fsck", "-f", "-n", partition], check=True, capture_output=True)
    assert inside(partition, "/etc/hostname") == b"web1\n"
    assert inside(partition, "/srv/data") == b"changed after the snapshot\n"
    assert inside(partition, "/srv/old") == b""
    assert inside(partition, "/boot/vmlinuz") == b"kernel"
    assert inside(partition, "/usr/sbin/agent") == b"#!"
    links = subprocess.run(["debugfs", "-R", "stat /etc/alias", partition], capture_output=True, text=True, check=True)
    assert "symlink" in links.stdout
    vm = scene.session.call("VM.get_record", scene.session.call("VM.get_by_name_label", scene.plan().name)[0])
    assert vm["PV_bootloader"] == "pygrub"

    driver.destroy(scene.session, SERVER)
    kept = [vdi for vdi in scene.session.call("VDI.get_all_records").values() if vdi["managed"]]
    assert kept == []
    assert list(scene.pool.data.rglob("celltree-classic-*")) == []


def test_guest_whose_disk_is_an_image_file_arrives_too(scene: Scene, tmp_path: Path) -> None:
    image = scene.guests / "web1" / "disk.img"
    with open(image, "wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext3", "-d", scene.root, image], check=True)
    shutil.rmtree(scene.root)
    scene.prepare(KeptJournal())
    scene.finish(KeptJournal())
    driver.stop(scene.session, SERVER, clean_seconds=0)
    assert inside(scene.disk(tmp_path), "/srv/data") == b"as it was\n"


def test_hostile_kit_reaches_nothing_and_the_guest_starts_again(scene: Scene, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (scene.root / "boot").symlink_to(outside)
    scene.prepare(KeptJournal())
    for kit, reason in (
        (b"no archive", "image refused"),
        (a_kit(boot__vmlinuz=b"through the guest's link"), "has a link"),
        (a_kit(**{"..__..__x": b"up"}), "is not inside it"),
        (a_kit(__x=b"from the root"), "is not inside it"),
        (a_kit(**{"etc__..__..__x": b"up and down"}), "is not inside it"),
    ):
        scene.glance.images["kit"] = Image(data=kit)
        with pytest.raises(Permanent, match=reason):
            scene.finish(KeptJournal())
        assert scene.power == "on"
    assert list(outside.iterdir()) == []


def test_source_that_fails_leaves_the_guest_and_can_be_asked_again(scene: Scene) -> None:
    (scene.guests / "web1").rename(scene.guests / "away")
    journal = KeptJournal()
    with pytest.raises(Temporary, match="could not do it just now"):
        scene.prepare(journal)
    (scene.guests / "away").rename(scene.guests / "web1")
    scene.prepare(journal)
    assert scene.finish(KeptJournal())[0] is PowerState.RUNNING


def test_word_that_the_source_does_not_know_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert classic_source.main([str(tmp_path), "explode", "web1"]) == 2
    assert classic_source.main([str(tmp_path), "final", "web1"]) == 1
    assert "no guest web1" in capsys.readouterr().err


LVM = Path(driver.__file__).parents[1] / "classic_source_lvm.sh"
SAYS = """#!/bin/sh
echo "$(basename "$0") $*" >>"$LOG"
case $(basename "$0") in
    xm) [ "$1" != list ] || [ -e "$RUNS" ] || exit 1; [ "$1" != shutdown ] || rm "$RUNS" ;;
    mountpoint) exit 1 ;;
esac
"""


def lvm(folder: Path, word: str) -> tuple[str, list[str]]:
    """What the LVM source prints, and the commands it gives on its host; `folder`/runs says that the guest runs."""
    tools, log = folder / "tools", folder / "log"
    tools.mkdir(exist_ok=True)
    for name in ("xm", "lvcreate", "lvremove", "mount", "umount", "mountpoint"):
        (tools / name).write_text(SAYS)
        (tools / name).chmod(0o755)
    log.write_text("")
    own = {"LOG": str(log), "RUNS": str(folder / "runs"), "SHOWN": str(folder / "shown"), "HOST_NAME": "root@xen7"}
    environment = {**own, "PATH": f"{tools}:/usr/bin:/bin"}
    said = subprocess.run(["sh", LVM, word, "web1"], env=environment, capture_output=True, text=True, check=True)
    return said.stdout.strip(), [line for line in log.read_text().splitlines() if not line.startswith("mountpoint")]


def test_lvm_source_shows_a_snapshot_and_then_the_volume_of_a_guest_that_is_off(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    shown = f"root@xen7:{tmp_path}/shown/web1"
    assert lvm(tmp_path, "snapshot") == (
        shown,
        [
            "lvcreate -s -L 4G -n web1-celltree /dev/vg0/web1",
            f"mount -o rw /dev/vg0/web1-celltree {tmp_path}/shown/web1",
        ],
    )
    assert lvm(tmp_path, "final") == (
        shown,
        ["xm list web1", "xm shutdown -w web1", f"mount -o ro /dev/vg0/web1 {tmp_path}/shown/web1"],
    )
    assert lvm(tmp_path, "power-on") == ("", ["xm list web1", "xm create /etc/xen/web1.cfg"])
