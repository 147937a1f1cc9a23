"""The image archive: what is written is read again, and whatever breaks a rule is refused by member and reason."""

import gzip
import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.vhd_files import libvhdi_read
from xenapi_host import vhd
from xenapi_host.vhd.layout import pack_footer, unpack_footer

MIB = 1024**2
Members = dict[str, bytes]


@pytest.fixture
def chain(tmp_path: Path) -> tuple[Path, ...]:
    """Three layers, leaf first, under names as a storage repository has them."""
    folder = tmp_path / "sr"
    folder.mkdir()
    base, middle, leaf = (folder / f"{name}.vhd" for name in ("base", "middle", "leaf"))
    vhd.create_dynamic(base, 6 * MIB)
    fill(base, 0, b"base" * MIB)
    vhd.create_child(middle, base)
    vhd.set_hidden(base, True)
    fill(middle, MIB, b"middle" * 4096)
    vhd.create_child(leaf, middle)
    fill(leaf, 5 * MIB, b"leaf" * 1024)
    return leaf, middle, base


def fill(path: Path, offset: int, data: bytes) -> None:
    with vhd.Disk.open(path, writable=True) as disk:
        disk.pwrite(offset, data)


def packed(members: Members) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def special(kind: bytes, name: str = "0.vhd", target: str = "/etc/passwd") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        tar.addfile(member)
    return out.getvalue()


def image_of(leaf: Path) -> bytes:
    out = io.BytesIO()
    vhd.write_image(leaf, out)
    return out.getvalue()


def files_of(chain: tuple[Path, ...]) -> Members:
    return {f"{number}.vhd": path.read_bytes() for number, path in enumerate(chain)}


def refusal(image: bytes, folder: Path, **limits: int) -> vhd.ImageRefused:
    folder.mkdir(exist_ok=True)
    with pytest.raises(vhd.ImageRefused) as caught:
        vhd.read_image(io.BytesIO(image), folder, limits=vhd.ImageLimits(**limits))
    assert list(folder.iterdir()) == [], "a refused image leaves nothing behind"
    assert str(folder.parent) not in str(caught.value), "nobody is told where the host keeps its files"
    return caught.value


def test_a_chain_survives_the_archive(chain: tuple[Path, ...], tmp_path: Path) -> None:
    target = tmp_path / "staging"
    target.mkdir()
    paths = vhd.read_image(io.BytesIO(image_of(chain[0])), target)
    assert [path.name for path in paths] == ["0.vhd", "1.vhd", "2.vhd"]
    assert vhd.chain(paths[0]) == paths
    vhd.check_chain(paths[0])
    assert libvhdi_read(paths) == libvhdi_read(chain)
    assert vhd.info(paths[2]).hidden


def test_any_tar_reader_finds_the_members(chain: tuple[Path, ...]) -> None:
    with tarfile.open(fileobj=io.BytesIO(image_of(chain[0]))) as tar:
        assert [(member.name, member.isreg()) for member in tar] == [(f"{n}.vhd", True) for n in range(3)]


def test_an_image_written_twice_is_the_same_bytes(chain: tuple[Path, ...]) -> None:
    assert image_of(chain[0]) == image_of(chain[0])


def test_gzip_in_several_parts_and_padding_are_read(chain: tuple[Path, ...], tmp_path: Path) -> None:
    plain = gzip.decompress(image_of(chain[0]))
    tmp = tmp_path / "staging"
    tmp.mkdir()
    image = gzip.compress(plain[:1000]) + gzip.compress(plain[1000:]) + bytes(512)
    assert len(vhd.read_image(io.BytesIO(image), tmp)) == 3


@pytest.mark.parametrize(
    "name", ["../0.vhd", "/0.vhd", "a/0.vhd", "00.vhd", "-1.vhd", "snap.vhd", "0.vhd.txt", "0.VHD", "", "0.vhd\n"]
)
def test_a_name_other_than_n_vhd_is_refused(chain: tuple[Path, ...], tmp_path: Path, name: str) -> None:
    assert "only the names" in refusal(packed({name: chain[2].read_bytes()}), tmp_path / "staging").reason


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_only_regular_members_are_taken(tmp_path: Path, kind: bytes) -> None:
    refused = refusal(special(kind), tmp_path / "staging")
    assert "only regular files" in refused.reason
    assert refused.member.startswith("0.vhd")


def test_a_gap_in_the_numbers_is_refused(chain: tuple[Path, ...], tmp_path: Path) -> None:
    files = files_of(chain)
    del files["1.vhd"]
    refused = refusal(packed(files), tmp_path / "staging")
    assert (refused.member, "gap" in refused.reason) == ("1.vhd", True)


def test_a_member_twice_is_refused(chain: tuple[Path, ...], tmp_path: Path) -> None:
    once = gzip.decompress(packed({"0.vhd": chain[2].read_bytes()}))
    end = 512 + -(-chain[2].stat().st_size // 512) * 512
    refused = refusal(gzip.compress(once[:end] + once), tmp_path / "staging")
    assert refused.reason == "is there twice"


@pytest.mark.parametrize(
    ("change", "member", "reason"),
    [
        (lambda files: files.update({"1.vhd": files["2.vhd"], "2.vhd": files["1.vhd"]}), "1.vhd", "dynamic"),
        (lambda files: files.pop("2.vhd"), "1.vhd", "its parent is not in the image"),
        (lambda files: files.update({"1.vhd": files["0.vhd"]}), "1.vhd", "the parent that 0.vhd names"),
        (lambda files: files.update({"0.vhd": bytes(4096)}), "0.vhd", "no VHD footer"),
        (lambda files: files.update({"2.vhd": files["2.vhd"][:-512]}), "2.vhd", "no VHD footer"),
        (lambda files: files.update({"2.vhd": b"X" + files["2.vhd"][1:]}), "2.vhd", "no VHD footer"),
        (
            lambda files: files.update({"2.vhd": files["2.vhd"][:1536] + b"\x7f\0\0\0" + files["2.vhd"][1540:]}),
            "2.vhd",
            "behind the end",
        ),
    ],
)
def test_disks_that_do_not_fit_are_refused(
    chain: tuple[Path, ...], tmp_path: Path, change: Callable[[Members], object], member: str, reason: str
) -> None:
    files = files_of(chain)
    change(files)
    refused = refusal(packed(files), tmp_path / "staging")
    assert refused.member == member
    assert reason in refused.reason


def test_a_hidden_leaf_is_refused(chain: tuple[Path, ...], tmp_path: Path) -> None:
    vhd.set_hidden(chain[0], True)
    assert "hidden" in refusal(image_of(chain[0]), tmp_path / "staging").reason


def test_a_parent_elsewhere_on_the_host_is_not_looked_at(chain: tuple[Path, ...], tmp_path: Path) -> None:
    lone = packed({"0.vhd": chain[0].read_bytes()})
    folder = chain[0].parent / "staging"
    assert "not in the image" in refusal(lone, folder).reason


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.vhd"
    vhd.create_dynamic(path, MIB)
    files = {f"{number}.vhd": path.read_bytes() for number in range(17)}
    assert refusal(packed(files), tmp_path / "staging").member == "16.vhd"


def test_a_bomb_is_stopped_while_it_unpacks(tmp_path: Path) -> None:
    bomb = packed({"0.vhd": bytes(64 * MIB)})
    assert "more than the" in refusal(bomb, tmp_path / "staging", max_bytes=8 * MIB).reason


def test_a_member_larger_than_its_disk_could_need_is_refused_at_once(tmp_path: Path) -> None:
    bomb = packed({"0.vhd": bytes(16 * MIB)})
    assert refusal(bomb, tmp_path / "staging", max_virtual_size=4 * MIB).member == "0.vhd"


def test_a_disk_over_the_size_allowed_is_refused(chain: tuple[Path, ...], tmp_path: Path) -> None:
    refused = refusal(image_of(chain[0]), tmp_path / "staging", max_virtual_size=5 * MIB)
    assert (refused.member, "over the" in refused.reason) == ("0.vhd", True)


def test_a_footer_that_lies_about_its_size_is_refused(chain: tuple[Path, ...], tmp_path: Path) -> None:
    raw = chain[2].read_bytes()
    footer = unpack_footer(raw[-512:], "base")
    larger = pack_footer(replace(footer, virtual_size=600 * MIB))
    refused = refusal(packed({"0.vhd": larger + raw[512:-512] + larger}), tmp_path / "staging")
    assert "block entries" in refused.reason


@pytest.mark.parametrize("keep", [0, 5, 300, -8, -1])
def test_a_truncated_image_is_refused(chain: tuple[Path, ...], tmp_path: Path, keep: int) -> None:
    assert "cut short" in refusal(image_of(chain[0])[:keep], tmp_path / "staging").reason


def test_a_tar_without_its_end_is_refused(chain: tuple[Path, ...], tmp_path: Path) -> None:
    plain = gzip.decompress(packed({"0.vhd": chain[2].read_bytes()}))
    image = gzip.compress(plain[: 512 + -(-chain[2].stat().st_size // 512) * 512])
    assert "cut short" in refusal(image, tmp_path / "staging").reason


def test_what_is_not_gzip_is_refused(tmp_path: Path) -> None:
    assert "gzip" in refusal(b"PK\x03\x04" + bytes(100), tmp_path / "staging").reason


def test_an_empty_archive_is_refused(tmp_path: Path) -> None:
    assert "no 0.vhd" in refusal(packed({}), tmp_path / "staging").reason


def test_an_image_that_breaks_off_leaves_nothing_behind(chain: tuple[Path, ...], tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 300:
                raise ConnectionResetError("the image service went away")
            return super().read(100)

    folder = tmp_path / "staging"
    folder.mkdir()
    with pytest.raises(ConnectionResetError):
        vhd.read_image(Broken(image_of(chain[0])), folder)
    assert list(folder.iterdir()) == []


def test_files_that_were_in_the_folder_before_are_left_alone(chain: tuple[Path, ...], tmp_path: Path) -> None:
    folder = tmp_path / "staging"
    folder.mkdir()
    (folder / "1.vhd").write_bytes(b"somebody's")
    with pytest.raises(FileExistsError):
        vhd.read_image(io.BytesIO(image_of(chain[0])), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"1.vhd": b"somebody's"}
