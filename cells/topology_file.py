"""The tree that a lab is told to run: a YAML file of cells, their parents and their pools, or the usual small tree.

    cells:
    - name: east
    - name: dfw
      parents: [east]
    - name: dfw-1
      parents: [dfw]
      pools:
      - {hosts: 2, ram_mib: 16384}

Read by `celltree lab up`; docker-compose.yml is held against the default by a test. Whatever is wrong is BadInput that
names the place in the file and the remedy.
"""

import dataclasses
import difflib
import graphlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cells.config import fill
from cells.errors import BadInput
from cells.names import CellName, cell_name

API = "api"
COMPUTE = "compute"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """A simulated XenServer pool. `name`: the cell's own name if empty, with a number where a cell has several. `sr`:
    ext gives each host storage of its own, nfs one repository shared by the pool."""

    name: str = ""
    hosts: int = 2
    ram_mib: int = 16 * 1024
    cpus: int = 8
    disk_gib: int = 200
    sr: str = "ext"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPlan:
    """A cell of the tree. `role` may be left out: a cell without parents is an API cell, any other a compute cell."""

    name: CellName
    role: str = ""
    parents: tuple[CellName, ...] = ()
    pools: tuple[PoolPlan, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyFile:
    """The cells, each after its parents."""

    cells: tuple[CellPlan, ...]

    def __getitem__(self, name: CellName) -> CellPlan:
        return next(cell for cell in self.cells if cell.name == name)

    @property
    def names(self) -> tuple[CellName, ...]:
        return tuple(cell.name for cell in self.cells)

    @property
    def api_cells(self) -> tuple[CellPlan, ...]:
        return tuple(cell for cell in self.cells if cell.role == API)

    @property
    def leaves(self) -> tuple[CellPlan, ...]:
        """The cells with pools."""
        return tuple(cell for cell in self.cells if cell.pools)

    @property
    def edges(self) -> tuple[tuple[CellName, CellName], ...]:
        """Every (parent, child)."""
        return tuple((parent, cell.name) for cell in self.cells for parent in cell.parents)

    def with_cell(self, cell: CellPlan) -> "TopologyFile":
        """This tree and one cell more."""
        return check([*self.cells, cell], "topology")


def read(path: Path) -> TopologyFile:
    """The topology in a file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"topology file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadInput(f"topology file {path} is not UTF-8 text; write it anew") from None
    return parse(text, str(path))


def parse(text: str, where: str = "topology") -> TopologyFile:
    """The topology in a text; `where` names it in errors."""
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise BadInput(f"{where} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise BadInput(f"{where} must be a mapping with 'cells:', a list of cells")
    _only(raw, ("cells",), where)
    cells = raw.get("cells")
    if not isinstance(cells, list) or not cells:
        raise BadInput(f"{where}: cells must be a list with at least one cell, like '- name: east'")
    return check([_cell(each, f"{where}: cells[{number}]") for number, each in enumerate(cells)], where)


def check(cells: Iterable[CellPlan], where: str) -> TopologyFile:
    """These cells as one tree: roles and pool names filled in, everything that does not fit refused."""
    plans = list(cells)
    seen: dict[CellName, int] = {}
    for number, cell in enumerate(plans):
        if cell.name in seen:
            raise BadInput(
                f"{where}: cells[{number}].name: {cell.name!r} is cells[{seen[cell.name]}] already; "
                "give each cell a name of its own"
            )
        seen[cell.name] = number
    pools: dict[str, str] = {}
    done: list[CellPlan] = []
    for number, cell in enumerate(plans):
        place = f"{where}: cells[{number}] ({cell.name})"
        _check_parents(cell, seen, place)
        ready = dataclasses.replace(cell, role=_role(cell, place), pools=_named_pools(cell))
        if ready.role == API and ready.pools:
            raise BadInput(f"{place}: pools: an API cell has no hosts; put them in a compute cell below it")
        for pool in ready.pools:
            if pool.name in pools:
                raise BadInput(f"{place}: pools: {pool.name!r} is a pool of {pools[pool.name]} already; rename one")
            pools[pool.name] = cell.name
        done.append(ready)
    return TopologyFile(cells=_parents_first(done, where))


def dump(topology: TopologyFile) -> str:
    """The topology as a file that `read` takes."""
    cells = []
    for cell in topology.cells:
        raw: dict[str, Any] = {"name": cell.name, "role": cell.role}
        if cell.parents:
            raw["parents"] = list(cell.parents)
        if cell.pools:
            raw["pools"] = [dataclasses.asdict(pool) for pool in cell.pools]
        cells.append(raw)
    return yaml.safe_dump({"cells": cells}, sort_keys=False)


def default() -> TopologyFile:
    """Two API cells over two regions, three leaves of two hosts each; one leaf is under both regions."""
    pool = (PoolPlan(),)
    return check(
        [
            CellPlan(name="east"),
            CellPlan(name="west"),
            CellPlan(name="dfw", parents=("east", "west")),
            CellPlan(name="ord", parents=("east", "west")),
            CellPlan(name="dfw-1", parents=("dfw",), pools=pool),
            CellPlan(name="ord-1", parents=("ord",), pools=pool),
            CellPlan(name="shared-1", parents=("dfw", "ord"), pools=pool),
        ],
        "the default topology",
    )


def cycle_in(parents: Mapping[CellName, Iterable[CellName]]) -> tuple[CellName, ...]:
    """The cells of a ring, each before its child, if there is one among these parents by cell; empty if not."""
    sorter = graphlib.TopologicalSorter({name: tuple(above) for name, above in parents.items()})
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        return tuple(error.args[1])
    return ()


# --- within ---


def _cell(raw: Any, place: str) -> CellPlan:
    if not isinstance(raw, dict):
        raise BadInput(f"{place} must be a mapping, like 'name: dfw-1'")
    _only(raw, [field.name for field in dataclasses.fields(CellPlan)], place)
    if "name" not in raw:
        raise BadInput(f"{place}: name is missing; add it")
    try:
        name = cell_name(raw["name"])
    except BadInput as error:
        raise BadInput(f"{place}.name: {error}") from None
    for key in ("parents", "pools"):
        if not isinstance(raw.get(key, []), list):
            raise BadInput(f"{place} ({name}): {key} must be a list")
    pools = tuple(_pool(each, f"{place}.pools[{number}]") for number, each in enumerate(raw.get("pools", [])))
    parents = tuple(raw.get("parents", []))
    for number, parent in enumerate(parents):
        if not isinstance(parent, str):
            raise BadInput(f"{place}.parents[{number}] must be a cell's name, not {parent!r}")
    rest = {key: value for key, value in raw.items() if key not in ("parents", "pools")}
    return dataclasses.replace(fill(CellPlan, rest, place), parents=parents, pools=pools)


def _pool(raw: Any, place: str) -> PoolPlan:
    if not isinstance(raw, dict):
        raise BadInput(f"{place} must be a mapping, like 'hosts: 2'")
    _only(raw, [field.name for field in dataclasses.fields(PoolPlan)], place)
    pool = fill(PoolPlan, raw, place)
    if pool.name:
        try:
            cell_name(pool.name)
        except BadInput as error:
            raise BadInput(f"{place}.name: {str(error).replace('cell name', 'pool name')}") from None
    for key, least, most in (("hosts", 1, 200), ("ram_mib", 1024, 2**24), ("cpus", 1, 1024), ("disk_gib", 8, 2**20)):
        value = getattr(pool, key)
        if not least <= value <= most:
            raise BadInput(f"{place}.{key} is {value}; it must be {least} to {most}")
    if pool.sr not in ("ext", "nfs"):
        raise BadInput(f"{place}.sr is {pool.sr!r}; use ext (each host its own) or nfs (shared by the pool)")
    return pool


def _only(raw: Mapping[Any, Any], known: Iterable[str], place: str) -> None:
    names = list(known)
    for key in raw:
        if key not in names:
            raise BadInput(f"{place}: {key!r} is not known here{_near(str(key), names)}; there are: {', '.join(names)}")


def _near(word: str, words: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(words), n=1)
    return f", did you mean {found[0]!r}?" if found else ""


def _check_parents(cell: CellPlan, known: Mapping[CellName, int], place: str) -> None:
    for number, parent in enumerate(cell.parents):
        if parent not in known:
            raise BadInput(
                f"{place}: parents[{number}]: there is no cell {parent!r}{_near(parent, known)}; "
                f"there are: {', '.join(known)}"
            )
        if parent == cell.name:
            raise BadInput(f"{place}: parents[{number}]: a cell cannot be its own parent; that is a cycle, remove it")
        if parent in cell.parents[:number]:
            raise BadInput(f"{place}: parents[{number}]: {parent!r} is named twice; remove one")


def _role(cell: CellPlan, place: str) -> str:
    role = cell.role or (COMPUTE if cell.parents else API)
    if role not in (API, COMPUTE):
        raise BadInput(f"{place}: role is {role!r}; use api or compute, or leave it out")
    if role == API and cell.parents:
        raise BadInput(f"{place}: an API cell has no parents; remove them, or make it a compute cell")
    if role == COMPUTE and not cell.parents:
        raise BadInput(f"{place}: a compute cell needs at least one parent; name them under parents")
    return role


def _named_pools(cell: CellPlan) -> tuple[PoolPlan, ...]:
    several = len(cell.pools) > 1
    return tuple(
        dataclasses.replace(pool, name=pool.name or (f"{cell.name}-pool{number}" if several else cell.name))
        for number, pool in enumerate(cell.pools, start=1)
    )


def _parents_first(cells: list[CellPlan], where: str) -> tuple[CellPlan, ...]:
    parents = {cell.name: cell.parents for cell in cells}
    ring = cycle_in(parents)
    if ring:
        raise BadInput(f"{where}: cells: {' -> '.join(ring)} is a cycle; remove one of these parents")
    order = list(graphlib.TopologicalSorter(parents).static_order())
    depth: dict[CellName, int] = {}
    for name in order:
        depth[name] = 1 + max((depth[parent] for parent in parents[name]), default=0)
    return tuple(sorted(cells, key=lambda cell: depth[cell.name]))
