"""Incremental images, by the image plugin as XenServer runs it: what changed since a base goes up, chains come down."""

import io
import random
import re
import tarfile
from pathlib import Path

import pytest

from tests.support.vhd_files import libvhdi_read
from tests.xenserver.dom0 import MIB, UUIDS, Dom0, PluginFailure, fill, image_of
from tests.xenserver.glance_twin import Glance, Image
from xenapi_host import vhd

SIZE = 12 * MIB
BASE, DISK, FIRST, LATER, LAST = (UUIDS[n] for n in range(5))


def path(dom0: Dom0, uuid: str) -> Path:
    return dom0.sr / f"{uuid}.vhd"


def snapshot(dom0: Dom0, disk: str, hidden: str, copy: str) -> None:
    """As storage does it: the data moves to a hidden file, the disk and its snapshot become its children."""
    path(dom0, disk).rename(path(dom0, hidden))
    vhd.set_hidden(path(dom0, hidden), True)
    for child in (disk, copy):
        vhd.create_child(path(dom0, child), path(dom0, hidden))


@pytest.fixture
def twice(dom0: Dom0) -> Dom0:
    """A disk with a first snapshot, changed and snapshotted again; the later chain is UUIDS[5], LATER, BASE."""
    vhd.create_dynamic(path(dom0, DISK), SIZE)
    fill(path(dom0, DISK), 0, random.Random(1).randbytes(5 * MIB))
    snapshot(dom0, DISK, BASE, FIRST)
    fill(path(dom0, DISK), MIB + 4096, b"changed " * 512)
    fill(path(dom0, DISK), 9 * MIB, b"new" * 4096)
    snapshot(dom0, DISK, LATER, UUIDS[5])
    fill(path(dom0, DISK), 2 * MIB, b"after the second snapshot")
    return dom0


def sent(glance: Glance, name: str) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(glance.taken[name])) as tar:
        return tar.getmembers()


def up(dom0: Dom0, glance: Glance, name: str, chain: list[str], **more: object) -> dict[str, object]:
    answer = dom0.call("upload", url=glance.file_url(name), sr_path=str(dom0.sr), chain=chain, **more)
    assert isinstance(answer, dict)
    return answer


def bytes_of(where: Dom0, leaf: str) -> bytes:
    return libvhdi_read(vhd.chain(path(where, leaf)))


def both(dom0: Dom0, glance: Glance) -> dict[str, object]:
    """The first snapshot sent whole, the second as what changed since."""
    first = up(dom0, glance, "full", [FIRST, BASE])
    base = {"chain": [FIRST, BASE], "identity": first["identity"]}
    marks = {"celltree_parent_image": "full"}
    return up(dom0, glance, "delta", [UUIDS[5], LATER, BASE], base=base, properties=marks)


def test_only_what_changed_is_sent_and_the_whole_disk_comes_back(twice: Dom0, glance: Glance, tmp_path: Path) -> None:
    said = both(twice, glance)
    assert said["disks"] == 1
    (member,) = sent(glance, "delta")
    # Two blocks of 2 MiB have changed, of which the rest is zeros; the base has three.
    assert 4 * MIB < member.size < 4 * MIB + 65536
    assert len(glance.taken["delta"]) < 20_000 < len(glance.taken["full"])
    assert glance.described == {"delta": {"celltree_parent_image": "full"}}
    for name, data in glance.taken.items():
        glance.images[name] = Image(data=data)
    for uuid in (DISK, FIRST, LATER, BASE):
        path(twice, uuid).rename(tmp_path / uuid)
    whole = libvhdi_read(
        [path(twice, UUIDS[5]).rename(tmp_path / f"{UUIDS[5]}.vhd"), tmp_path / LATER, tmp_path / BASE]
    )
    parents = [{"url": glance.file_url("full")}]
    answer = twice.download(glance.file_url("delta"), parents=parents)
    assert isinstance(answer, list)
    assert [disk["uuid"] for disk in answer] == UUIDS[:3]
    assert bytes_of(twice, UUIDS[0]) == whole
    assert whole[MIB + 4096 :].startswith(b"changed ") and whole[9 * MIB :].startswith(b"new")
    vhd.check_chain(path(twice, UUIDS[0]))


def test_delta_of_a_disk_that_did_not_change_is_empty(dom0: Dom0, glance: Glance) -> None:
    vhd.create_dynamic(path(dom0, DISK), SIZE)
    fill(path(dom0, DISK), 0, b"data" * 1024)
    snapshot(dom0, DISK, BASE, FIRST)
    vhd.create_child(path(dom0, LAST), path(dom0, BASE))
    first = up(dom0, glance, "full", [FIRST, BASE])
    up(dom0, glance, "delta", [LAST, BASE], base={"chain": [FIRST, BASE], "identity": first["identity"]})
    assert sent(glance, "delta")[0].size < 10_000


def test_delta_of_a_disk_that_has_grown_since_has_the_new_size(twice: Dom0, glance: Glance) -> None:
    vhd.resize(path(twice, DISK), SIZE + 4 * MIB)
    fill(path(twice, DISK), SIZE + MIB, b"behind the old end")
    snapshot(twice, DISK, UUIDS[6], UUIDS[7])
    first = up(twice, glance, "full", [FIRST, BASE])
    base = {"chain": [FIRST, BASE], "identity": first["identity"]}
    up(twice, glance, "delta", [UUIDS[7], UUIDS[6], LATER, BASE], base=base)
    for name, data in glance.taken.items():
        glance.images[name] = Image(data=data)
    with vhd.Disk.open(path(twice, UUIDS[7])) as disk:
        whole = disk.pread(0, disk.size)
    twice.download(glance.file_url("delta"), uuids=UUIDS[8:], parents=[{"url": glance.file_url("full")}])
    with vhd.Disk.open(path(twice, UUIDS[8])) as disk:
        assert disk.size == SIZE + 4 * MIB
        assert disk.pread(0, disk.size) == whole


@pytest.mark.parametrize(
    ("base", "why"),
    [
        ([UUIDS[8], BASE], "it cannot be read: No such file or directory$"),
        ([UUIDS[9]], "shares nothing"),
        ([FIRST, BASE], "has been written to"),
    ],
    ids=["gone", "another disk", "written to"],
)
def test_base_that_serves_no_more_is_told_before_anything_is_sent(
    twice: Dom0,
    glance: Glance,
    base: list[str],
    why: str,
) -> None:
    vhd.create_dynamic(path(twice, UUIDS[9]), SIZE)
    fill(path(twice, FIRST), 0, b"somebody was here")
    params = {"chain": base, "identity": UUIDS[3]}
    with pytest.raises(PluginFailure, match="XENAPI_PLUGIN_FAILURE") as caught:
        up(twice, glance, "delta", [UUIDS[5], LATER, BASE], base=params, properties={"a": "b"})
    text = caught.value.args[3]
    assert re.search(f"^no base: .*{why}", text)
    assert str(twice.root) not in text, "it becomes a property of the tenant's image"
    assert glance.taken == {} and glance.described == {}


# --- chains from strangers --------------------------------------------------------------------------------------------


def test_delta_alone_or_on_another_base_is_refused(twice: Dom0, glance: Glance, tmp_path: Path) -> None:
    both(twice, glance)
    vhd.create_dynamic(tmp_path / "other.vhd", SIZE)
    glance.images["delta"] = Image(data=glance.taken["delta"])
    glance.images["other"] = Image(data=image_of(tmp_path / "other.vhd"))
    fresh = UUIDS[8:]
    assert "its parent is not in the image" in twice.refusal(glance.file_url("delta"), uuids=fresh)[1]
    parents = [{"url": glance.file_url("other")}]
    assert "not the parent" in twice.refusal(glance.file_url("delta"), uuids=fresh, parents=parents)[1]
    parents = [{"url": glance.file_url("delta")}]
    assert "not the parent" in twice.refusal(glance.file_url("delta"), uuids=fresh, parents=parents)[1]


def test_chain_that_is_too_long_altogether_is_refused(twice: Dom0, glance: Glance) -> None:
    both(twice, glance)
    for name, data in glance.taken.items():
        glance.images[name] = Image(data=data)
    parents = [{"url": glance.file_url("full")}]
    assert "more than 1 files" in twice.refusal(glance.file_url("delta"), uuids=UUIDS[8:10], parents=parents)[1]
    assert "more than 1 disks" in twice.refusal(glance.file_url("delta"), uuids=UUIDS[8:9], parents=parents)[1]


def test_parent_with_a_wrong_checksum_or_gone_leaves_nothing_behind(twice: Dom0, glance: Glance) -> None:
    both(twice, glance)
    for name, data in glance.taken.items():
        glance.images[name] = Image(data=data)
    wrong = [{"url": glance.file_url("full"), "checksum": "0" * 32}]
    kind, text = twice.refusal(glance.file_url("delta"), uuids=UUIDS[8:], parents=wrong)
    assert kind == "RetryableError" and "checksum" in text
    gone = [{"url": glance.file_url("nowhere")}]
    assert "ImageNotFound" in twice.refusal(glance.file_url("delta"), uuids=UUIDS[8:], parents=gone)[1]
