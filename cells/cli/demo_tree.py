"""The demo's tree in one process: SQLite files, memory brokers, real threads, simulated XenServer pools over HTTP."""

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cells import codec
from cells.config import CellConfig
from cells.house import Cell, House, system_clock
from cells.identity import RootKey, new_key
from cells.model import CellRecord
from cells.names import CellName
from cells.parts import part
from cells.rows import RosterRow

TREE: Mapping[CellName, Sequence[CellName]] = {
    "east": (),
    "west": (),
    "dfw": ("east", "west"),
    "ord": ("east", "west"),
    "dfw-1": ("dfw",),
    "ord-1": ("ord",),
    "shared-1": ("dfw", "ord"),
}
LEAVES = ("dfw-1", "ord-1", "shared-1")
HOSTS = 2


@dataclass(slots=True, kw_only=True)
class DemoTree:
    """The running tree. `pools` are the simulated XenServer pools by leaf."""

    house: House
    pools: dict[CellName, Any]
    threads: list[threading.Thread] = field(default_factory=list)

    def cell(self, name: CellName) -> Cell:
        return self.house.cells[name]

    @property
    def endpoint(self) -> str:
        """Where east's front door listens."""
        front = self.cell("east").front
        assert front is not None
        return f"http://127.0.0.1:{front.port}"

    def records(self, at: CellName = "east") -> dict[CellName, CellRecord]:
        """What a cell knows of the cells below it."""
        with self.cell(at).store.unit(lock=False) as unit:
            return {row.name: codec.unpack(CellRecord, row.payload) for row in unit.all(RosterRow)}

    def close(self) -> None:
        """End loops, listeners and pools, in this order."""
        for cell in self.house.cells.values():
            if cell.front is not None:
                cell.front.stop()
            cell.node.stop()
        for thread in self.threads:
            thread.join()
        for cell in self.house.cells.values():
            cell.let_go()
        for pool in self.pools.values():
            pool.stop()


def open_tree(
    folder: Path,
    port: int,
    *,
    parents_of: Mapping[CellName, Sequence[CellName]] = TREE,
    front: Mapping[str, Any] | None = None,
) -> DemoTree:
    """Certify, open, join and start every cell of the demo; a port of 0 takes a free one. `front`: the settings of its
    front doors, else a folder of images and no logins."""
    house = House(create_tables=True)
    tree = DemoTree(house=house, pools={})
    root = RootKey(os.urandom(32))
    open_pool, register = part("simulator"), part("pool")
    for name, parents in parents_of.items():
        is_leaf = all(name not in above for above in parents_of.values())
        if is_leaf:
            tree.pools[name] = open_pool(folder / name / "xenserver", name, HOSTS)
        cell = house.open(_config(folder, root, name, parents, port, front))
        if is_leaf:
            with cell.store.unit() as unit:
                url = tree.pools[name].url
                register(unit, cell.identity, os.urandom, name=name, url=url, user="root", password="xen")
    for name, parents in parents_of.items():
        for parent in parents:
            house.join(parent, name)
    for name, cell in house.cells.items():
        thread = threading.Thread(target=cell.node.run, name=f"cell-{name}")
        tree.threads.append(thread)
        thread.start()
    return tree


def _config(
    folder: Path,
    root: RootKey,
    name: CellName,
    parents: Sequence[CellName],
    port: int,
    front: Mapping[str, Any] | None,
) -> CellConfig:
    role = "compute" if parents else "api"
    home = folder / name
    home.mkdir(parents=True, exist_ok=True)
    seed, public = new_key(os.urandom)
    settings: dict[str, Any] = {"mute_after": 10.0}
    if role == "api":
        settings["front"] = {"images": str(home / "images")} if front is None else dict(front)
    else:
        settings["clean_seconds"] = 5.0
    return CellConfig(
        cell=name,
        role=role,
        database=f"sqlite:///{home / 'cell.sqlite'}",
        broker=f"memory://{name}",
        key=seed.hex(),
        certificate=root.certify(name, os.urandom(16), role, public, system_clock()).hex(),
        root=root.public.hex(),
        tick=0.5,
        threads=4,
        listen=f"127.0.0.1:{port if name == 'east' else 0}" if role == "api" else "",
        settings=settings,
    )
