"""A house: the cells that run in this process. A daemon is a house of one cell; the demo, the stories and the
benchmarks are houses of many. Only URLs differ.

Roles come by entry point (group celltree.roles), so that nothing here imports them: an entry point names a class with
`name`, `rows` and `make(Parts)`.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from cells.broker import MemoryExchanges, open_broker
from cells.broker.memory import SCHEME
from cells.config import CellConfig, identity
from cells.errors import BadInput
from cells.identity import Identity
from cells.ids import Ids
from cells.jobs import Workers
from cells.model import CellState
from cells.names import NEVER, CellName, Instant
from cells.node import Bell, Node, NodeSettings
from cells.ports import Clock, NewId, Role, Unit
from cells.resealing import Resealing
from cells.rows import EdgeRow
from cells.store import AnyStore, open_store

ROLES = "celltree.roles"
MAIN = NodeSettings().daemon


def system_clock() -> Instant:
    """Microseconds since 1970, now."""
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a role is made of. `settings` are the role's own, as the configuration gives them; `extras` are things that
    only this process has (light hosts, an image folder), by name."""

    identity: Identity
    store: AnyStore
    clock: Clock
    new_id: NewId
    random_bytes: Callable[[int], bytes]
    settings: Mapping[str, Any]
    extras: Mapping[str, Any] = field(default_factory=dict)


class RoleClass(Protocol):
    """What an entry point of the group celltree.roles names."""

    name: str
    rows: tuple[type, ...]

    @classmethod
    def make(cls, parts: Parts) -> Role:
        """A role from its parts; BadInput for settings that are not valid."""


class Front(Protocol):
    """A front door being served."""

    port: int

    def stop(self) -> None:
        """Let requests under way end, then close. Called twice, it does nothing more."""


@runtime_checkable
class HasFront(Protocol):
    """A role that serves something to people outside the tree."""

    def open_front(self, poke: Callable[[], None], listen: str) -> Front:
        """Serve at host:port; `poke` tells the cell's loop of new work."""


@cache
@cache
def role_class(name: str) -> RoleClass:
    """The role of this name; BadInput lists those there are."""
    found = {entry.name: entry for entry in entry_points(group=ROLES)}
    if name not in found:
        raise BadInput(f"role {name!r} is not installed; there are: {', '.join(sorted(found)) or 'none'}")
    loaded: RoleClass = found[name].load()
    return loaded


@dataclass(slots=True, kw_only=True)
class Cell:
    """One cell of the house."""

    config: CellConfig
    identity: Identity
    store: AnyStore
    role: Role
    node: Node
    front: Front | None = None

    @property
    def name(self) -> CellName:
        return self.config.cell

    def open_front(self) -> None:
        """Serve the role's front door where the configuration says; BadInput when the role has none."""
        if not isinstance(self.role, HasFront):
            raise BadInput(f"listen is set, but a {self.config.role} cell has no front door; remove it")
        self.front = self.role.open_front(self.node.poke, self.config.listen)

    def close(self) -> None:
        if self.front is not None:
            self.front.stop()
        self.node.close()
        self.let_go()

    def let_go(self) -> None:
        """Close what is still open when the node's loop has ended."""
        self.role.close()
        self.store.close()


class House:
    """Cells in one process, with their memory brokers; a cell's further daemons are named CELL/DAEMON. Clock and
    randomness are given: a story can be replayed."""

    node_class = Node

    def __init__(
        self,
        *,
        clock: Clock = system_clock,
        random_bytes: Callable[[int], bytes] = os.urandom,
        create_tables: bool = False,
        exchanges: MemoryExchanges | None = None,
    ) -> None:
        self.clock = clock
        self.random_bytes = random_bytes
        self.new_id = Ids(clock, random_bytes)
        self.exchanges = exchanges or MemoryExchanges()
        self.cells: dict[str, Cell] = {}
        self._create_tables = create_tables

    def open(self, config: CellConfig, *, store: AnyStore | None = None, **extras: Any) -> Cell:
        """Bring a cell up, with its database as it is. Its loop does not run yet: step it, or run cell.node.run.
        `store`: one that is open already, where a cell has several daemons on a database in memory, or outlives one."""
        with ExitStack() as undo:
            cell = self._opened(config, store, extras, undo)
            undo.pop_all()
        self.cells[config.cell if config.daemon == MAIN else f"{config.cell}/{config.daemon}"] = cell
        return cell

    def _opened(self, config: CellConfig, store: AnyStore | None, extras: Mapping[str, Any], undo: ExitStack) -> Cell:
        """`undo`: what to close should the cell not come up, so that it may be tried again."""
        who = identity(config)
        kind = role_class(config.role)
        if store is None:
            store = open_store(config.database, kind.rows)
            undo.callback(store.close)
            if self._create_tables:
                store.create_all()
        parts = Parts(
            identity=who,
            store=store,
            clock=self.clock,
            new_id=self.new_id,
            random_bytes=self.random_bytes,
            settings=config.settings,
            extras=extras,
        )
        role = self.dressed(kind.make(parts))
        bell = Bell()
        broker = open_broker(config.broker, config.cell, bell, exchanges=self.exchanges, options=config.amqp)
        undo.callback(broker.close)
        node = self.node_class(
            store=store,
            broker=broker,
            role=role,
            identity=who,
            clock=self.clock,
            new_id=self.new_id,
            bell=bell,
            settings=NodeSettings(
                daemon=config.daemon,
                tick=config.tick,
                batch=config.batch,
                threads=config.threads,
                per_lane=config.per_lane,
            ),
            workers=self.workers(config),
            resealing=Resealing(store=store, identity=who, rows=kind.rows, random_bytes=self.random_bytes),
        )
        cell = Cell(config=config, identity=who, store=store, role=role, node=node)
        if config.listen:
            cell.open_front()
        return cell

    def dressed(self, role: Role) -> Role:
        """A role as this house's cells get it: for houses that watch, or break, what a role decides."""
        return role

    def workers(self, config: CellConfig) -> Workers | None:
        """Who does a cell's jobs; None: threads of its own, or with `threads: 0` the loop itself."""
        return None

    def kill(self, name: str) -> Cell:
        """End a daemon as kill -9 does: nothing is finished or given back. What is left is its store."""
        cell = self.cells.pop(name)
        cell.node.abandon()
        return cell

    def join(self, parent: CellName, child: CellName) -> None:
        """Register an edge at both of its ends."""
        up, down = self.cells[parent], self.cells[child]
        with up.store.unit() as unit:
            save_edge(unit, up.identity, down.identity.says.uuid, child, False, down.config.broker, self.random_bytes)
        with down.store.unit() as unit:
            save_edge(unit, down.identity, up.identity.says.uuid, parent, True, up.config.broker, self.random_bytes)

    def settle(self, most: int = 10_000) -> None:
        """Step every cell until none has anything to do; time stands still meanwhile."""
        for _ in range(most):
            if not any([cell.node.step() for cell in self.cells.values()]):
                return
        raise AssertionError(f"the house did not come to rest in {most} rounds")

    def next_due(self) -> Instant:
        """When the next thing is due in any cell."""
        return min((cell.node.next_due() for cell in self.cells.values()), default=NEVER)

    def close(self) -> None:
        for cell in self.cells.values():
            cell.close()
        self.cells.clear()


def save_edge(
    unit: Unit,
    own: Identity,
    uuid: bytes,
    neighbour: CellName,
    parent: bool,
    url: str,
    random_bytes: Callable[[int], bytes],
    *,
    user: str = "",
) -> None:
    """Save the edge to a neighbour in a cell's own database; the neighbour's broker URL is kept sealed. `user`: who the
    neighbour is at this cell's broker; a memory broker knows publishers by their cells."""
    box = own.keep(url.encode(), random_bytes)
    who = user or (neighbour if urlsplit(url).scheme == SCHEME else "")
    unit.save(EdgeRow(neighbour=neighbour, parent=parent, uuid=uuid, state=CellState.ENABLED, url=box, user=who))
