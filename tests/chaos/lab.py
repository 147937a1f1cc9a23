"""A lab with a bad network in it: a proxy stands between any cell and any neighbour's broker, its own broker, database
and hosts."""

import os
from pathlib import Path
from typing import Any

from cells.errors import Temporary
from cells.house import system_clock
from cells.ids import Ids
from cells.lab.daemons import Daemon
from cells.lab.lab import Lab
from cells.registering import Registrar
from cells.topology_file import CellPlan, PoolPlan, TopologyFile, check
from tests.chaos.plan import Shape
from tests.support.canary import Overheard, with_image_tokens
from tests.support.tcp_proxy import TcpProxy
from xenapi_host.simulator import control_client


def small_tree() -> TopologyFile:
    """An API cell over two regions, a leaf under both, and a leaf under one."""
    pool = (PoolPlan(),)
    return check(
        [
            CellPlan(name="east"),
            CellPlan(name="dfw", parents=("east",)),
            CellPlan(name="ord", parents=("east",)),
            CellPlan(name="dfw-1", parents=("dfw",), pools=pool),
            CellPlan(name="shared-1", parents=("dfw", "ord"), pools=pool),
        ],
        "the tree of the chaos runs",
    )


class FaultyLab(Lab):
    """`proxies`: by link, "CELL PART". `overheard`: secrets that leaves have just told their hosts."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.proxies: dict[str, TcpProxy] = {}
        self.overheard = Overheard()

    def port_for(self, cell: str, what: str, port: int) -> int:
        link = f"{cell} {what}"
        if link not in self.proxies:
            hears = self.overheard if what.startswith("xenserver") else _nothing
            self.proxies[link] = TcpProxy(port, seed=len(self.proxies), overhear=hears).__enter__()
        return self.proxies[link].port

    def _settings(self, cell: CellPlan) -> dict[str, Any]:
        return with_image_tokens(self, cell.name, super()._settings(cell))

    def xenserver(self, pool: str) -> Daemon:
        found = super().xenserver(pool)
        return Daemon(found.log.parent, found.name, (*found.arguments, "--control", self._control(pool)))

    def _control(self, pool: str) -> Path:
        return self.folder / f"{pool}.control"

    def ask_simulator(self, pool: str, **request: Any) -> dict[str, Any]:
        """One request to the control socket of a pool's simulator."""
        try:
            answer = control_client.ask(self._control(pool), request)
        except (control_client.Unreachable, ValueError) as error:
            raise Temporary(f"the simulator of {pool}: {error}") from error
        if not answer["ok"]:
            raise Temporary(f"the simulator of {pool} refuses {request}: {answer['error']}")
        return answer

    def registrar(self) -> Registrar:
        """What the commands for cells and edges do."""
        return Registrar(self.tree, clock=system_clock, new_id=Ids(system_clock, os.urandom), random_bytes=os.urandom)

    def down(self, **how: Any) -> None:
        super().down(**how)
        for proxy in self.proxies.values():
            proxy.__exit__()
        self.proxies.clear()

    def shape(self) -> Shape:
        """What there is to break."""
        own = [link for link in self.proxies if _is_own(*link.split())]
        return Shape(
            cells=self.topology.names,
            daemons=tuple(daemon for cell in self.topology.names for daemon in self.plan.daemons_of(cell)),
            brokers=tuple(part.what for part in self.status() if part.kind == "rabbitmq"),
            databases=tuple(part.what for part in self.status() if part.kind == "mariadb"),
            pools=tuple(part.what for part in self.status() if part.kind == "xenserver"),
            edges=tuple(link for link in self.proxies if link not in own),
            ways=tuple(own),
            leaves=tuple(cell.name for cell in self.topology.leaves),
            second_parents=tuple(
                f"{cell.name} {parent}"
                for cell in self.topology.cells
                if len(cell.parents) > 1
                for parent in cell.parents
            ),
        )


def _nothing(chunk: bytes) -> None:
    """What passes on this link is not listened to."""


def _is_own(cell: str, what: str) -> bool:
    kind, _, name = what.partition(":")
    return kind != "broker" or name == cell
