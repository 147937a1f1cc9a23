"""One simulated run: a heap of things to happen in virtual time, and the cells they happen to.

The cells run their own loops; this is their clock, their network, their hosts, and whatever happens to them. After
every event the invariants that hold at every moment are checked of the cells that have committed something; after the
plan's time all heals, the tree comes to rest, and then the others are.
"""

import hashlib
import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from cells.audit import Audit
from cells.config import CellConfig, identity
from cells.decision import Decision
from cells.errors import CelltreeError
from cells.house import Cell, role_class
from cells.identity import Identity, RootKey, new_key
from cells.messages import RefusalCode, Refused
from cells.model import CellState
from cells.names import SECOND, CellName, Instant, id_text
from cells.parts import part
from cells.record import NO_SERVER, Received
from cells.rows import MACHINERY
from cells.simulation import administration, resting
from cells.simulation.house import AnySimulatedStore, Build, SimulatedHouse
from cells.simulation.invariants import Breach, Known, Memory, Rest, a_disk_remains, at_every_step, at_rest
from cells.simulation.mishaps import HAPPEN
from cells.simulation.network import Network
from cells.simulation.plan import Ask, Mishap, Plan, wanted
from cells.simulation.strands import Crew, Killed
from cells.store.dicts import DictStore
from cells.store.sql import SqlStore

START: Instant = 1_750_000_000 * SECOND
PATIENCE = 1500.0
LOOK_EVERY = 5.0
TICK = 3.0
_LINES = 6000
_MACHINERY = frozenset(MACHINERY)
_TAKES_DISKS = frozenset({"VDI.destroy", "VM.destroy"})


@dataclass(slots=True, kw_only=True)
class Daemon:
    """One running daemon."""

    name: str
    cell: Cell
    crew: Crew
    frozen: bool = False
    due: float = -1.0


@dataclass(slots=True, kw_only=True)
class Trap:
    """A crash that waits for a step: it springs at the nth from now."""

    step: str
    left: int


@dataclass(slots=True, kw_only=True)
class Place:
    """A cell as it outlives its daemons. `host_fault`, `database_fault`: how likely a call or a unit fails. `skew`: by
    how many seconds its clock is wrong."""

    name: CellName
    config: CellConfig
    store: AnySimulatedStore
    outside: DictStore | SqlStore
    pool: Any = None
    ground: Any = None
    desk: Any = None
    traps: list[Trap] = field(default_factory=list)
    decided: list[tuple[Received, Decision]] = field(default_factory=list)
    host_fault: float = 0.0
    database_fault: float = 0.0
    skew: float = 0.0
    slow: bool = False
    hosts_down: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run. `breach` is None when every promise was kept. `ended`: virtual seconds until rest."""

    plan: Plan
    breach: Breach | None
    trace: str
    events: int
    ended: float
    counts: Counter[str]
    lines: tuple[str, ...] = ()


class World:
    """Runs a plan once. `tell`: keep the lines of what happened, for the story of a failure. `patience`: for how many
    virtual seconds after all has healed things may still be going on."""

    def __init__(
        self, plan: Plan, build: Build | None = None, *, tell: bool = False, patience: float = PATIENCE
    ) -> None:
        self.patience = patience
        self.plan = plan
        self.build = build or Build()
        self.time = 0.0
        self.events = 0
        self.counts: Counter[str] = Counter()
        self.memory = Memory()
        self.lines: deque[str] = deque(maxlen=_LINES)
        self.healed = False
        self._over = False
        self._rest: float | None = None
        self._tell = tell
        self._hash = hashlib.blake2b(digest_size=16)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._doomed: list[str] = []
        self._dirty: dict[CellName, None] = {}
        self._breach: Breach | None = None
        self.chance = random.Random(f"celltree world {plan.seed}")
        self.random_bytes = random.Random(f"celltree bytes {plan.seed}").randbytes
        self.network = Network(random.Random(f"celltree network {plan.seed}"), self.later, self.wake)
        self.network.note = self.note
        self.network.acks_early = self.build.acks_early
        self.network.before_ack = lambda cell: self._step(cell, "before ack")
        self.house = SimulatedHouse(self.build, clock=self.clock, random_bytes=self.random_bytes, network=self.network)
        self.places: dict[CellName, Place] = {}
        self.daemons: dict[str, Daemon] = {}
        self.edges = {(parent, child) for child, parents in plan.shape.items() for parent in parents}
        self.servers: dict[int, tuple[Ask, bytes]] = {}
        self.audits: dict[CellName, Audit] = {}
        self.changed_edges: set[tuple[CellName, CellName]] = set()
        self.backups: dict[CellName, tuple[Any, Known]] = {}
        self._make()

    # --- the run ---

    def run(self) -> Outcome:
        try:
            for ask in self.plan.asks:
                self.at(ask.at, partial(self.ask, ask))
            for mishap in self.plan.mishaps:
                self.at(mishap.at, partial(self.strike, mishap))
            self.at(self.plan.seconds, self.heal)
            self.at(self.plan.seconds + LOOK_EVERY, self._look)
            limit = self.plan.seconds + self.patience
            while self._heap and self._breach is None and not self._over and self.time < limit:
                self._next()
            if self._breach is None and not self._over:
                self._breach = resting.not_at_rest(self)
        finally:
            self.close()
        return Outcome(
            plan=self.plan,
            breach=self._breach,
            trace=self._hash.hexdigest(),
            events=self.events,
            ended=self.time,
            counts=self.counts + self.network.counts,
            lines=tuple(self.lines),
        )

    def _next(self) -> None:
        self.time, _, act = heapq.heappop(self._heap)
        self.events += 1
        act()
        while self._doomed:
            self.crash(self._doomed.pop(), self.chance.uniform(0.2, 6.0))
        if self._dirty:
            self._check()

    def close(self) -> None:
        """End every strand."""
        for daemon in self.daemons.values():
            self.counts["resent"] += daemon.cell.node.counts["resent"]
            daemon.crew.shutdown()
        for place in self.places.values():
            place.store.close()
            place.outside.close()

    # --- time ---

    def clock(self) -> Instant:
        return START + int(self.time * SECOND)

    def clock_of(self, place: Place) -> Instant:
        """What time a cell takes it to be."""
        return self.clock() + int(place.skew * SECOND)

    def at(self, time: float, act: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (max(time, self.time), self._order, act))

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        self.at(self.time + seconds, act)

    def note(self, line: str) -> None:
        """A line of the trace."""
        self._hash.update(f"{self.time:.6f} {line}\n".encode())
        if self._tell:
            self.lines.append(f"{self.time:10.3f}  {line}")

    # --- cells ---

    def _make(self) -> None:
        root = RootKey(self.random_bytes(32))
        for name, above in self.plan.shape.items():
            self.places[name] = self._place(name, root, "compute" if above else "api")
            for daemon in self.daemons_of(name):
                self.open(daemon)
        for parent, child in sorted(self.edges):
            administration.add_edge(self, parent, child)

    def _place(self, name: CellName, root: RootKey, role: str) -> Place:
        seed, public = new_key(self.random_bytes)
        certificate = root.certify(name, self.house.new_id(), role, public, self.clock())
        settings: dict[str, Any] = {"mute_after": 15.0}
        if role == "compute":
            settings |= {"measure_every": 20.0, "digest_every": 10.0, "clean_seconds": 0.0, "watch_all_every": 60.0}
            settings["when_host_dies"] = "evacuate" if name in self.plan.evacuating else "ask"
        else:
            settings |= {"attempt_time": 8, "command_time": 30}
        url = f"dict://{id(self)}-{name}"
        config = CellConfig(
            cell=name,
            role=role,
            database=url,
            broker=f"memory://{name}",
            key=seed.hex(),
            certificate=certificate.hex(),
            root=root.public.hex(),
            tick=TICK,
            threads=0,
            settings=settings,
        )
        rows = role_class(role).rows
        store, outside = self.build.stores(f"{id(self)}-{name}", rows)
        store.create_all()
        place = Place(name=name, config=config, store=store, outside=outside)
        store.step = partial(self._step, name)
        store.fails = partial(self._database_fails, place)
        store.begun = place.decided.clear
        store.committed = partial(self._committed, place)
        if name in self.plan.hosts:
            number = int.from_bytes(hashlib.blake2b(f"{self.plan.seed} {name}".encode(), digest_size=4).digest(), "big")
            shared = name in self.plan.shared
            place.pool = part("light_pool")(name, self.plan.hosts[name], number, lambda: self.clock() / SECOND, shared)
            place.ground = part("hosts")(place.outside)
            place.pool.uploaded = self._uploaded
        if role == "api":
            poke = partial(self.poke, name)
            place.desk = part("desk")(name, place.outside, self.clock, self.house.new_id, poke)
        return place

    def daemons_of(self, cell: CellName) -> tuple[str, ...]:
        """Those that run as long as nothing happens to them."""
        return (cell, f"{cell}/b") if cell in self.plan.doubled else (cell,)

    def open(self, name: str) -> Daemon:
        """Start a daemon (CELL or CELL/DAEMON) over its cell's store."""
        cell_name, _, daemon = name.partition("/")
        place = self.places[cell_name]
        config = replace(place.config, daemon=daemon) if daemon else place.config
        crew = Crew(self.later, partial(self.wake, cell_name))
        self.house.crew = crew
        faces = {}
        if place.pool is not None:
            around = partial(self._around, place, crew)
            faces[cell_name] = lambda: place.pool.session(around, crew.sleep, self.build.blind)
        steps, place.store.step = place.store.step, lambda _: None
        fails, place.store.fails = place.store.fails, lambda: ""
        self.house.clock = partial(self.clock_of, place)
        cell = self.house.open(config, store=place.store, faces=faces)
        self.house.clock = self.clock
        place.store.step, place.store.fails = steps, fails
        cell.node.deciding.trace = partial(self._decided, place)
        if place.desk is not None:
            place.desk.serve(cell.role)
        if place.pool is not None and not daemon and self.time == 0:
            with place.outside.unit() as unit:
                part("pool")(
                    unit,
                    cell.identity,
                    self.random_bytes,
                    name=cell_name,
                    url=f"light:{cell_name}",
                    user="root",
                    password="xen",
                )
        found = self.daemons[name] = Daemon(name=name, cell=cell, crew=crew)
        self.counts["starts"] += 1
        self.note(f"start {name}")
        self._schedule(found, 0.001)
        return found

    def crash(self, name: str, back_after: float | None) -> None:
        """kill -9; started again after so many seconds, if at all."""
        daemon = self.daemons.pop(name, None)
        if daemon is None:
            return
        self.note(f"crash {name}")
        self.counts["crashes"] += 1
        self.counts["resent"] += self.house.kill(name).node.counts["resent"]
        if back_after is not None and name in self.daemons_of(name.partition("/")[0]):
            self.later(back_after, partial(self.back, name))

    def back(self, name: str) -> None:
        if name not in self.daemons:
            self.open(name)

    def doom(self, name: str) -> None:
        """Crash it when this event is over."""
        self._doomed.append(name)

    def identity(self, name: CellName) -> Identity:
        return identity(self.places[name].config)

    # --- turns ---

    def wake(self, cell: CellName) -> None:
        """There is something for this cell's daemons."""
        for name in (cell, f"{cell}/b"):
            daemon = self.daemons.get(name)
            if daemon is not None and not daemon.frozen:
                self._schedule(daemon, self.chance.uniform(0.0001, 0.003))

    def poke(self, cell: CellName) -> None:
        for name in (cell, f"{cell}/b"):
            if name in self.daemons:
                self.daemons[name].cell.node.poke()
        self.wake(cell)

    def _schedule(self, daemon: Daemon, seconds: float) -> None:
        due = self.time + seconds
        if daemon.due < 0 or due < daemon.due:
            daemon.due = due
            self.at(due, partial(self._turn, daemon, due))

    def _turn(self, daemon: Daemon, due: float) -> None:
        if daemon.due != due or self.daemons.get(daemon.name) is not daemon or daemon.frozen:
            return
        daemon.due = -1.0
        self.counts["turns"] += 1
        try:
            busy = daemon.cell.node.step()
        except Killed:
            self.doom(daemon.name)
            return
        self._schedule(daemon, self.chance.uniform(0.0005, 0.003) if busy else self.chance.uniform(0.6, 2.0))

    # --- what tenants ask ---

    def ask(self, ask: Ask) -> None:
        place = self.places[ask.api]
        request = f"req-{ask.server}-{self.counts['asked']}"
        self.counts["asked"] += 1
        if ask.action == "next" and ask.server in self.servers:
            status = self.places[ask.api].desk.status(self.servers[ask.server][1])
            ask = replace(ask, action=wanted(status, ask.draw))
        try:
            if ask.action == "create":
                server = place.desk.create(ask.project, f"vm-{ask.server}", ask.argument, request)
                self.servers[ask.server] = (ask, server)
                self.memory.accepted[server] = ask.api
                self.counts["builds"] += 1
            elif ask.server in self.servers:
                created, server = self.servers[ask.server]
                self.places[created.api].desk.act(created.project, server, ask.action, ask.argument, request)
                if ask.action == "delete":
                    self.memory.deleted.add(server)
                self.counts[f"asked {ask.action}"] += 1
            self.note(f"{ask.api} {ask.action} vm-{ask.server}: accepted")
        except CelltreeError as error:
            self.counts["refused at the door"] += 1
            self.note(f"{ask.api} {ask.action} vm-{ask.server}: {error}")

    # --- what goes wrong ---

    def strike(self, mishap: Mishap) -> None:
        self.note(f"! {mishap}")
        self.counts[f"fault {mishap.fault.value}"] += 1
        HAPPEN[mishap.fault](self, mishap)

    def heal(self) -> None:
        """From now on nothing goes wrong any more."""
        self.healed = True
        self.note("heal")
        self.network.heal()
        for place in self.places.values():
            place.traps.clear()
            place.host_fault = place.database_fault = 0.0
            place.slow = place.hosts_down = False
            place.skew = 0.0
            exchange = self.network.exchange(place.name)
            if not exchange.running:
                exchange.start()
            if place.pool is not None:
                administration.set_state(self, place.name, CellState.ENABLED)
                for host in place.pool.bring_all_back():
                    place.ground.confirm_dead(host, False)
        for name, daemon in list(self.daemons.items()):
            if name not in self.daemons_of(name.partition("/")[0]):
                self.crash(name, None)
            elif daemon.frozen:
                self.thaw(name)
        for cell in self.places:
            for name in self.daemons_of(cell):
                self.back(name)
            self.wake(cell)

    def freeze(self, name: str) -> None:
        daemon = self.daemons.get(name)
        if daemon is not None:
            daemon.frozen = daemon.crew.is_frozen = True
            self.note(f"freeze {name}")

    def thaw(self, name: str) -> None:
        daemon = self.daemons.get(name)
        if daemon is not None and daemon.frozen:
            self.note(f"thaw {name}")
            daemon.frozen = False
            daemon.due = -1.0
            daemon.crew.thaw()
            self._schedule(daemon, 0.0)

    def _step(self, cell: CellName, step: str) -> None:
        place = self.places[cell]
        for trap in place.traps:
            if trap.step == step:
                trap.left -= 1
                if trap.left == 0:
                    place.traps.remove(trap)
                    self.counts["killed at a step"] += 1
                    self.note(f"killed {step} {cell}")
                    for name in (cell, f"{cell}/b"):
                        daemon = self.daemons.get(name)
                        if daemon is not None and daemon.crew.current is not None:
                            self.doom(name)  # a strand dies here, and its process with it
                    raise Killed

    def _database_fails(self, place: Place) -> str:
        if not place.database_fault or self.chance.random() >= place.database_fault:
            return ""
        self.counts["units that failed"] += 1
        return self.chance.choice(("conflict", "conflict", "out of reach", "lost", "unknown"))

    @contextmanager
    def _around(self, place: Place, crew: Crew, method: str) -> Iterator[None]:
        strand = crew.current
        if strand is not None and strand.killed:
            raise Killed
        self.counts["host calls"] += 1
        self._step(place.name, "before call")
        if place.hosts_down or self._host_fails(place):
            raise place.pool.unreachable()
        yield
        if ".start" in method or ".resume" in method or method.endswith("reboot"):
            self._dirty.setdefault(place.name)
            self.memory.look_at(place.name)
        if method in _TAKES_DISKS:
            running = frozenset(server for server, _ in self.started(place.name))
            self._broken(a_disk_remains(place.name, place.pool.disks(), running, self.memory))
        # The answer takes its time. A request leaves at once: a process that stands still here has sent it.
        crew.sleep(self.chance.uniform(0.5, 5.0) if place.slow else self.chance.uniform(0.001, 0.02))
        self._step(place.name, "after call")
        if self._host_fails(place):
            raise place.pool.unreachable()

    def _uploaded(self, image: str) -> int:
        """The data of an image has come to whichever API cell holds it: the HTTP status that it answers with."""
        answers = (self.places[name].desk.images.fill(image) for name in self.plan.apis)
        return next((status for status in answers if status != 404), 404)

    def _host_fails(self, place: Place) -> bool:
        if not place.host_fault or self.chance.random() >= place.host_fault:
            return False
        self.counts["host calls that failed"] += 1
        return True

    # --- what is seen ---

    def _decided(self, place: Place, name: str, received: Received, decision: Decision) -> None:
        place.decided.append((received, decision))

    def _committed(self, place: Place, written: tuple[type, ...]) -> None:
        if not _MACHINERY.issuperset(written):
            self._dirty.setdefault(place.name)
        self.counts["commits"] += 1
        for received, decision in place.decided:
            record = received.record
            self.counts["records"] += 1
            if isinstance(record.body, Refused) and record.body.code is RefusalCode.NO_ROOM:
                self.counts["refused for room"] += 1
            if record.server != NO_SERVER or decision.notes:
                notes = "; ".join(decision.notes)
                self.note(
                    f"{place.name} {record.kind.name} {id_text(record.server)[-12:]} from {record.origin} {notes}"
                )
            breach = self.memory.decided(place.name, received, decision, self.clock_of(place))
            if breach is not None and self._breach is None:
                self._breach = breach
        place.decided.clear()

    def audit(self, name: CellName) -> Audit | None:
        """What a cell says; None while no daemon of it lives."""
        daemon = self.daemons.get(name) or self.daemons.get(f"{name}/b")
        if daemon is None:
            return None
        with self.places[name].outside.unit(lock=False) as unit:
            return daemon.cell.role.audit(unit)

    def started(self, leaf: CellName) -> tuple[tuple[bytes, str], ...]:
        found: tuple[tuple[bytes, str], ...] = self.places[leaf].pool.started()
        return found

    def _check(self) -> None:
        dirty, self._dirty = list(self._dirty), {}
        for name in dirty:
            found = self.audit(name)
            if found is not None:
                self.audits[name] = found
                if self.places[name].pool is not None:
                    self.memory.started[name] = self.started(name)
                    self.memory.whole_are(found, self.places[name].pool.disks_of)
                self._broken(at_every_step(found, self.audits, self.memory))
            else:
                self.audits.pop(name, None)

    def _broken(self, breach: Breach | None) -> None:
        if breach is not None and self._breach is None:
            self._breach = breach
            self.note(f"BROKEN {breach}")

    def _look(self) -> None:
        """Is it at rest? Then everything must be right."""
        waits = resting.waiting(self)
        if not waits:
            self.counts["checked at rest"] += 1
            audits = {name: audit for name in self.places if (audit := self.audit(name)) is not None}
            rest = Rest(
                audits=audits,
                pools=resting.facts(self),
                memory=self.memory,
                reaches=resting.reaches(self),
                parked=resting.parked(self),
                images=resting.images(self),
            )
            breach = at_rest(rest)
            # Capacity and silence need some ticks to be known everywhere.
            if breach is None or self.time > self._rest_since() + 120:
                self._breach = breach
                self._over = True
                if breach is not None:
                    self.note(f"BROKEN {breach}")
                return
        else:
            self._rest = None
        self.later(LOOK_EVERY, self._look)

    def _rest_since(self) -> float:
        if self._rest is None:
            self._rest = self.time
        return self._rest


def simulate(plan: Plan, build: Build | None = None, *, tell: bool = False, patience: float = PATIENCE) -> Outcome:
    """Run a plan once."""
    return World(plan, build, tell=tell, patience=patience).run()
