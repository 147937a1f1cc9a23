"""The image plugin downloads, against a loopback Glance: a chain in the SR, once, whatever was left there before."""

import hashlib
import shutil
from pathlib import Path

import pytest

from tests.support.vhd_files import libvhdi_read
from tests.xenserver.dom0 import MIB, TOKEN, UUIDS, Dom0, fill, image_of, in_sr
from tests.xenserver.glance_twin import Glance, Image
from xenapi_host import vhd


@pytest.mark.parametrize("chunked", [False, True])
def test_an_image_becomes_a_chain_in_the_sr(dom0: Dom0, glance: Glance, chain: tuple[Path, ...], chunked: bool) -> None:
    data = image_of(chain[0])
    glance.images["one"] = Image(data=data, chunked=chunked)
    answer = dom0.download(glance.file_url("one"), checksum=hashlib.md5(data).hexdigest())
    assert answer == [
        {"uuid": UUIDS[0], "virtual_size": 6 * MIB, "parent": UUIDS[1]},
        {"uuid": UUIDS[1], "virtual_size": 6 * MIB, "parent": None},
    ]
    assert sorted(path.name for path in dom0.sr.iterdir()) == sorted(f"{uuid}.vhd" for uuid in UUIDS[:2])
    vhd.check_chain(in_sr(dom0, 0))
    assert vhd.chain(in_sr(dom0, 0)) == (in_sr(dom0, 0), in_sr(dom0, 1))
    assert libvhdi_read((in_sr(dom0, 0), in_sr(dom0, 1))) == libvhdi_read(chain)
    assert glance.requests == [("GET", "/v2/images/one/file", TOKEN)]


def test_asking_twice_downloads_once(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    glance.images["one"] = Image(data=image_of(chain[0]))
    first = dom0.download(glance.file_url("one"))
    before = dom0.tree()
    assert dom0.download(glance.file_url("one")) == first
    assert dom0.tree() == before
    assert len(glance.requests) == 1


def test_a_leaf_cloned_since_is_told_as_it_is_now(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    glance.images["one"] = Image(data=image_of(chain[0]))
    dom0.download(glance.file_url("one"))
    base_copy = in_sr(dom0, 9)
    in_sr(dom0, 0).rename(base_copy)
    vhd.create_child(in_sr(dom0, 0), base_copy)
    assert dom0.download(glance.file_url("one"), uuids=UUIDS[:9]) == [
        {"uuid": UUIDS[0], "virtual_size": 6 * MIB, "parent": UUIDS[9]},
        {"uuid": UUIDS[1], "virtual_size": 6 * MIB, "parent": None},
    ]
    assert len(glance.requests) == 1


def test_what_a_killed_run_left_is_taken_over(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    glance.images["one"] = Image(data=image_of(chain[0]))
    staging = dom0.sr / f".celltree-staging-{UUIDS[0]}"
    (staging / "folder").mkdir(parents=True)
    (staging / "0.vhd").write_bytes(b"half")
    shutil.copy(chain[1], in_sr(dom0, 1))
    dom0.download(glance.file_url("one"))
    vhd.check_chain(in_sr(dom0, 0))
    assert len(list(dom0.sr.iterdir())) == 2


def test_sweep_removes_abandoned_staging_and_nothing_else(dom0: Dom0) -> None:
    (dom0.sr / f".celltree-staging-{UUIDS[3]}").mkdir()
    (dom0.sr / f".celltree-staging-{UUIDS[3]}" / "0.vhd").write_bytes(b"half")
    (dom0.sr / ".celltree-staging-notes").mkdir()
    in_sr(dom0, 5).write_bytes(b"a disk")
    assert dom0.call("sweep", sr_path=str(dom0.sr)) == 1
    assert {path.name for path in dom0.sr.iterdir()} == {".celltree-staging-notes", f"{UUIDS[5]}.vhd"}


@pytest.mark.parametrize("length", [5 * MIB + 100, 4 * MIB, 1])
def test_a_raw_image_becomes_one_disk(dom0: Dom0, glance: Glance, length: int) -> None:
    raw = (b"\x01head" + bytes(3 * MIB) + b"tail" * MIB)[:length]
    glance.images["raw"] = Image(data=raw)
    size = -(-length // (2 * MIB)) * 2 * MIB
    answer = dom0.download(glance.file_url("raw"), format="raw", uuids=UUIDS[:1])
    assert answer == [{"uuid": UUIDS[0], "virtual_size": size, "parent": None}]
    vhd.check(in_sr(dom0, 0))
    with vhd.Disk.open(in_sr(dom0, 0)) as disk:
        assert disk.pread(0, size) == raw.ljust(size, b"\0") == libvhdi_read((in_sr(dom0, 0),))


def test_a_disk_made_from_raw_can_be_written_and_grown(dom0: Dom0, glance: Glance) -> None:
    glance.images["raw"] = Image(data=bytes(2 * MIB) + b"x" * 2 * MIB)
    dom0.download(glance.file_url("raw"), format="raw", uuids=UUIDS[:1])
    vhd.resize(in_sr(dom0, 0), 600 * MIB)
    fill(in_sr(dom0, 0), 500 * MIB, b"new")
    vhd.check(in_sr(dom0, 0))
    with vhd.Disk.open(in_sr(dom0, 0)) as disk:
        assert disk.pread(2 * MIB - 1, 3) + disk.pread(500 * MIB, 3) == b"\0xxnew"
