"""`celltree host confirm-dead` and `celltree host policy`: hosts that are off for certain, and what becomes of their
servers then."""

import argparse
import dataclasses
from typing import Any

from cells.cli.command import Command, add_cell, configs_of
from cells.errors import BadInput, Permanent
from cells.registering import open_store
from compute_cell.cli import OneHost, find_host, leaves
from compute_cell.evacuation import Lost, Policy
from compute_cell.rows import HostRow, HostState, PoolRow
from xenapi_host.power_off import power_off


class HostConfirmDead(OneHost):
    """Confirm that a host is powered off or fenced, so that what it ran may be rebuilt elsewhere. A host that is still
    running would then run a second copy of a server: look before you say so, or let a command switch it off."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        super().options(parser)
        how = parser.add_mutually_exclusive_group(required=True)
        how.add_argument("--powered-off", action="store_true", help="yes, I have made sure")
        how.add_argument(
            "--power-off-by",
            metavar="COMMAND",
            help="switch it off by this command, such as 'ipmi-off {host}'; {host} and {uuid} stand for the host. "
            "Exit code 0 must mean that it is off",
        )
        parser.add_argument("--force", action="store_true", help="also while its pool calls it alive")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        self._force = bool(parsed_args.force)
        if parsed_args.power_off_by:
            _, host = find_host(leaves(configs_of(parsed_args)), parsed_args.host)
            if reason := self.why_not(host):
                raise Permanent(reason)
            power_off(parsed_args.power_off_by, host.name, host.uuid)
        self.change(parsed_args, HostState.DEAD)

    def why_not(self, host: HostRow) -> str:
        if host.state not in (HostState.DOWN, HostState.DEAD) and not self._force:
            return f"{host.name} is {host.state}, not down: its pool calls it alive; --force if the pool is wrong"
        return ""


class HostPolicy(Command):
    """Say what becomes of the servers of a pool's host that is confirmed dead; without an option, show it. `cell`: as
    the leaf's settings say."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("pool", help="a registered pool")
        parser.add_argument("--when-host-dies", choices=["cell", *Policy])
        parser.add_argument("--when-disks-are-lost", choices=["cell", *Lost])
        add_cell(parser, "the pool's leaf")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        names = ("when_host_dies", "when_disks_are_lost")
        asked: dict[str, str] = {name: str(word) for name in names if (word := getattr(parsed_args, name)) is not None}
        changes: dict[str, Any] = {name: "" if word == "cell" else word for name, word in asked.items()}
        for config in leaves(configs_of(parsed_args)):
            with open_store(config, whole=True) as store, store.unit() as unit:
                pool = unit.get(PoolRow, parsed_args.pool)
                if pool is None:
                    continue
                pool = dataclasses.replace(pool, **changes)
                if changes:
                    unit.save(pool)
                shown = ", ".join(f"{name} {getattr(pool, name) or 'cell'}" for name in names)
                self.say(f"{config.cell}: pool {pool.name}: {shown}")
                return
        raise BadInput(f"there is no pool {parsed_args.pool!r}; see celltree host list")
