"""Placing: one decision over 10, 100 and 1,000 leaves of 200 hosts each, right after news of one leaf; and what taking
in every leaf's record costs the top: signatures checked, merged, saved."""

import random
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.rig.calibration import calibrate
from benchmarks.rig.cells import Tree, Wanted, open_tree
from benchmarks.rig.load import latencies
from benchmarks.rig.report import Report, options, shapes
from cells import codec, collector
from cells.identity import Identity, Keys, RootKey, Trust, new_key
from cells.messages import HelloUp, SignedCellRecord
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
from cells.rows import EdgeRow
from cells.store.sql import SqlStore
from routing.candidates import Candidates
from routing.neighbourhood import Neighbourhood
from routing.neighbours import hellos_up
from routing.place import Choice, choose
from routing.reservations import Reservation, Reservations
from routing.roster import Entry, Roster
from routing.topology import Topology
from routing.weights import PlacementSettings

NOW = 1_750_000_000 * SECOND
TICK = 10 * SECOND
MUTE = 60 * SECOND
MIDDLES = 10
HOSTS = 200
RESERVED = 200
_UNSIGNED = SignedCellRecord(certificate=b"", payload=b"", signature=b"")
FLAVORS = tuple(
    Flavor(id=str(n), name=str(n), vcpus=1 << n, ram_mib=1024 << n, disk_gib=20 << n) for n in range(6)
)  # fmt: skip


@dataclass(slots=True)
class Fleet:
    """Cell records of so many leaves under MIDDLES cells, hosts filled at random from one seed."""

    leaves: int
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    def middle(self, number: int, sequence: int = 1) -> CellRecord:
        generation = Generation(epoch=1, sequence=sequence)
        return CellRecord(
            name=f"mid-{number}", uuid=bytes(16), role="compute", generation=generation, at=NOW, parents=("top",)
        )

    def leaf(self, number: int, sequence: int) -> CellRecord:
        return CellRecord(
            name=f"leaf-{number}",
            uuid=bytes(16),
            role="compute",
            generation=Generation(epoch=1, sequence=sequence),
            at=NOW,
            parents=(f"mid-{number % MIDDLES}",),
            capacity=self._capacity(),
        )

    def edges(self) -> list[EdgeRow]:
        return [
            EdgeRow(
                neighbour=f"mid-{n}", parent=False, uuid=bytes(16), state=CellState.ENABLED, url=b"", heard=NOW
            )
            for n in range(MIDDLES)
        ]  # fmt: skip

    def _capacity(self) -> Capacity:
        draw = self.chance.randrange
        free = tuple(
            FreeShape(ram_mib=draw(131072), vcpus=draw(64), disk_gib=draw(2000), hosts=1) for _ in range(HOSTS)
        )
        return Capacity(classes=(HostClass(hypervisor_version="8.2", shapes=free),), hosts=HOSTS)


def main(words: Sequence[str] | None = None) -> None:
    parser = options("placement", words, __doc__ or "")
    parser.add_argument("--leaves", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--decisions", type=int, default=1500)
    asked = parser.parse_args(words)
    report = Report("placement")
    collector.calm()
    leaves = [10, 50] if asked.quick else asked.leaves
    for shape in shapes(asked):
        with open_tree(shape, Wanted(shape={"top": ()})) as tree:
            report.calibration(shape, calibrate(tree, count=50 if asked.quick else 200))
            # Deciding touches no server: it is the same in both shapes, and told once.
            if shape == shapes(asked)[0]:
                for count in leaves:
                    _decisions(report, count, 100 if asked.quick else asked.decisions)
            for count in leaves:
                _roll_up(report, shape, tree, count)
    report.table()


def _spec(flavor: Flavor) -> BuildSpec:
    return BuildSpec(name="bench", project="p", user="u", flavor=flavor, image=ImageRef(id="i"))


def _decisions(report: Report, leaves: int, decisions: int) -> None:
    fleet = Fleet(leaves)
    records = [fleet.leaf(n, 1) for n in range(leaves)] + [fleet.middle(n) for n in range(MIDDLES)]
    topology = Topology("top", mute_after=MUTE, edges=fleet.edges(), records=records)
    roster = Roster(Entry(record=record, signed=_UNSIGNED, arrived=NOW) for record in records)
    candidates = Candidates(topology, roster)
    reservations, settings = Reservations(), PlacementSettings()
    chance = random.Random(2)
    deciding, following, working, chosen = [], [], [], 0
    for number in range(decisions):
        spec = _spec(chance.choice(FLAVORS))
        news = Entry(record=fleet.leaf(chance.randrange(leaves), number + 2), signed=_UNSIGNED, arrived=NOW)
        began = time.perf_counter()
        roster, topology = roster.merge([news]), topology.changed(records=[news.record])
        candidates.follow(topology, roster)
        followed, worked = time.perf_counter(), time.thread_time()
        choice = choose(spec, candidates, reservations, settings, draw=chance.random(), now=NOW)
        deciding.append(time.perf_counter() - followed)
        working.append(time.thread_time() - worked)
        following.append(followed - began)
        if isinstance(choice, Choice):
            chosen += 1
            server = number.to_bytes(16, "big")
            reservations.reserve(
                Reservation(server=server, attempt=1, leaf=choice.leaf, room=choice.demand.room, expires=NOW)
            )
            if number >= RESERVED:
                reservations.release((number - RESERVED).to_bytes(16, "big"), 1)
    news_ms, cpu_ms = latencies(following), latencies(working)
    report.figures(
        "pure",
        what="decision",
        leaves=leaves,
        hosts=leaves * HOSTS,
        **latencies(deciding),
        cpu_median_ms=cpu_ms["median_ms"],
        cpu_p99_ms=cpu_ms["p99_ms"],
        news_median_ms=news_ms["median_ms"],
        news_p99_ms=news_ms["p99_ms"],
        done=decisions,
        chosen=chosen,
    )


class _Signer:
    """Keys of many cells under one root."""

    def __init__(self) -> None:
        self._chance = random.Random(3)
        self._root = RootKey(self._chance.randbytes(32))
        self.trust = Trust(self._root.public)
        self._known: dict[CellName, Identity] = {}

    def sign(self, record: CellRecord) -> SignedCellRecord:
        who = self._known.get(record.name)
        if who is None:
            seed, public = new_key(self._chance.randbytes)
            certificate = self._root.certify(record.name, record.uuid, record.role, public, NOW)
            who = self._known[record.name] = Identity(Keys(seed=seed), certificate, self.trust)
        return who.cell_record(record)


def _rounds(fleet: Fleet, signer: _Signer, rounds: int) -> Iterator[list[tuple[CellName, bytes]]]:
    """What the middles send in each round, in wire form."""
    for sequence in range(1, rounds + 1):
        sent = []
        for middle in range(MIDDLES):
            own = signer.sign(fleet.middle(middle, sequence))
            entries = []
            for number in range(middle, fleet.leaves, MIDDLES):
                record = fleet.leaf(number, sequence)
                entries.append(Entry(record=record, signed=signer.sign(record), arrived=NOW))
            sent += [(f"mid-{middle}", codec.pack(body)) for body in hellos_up(own, entries)]
        yield sent


def _roll_up(report: Report, shape: str, tree: Tree, leaves: int) -> None:
    fleet, signer = Fleet(leaves), _Signer()
    store = SqlStore(tree.places["calibration"].database)
    store.create_all()
    top = Neighbourhood("top", api=True, mute_after=MUTE, verify=signer.trust.cell_record)
    try:
        with store.unit() as unit:
            unit.save(*fleet.edges())
            top.load(unit, NOW)
        cpu: list[float] = []
        bytes_sent = 0
        for number, sent in enumerate(_rounds(fleet, signer, 5)):
            bytes_sent = sum(len(body) for _, body in sent)
            began = _cpu()
            for middle, body in sent:
                _take_in(store, top, middle, body, NOW + number * TICK)
            assert top.candidates is not None
            top.hellos(None, NOW + number * TICK, lambda: bytes(16))
            cpu.append(_cpu() - began)
    finally:
        store.close()
    # The first round also meets every certificate for the first time.
    each = sorted(cpu[1:])[len(cpu) // 2 - 1]
    report.figures(
        shape,
        what="roll-up",
        leaves=leaves,
        hosts=leaves * HOSTS,
        cpu_ms_round=1000 * each,
        first_ms_round=1000 * cpu[0],
        core_percent_at_10_s=100 * each / 10,
        kib_round=bytes_sent // 1024,
    )


def _take_in(store: SqlStore, top: Neighbourhood, middle: CellName, data: bytes, now: int) -> None:
    body: Any = codec.unpack(HelloUp, data)
    record = Record(id=bytes(16), body=body, origin=middle, destination="top")
    with store.unit() as unit:
        unit.save(*top.decide(unit, Received(record=record, neighbour=middle), now).save)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(sys.argv[1:])
