"""Loads that are put on a cell from inside its own process: commands at the top, updates at the leaf.

A role is wrapped: it takes two further kinds of record and leaves the rest to the role itself. The command is the
plainest there can be: durable at its origin, signed, and at the leaf the server's row is read, changed and saved.
"""

import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from api_cell.rows import Phase as Placing
from api_cell.rows import ServerRow
from api_cell.status import settle
from cells import codec
from cells.decision import NOTHING, Decision, Wake
from cells.house import Cell, House
from cells.messages import Ack, Direction, record
from cells.model import BuildSpec, Flavor, ImageRef, InstanceState, PowerState, VmState
from cells.names import SECOND, CellName, Instant
from cells.ports import View
from cells.record import Received, Record
from cells.rows import WakeRow
from compute_cell.answers import Here
from compute_cell.rows import InstanceRow, Phase

FLAVOR = Flavor(id="1", name="m1.tiny", vcpus=1, ram_mib=512, disk_gib=1)
LIMIT_SECONDS = 30.0


@record("bench.ask", direction=Direction.LOCAL)
@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Begin so many further commands or updates."""

    count: int


@record("bench.command", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Change the row of a server at its leaf."""


def server_id(number: int) -> bytes:
    """The id of the server with this number, the same in every process."""
    return hashlib.blake2b(number.to_bytes(8, "big"), digest_size=16).digest()


def spec_of(name: str, project: str = "local") -> BuildSpec:
    return BuildSpec(name=name, project=project, user="local", flavor=FLAVOR, image=ImageRef(id="none"))


def state_of(host: str = "host-1") -> InstanceState:
    return InstanceState(vm_state=VmState.ACTIVE, power_state=PowerState.RUNNING, flavor=FLAVOR, host=host)


def server_rows(first: int, last: int, leaf: CellName, now: Instant) -> list[ServerRow]:
    """Servers as the API cell has them."""
    return [
        settle(
            ServerRow(
                id=server_id(number),
                project="local",
                user="local",
                name=f"server-{number}",
                created=now + number,
                updated=now + number,
                request="req-bench",
                status="",
                vm_state="",
                phase=Placing.GRANTED,
                leaf=leaf,
                attempt=1,
                version=1,
                number=1,
                finished=1,
                spec=spec_of(f"server-{number}"),
                state=state_of(),
                heard=now,
            )
        )
        for number in range(first, last)
    ]


def instance_rows(first: int, last: int, owner: CellName, now: Instant) -> list[InstanceRow]:
    """The same servers as their leaf has them."""
    return [
        InstanceRow(
            id=server_id(number),
            owner=owner,
            request="req-bench",
            attempt=1,
            phase=Phase.GRANTED,
            version=1,
            unseen=False,
            updated=now,
            host="",
            pool="",
            spec=spec_of(f"server-{number}"),
            state=state_of(),
            number=1,
        )
        for number in range(first, last)
    ]


class Loaded:
    """A role that also takes the kinds above. Made once a cell; a load in progress is put into `under`."""

    def __init__(self, house: House, cell: Cell) -> None:
        self.house = house
        self.cell = cell
        self.under: CommandLoad | UpdateLoad | None = None
        self._role: Any = cell.role
        cell.node.deciding.role = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._role, name)

    def decide(self, view: View, received: Received, now: Instant) -> Decision:
        body = received.record.body
        if isinstance(body, Ask):
            return self.under.begin(view, body.count, now) if self.under is not None else NOTHING
        if isinstance(body, Command):
            row = view.get(InstanceRow, received.record.server)
            return NOTHING if row is None else Decision(save=(replace(row, number=row.number + 1, updated=now),))
        decision: Decision = self._role.decide(view, received, now)
        if isinstance(body, Ack) and isinstance(self.under, UpdateLoad):
            decision += self.under.seen(body.seen, now)
        return decision

    def ask(self, count: int, now: Instant) -> Record:
        """The record that begins so many."""
        return Record(id=self.house.new_id(), body=Ask(count=count), origin=self.cell.name, destination=self.cell.name)


class _Measured:
    """The clockwork of a closed loop: so many in flight until the time is over, then until all have ended."""

    def __init__(self, loaded: Loaded, in_flight: int, seconds: float, servers: int) -> None:
        self.loaded = loaded
        self._in_flight = in_flight
        self._servers = servers
        self._seconds = seconds
        self._until = 0.0
        self._next = 0
        self._began: dict[Any, float] = {}
        self._took: list[float] = []
        self._over = threading.Event()

    def run(self) -> Mapping[str, Any]:
        """Put the load on; gives what it came to. Called in a thread that is not the cell's."""
        began = time.perf_counter()
        self._until = began + self._seconds
        self.loaded.under = self  # type: ignore[assignment]  # only the two kinds below are ever made
        self._wish(self._in_flight)
        done = self._over.wait(self._seconds + LIMIT_SECONDS)
        self.loaded.under = None
        took = time.perf_counter() - began
        return {"done": len(self._took), "seconds": took, "complete": done, **latencies(self._took)}

    def _servers_next(self, count: int) -> list[bytes]:
        first, self._next = self._next, self._next + count
        return [server_id((first + n) % self._servers) for n in range(count)]

    def _ended(self, keys: Sequence[Any]) -> int:
        """Note what has ended; how many to begin in their place."""
        now = time.perf_counter()
        ended = [began for key in keys if (began := self._began.pop(key, None)) is not None]
        self._took += [now - began for began in ended]
        if now < self._until:
            return len(ended)
        if not self._began:
            self._over.set()
        return 0

    def _wish(self, count: int) -> None:
        """As a front door does: a wake that is due at once, saved, and the loop poked."""
        cell = self.loaded.cell
        now = self.loaded.house.clock()
        data = codec.pack_record(self.loaded.ask(count, now))
        with cell.store.unit() as unit:
            unit.save(WakeRow(id=self.loaded.house.new_id(), shard=0, due=now, data=data))
        cell.node.poke()


class CommandLoad(_Measured):
    """Commands from here to a leaf; one has ended when the leaf's acknowledgement is committed here."""

    def __init__(self, loaded: Loaded, leaf: CellName, in_flight: int, seconds: float, servers: int) -> None:
        super().__init__(loaded, in_flight, seconds, servers)
        self._leaf = leaf

    def run(self) -> Mapping[str, Any]:
        self.loaded.cell.node.acknowledged = self._acknowledged
        try:
            return super().run()
        finally:
            self.loaded.cell.node.acknowledged = None

    def begin(self, view: View, count: int, now: Instant) -> Decision:
        name, new_id = self.loaded.cell.name, self.loaded.house.new_id
        records = tuple(
            Record(
                id=new_id(),
                body=Command(),
                origin=name,
                destination=self._leaf,
                server=server,
                deadline=now + 600 * SECOND,
                request="req-bench",
            )
            for server in self._servers_next(count)
        )
        self._began |= dict.fromkeys((each.id for each in records), time.perf_counter())
        return Decision(send=records)

    def _acknowledged(self, ids: Sequence[bytes]) -> None:
        more = self._ended(ids)
        if more:
            self._wish(more)


class UpdateLoad(_Measured):
    """Instances change here, at the leaf; an update has ended when the owner says that it has saved that version."""

    def __init__(self, loaded: Loaded, in_flight: int, seconds: float, servers: int) -> None:
        super().__init__(loaded, in_flight, seconds, servers)
        self._here = Here(name=loaded.cell.name, new_id=loaded.house.new_id)

    def begin(self, view: View, count: int, now: Instant) -> Decision:
        keys = [(server,) for server in self._servers_next(count)]
        rows = view.get_many(InstanceRow, keys)
        decision = NOTHING
        save: list[Any] = []
        send: list[Record] = []
        for row in rows.values():
            changed = self._here.changed(row, now, progress=(row.state.progress + 1) % 100)
            save += changed.save
            send += changed.send
            self._began[row.id, row.version + 1] = time.perf_counter()
        return decision.but(save=tuple(save), send=tuple(send))

    def seen(self, pairs: Sequence[tuple[bytes, int]], now: Instant) -> Decision:
        more = self._ended([tuple(pair) for pair in pairs])
        if not more:
            return NOTHING
        return Decision(wake=(Wake(due=now, record=self.loaded.ask(more, now)),))


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile in milliseconds."""
    if not seconds:
        return {"median_ms": 0.0, "p99_ms": 0.0}
    ordered = sorted(seconds)
    return {
        "median_ms": 1000 * ordered[len(ordered) // 2],
        "p99_ms": 1000 * ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
    }
