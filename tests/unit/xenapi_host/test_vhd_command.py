"""The vhd-util command, as XenServer's plugins and storage manager read it."""

from pathlib import Path

import pytest

from xenapi_host import vhd
from xenapi_host.vhd.__main__ import main

MIB = 1024**2


def test_a_disk_made_snapshotted_and_queried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, leaf = str(tmp_path / "base.vhd"), str(tmp_path / "leaf.vhd")
    assert main(["create", "-n", base, "-s", "64"]) == 0
    assert main(["snapshot", "-n", leaf, "-p", base]) == 0
    assert main(["set", "-n", base, "-f", "hidden", "-v", "1"]) == 0
    assert main(["query", "-n", base, "-v", "-p", "-f"]) == 0
    assert capsys.readouterr().out == f"64\n{base} has no parent\nhidden: 1\n"
    assert main(["query", "-n", leaf, "-vpfds"]) == 0
    size = Path(leaf).stat().st_size
    assert capsys.readouterr().out == f"64\n{size}\n{base}\nhidden: 0\nchain depth: 2\n"


def test_resize_and_coalesce(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, leaf = tmp_path / "base.vhd", tmp_path / "leaf.vhd"
    vhd.create_dynamic(base, 4 * MIB)
    vhd.create_child(leaf, base)
    assert main(["resize", "-n", str(leaf), "-s", "8"]) == 0
    with vhd.Disk.open(leaf, writable=True) as disk:
        disk.pwrite(7 * MIB, b"new")
    assert main(["coalesce", "-n", str(leaf)]) == 0
    with vhd.Disk.open(base) as disk:
        assert disk.pread(7 * MIB, 3) == b"new"
    assert main(["resize", "-n", str(leaf), "-s", "1"]) == 22
    assert "cannot shrink" in capsys.readouterr().err


def test_modify_links_to_another_parent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, renamed, leaf = (tmp_path / f"{name}.vhd" for name in ("base", "renamed", "leaf"))
    vhd.create_dynamic(base, 4 * MIB)
    vhd.create_child(leaf, base)
    base.rename(renamed)
    assert main(["query", "-n", str(leaf), "-p"]) == 2
    assert main(["check", "-n", str(leaf)]) == 0
    assert main(["check", "-n", str(leaf), "-p"]) == 22
    assert main(["modify", "-n", str(leaf), "-p", str(renamed)]) == 0
    capsys.readouterr()
    assert main(["check", "-n", str(leaf), "-p"]) == 0
    assert capsys.readouterr().out == f"{leaf} is valid\n{renamed} is valid\n"


def test_check_says_first_which_part_is_invalid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.vhd"
    vhd.create_dynamic(path, MIB, now=9_000_000_000.0 / 2)
    assert main(["check", "-n", str(path)]) == 22
    assert capsys.readouterr().out.splitlines()[0] == "primary footer invalid: creation time in future"


def test_a_snapshot_of_an_empty_layer_takes_the_layer_below(tmp_path: Path) -> None:
    base, empty, leaf = (tmp_path / f"{name}.vhd" for name in ("base", "empty", "leaf"))
    vhd.create_dynamic(base, 4 * MIB)
    vhd.create_child(empty, base)
    assert main(["snapshot", "-n", str(leaf), "-p", str(empty)]) == 0
    assert vhd.info(leaf).parent_name == "base.vhd"
    leaf.unlink()
    assert main(["snapshot", "-n", str(leaf), "-p", str(empty), "-e"]) == 0
    assert vhd.info(leaf).parent_name == "empty.vhd"


def test_a_missing_file_is_an_errno(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "-n", str(tmp_path / "none.vhd"), "-v"]) == 2
    assert "No such file" in capsys.readouterr().err
