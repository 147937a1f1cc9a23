"""`celltree host install-plugins`: the scripts that pools need in dom0, put there and then checked through XenAPI."""

import argparse
import io
import os
import shlex
import subprocess
import tarfile
from pathlib import Path

from cells.cli.command import Command, add_cell, configs_of
from cells.config import CellConfig, identity
from cells.errors import BadInput, Permanent
from cells.ports import Store
from cells.registering import open_store
from compute_cell.pools import Pools
from compute_cell.rows import PoolRow
from xenapi_host import driver
from xenapi_host.plugins import SCRIPTS

FOLDER = "/etc/xapi.d/plugins"
_SECONDS = 120.0


class HostInstallPlugins(Command):
    """Install the plugins of this celltree on every host of a pool, or put them into a folder; then check them."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("pool", help="a registered pool")
        way = parser.add_mutually_exclusive_group()
        way.add_argument(
            "--to", type=Path, metavar="FOLDER", help="only put the files there, for other tools to install"
        )
        way.add_argument(
            "--over",
            default="ssh -o BatchMode=yes root@{address}",
            metavar="COMMAND",
            help="how to run a command on a host; {address} is its address (default: %(default)s)",
        )
        way.add_argument("--check", action="store_true", help="install nothing, only say what is wrong")
        parser.add_argument("--folder", default=FOLDER, help="the plugin folder of the hosts (default: %(default)s)")
        add_cell(parser, "the pool's leaf")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        if parsed_args.to is not None:
            install_into(parsed_args.to)
            self.say(f"{len(SCRIPTS)} files are in {parsed_args.to}; copy them to {parsed_args.folder} of every host")
            return
        config = _holder(configs_of(parsed_args), parsed_args.pool)
        with open_store(config, whole=True) as store:
            self._install(config, store, parsed_args)

    def _install(self, config: CellConfig, store: Store, arguments: argparse.Namespace) -> None:
        pools = Pools(store=store, identity=identity(config))
        try:
            session = pools.session(arguments.pool)
            if not arguments.check:
                for host in session.call("host.get_all_records").values():
                    install_over(arguments.over, str(host["address"]), arguments.folder)
                    self.say(f"{host['name_label']}: installed")
            wrong = driver.plugins_wrong(session, again=True)
        finally:
            pools.close()
        if wrong:
            raise Permanent(wrong)
        self.say(f"every host of {arguments.pool} has the plugins of this celltree")


def install_into(folder: Path) -> None:
    """Put every script into a folder of this machine, each in one step, so that none is ever seen half written."""
    if not folder.is_dir():
        raise BadInput(f"--to {folder} is no folder; make it first")
    for script in SCRIPTS:
        new = folder / f".{script.name}.new"
        new.write_bytes(script.read_bytes())
        new.chmod(0o755)
        new.replace(folder / script.name)


def install_over(command: str, address: str, folder: str) -> None:
    """Put every script into a folder of a host, through a command that runs another command there. Permanent with what
    it said when that fails."""
    if not folder.startswith("/") or shlex.quote(folder) != folder:
        raise BadInput(f"--folder {folder!r} must be an absolute path without blanks and quotes")
    words = [word.replace("{address}", address) for word in shlex.split(command)]
    try:
        done = subprocess.run(
            [*words, "tar", "-xf", "-", "-C", folder],
            input=_archive(),
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Permanent(f"{address}: {words[0]} could not be run: {error}; give another --over") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-300:]
        raise Permanent(
            f"{address}: installing failed: {said or f'exit code {done.returncode}'}; mend --over or --folder"
        )


def _archive() -> bytes:
    """Every script as a tar archive, executable and root's."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for script in SCRIPTS:
            data = script.read_bytes()
            member = tarfile.TarInfo(script.name)
            member.size, member.mode, member.mtime = len(data), 0o755, int(script.stat().st_mtime)
            member.uname = member.gname = "root"
            archive.addfile(member, io.BytesIO(data))
    return held.getvalue()


def _holder(configs: tuple[CellConfig, ...], pool: str) -> CellConfig:
    """The leaf with which a pool is registered."""
    for config in configs:
        if config.role != "compute":
            continue
        with open_store(config, whole=True) as store, store.unit(lock=False) as unit:
            if unit.get(PoolRow, pool) is not None:
                return config
    raise BadInput(f"pool {pool!r} is registered with no leaf here; see celltree host list")
