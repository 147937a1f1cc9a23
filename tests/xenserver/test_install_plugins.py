"""The installer of plugins, against the simulator: into a folder, over a command, and what is checked afterwards."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cells.cli.main import main
from cells.errors import BadInput, Permanent
from compute_cell.cli_plugins import install_into, install_over
from tests.xenserver.simulated import a_pool
from xenapi_host.plugins import PLUGINS, SCRIPTS
from xenapi_host.simulator.full import FullPool


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[FullPool]:
    with a_pool(tmp_path / "pool") as pool:
        yield pool


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """The command sets the log up; other tests have it as it was."""
    root, own = logging.getLogger(), logging.getLogger("celltree")
    before = list(root.handlers), root.level, own.level
    yield
    root.handlers[:], root.level = before[0], before[1]
    own.setLevel(before[2])


def test_files_in_a_folder_are_whole_and_executable(tmp_path: Path) -> None:
    (tmp_path / "celltree_agent.py").write_text("old\n")
    install_into(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(script.name for script in SCRIPTS)
    assert all(os.access(tmp_path / name, os.X_OK) for name in PLUGINS)
    assert (tmp_path / "celltree_agent.py").read_bytes() == next(
        script.read_bytes() for script in SCRIPTS if script.name == "celltree_agent.py"
    )


def test_what_cannot_be_installed_says_why(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="make it first"):
        install_into(tmp_path / "none")
    with pytest.raises(BadInput, match="absolute path"):
        install_over("env", "192.0.2.1", "/a folder; rm -rf /")
    with pytest.raises(Permanent, match=r"192\.0\.2\.1: installing failed"):
        install_over("env", "192.0.2.1", str(tmp_path / "none"))
    with pytest.raises(Permanent, match="could not be run"):
        install_over(str(tmp_path / "no-such-command"), "192.0.2.1", str(tmp_path))


def test_command_installs_on_every_host_and_checks(
    pool: FullPool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree, folder = tmp_path / "tree", pool.dom0().root / "etc/xapi.d/plugins"
    password = tmp_path / "password"
    password.write_text("xen\n")
    cells = (("east", "api"), ("leaf", "compute"))
    assert main(["tree", "init", str(tree)]) == 0
    for name, role in cells:
        words = ["--database", f"sqlite:///{tmp_path}/{name}.sqlite", "--broker", f"memory://{name}"]
        parent = [] if role == "api" else ["--parent", "east"]
        assert main(["cell", "register", name, "--role", role, *words, *parent, "--tree", str(tree)]) == 0
    where = ["--cell", "leaf", "--tree", str(tree)]
    assert main(["host", "register", "p", "--url", pool.url, "--password-file", str(password), *where]) == 0
    for script in folder.glob("celltree_*"):
        script.unlink()
    capsys.readouterr()
    assert main(["host", "install-plugins", "p", "--check", *where]) == 1
    assert "none installed" in capsys.readouterr().err
    installing = ["host", "install-plugins", "p", "--over", "env", "--folder", str(folder), "--tree", str(tree)]
    assert main(installing) == 0
    assert "has the plugins of this celltree" in capsys.readouterr().out
    (folder / "celltree_console.py").write_text('VERSION = "0.1"\n')
    assert main(["host", "install-plugins", "p", "--check", *where]) == 1
    assert "older celltree_console.py" in capsys.readouterr().err
