"""Images made by us, read back by debugfs and judged by e2fsck and sfdisk."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from xenapi_host import image_maker, vhd

MIB = 1024**2
KINDS = pytest.mark.parametrize("partitioned", [False, True], ids=["bare", "partitioned"])


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of known files."""
    folder = tmp_path / "files"
    (folder / "etc").mkdir(parents=True)
    (folder / "etc" / "hostname").write_text("celltree-guest\n")
    (folder / "big").write_bytes(bytes(range(256)) * 4096)
    (folder / "with space").write_text("yes")
    return folder


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    assert found is not None
    return subprocess.run([found, *arguments], capture_output=True, text=True)


@KINDS
def test_what_went_in_comes_out(files: Path, tmp_path: Path, partitioned: bool) -> None:
    image = tmp_path / "image"
    made = image_maker.make_image(files, image, size=64 * MIB, partitioned=partitioned)
    assert (made.virtual_size, made.size) == (64 * MIB, image.stat().st_size)
    assert made.size < 2 * MIB
    assert image_maker.read_file(image, "/etc/hostname") == b"celltree-guest\n"
    assert image_maker.read_file(image, "/big") == bytes(range(256)) * 4096
    assert image_maker.read_file(image, "/with space") == b"yes"
    with pytest.raises(image_maker.NoSuchFile, match="/nothing"):
        image_maker.read_file(image, "/nothing")


@KINDS
@pytest.mark.parametrize("file_system", ["ext3", "ext4"])
def test_the_file_system_is_sound(files: Path, tmp_path: Path, partitioned: bool, file_system: str) -> None:
    raw = tmp_path / "raw"
    image_maker.make_raw(files, raw, size=32 * MIB, partitioned=partitioned, file_system=file_system)
    start = MIB if partitioned else 0
    checked = run("e2fsck", "-fn", f"{raw}?offset={start}")
    assert checked.returncode == 0, checked.stdout
    features = run("dumpe2fs", "-h", f"{raw}?offset={start}").stdout
    assert ("extent" in features) == (file_system == "ext4")
    assert f"Block count:              {(32 * MIB - start) // 4096}\n" in features


def test_the_partition_begins_at_sector_2048_and_reaches_the_end(files: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    image_maker.make_raw(files, raw, size=32 * MIB, partitioned=True)
    sector = raw.read_bytes()[:512]
    assert (sector[446], sector[450], sector[510:]) == (0x80, 0x83, b"\x55\xaa")
    assert int.from_bytes(sector[454:458], "little") == 2048
    assert int.from_bytes(sector[458:462], "little") == 32 * MIB // 512 - 2048


def test_a_change_in_a_child_is_seen_through_the_chain(files: Path, tmp_path: Path) -> None:
    base, leaf = tmp_path / "base.vhd", tmp_path / "leaf.vhd"
    image_maker.make_disk(files, base, size=32 * MIB)
    vhd.create_child(leaf, base)
    with vhd.Disk.open(leaf, writable=True) as disk:
        at = disk.pread(0, 32 * MIB).index(b"celltree-guest\n")
        disk.pwrite(at, b"another-guest!\n")
    with open(tmp_path / "image", "wb") as image:
        vhd.write_image(leaf, image)
    assert image_maker.read_file(tmp_path / "image", "/etc/hostname") == b"another-guest!\n"
    assert image_maker.read_file_of_disk(base, "/etc/hostname") == b"celltree-guest\n"


def test_a_missing_program_names_its_debian_package(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_arguments, **_options: None)
    with pytest.raises(image_maker.ToolMissing, match="apt-get install e2fsprogs"):
        image_maker.make_image(files, tmp_path / "image", size=32 * MIB)


def test_a_disk_too_small_for_the_files_is_refused(files: Path, tmp_path: Path) -> None:
    (files / "huge").write_bytes(os.urandom(3 * MIB))
    with pytest.raises(image_maker.ImageMakingFailed, match="mke2fs failed"):
        image_maker.make_image(files, tmp_path / "image", size=2 * MIB)
    assert not (tmp_path / "image").exists()
