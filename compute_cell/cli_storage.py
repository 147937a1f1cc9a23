"""`celltree volume ...` and `celltree host usage`: an administrator's disks that projects may attach, and what servers
take of their storage. Asked of and written on the pools themselves."""

import argparse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from cells.cli.command import Command, Lister, Rows, add_cell, configs_of
from cells.config import CellConfig, identity
from cells.errors import BadInput
from cells.names import id_text
from cells.registering import open_store
from compute_cell.pools import Pools
from compute_cell.rows import PoolRow
from xenapi_host import driver
from xenapi_host.facts import GIB, MIB
from xenapi_host.session import Session


class _OfPool:
    """What is about one registered pool."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("pool", help="a registered pool")
        add_cell(parser, "the pool's leaf")


class VolumeList(_OfPool, Lister):
    """List the disks of a pool that projects may attach."""

    def take_action(self, parsed_args: argparse.Namespace) -> Rows:
        with session_of(configs_of(parsed_args), parsed_args.pool) as session:
            found = driver.volumes_of_pool(session)
        rows = [
            (each.facts.id, each.facts.name, f"{each.facts.size / GIB:.1f}", each.project, ", ".join(each.servers))
            for each in found
        ]
        return ("Volume", "Name", "GiB", "Project", "Attached to"), rows


class VolumeAllow(_OfPool, Command):
    """Let a project attach a disk of a pool to its servers."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        super().options(parser)
        parser.add_argument("volume", help="the disk's uuid (xe vdi-list)")
        parser.add_argument("project", help="the project's id, as the API cell knows it")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        with session_of(configs_of(parsed_args), parsed_args.pool) as session:
            driver.allow_volume(session, _uuid(parsed_args.volume), parsed_args.project)
        self.say(f"project {parsed_args.project} may attach {parsed_args.volume}")


class VolumeWithdraw(_OfPool, Command):
    """Let no project attach a disk any more."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        super().options(parser)
        parser.add_argument("volume", help="the disk's uuid")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        with session_of(configs_of(parsed_args), parsed_args.pool) as session:
            driver.withdraw_volume(session, _uuid(parsed_args.volume))
        self.say(f"no project may attach {parsed_args.volume}")


class HostUsage(_OfPool, Lister):
    """What each server of a pool takes of its storage, and all together; layers that are shared count once."""

    def take_action(self, parsed_args: argparse.Namespace) -> Rows:
        with session_of(configs_of(parsed_args), parsed_args.pool) as session:
            found = driver.disk_usage(session)
        rows: list[tuple[object, ...]] = [
            (id_text(server), f"{used.virtual / GIB:.1f}", _mib(used.own), _mib(used.shared))
            for server, used in sorted(found.servers.items())
        ]
        virtual = sum(used.virtual for used in found.servers.values())
        own = sum(used.own for used in found.servers.values())
        rows.append(("together", f"{virtual / GIB:.1f}", _mib(own), _mib(found.total - own)))
        return ("Server", "Disks GiB", "Own MiB", "Shared MiB"), rows


def _mib(size: int) -> str:
    return f"{size / MIB:.1f}"


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise BadInput(f"{text!r} is no uuid; xe vdi-list shows them") from None


@contextmanager
def session_of(configs: tuple[CellConfig, ...], pool: str) -> Iterator[Session]:
    """A session to a registered pool, with what its leaf logs in with."""
    for config in configs:
        if config.role != "compute":
            continue
        with open_store(config, whole=True) as store:
            with store.unit(lock=False) as unit:
                if unit.get(PoolRow, pool) is None:
                    continue
            pools = Pools(store=store, identity=identity(config))
            try:
                yield pools.session(pool)
                return
            finally:
                pools.close()
    raise BadInput(f"pool {pool!r} is registered with no leaf here; see celltree host list")
