"""Incremental backups on the simulator over HTTP, with real VHD files and the real plugin: what comes back is byte for
byte what the server's disk was."""

import io
import tarfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from cells.errors import Permanent
from cells.model import BackupMark, ImagePart, ImageRef, Incremental
from tests.support.xen_hosts import OTHER_SERVER, SERVER, KeptJournal, a_spec
from tests.xenserver.glance_twin import Glance, Image
from tests.xenserver.simulated import TINY, a_pool, connected
from xenapi_host import driver, tags, vhd
from xenapi_host.plan import plan_build
from xenapi_host.session import Session
from xenapi_host.simulator.full import FullPool

MIB = 2**20


class Site:
    """A pool with a server of a 32 MiB image, a Glance beside it."""

    def __init__(self, pool: FullPool, session: Session, glance: Glance) -> None:
        self.pool, self.session, self.glance = pool, session, glance

    def build(self, image: ImageRef, server: bytes = SERVER) -> None:
        host = driver.measure(self.session).hosts[0]
        plan = plan_build(a_spec(flavor=TINY, image=image), server=server, attempt=1, host=host)
        driver.prepare_build(self.session, plan, KeptJournal())

    def disk(self, server: bytes = SERVER) -> Path:
        """The file of a server's root disk, once storage has done with it."""
        self.pool.settle()
        (ref,) = (
            ref
            for ref in self.session.call("VDI.get_by_name_label", f"{tags.vm_name(server)} root")
            if not self.session.call("VDI.get_is_a_snapshot", ref)
        )
        (file,) = (self.pool.data / "sr").rglob(f"{self.session.call('VDI.get_uuid', ref)}.vhd")
        return file

    def write(self, offset: int, data: bytes) -> None:
        with vhd.Disk.open(self.disk(), writable=True) as disk:
            disk.pwrite(offset, data)

    def read(self, server: bytes = SERVER) -> bytes:
        """What a server's disk holds at its places of interest: the first 64 MiB and the last 2."""
        with vhd.Disk.open(self.disk(server)) as disk:
            return disk.pread(0, 64 * MIB) + disk.pread(disk.size - 2 * MIB, 2 * MIB)

    def backup(self, name: str, *bases: str, most: int = 6) -> driver.BackedUp:
        image = ImageRef(id=name, url=self.glance.url)
        done = driver.backup(self.session, SERVER, image, Incremental(bases=bases, most=most), KeptJournal())
        self.glance.images[name] = Image(data=self.glance.taken[name])
        return done

    def chain(self, name: str) -> ImageRef:
        """An image as the API cell hands it to a leaf: with all that it builds upon."""
        parts, part = [], name
        while part := self.glance.described[part][BackupMark.PARENT]:
            parts.append(ImagePart(id=part))
        return ImageRef(id=name, url=self.glance.url, parents=tuple(parts))

    def kept(self) -> list[str]:
        """The images whose snapshots are kept as bases."""
        found = self.session.call("VDI.get_all_records").values()
        return [vdi["other_config"][tags.BACKUP].split()[0] for vdi in found if tags.BACKUP in vdi["other_config"]]


@pytest.fixture
def site(pool: FullPool, session: Session, glance: Glance, image: ImageRef) -> Site:
    site = Site(pool, session, glance)
    site.build(image)
    return site


def files_in(data: bytes) -> dict[str, int]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: member.size for member in tar.getmembers()}


def test_every_backup_of_a_series_is_restored_elsewhere_byte_for_byte(
    site: Site, glance: Glance, tmp_path: Path
) -> None:
    held: dict[str, bytes] = {}
    site.write(40 * MIB, b"before the first" * 1000)
    assert site.backup("full").reason == "the server's disk has no base on its storage"
    held["full"] = site.read()
    site.write(40 * MIB + 4096, b"after the first" * 1000)
    site.write(2**30 - MIB, b"at the end of the disk")
    assert site.backup("second", "full").parent == "full"
    held["second"] = site.read()
    site.write(50 * MIB, b"third" * 100_000)
    assert site.backup("third", "full", "second").parent == "second"
    held["third"] = site.read()
    assert site.kept() == ["third"]
    assert glance.described["third"] == {
        BackupMark.KIND: "incremental",
        BackupMark.PARENT: "second",
        BackupMark.REASON: "",
    }
    assert files_in(glance.taken["second"])["0.vhd"] < 5 * MIB < sum(files_in(glance.taken["full"]).values())

    with a_pool(tmp_path / "elsewhere") as pool, closing(connected(pool)) as session:
        elsewhere = Site(pool, session, glance)
        for number, (name, bytes_then) in enumerate(held.items()):
            server = UUID(int=100 + number).bytes
            elsewhere.build(site.chain(name), server)
            assert elsewhere.read(server) == bytes_then, name


def test_backup_is_a_full_one_again_when_its_base_is_gone_or_there_are_enough(site: Site, glance: Glance) -> None:
    site.backup("one")
    assert site.backup("two", "one").parent == "one"
    assert site.backup("three", "one", "two", most=2).parent == "two"
    assert "2 incremental ones" in site.backup("four", "one", "two", "three", most=2).reason
    assert "which it would build upon" in site.backup("five").reason
    (base,) = [
        ref for ref, vdi in site.session.call("VDI.get_all_records").items() if tags.BACKUP in vdi["other_config"]
    ]
    site.session.call("VDI.destroy", base)
    assert "no base" in site.backup("six", "five").reason
    assert glance.described["six"][BackupMark.REASON] == "the server's disk has no base on its storage"
    assert site.kept() == ["six"]


def test_base_that_the_plugin_cannot_use_is_told_and_all_is_sent(site: Site, glance: Glance) -> None:
    site.backup("one")
    (base,) = [vdi for vdi in site.session.call("VDI.get_all_records").values() if tags.BACKUP in vdi["other_config"]]
    (file,) = (site.pool.data / "sr").rglob(f"{base['uuid']}.vhd")
    with vhd.Disk.open(file, writable=True) as disk:
        disk.pwrite(0, b"somebody wrote into the base")
    before = site.read()
    assert "written to" in site.backup("two", "one").reason
    site.build(site.chain("two"), OTHER_SERVER)
    assert site.read(OTHER_SERVER) == before


def test_base_goes_with_its_server(site: Site) -> None:
    site.backup("one")
    driver.destroy(site.session, SERVER)
    assert [
        vdi["name_label"]
        for vdi in site.session.call("VDI.get_all_records").values()
        if vdi["managed"] and vdi["name_label"] != tags.image_name("demo")
    ] == []


def test_build_from_a_chain_that_does_not_fit_together_leaves_nothing(site: Site, glance: Glance) -> None:
    site.backup("one")
    site.write(0, b"changed")
    site.backup("two", "one")
    before = {vdi["uuid"] for vdi in site.session.call("VDI.get_all_records").values()}
    wrong = replace(site.chain("two"), parents=(ImagePart(id="demo"),))
    with pytest.raises(Permanent, match="not the parent"):
        site.build(wrong, OTHER_SERVER)
    alone = replace(site.chain("two"), parents=())
    with pytest.raises(Permanent, match="its parent is not in the image"):
        site.build(alone, OTHER_SERVER)
    assert {vdi["uuid"] for vdi in site.session.call("VDI.get_all_records").values()} == before
    assert list((site.pool.data / "sr").rglob(".celltree-staging-*")) == []
