"""The tree that is measured, as values: every cell's configuration and edges, for either shape."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cells.config import CellConfig
from cells.house import system_clock
from cells.identity import RootKey, new_key
from cells.names import CellName

# Three hops down: the API cell, two cells that relay, the leaf.
CHAIN: Mapping[CellName, Sequence[CellName]] = {"top": (), "upper": ("top",), "lower": ("upper",), "leaf": ("lower",)}
TICK = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """One end of an edge, as the cell at that end is told of it."""

    neighbour: CellName
    parent: bool
    uuid: bytes
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPlan:
    """All that is needed to run one cell. `hosts`: how many light hosts it has in its own process. `bare`: nothing is
    added to what a daemon has, so that its memory can be measured."""

    config: CellConfig
    edges: tuple[Edge, ...]
    hosts: int = 0
    bare: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a cell keeps and receives: the URLs of its database and its broker."""

    database: str
    broker: str


def plan_tree(
    places: Mapping[CellName, Place],
    *,
    shape: Mapping[CellName, Sequence[CellName]] = CHAIN,
    hosts: int = 0,
    images: str = "",
    listen: bool = False,
    threads: int = 8,
    tick: float = TICK,
    bare: bool = False,
    front: Mapping[str, object] | None = None,
) -> dict[CellName, CellPlan]:
    """Certify every cell of the shape. The cells that are nobody's parent have hosts; API cells serve REST if `listen`,
    with their images in the folder `images` and these further settings of their `front`."""
    root = RootKey(os.urandom(32))
    parents = {parent for above in shape.values() for parent in above}
    uuids = {name: os.urandom(16) for name in shape}
    plans = {}
    for name, above in shape.items():
        role = "compute" if above else "api"
        seed, public = new_key(os.urandom)
        config = CellConfig(
            cell=name,
            role=role,
            database=places[name].database,
            broker=places[name].broker,
            key=seed.hex(),
            certificate=root.certify(name, uuids[name], role, public, system_clock()).hex(),
            root=root.public.hex(),
            tick=tick,
            threads=threads,
            listen="127.0.0.1:0" if listen and role == "api" else "",
            settings=_settings(role, images, front or {}),
        )
        edges = [Edge(neighbour=each, parent=True, uuid=uuids[each], url=places[each].broker) for each in above]
        edges += [
            Edge(neighbour=each, parent=False, uuid=uuids[each], url=places[each].broker)
            for each, its in shape.items()
            if name in its
        ]
        own_hosts = hosts if above and name not in parents else 0
        plans[name] = CellPlan(config=config, edges=tuple(edges), hosts=own_hosts, bare=bare)
    return plans


def _settings(role: str, images: str, front: Mapping[str, object]) -> dict[str, object]:
    if role == "compute":
        return {"clean_seconds": 0.0}
    quota = {"servers": -1, "vcpus": -1, "ram_mib": -1}
    limits = {"requests_per_second": 0, "waiting": 0, "waiting_in_all": 0}
    return {"front": {"images": images, "quota": quota, "limits": limits, **front}} if images else {}
