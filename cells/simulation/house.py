"""A house whose cells can be rebuilt by tests: with a rule switched off, to see that something breaks without it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from cells.config import CellConfig
from cells.house import House
from cells.jobs import Workers
from cells.node import Node
from cells.ports import Role
from cells.simulation.network import Network
from cells.simulation.store import SimulatedSqlStore, SimulatedStore
from cells.store.dicts import DictStore
from cells.store.sql import SqlStore

AnySimulatedStore = SimulatedStore | SimulatedSqlStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What the cells are made of. No configuration reaches this: tests that switch a rule off give another one.
    `acks_early`: the broker forgets a message when it is delivered. `blind`: whether a host call is to find nothing.
    `folder`: cells have SQLite files there instead of dicts."""

    node: type[Node] = Node
    store: type[SimulatedStore] = SimulatedStore
    folder: str = ""
    dress: Callable[[Role], Role] = field(default=lambda role: role)
    acks_early: bool = False
    blind: Callable[[str], bool] = field(default=lambda method: False)

    def stores(self, name: str, rows: tuple[type, ...]) -> tuple[AnySimulatedStore, DictStore | SqlStore]:
        """A cell's store, and one over the same database in which nothing goes wrong. `name`: unique in the process."""
        if not self.folder:
            return self.store(f"dict://{name}", rows), DictStore(f"dict://{name}", rows)
        url = f"sqlite:///{self.folder}/{name}.db"
        return SimulatedSqlStore(url, rows), SqlStore(url, rows)


class SimulatedHouse(House):
    """Cells whose jobs are done by the crew that was put ready for them."""

    def __init__(
        self, build: Build, *, clock: Callable[[], int], random_bytes: Callable[[int], bytes], network: Network
    ) -> None:
        super().__init__(clock=clock, random_bytes=random_bytes, create_tables=True, exchanges=network)
        self.node_class = build.node
        self._build = build
        self.crew: Workers | None = None

    def dressed(self, role: Role) -> Role:
        return self._build.dress(role)

    def workers(self, config: CellConfig) -> Workers | None:
        return self.crew
