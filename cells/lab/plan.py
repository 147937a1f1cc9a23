"""What a lab is made of, chosen once and written into its folder: the topology, how brokers are shared, how people log
in, ports, and one secret from which every password of the lab follows. Another process that knows the folder reads it
and knows everything.
"""

import dataclasses
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cells import topology_file
from cells.config import fill
from cells.errors import BadInput
from cells.lab.ports import LOOPBACK, claim_ports, is_free, release_ports
from cells.lab.processes import write_whole
from cells.names import CellName
from cells.topology_file import CellPlan, TopologyFile

VHOSTS, NODES = "vhosts", "nodes"
NONE, HTTP_BASIC = "none", "http_basic"
USER = "demo"
MOST = 99


@dataclass(frozen=True, slots=True, kw_only=True)
class LabPlan:
    """`brokers`: vhosts (one RabbitMQ, a virtual host per cell), nodes (a RabbitMQ per cell) or a number of nodes that
    the cells share in turn, as they share `databases`. `numbers`: the cells' turns. `daemons`: of each cell.
    `api_ports` are by daemon of an API cell, `pool_ports` by pool. `tick` and `mute_after` are in seconds: a lab shall
    be seen to move. `tls`: brokers and databases take TLS only, and know cells by their certificates; pools, too, and
    are known by theirs."""

    topology: TopologyFile
    brokers: str = VHOSTS
    databases: int = 1
    daemons: int = 1
    numbers: Mapping[CellName, int] = field(default_factory=dict)
    auth: str = NONE
    tls: bool = False
    api_ports: Mapping[CellName, int] = field(default_factory=dict)
    pool_ports: Mapping[str, int] = field(default_factory=dict)
    secret: str = field(default="", repr=False)
    tick: float = 1.0
    mute_after: float = 6.0

    def password(self, *of: str) -> str:
        """The password for one purpose."""
        word = " ".join(of).encode()
        return hashlib.blake2b(word, key=self.secret.encode(), digest_size=12).hexdigest()

    def endpoint(self, api: CellName) -> str:
        """Where an API cell's REST listens; of one of its daemons: CELL/DAEMON."""
        return f"http://{LOOPBACK}:{self.api_ports[api]}"

    def daemons_of(self, cell: CellName) -> tuple[str, ...]:
        """The names of a cell's daemons: CELL, CELL/2 and so on."""
        return (cell, *(f"{cell}/{number}" for number in range(2, self.daemons + 1)))

    def broker_of(self, cell: CellName) -> str:
        """The name of the RabbitMQ node that has a cell's inbox."""
        if self.brokers == NODES:
            return cell
        return "" if self.brokers == VHOSTS else str(self.numbers[cell] % int(self.brokers) + 1)

    def database_of(self, cell: CellName) -> str:
        """The name of the MariaDB server that has a cell's schema."""
        return "" if self.databases == 1 else str(self.numbers[cell] % self.databases + 1)

    def with_cell(self, folder: Path, cell: CellPlan) -> "LabPlan":
        """The plan with one cell more."""
        topology = self.topology.with_cell(cell)
        return _with_ports(dataclasses.replace(self, topology=topology), folder, first_port=0)

    def without_cell(self, folder: Path, name: CellName) -> "LabPlan":
        """The plan without one cell, whose ports are given up."""
        pools = [pool.name for pool in self.topology[name].pools]
        release_ports(tuple(self.pool_ports[pool] for pool in pools), folder)
        ours = self.daemons_of(name)
        release_ports(tuple(port for daemon, port in self.api_ports.items() if daemon in ours), folder)
        kept = [cell for cell in self.topology.cells if cell.name != name]
        return dataclasses.replace(
            self,
            topology=topology_file.check(kept, "topology"),
            numbers={cell: number for cell, number in self.numbers.items() if cell != name},
            api_ports={daemon: port for daemon, port in self.api_ports.items() if daemon not in ours},
            pool_ports={pool: port for pool, port in self.pool_ports.items() if pool not in pools},
        )

    def release(self, folder: Path) -> None:
        """Give up the claims on this lab's ports."""
        release_ports((*self.api_ports.values(), *self.pool_ports.values()), folder)


def make_plan(
    topology: TopologyFile,
    folder: Path,
    *,
    brokers: str,
    auth: str,
    port: int,
    databases: int = 1,
    daemons: int = 1,
    tls: bool = False,
) -> LabPlan:
    """A new plan. `port` is the first API cell's, the next ones follow; 0 takes free ones."""
    if brokers not in (VHOSTS, NODES) and not (brokers.isdecimal() and 0 < int(brokers) <= MOST):
        raise BadInput(
            f"--brokers {brokers!r}: use vhosts (one RabbitMQ), nodes (a RabbitMQ per cell) or how many to {MOST}"
        )
    for word, number in (("--databases", databases), ("--daemons", daemons)):
        if not 0 < number <= MOST:
            raise BadInput(f"{word} {number}: use a number from 1 to {MOST}")
    if auth not in (NONE, HTTP_BASIC):
        raise BadInput(f"--auth {auth!r}: use none or http_basic")
    if not topology.api_cells or not topology.leaves:
        raise BadInput("a lab needs at least one API cell and one cell with pools; add them to the topology file")
    plan = LabPlan(
        topology=topology,
        brokers=brokers,
        databases=databases,
        daemons=daemons,
        auth=auth,
        tls=tls,
        secret=secrets.token_hex(24),
    )
    return _with_ports(plan, folder, first_port=port)


def save_plan(plan: LabPlan, file: Path) -> None:
    """Write the plan; readable by its owner only."""
    raw = {each.name: getattr(plan, each.name) for each in dataclasses.fields(plan)}
    write_whole(file, json.dumps({**raw, "topology": topology_file.dump(plan.topology)}, indent=1))


def load_plan(file: Path) -> LabPlan:
    """Read what `save_plan` wrote."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        topology = topology_file.parse(raw.pop("topology"), str(file))
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}; make a lab with celltree lab up") from None
    except (ValueError, KeyError, AttributeError) as error:
        raise BadInput(f"{file} is damaged ({error}); remove its folder and run celltree lab up") from None
    # Filled as if it had no cells, then given those that were read.
    return dataclasses.replace(fill(LabPlan, {**raw, "topology": {"cells": []}}, str(file)), topology=topology)


def _with_ports(plan: LabPlan, folder: Path, *, first_port: int) -> LabPlan:
    apis = [
        daemon
        for cell in plan.topology.api_cells
        for daemon in plan.daemons_of(cell.name)
        if daemon not in plan.api_ports
    ]
    pools = [pool.name for cell in plan.topology.leaves for pool in cell.pools if pool.name not in plan.pool_ports]
    if first_port:
        api_ports: tuple[int, ...] = tuple(range(first_port, first_port + len(apis)))
        if taken := [port for port in api_ports if not 0 < port < 65536 or not is_free(port)]:
            raise BadInput(
                f"--port {first_port}: port {taken[0]} of {LOOPBACK} is taken; choose another, or leave it out"
            )
    else:
        api_ports = claim_ports(len(apis), folder)
    pool_ports = claim_ports(len(pools), folder)
    turn = max(plan.numbers.values(), default=-1) + 1
    new = [name for name in plan.topology.names if name not in plan.numbers]
    return dataclasses.replace(
        plan,
        numbers={**plan.numbers, **{name: turn + place for place, name in enumerate(new)}},
        api_ports={**plan.api_ports, **dict(zip(apis, api_ports, strict=True))},
        pool_ports={**plan.pool_ports, **dict(zip(pools, pool_ports, strict=True))},
    )
