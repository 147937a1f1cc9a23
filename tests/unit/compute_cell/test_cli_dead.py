"""celltree host confirm-dead and policy: what is written, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cells.cli.main import main
from cells.config import load
from cells.registering import open_store
from compute_cell.rows import HostRow, HostState, PoolRow

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command on a tree with one leaf, its pool and a host that is down; gives (status, what it said)."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def run(*words: object) -> tuple[int, str]:
        capsys.readouterr()
        try:
            status = main([str(word) for word in (*words, "--tree", tmp_path / "tree")])
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return status, said.out + said.err

    assert main(["tree", "init", str(tmp_path / "tree")]) == 0
    for name, role, parents in (("east", "api", ()), ("leaf", "compute", ("--parent", "east"))):
        where = ("--database", f"sqlite:///{tmp_path}/{name}.sqlite", "--broker", f"memory://{name}")
        status, said = run("cell", "register", name, "--role", role, *parents, *where)
        assert status == 0, said
    with open_store(load(tmp_path / "tree" / "cells" / "leaf.yaml"), whole=True) as store, store.unit() as unit:
        unit.save(PoolRow(name="p", url="https://p", user="root", secret=b""), _host(HostState.DOWN))
    return run


def _host(state: HostState) -> HostRow:
    numbers: dict[str, Any] = dict.fromkeys(("ram_mib", "physical_mib", "vcpus", "disk_gib"), 0)
    free: dict[str, Any] = dict.fromkeys(("free_ram_mib", "free_vcpus", "free_disk_gib"), 0)
    return HostRow(uuid="h-uuid", pool="p", name="h1", state=state, sr="s", network="n", **numbers, **free)


def _state(tmp_path: Path) -> HostState:
    with (
        open_store(load(tmp_path / "tree" / "cells" / "leaf.yaml"), whole=True) as store,
        store.unit(lock=False) as unit,
    ):
        host = unit.get(HostRow, "h-uuid")
    assert host is not None
    return host.state


def test_policy_of_a_pool_is_set_shown_and_taken_back(run: Run) -> None:
    assert "when_host_dies cell, when_disks_are_lost cell" in run("host", "policy", "p")[1]
    words = ("--when-host-dies", "evacuate", "--when-disks-are-lost", "rebuild")
    assert "when_host_dies evacuate, when_disks_are_lost rebuild" in run("host", "policy", "p", *words)[1]
    said = run("host", "policy", "p", "--when-disks-are-lost", "cell")[1]
    assert "when_host_dies evacuate, when_disks_are_lost cell" in said
    assert run("host", "policy", "other")[0] != 0
    assert run("host", "policy", "p", "--when-host-dies", "maybe")[0] != 0


def test_host_is_dead_when_a_command_has_switched_it_off(run: Run, tmp_path: Path) -> None:
    off = tmp_path / "off"
    assert run("host", "confirm-dead", "h1", "--power-off-by", f"touch {off}-{{host}}-{{uuid}}")[0] == 0
    assert (tmp_path / "off-h1-h-uuid").exists()
    assert _state(tmp_path) is HostState.DEAD


@pytest.mark.parametrize("command", ["false", "/no/such/command", "''"])
def test_host_that_no_command_could_switch_off_is_not_dead(run: Run, tmp_path: Path, command: str) -> None:
    assert run("host", "confirm-dead", "h1", "--power-off-by", command)[0] != 0
    assert _state(tmp_path) is HostState.DOWN


def test_word_or_command_is_needed_and_not_both(run: Run, tmp_path: Path) -> None:
    assert run("host", "confirm-dead", "h1")[0] != 0
    assert run("host", "confirm-dead", "h1", "--powered-off", "--power-off-by", "true")[0] != 0
    assert _state(tmp_path) is HostState.DOWN
    assert run("host", "confirm-dead", "h1", "--powered-off")[0] == 0
    assert _state(tmp_path) is HostState.DEAD
