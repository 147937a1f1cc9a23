"""Trees for tests of routing: cells, edges and records said in few words, rows in a dict, and a whole tree of cells
that exchange hellos in memory."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cells.codec import pack, unpack
from cells.errors import BadInput
from cells.messages import SignedCellRecord
from cells.model import (
    BuildSpec,
    Capacity,
    CellRecord,
    CellState,
    Flavor,
    FreeShape,
    Generation,
    HostClass,
    ImageRef,
)
from cells.names import SECOND, CellName
from cells.record import Received, Record
from cells.rows import EdgeRow, RosterRow, key_of
from routing.neighbourhood import Neighbourhood
from routing.roster import Entry

NOW = 1_700_000_000 * SECOND
MUTE = 60 * SECOND
TICK = 10 * SECOND


def an_edge(neighbour: CellName, *, parent: bool = False, heard: int = NOW, **fields: Any) -> EdgeRow:
    fields = {"uuid": uuid_of(neighbour), "state": CellState.ENABLED, "url": b"", **fields}
    return EdgeRow(neighbour=neighbour, parent=parent, heard=heard, **fields)


def uuid_of(name: CellName) -> bytes:
    return name.encode().ljust(16, b".")[:16]


def a_capacity(*shapes: FreeShape, servers: int = 0, **of_class: Any) -> Capacity:
    shapes = shapes or (FreeShape(ram_mib=8192, vcpus=8, disk_gib=100, hosts=1),)
    hosts = sum(shape.hosts for shape in shapes)
    return Capacity(classes=(HostClass(shapes=shapes, **of_class),), hosts=hosts, servers=servers)


def a_record(
    name: CellName,
    *parents: CellName,
    sequence: int = 1,
    epoch: int = 1,
    capacity: Capacity | None = None,
    **fields: Any,
) -> CellRecord:
    return CellRecord(
        name=name,
        uuid=fields.pop("uuid", uuid_of(name)),
        role=fields.pop("role", "compute"),
        generation=Generation(epoch=epoch, sequence=sequence),
        at=0,
        parents=parents,
        capacity=capacity,
        **fields,
    )


def signed(record: CellRecord) -> SignedCellRecord:
    return SignedCellRecord(certificate=record.name.encode(), payload=pack(record), signature=b"good")


def verify(words: SignedCellRecord) -> CellRecord:
    if words.signature != b"good":
        raise BadInput("not signed by it")
    record: CellRecord = unpack(CellRecord, words.payload)
    return record


def an_entry(record: CellRecord, arrived: int = NOW) -> Entry:
    return Entry(record=record, signed=signed(record), arrived=arrived)


def a_spec(*, vcpus: int = 1, ram_mib: int = 1024, disk_gib: int = 10, **fields: Any) -> BuildSpec:
    flavor = Flavor(
        id="f", name="f", vcpus=vcpus, ram_mib=ram_mib, disk_gib=disk_gib, extra_specs=fields.pop("extra_specs", {})
    )
    image = ImageRef(id="i", properties=fields.pop("properties", {}))
    return BuildSpec(name="s", project=fields.pop("project", "p"), user="u", flavor=flavor, image=image, **fields)


class Rows:
    """A View on rows in a dict, as far as routing reads: by key, and all of a type."""

    def __init__(self, *rows: Any) -> None:
        self.rows: dict[tuple[type, tuple[Any, ...]], Any] = {}
        self.save(rows)

    def save(self, rows: Iterable[Any]) -> None:
        for row in rows:
            self.rows[type(row), key_of(row)] = row

    def get(self, row: type, *key: Any) -> Any:
        return self.rows.get((row, key))

    def get_many(self, row: type, keys: Sequence[tuple[Any, ...]]) -> dict[tuple[Any, ...], Any]:
        return {key: self.rows[row, key] for key in keys if (row, key) in self.rows}

    def all(self, row: type) -> tuple[Any, ...]:
        return tuple(value for (kind, _), value in self.rows.items() if kind is row)

    def find(self, row: type, *where: Any, **asked: Any) -> tuple[Any, ...]:
        raise NotImplementedError

    def count(self, row: type, *where: Any) -> int:
        raise NotImplementedError


@dataclass
class Cell:
    """One cell: its rows, its memory, its counter."""

    name: CellName
    rows: Rows
    tree: Neighbourhood
    hosts: bool = False
    sequence: int = 0
    notes: list[str] = field(default_factory=list)


class Forest:
    """Cells that tell each other hellos, in memory. `parents` of each cell; a cell without any is an API cell."""

    def __init__(self, parents: Mapping[CellName, Iterable[CellName]]) -> None:
        self.now = NOW
        self.links = {(parent, child) for child, named in parents.items() for parent in named}
        self.silent: set[tuple[CellName, CellName]] = set()
        self.cells: dict[CellName, Cell] = {}
        self._ids = 0
        inner = {parent for parent, _ in self.links}
        for name in parents:
            rows = Rows(
                *(an_edge(parent, parent=True, heard=0) for parent, child in self.links if child == name),
                *(an_edge(child, heard=0) for parent, child in self.links if parent == name),
            )
            self.cells[name] = Cell(name=name, rows=rows, tree=self._fresh(name), hosts=name not in inner)
            self.restart(name)

    def _fresh(self, name: CellName) -> Neighbourhood:
        api = not any(child == name for _, child in self.links)
        return Neighbourhood(name, api=api, mute_after=MUTE, verify=verify)

    def restart(self, name: CellName) -> None:
        """A daemon of the cell starts again, with the rows it has."""
        cell = self.cells[name]
        cell.tree = self._fresh(name)
        cell.tree.load(cell.rows, self.now)

    def wipe(self, name: CellName) -> None:
        """The cell loses its roster."""
        cell = self.cells[name]
        cell.rows.rows = {key: row for key, row in cell.rows.rows.items() if key[0] is not RosterRow}
        self.restart(name)

    def tick(self, name: CellName) -> list[Record]:
        cell = self.cells[name]
        cell.sequence += 1
        own = a_record(
            name,
            *cell.tree.topology.parents_heard(self.now),
            sequence=cell.sequence,
            capacity=a_capacity() if cell.hosts else None,
        )
        sent = list(cell.tree.hellos(signed(own), self.now, self._new_id).send)
        for record in sent:
            if not self.is_silent(name, record.destination):
                self.deliver(record)
        return sent

    def deliver(self, record: Record) -> None:
        cell = self.cells[record.destination]
        decision = cell.tree.decide(cell.rows, Received(record=record), self.now)
        cell.rows.save(decision.save)
        cell.notes.extend(decision.notes)

    def round(self, times: int = 1) -> None:
        """Every cell ticks once, `times` times."""
        for _ in range(times):
            self.now += TICK
            for name in sorted(self.cells):
                self.tick(name)

    def is_silent(self, one: CellName, other: CellName) -> bool:
        return bool({(one, other), (other, one)} & self.silent)

    def walk(self, source: CellName, destination: CellName) -> list[CellName]:
        """The way a packet takes when each cell gives it to its best next hop. A silent edge may be tried only where
        the destination is next door, and then the next best is taken, as a publisher does that is not confirmed."""
        way = [source]
        while way[-1] != destination:
            here = way[-1]
            hops = self.cells[here].tree.next_hops(destination, self.now)
            if hops and hops[0] == destination and self.is_silent(here, destination):
                hops = hops[1:]
            if not hops or self.is_silent(here, hops[0]) or len(way) > len(self.cells):
                return []
            way.append(hops[0])
        return way

    def _new_id(self) -> bytes:
        self._ids += 1
        return self._ids.to_bytes(16, "big")
