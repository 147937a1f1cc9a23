"""`celltree host ...`: the pools and hosts of leaves. Saved in the leaf's database; its daemon takes it up at its next
tick."""

import argparse
import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from cells.cli.command import Command, Lister, Rows, add_cell, ago, config_of, configs_of
from cells.config import CellConfig, identity
from cells.errors import BadInput, CelltreeError, Permanent, Temporary
from cells.house import system_clock
from cells.model import Generation
from cells.registering import open_store
from cells.rows import EdgeRow
from compute_cell.registering import register_pool
from compute_cell.restored import put_back
from compute_cell.rows import HostRow, HostState, PoolRow
from xenapi_host.session import Access, connect


class HostRegister(Command):
    """Register a XenServer pool with a leaf, or change how the leaf logs in there."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("pool", help="a name for the pool, of your choice")
        parser.add_argument("--url", required=True, help="https://ADDRESS of the pool's master")
        parser.add_argument("--user", default="root")
        parser.add_argument("--password-file", type=Path, required=True, metavar="FILE")
        parser.add_argument("--fingerprint", default="", help="SHA-256 of the master's certificate, to trust only that")
        parser.add_argument("--unchecked", action="store_true", help="register it even if it does not answer now")
        add_cell(parser, "the leaf")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        config = _leaf(config_of(parsed_args))
        try:
            password = parsed_args.password_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise BadInput(
                f"--password-file {parsed_args.password_file} cannot be read: {error.strerror}; put the password there"
            ) from None
        name, url, user, fingerprint = (getattr(parsed_args, each) for each in ("pool", "url", "user", "fingerprint"))
        if not parsed_args.unchecked:
            _reach(Access(url=url, user=user, password=password, fingerprint=fingerprint, read_seconds=15.0))
        with open_store(config, whole=True) as store, store.unit() as unit:
            register_pool(
                unit,
                identity(config),
                os.urandom,
                name=name,
                url=url,
                user=user,
                password=password,
                fingerprint=fingerprint,
            )
        self.say(f"pool {name} is registered with {config.cell}; its hosts show after its next measurement")


def _reach(access: Access) -> None:
    """Log in and out; raises with the remedy when that does not work."""
    try:
        session = connect(access)
        try:
            session.call("pool.get_all")
        finally:
            session.close()
    except CelltreeError as error:
        text = f"pool at {access.url}: {error}; mend --url, --user or the password, or use --unchecked"
        raise Permanent(text) from None


class HostList(Lister):
    """List the hosts of every leaf, or of one."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        add_cell(parser, "only this leaf")

    def take_action(self, parsed_args: argparse.Namespace) -> Rows:
        rows: list[tuple[object, ...]] = []
        for config in leaves(configs_of(parsed_args)):
            try:
                with open_store(config, whole=True) as store, store.unit(lock=False) as unit:
                    pools = {pool.name: pool for pool in unit.all(PoolRow)}
                    hosts = sorted(unit.all(HostRow), key=lambda host: (host.pool, host.name))
            except Temporary as error:
                self.app.LOG.warning("left out: %s", error)
                continue
            rows += [_host(config, host, pools.get(host.pool)) for host in hosts]
            empty = sorted(set(pools) - {host.pool for host in hosts})
            rows += [(config.cell, name, "", "", "", "", "", "", pools[name].error or "not measured") for name in empty]
        return (
            "Cell",
            "Pool",
            "Host",
            "State",
            "RAM free MiB",
            "vCPUs free",
            "Disk free GiB",
            "Measured",
            "Error",
        ), rows


def _host(config: CellConfig, host: HostRow, pool: PoolRow | None) -> tuple[object, ...]:
    return (
        config.cell,
        host.pool,
        host.name,
        host.state,
        f"{host.free_ram_mib}/{host.ram_mib}",
        f"{host.free_vcpus}/{host.vcpus}",
        f"{host.free_disk_gib}/{host.disk_gib}",
        ago(pool.heard) if pool is not None else "",
        pool.error if pool is not None else "its pool is not registered",
    )


class OneHost(Command):
    """Change the state of one host."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("host", help="a host's name or uuid")
        add_cell(parser, "only this leaf")

    def change(self, arguments: argparse.Namespace, state: HostState) -> None:
        """Save the host's new state if `why_not` has nothing against it, on the row as it is then."""
        config, found = find_host(leaves(configs_of(arguments)), arguments.host)
        with open_store(config, whole=True) as store, store.unit() as unit:
            host = unit.get(HostRow, found.uuid)
            if host is None:
                raise BadInput(f"{arguments.host} has just been removed; see celltree host list")
            if reason := self.why_not(host):
                raise Permanent(reason)
            unit.save(dataclasses.replace(host, state=state))
        self.say(f"{config.cell}: {host.name} is {state}")

    def why_not(self, host: HostRow) -> str:
        """Why this host must stay as it is; empty when it may change."""
        return ""


class HostDisable(OneHost):
    """Let a host keep what it has and take no new builds."""

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        self.change(parsed_args, HostState.DISABLED)

    def why_not(self, host: HostRow) -> str:
        if host.state is HostState.DEAD:
            return f"{host.name} is confirmed dead; celltree host enable brings it back when it runs again"
        return ""


class HostEnable(OneHost):
    """Let a host take builds (again); the next measurement shows whether it can."""

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        self.change(parsed_args, HostState.ENABLED)


class HostReread(Command):
    """Say that a leaf's database was put back to a backup, before its daemons start again: every server is looked for
    on the hosts. Without this word the leaf hears it from its parents, a tick after it has started."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        add_cell(parser, "the leaf")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        config = _leaf(config_of(parsed_args))
        with open_store(config, whole=True) as store, store.unit() as unit:
            edges = unit.all(EdgeRow)
            owners = {name for edge in edges for name, _, is_api in edge.above if is_api}
            decision = put_back(unit, Generation(), owners, system_clock())
            unit.save(*decision.save)
        self.say(f"{config.cell}: {'; '.join(decision.notes)}; start its daemons now")


def _leaf(config: CellConfig) -> CellConfig:
    if config.role != "compute":
        raise BadInput(f"{config.cell} is an API cell and has no hosts; name a compute cell")
    return config


def leaves(configs: Iterable[CellConfig]) -> Iterator[CellConfig]:
    return (config for config in configs if config.role == "compute")


def find_host(configs: Iterable[CellConfig], word: str) -> tuple[CellConfig, HostRow]:
    found = []
    for config in configs:
        with open_store(config, whole=True) as store, store.unit(lock=False) as unit:
            found += [(config, host) for host in unit.all(HostRow) if word in (host.name, host.uuid)]
    if not found:
        raise BadInput(f"there is no host {word!r}; see celltree host list")
    if len(found) > 1:
        raise BadInput(f"there are {len(found)} hosts named {word!r}; give the uuid, or --cell")
    return found[0]
