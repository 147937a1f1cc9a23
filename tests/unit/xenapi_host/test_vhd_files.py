"""Single VHD files and chains: what is written is what libvhdi and we read; what is wrong is refused by name."""

import io
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.vhd_files import libvhdi_facts, libvhdi_read
from xenapi_host import vhd
from xenapi_host.vhd import layout
from xenapi_host.vhd.file import VhdFile

MIB = 1024**2
PARENT = UUID("11111111-2222-4333-8444-555555555555")


def write(path: Path, offset: int, data: bytes) -> None:
    with vhd.Disk.open(path, writable=True) as disk:
        disk.pwrite(offset, data)


def read(path: Path, offset: int, length: int) -> bytes:
    with vhd.Disk.open(path) as disk:
        return disk.pread(offset, length)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A child over a parent, each with data of its own."""
    parent, child = tmp_path / "parent.vhd", tmp_path / "child.vhd"
    vhd.create_dynamic(parent, 6 * MIB, uuid=PARENT)
    write(parent, 0, b"P" * 3 * MIB)
    vhd.create_child(child, parent)
    write(child, MIB, b"C" * 8192)
    return child, parent


def test_libvhdi_reads_the_child_through_its_parent(pair: tuple[Path, Path]) -> None:
    child, _ = pair
    expected = b"P" * MIB + b"C" * 8192 + b"P" * (2 * MIB - 8192) + bytes(3 * MIB)
    assert libvhdi_read(pair) == expected
    assert read(child, 0, 6 * MIB) == expected


def test_libvhdi_sees_the_parents_identity_and_name(pair: tuple[Path, Path]) -> None:
    facts = libvhdi_facts(pair[0])
    assert facts["parent_identifier"] == str(PARENT)
    assert facts["parent_filename"] == "parent.vhd"
    assert facts["media_size"] == 6 * MIB


def test_info_tells_the_files_own_facts(pair: tuple[Path, Path]) -> None:
    found = vhd.info(pair[0])
    assert (found.kind, found.virtual_size, found.hidden) == (vhd.Kind.DIFFERENCING, 6 * MIB, False)
    assert (found.parent_uuid, found.parent_name) == (PARENT, "parent.vhd")
    assert (found.blocks_allocated, found.allocated_bytes, found.creator) == (1, 2 * MIB, "tap")


def test_all_three_parent_spellings_are_written_relative(pair: tuple[Path, Path]) -> None:
    with VhdFile(pair[0]) as file:
        assert file.header is not None
        spellings = {place.code: file.read_at(place.offset, place.length) for place in file.header.locators}
    assert spellings == {
        b"MacX": b"file://./parent.vhd",
        b"W2ku": ".\\parent.vhd".encode("utf-16-le"),
        b"W2ru": ".\\parent.vhd".encode("utf-16-le"),
    }


def test_hidden_is_byte_85_of_both_footers(pair: tuple[Path, Path]) -> None:
    _, parent = pair
    vhd.set_hidden(parent, True)
    raw = parent.read_bytes()
    assert (raw[85], raw[-512 + 85]) == (1, 1)
    assert vhd.info(parent).hidden
    vhd.set_hidden(parent, False)
    assert not vhd.info(parent).hidden


def test_a_block_written_whole_is_marked_in_the_batmap(tmp_path: Path) -> None:
    path = tmp_path / "a.vhd"
    vhd.create_dynamic(path, 20 * MIB)
    write(path, 2 * MIB, b"x" * 2 * MIB)
    write(path, 8 * MIB, b"y" * 4096)
    with VhdFile(path) as file:
        assert file.batmap is not None
        assert file.batmap[:2] == b"\x40\x00"
    assert path.read_bytes().count(b"tdbatmap") == 1


def test_the_batmap_stands_in_for_a_bitmap(tmp_path: Path) -> None:
    path = tmp_path / "a.vhd"
    vhd.create_dynamic(path, 2 * MIB)
    write(path, 0, b"x" * 2 * MIB)
    with VhdFile(path, writable=True) as file:
        file.write_at(file.bat[0] * 512, bytes(512))
    assert read(path, MIB, 4) == b"xxxx"


def test_a_clear_bit_in_a_dynamic_disk_reads_as_zero(tmp_path: Path) -> None:
    path = tmp_path / "a.vhd"
    vhd.create_dynamic(path, 2 * MIB)
    write(path, 0, b"x" * 4096)
    with VhdFile(path, writable=True) as file:
        file.write_at(file.bat[0] * 512 + 512 + 4096, b"garbage!")
    assert read(path, 4096, 8) == bytes(8)


def test_a_ten_gib_disk_costs_only_its_data(tmp_path: Path) -> None:
    path = tmp_path / "a.vhd"
    vhd.create_dynamic(path, 10 * 1024 * MIB)
    write(path, 5 * 1024 * MIB, b"hello")
    assert vhd.info(path).disk_usage < MIB
    with vhd.Disk.open(path) as disk:
        assert list(disk.allocated()) == [(5 * 1024 * MIB, 4096)]


def test_growing_moves_the_tables_and_keeps_the_data(pair: tuple[Path, Path]) -> None:
    child, parent = pair
    before = read(child, 0, 6 * MIB)
    vhd.resize(child, 40 * 1024 * MIB)
    vhd.check_chain(child)
    assert read(child, 0, 8 * MIB) == before + bytes(2 * MIB)
    write(child, 39 * 1024 * MIB, b"end")
    assert read(child, 39 * 1024 * MIB, 3) == b"end"
    # libvhdi takes the footer's original size for the disk's, so it sees the disk as it was.
    assert libvhdi_read((child, parent)) == before


def test_a_fixed_disk_grows_and_reads_zeros_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.vhd"
    vhd.create_fixed(path, MIB)
    write(path, MIB - 4, b"last")
    vhd.resize(path, MIB + 512)
    assert read(path, MIB - 4, 516) == b"last" + bytes(512)
    assert libvhdi_read((path,), MIB - 4) == b"last"


def test_shrinking_is_refused_and_changes_nothing(pair: tuple[Path, Path]) -> None:
    before = pair[0].read_bytes()
    with pytest.raises(vhd.CannotShrink, match="cannot shrink"):
        vhd.resize(pair[0], 4 * MIB)
    assert pair[0].read_bytes() == before


@pytest.mark.parametrize("size", [0, -512, 511, 2041 * 1024**3])
def test_a_size_no_vhd_can_have_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(vhd.SizeRefused):
        vhd.create_dynamic(tmp_path / "a.vhd", size)
    assert not (tmp_path / "a.vhd").exists()


def test_coalescing_moves_the_childs_data_into_the_parent(pair: tuple[Path, Path]) -> None:
    child, parent = pair
    before = read(child, 0, 6 * MIB)
    assert vhd.coalesce(child) == 8192
    assert read(parent, 0, 6 * MIB) == before
    vhd.coalesce(child)
    assert read(parent, 0, 6 * MIB) == before


def test_a_grandchild_linked_past_a_coalesced_layer_reads_the_same(pair: tuple[Path, Path]) -> None:
    child, parent = pair
    leaf = child.with_name("leaf.vhd")
    vhd.create_child(leaf, child)
    write(leaf, 5 * MIB, b"L" * 4096)
    before = read(leaf, 0, 6 * MIB)
    vhd.coalesce(child)
    vhd.set_parent(leaf, parent)
    child.unlink()
    vhd.check_chain(leaf)
    assert read(leaf, 0, 6 * MIB) == before == libvhdi_read((leaf, parent))


def test_linking_to_a_longer_name_finds_new_room_for_it(pair: tuple[Path, Path]) -> None:
    child, parent = pair
    before = read(child, 0, 6 * MIB)
    longer = parent.with_name("p" * 200 + "é" * 20 + ".vhd")
    parent.rename(longer)
    with VhdFile(child, writable=True) as file:
        assert file.header is not None
        file.write_header(layout.with_parent(file.header, PARENT, 0.0, "", ()))
    vhd.set_parent(child, longer)
    vhd.check_chain(child)
    assert vhd.info(child).parent_name == longer.name
    assert read(child, 0, 6 * MIB) == before


def test_a_missing_parent_is_named(pair: tuple[Path, Path]) -> None:
    pair[1].unlink()
    with pytest.raises(vhd.ParentMissing, match=r"parent\.vhd"):
        vhd.Disk.open(pair[0])


def test_another_disk_under_the_parents_name_is_refused(pair: tuple[Path, Path]) -> None:
    pair[1].unlink()
    vhd.create_dynamic(pair[1], 6 * MIB)
    with pytest.raises(vhd.ParentMismatch, match=str(PARENT)):
        vhd.check_chain(pair[0])


@pytest.mark.parametrize("name", ["../secret.vhd", "/etc/secret.vhd", "a/b.vhd", "..", "."])
def test_a_parent_outside_the_folder_is_never_followed(pair: tuple[Path, Path], name: str) -> None:
    child, _ = pair
    with VhdFile(child, writable=True) as file:
        assert file.header is not None
        text = f"file://{name}".encode()
        place = next(place for place in file.header.locators if place.code == b"MacX")
        file.write_at(place.offset, text.ljust(512, b"\0"))
        others = tuple(other for other in file.header.locators if other is not place)
        short = layout.Locator(code=place.code, space=place.space, length=len(text), offset=place.offset)
        file.write_header(layout.with_parent(file.header, PARENT, 0.0, name, (short, *others)))
    with pytest.raises(vhd.ParentOutsideFolder):
        vhd.Disk.open(child)
    assert vhd.info(child).parent_name is None


def test_a_parent_that_is_a_link_is_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    child, parent = pair
    away = tmp_path / "away"
    away.mkdir()
    parent.rename(away / "parent.vhd")
    parent.symlink_to(away / "parent.vhd")
    with pytest.raises(vhd.NotAVhd):
        vhd.Disk.open(child)


def test_a_loop_is_refused_when_made_and_when_found(pair: tuple[Path, Path]) -> None:
    child, parent = pair
    leaf = child.with_name("leaf.vhd")
    vhd.create_child(leaf, child)
    with pytest.raises(vhd.ChainLoop):
        vhd.set_parent(child, leaf)
    with pytest.raises(vhd.ChainLoop):
        vhd.set_parent(child, child)
    vhd.set_uuid(child, PARENT)
    child.rename(child.with_name("keep.vhd"))
    parent.unlink()
    child.with_name("keep.vhd").rename(parent)
    with pytest.raises(vhd.ChainLoop):
        vhd.Disk.open(parent)


def test_a_thirty_first_file_is_refused(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.vhd" for number in range(31)]
    vhd.create_dynamic(paths[0], MIB)
    for parent, child in pairwise(paths[:30]):
        vhd.create_child(child, parent)
    assert len(vhd.chain(paths[29])) == 30
    with pytest.raises(vhd.ChainTooLong):
        vhd.create_child(paths[30], paths[29])


def test_a_second_writer_is_turned_away(tmp_path: Path) -> None:
    path = tmp_path / "a.vhd"
    vhd.create_dynamic(path, MIB)
    with vhd.Disk.open(path, writable=True), pytest.raises(vhd.VhdInUse):
        vhd.set_hidden(path, True)
    vhd.set_hidden(path, True)


def test_a_write_outside_the_disk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.vhd"
    vhd.create_dynamic(path, MIB)
    with vhd.Disk.open(path, writable=True) as disk, pytest.raises(ValueError, match="do not fit"):
        disk.pwrite(MIB - 1, b"xx")


def spoil(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
        file.write(data)


def test_a_lost_footer_is_read_from_its_copy_reported_and_repaired(pair: tuple[Path, Path]) -> None:
    child, _ = pair
    before = read(child, 0, 6 * MIB)
    os.truncate(child, child.stat().st_size - 512)
    assert read(child, 0, 6 * MIB) == before
    with pytest.raises(vhd.NotAVhd):
        vhd.check(child)
    with vhd.Disk.open(child, writable=True) as disk, pytest.raises(vhd.NotAVhd):
        disk.pwrite(5 * MIB, b"new block")
    vhd.repair(child)
    vhd.check_chain(child)
    assert read(child, 0, 6 * MIB) == before


@pytest.mark.parametrize(
    ("offset", "data", "part"),
    [
        (-512 + 20, b"!", "primary footer"),
        (20, b"!", "backup footer"),
        (512 + 30, b"!", "header"),
        (1536, struct.pack(">I", 1), "block table"),
        (1536, struct.pack(">I", 0x7FFFFFFF), "block table"),
        (1536 + 4, struct.pack(">I", 3), "block table"),
    ],
)
def test_check_names_the_spoiled_part(pair: tuple[Path, Path], offset: int, data: bytes, part: str) -> None:
    _, parent = pair
    vhd.check(parent)
    spoil(parent, offset, data)
    with pytest.raises(vhd.DamagedVhd) as caught:
        vhd.check(parent)
    assert caught.value.part == part


def test_a_disk_from_the_future_is_refused(tmp_path: Path) -> None:
    vhd.create_dynamic(tmp_path / "a.vhd", MIB, now=2_000_000_000.0)
    with pytest.raises(vhd.DamagedVhd, match="creation time in future"):
        vhd.check(tmp_path / "a.vhd", now=1_900_000_000.0)
    vhd.check(tmp_path / "a.vhd", now=2_000_000_000.0)


@pytest.mark.parametrize("content", [b"", b"short", bytes(4096), b"conectix" + bytes(4096)])
def test_what_is_no_vhd_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.vhd").write_bytes(content)
    with pytest.raises(vhd.VhdError):
        vhd.info(tmp_path / "a.vhd")


def test_raw_goes_in_and_out_and_zeros_take_no_room(tmp_path: Path) -> None:
    raw = b"head" + bytes(9 * MIB) + b"tail" * 100
    path = tmp_path / "a.vhd"
    vhd.import_raw(io.BytesIO(raw), path, len(raw))
    assert vhd.info(path).blocks_allocated == 2
    out = io.BytesIO()
    assert vhd.export_raw(path, out) == len(out.getvalue())
    assert out.getvalue().rstrip(b"\0") == raw
    vhd.export_raw_file(path, tmp_path / "raw")
    assert (tmp_path / "raw").read_bytes() == out.getvalue()
    vhd.import_raw_file(tmp_path / "raw", tmp_path / "b.vhd")
    assert libvhdi_read((tmp_path / "b.vhd",)) == out.getvalue()


def test_a_raw_stream_that_ends_early_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(vhd.StreamEnded):
        vhd.import_raw(io.BytesIO(b"x" * 100), tmp_path / "a.vhd", MIB)
    assert not (tmp_path / "a.vhd").exists()


def test_raw_zeros_over_data_are_written(pair: tuple[Path, Path]) -> None:
    child, _ = pair
    with vhd.Disk.open(child, writable=True) as disk:
        vhd.overwrite_raw(io.BytesIO(bytes(6 * MIB)), disk, 6 * MIB)
        assert disk.pread(0, 6 * MIB) == bytes(6 * MIB)
    assert vhd.info(child).blocks_allocated == 2


def test_an_export_with_a_base_carries_the_changes_only(pair: tuple[Path, Path], tmp_path: Path) -> None:
    child, parent = pair
    assert vhd.changed_ranges(child, parent) == [(MIB, 8192)]
    plan = vhd.plan_export(child, parent)
    stream = b"".join(plan.chunks())
    assert len(stream) == plan.size
    exported = parent.with_name("exported.vhd")
    exported.write_bytes(stream)
    vhd.check_chain(exported)
    assert read(exported, 0, 6 * MIB) == read(child, 0, 6 * MIB) == libvhdi_read((exported, parent))


def test_changes_between_two_children_of_one_base_copy_count_both(pair: tuple[Path, Path]) -> None:
    child, parent = pair
    snapshot = parent.with_name("snapshot.vhd")
    vhd.create_child(snapshot, parent)
    write(snapshot, 5 * MIB, b"S" * 4096)
    assert vhd.changed_ranges(child, snapshot) == [(MIB, 8192), (5 * MIB, 4096)]


def test_a_whole_export_is_one_flat_disk(pair: tuple[Path, Path]) -> None:
    child, parent = pair
    plan = vhd.plan_export(child)
    flat = parent.with_name("flat.vhd")
    flat.write_bytes(b"".join(plan.chunks()))
    assert flat.stat().st_size == plan.size
    vhd.check(flat)
    assert libvhdi_read((flat,)) == read(child, 0, 6 * MIB)


def test_an_exported_difference_laid_over_a_copy_of_the_base_gives_the_leaf(pair: tuple[Path, Path]) -> None:
    child, parent = pair
    stream = io.BytesIO(b"".join(vhd.plan_export(child, parent).chunks()))
    before = read(child, 0, 6 * MIB)
    with vhd.Disk.open(parent, writable=True) as disk:
        assert vhd.apply_stream(stream, disk) == 8192
    assert read(parent, 0, 6 * MIB) == before


def test_a_sector_written_by_another_program_is_found(pair: tuple[Path, Path]) -> None:
    child, _ = pair
    with VhdFile(child, writable=True) as file:
        file.write(MIB + 512 * 20, memoryview(b"1" * 512))
    found = read(child, MIB + 512 * 19, 512 * 3)
    assert found == b"P" * 512 + b"1" * 512 + b"P" * 512


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed (Debian: qemu-utils)")
@pytest.mark.parametrize("make", [vhd.create_fixed, vhd.create_dynamic], ids=["fixed", "dynamic"])
def test_qemu_img_reads_the_same_bytes(tmp_path: Path, make: Callable[[Path, int], UUID]) -> None:
    # Never used on differencing disks: it reads zeros where the parent holds data, without an error.
    path, raw = tmp_path / "a.vhd", tmp_path / "raw"
    make(path, 5 * MIB + 512)
    write(path, 3 * MIB - 100, b"across two blocks" * 1000)
    subprocess.run(["qemu-img", "convert", "-f", "vpc", "-O", "raw", str(path), str(raw)], check=True, timeout=60)
    assert raw.read_bytes() == read(path, 0, 5 * MIB + 512)
