"""The only loop. A turn takes what has come (deliveries, wakes that are due, ends of jobs), lets the role decide on all
of it over one unit, writes rows, inbox marks and outbox in that one transaction, commits, and only then sends, starts
jobs and acknowledges. Whatever dies in between is done again by the same rules, and the second time is a no-op.

`step` never waits, so that tests, stories and simulations drive it; `run` waits for the bell between turns.
"""

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from cells import codec, withdrawing
from cells.callers import Callers
from cells.deciding import ADOPT_AFTER, Batch, Deciding
from cells.errors import AmbiguousCommit, BadInput, CelltreeError, Conflict, Temporary
from cells.identity import Identity, fingerprint
from cells.intake import Intake, Item
from cells.jobs import Jobs, Workers
from cells.leases import RENEW, Shards
from cells.messages import Ack, Direction, Expired, JobEnded, NotForwarded, Started, Tick
from cells.names import SECOND, CellName, Instant
from cells.ports import Broker, Clock, Delivery, Link, NewId, Role, Store, Where
from cells.pump import Pending, Pump
from cells.record import Packet, Received, Record
from cells.resealing import Resealing
from cells.rows import CounterRow, EdgeRow, JobRow, OutboxRow, WakeRow
from cells.unsent import Unsent, Waiting

log = logging.getLogger("celltree.node")

LOOK_BACK = SECOND // 10
POLL_WAKES = SECOND // 4
ROLL = 3600 * SECOND
SERIALS_A_START = 1 << 40
PUT_BACK = 5 * SECOND
"""A clock that has gone back so far was put back: what was to come soon is now far off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """How a node runs. `tick` (seconds): how often hellos, capacity and repairs go out. `batch`: how many records are
    decided in one transaction at most."""

    daemon: str = "main"
    tick: float = 10.0
    batch: int = 64
    threads: int = 16
    per_lane: int = 4


class Bell:
    """Rung by whoever has something for the loop; rings are merged."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __call__(self) -> None:
        self._event.set()

    def wait(self, seconds: float) -> None:
        self._event.wait(seconds)
        self._event.clear()


class Node:
    """One daemon of one cell."""

    def __init__(
        self,
        *,
        store: Store,
        broker: Broker,
        role: Role,
        identity: Identity,
        clock: Clock,
        new_id: NewId,
        bell: Bell,
        settings: NodeSettings,
        open_url: Callable[[bytes], str] | None = None,
        workers: Workers | None = None,
        resealing: Resealing | None = None,
    ) -> None:
        self.name: CellName = identity.name
        self.store = store
        self.settings = settings
        self.identity = identity
        self.bell = bell
        self.counts: Counter[str] = Counter()
        # Told, after the commit, the ids of our records that their destinations have acknowledged.
        self.acknowledged: Callable[[Sequence[bytes]], None] | None = None
        self._broker = broker
        self._clock = clock
        self._new_id = new_id
        self._open_url = open_url or (lambda box: identity.kept(box).decode())
        self._resealing = resealing
        self._inbox = broker.inbox()
        self._shards = Shards(store, settings.daemon, lambda: fingerprint(identity.says.key))
        self.jobs = Jobs(
            role=role,
            store=store,
            clock=clock,
            ended=self._job_ended,
            held=lambda shard, epoch: self._shards.is_sure(shard, epoch, clock()),
            threads=settings.threads,
            per_lane=settings.per_lane,
            workers=workers,
        )
        self._links: dict[CellName, tuple[bytes, str]] = {}
        self._callers = Callers()
        self._unsent = Unsent()
        self._intake = Intake(
            identity=identity,
            role_name=role.name,
            new_id=new_id,
            callers=self._callers,
            look_again=self._look_again,
            counts=self.counts,
        )
        self.deciding = Deciding(identity=identity, role=role, new_id=new_id, unsent=self._unsent)
        self._local: deque[Item] = deque()
        self._carry: list[Item] = []
        self._carry_until: Instant = 0
        self._poked = True
        self._next_wakes: Instant = 0
        self._next_renew: Instant = 0
        self._next_tick: Instant = 0
        self._next_look: Instant = 0
        self._next_adopt: Instant = 0
        self._next_roll: Instant = 0
        self._next_look_back: Instant = 0
        self._next_ask: Instant = 0
        self._is_sure = False
        self._last_step: Instant = 0
        self._taken_over = False
        self._stopping = threading.Event()
        self._commits = 0
        with store.unit() as unit:
            start = unit.count_up("starts")
            role.load(unit, clock())
            self._callers.take(unit.all(EdgeRow), clock())
            withdrawing.load(unit, identity)
        self._token = f"unit:{settings.daemon}"
        self._pump = Pump(identity=identity, next_hops=role.next_hops, first_serial=start * SERIALS_A_START)

    # --- driving ---

    def run(self) -> None:
        """Turn until `stop`; then finish cleanly: leases back, links closed."""
        while not self._stopping.is_set():
            if not self.step():
                self.bell.wait(max(0.0, min(0.25, (self.next_due() - self._clock()) / SECOND)))
        self.close()

    def stop(self) -> None:
        """Ask `run` to end. Safe from any thread and from a signal handler."""
        self._stopping.set()
        self.bell()

    def close(self) -> None:
        """Let running jobs reach their end, give the leases back, close everything."""
        self.jobs.close()
        try:
            self._shards.give_back(self._clock())
        except Temporary as error:
            log.warning("%s: leases are left to run out: %s", self.name, error)
        self._pump.close()
        self._broker.close()

    def abandon(self) -> None:
        """Leave everything as a killed process does; what was not acknowledged goes back to the broker."""
        self.jobs.close(wait=False)
        self._broker.close()

    def poke(self) -> None:
        """There may be a new wake in the database."""
        self._poked = True
        self.bell()

    def next_due(self) -> Instant:
        """When something is due next, as far as this daemon knows."""
        due = [self._next_wakes, self._next_renew, self._next_tick, self._next_adopt]
        if not self._is_sure:
            due.append(self._next_look_back)
        waiting = (self._unsent.next_due(), self.jobs.next_try())
        return min(*due, *(later for later in waiting if later is not None))

    @property
    def quiet(self) -> bool:
        """Nothing waits to be decided, sent, acknowledged or done (for tests and drains)."""
        return not (self._local or self._carry or self._unsent or self._pump.busy) and self.jobs.idle

    @property
    def unsent(self) -> int:
        """How many records wait for their destination's acknowledgement, as far as this daemon knows."""
        return len(self._unsent)

    def step(self) -> bool:
        """One turn. True if there was anything to do, so that another turn is worth while at once."""
        now = self._clock()
        if now < self._last_step - PUT_BACK:
            self._clock_was_put_back(now)
        self._last_step = now
        try:
            self._housekeeping(now)
            self._resend(now)
        except Temporary as error:
            log.warning("%s: the database is out of reach: %s", self.name, error)
            self._next_renew = now + SECOND
        events = self._pump_turn(now)
        items = self._gather(now)
        if items:
            self._decide(items, now)
        self.jobs.turn(now)
        ran = self.jobs.run_waiting()
        events = self._pump_turn(self._clock()) or events
        return bool(items) or events or ran or self._poked

    def _clock_was_put_back(self, now: Instant) -> None:
        log.warning("%s: the clock went back by %.0f s", self.name, (self._last_step - now) / SECOND)
        self._carry_until = self._next_wakes = self._next_renew = self._next_tick = 0
        self._next_look = self._next_adopt = self._next_roll = 0
        self._next_look_back = self._next_ask = 0
        self._unsent.clock_was_put_back(now)
        self.jobs.clock_was_put_back()
        self._shards.clock_was_put_back(now)
        self._pump.clock_was_put_back()

    # --- gathering ---

    def _gather(self, now: Instant) -> list[Item]:
        if self._carry:
            if now < self._carry_until:
                return []
            items, self._carry = self._carry, []
            return items
        items = []
        while self._local and len(items) < self.settings.batch:
            items.append(self._local.popleft())
        if self._poked or now >= self._next_wakes:
            items += self._due_wakes(now)
        for delivery in self._inbox.poll(max(1, self.settings.batch - len(items))):
            items += self._take(delivery, now)
        return items

    def _due_wakes(self, now: Instant) -> list[Item]:
        self._poked = False
        self._next_wakes = now + POLL_WAKES
        mine = [shard for shard in self._shards.held if self._shards.holds(shard, now)]
        if not mine:
            return []
        most = self.settings.batch
        try:
            with self.store.unit(lock=False) as unit:
                rows = unit.find(
                    WakeRow, Where(column="shard", op="in", value=mine), Where(column="due", op="<=", value=now),
                    order=("due", "id"), limit=most,
                )  # fmt: skip
        except Temporary:
            return []
        if len(rows) == most:
            self._poked = True
        return [self._intake.wake(row, now) for row in rows]

    def _take(self, delivery: Delivery, now: Instant) -> list[Item]:
        pending = Pending(delivery.tag)
        opened = self._intake.open(delivery, now)
        for packet in opened.passing:
            self.counts["relayed"] += 1
            self._pump.relay(packet, pending, now)
        for item in opened.items:
            pending.parts += 1
            item.delivery = pending
        self._pump.settle(pending)
        return opened.items

    def _job_ended(self, row: JobRow, end: JobEnded, epoch: int) -> None:
        record = Record(
            id=row.id, body=end, origin=self.name, destination=self.name, server=row.server, request=row.request
        )
        self._local.append(Item(received=Received(record=record), job=row, epoch=epoch))
        self.bell()

    def _tell_self(self, body: object) -> None:
        record = Record(id=self._new_id(), body=body, origin=self.name, destination=self.name)
        self._local.append(Item(received=Received(record=record)))

    # --- deciding ---

    def _decide(self, items: Sequence[Item], now: Instant) -> None:
        for _ in range(5):
            try:
                batch = self._unit(items, now)
            except Conflict as error:
                self.counts["conflicts"] += 1
                log.debug("%s: decided again: %s", self.name, error)
            except Temporary as error:
                log.warning("%s: %d records wait, the database is out of reach: %s", self.name, len(items), error)
                self._put_off(items, now + SECOND // 2)
                return
            except Exception as error:
                if len(items) > 1:
                    log.info("%s: a batch of %d failed, its records are taken one by one", self.name, len(items))
                    for item in items:
                        self._decide([item], now)
                    return
                if not isinstance(error, CelltreeError):
                    log.exception("%s: could not decide on a record", self.name)
                items = [self._intake.poison(items[0], error, now)]
            else:
                self._after(batch, now)
                for item in items:
                    if item.job is not None:
                        self.jobs.forget(item.job.id)
                    if item.delivery is not None:
                        item.delivery.parts -= 1
                        self._pump.settle(item.delivery)
                return
        self._put_off(items, now + SECOND // 10)

    def _put_off(self, items: Sequence[Item], until: Instant) -> None:
        self._carry = [*items, *self._carry]
        self._carry_until = until

    def _unit(self, items: Sequence[Item], now: Instant) -> Batch:
        self._commits += 1
        try:
            with self.store.unit() as unit:
                batch = self.deciding.batch(unit, items, now)
                unit.save(CounterRow(name=self._token, value=self._commits))
        except AmbiguousCommit:
            with self.store.unit(lock=False) as unit:
                token = unit.get(CounterRow, self._token)
            if token is None or token.value != self._commits:
                raise
        return batch

    # --- after the commit ---

    def _after(self, batch: Batch, now: Instant) -> None:
        self.counts += batch.counts
        if batch.withdrawn is not None:
            self.identity.trust.take_withdrawn(batch.withdrawn)
        self._unsent.forget(batch.done)
        for serial in batch.not_forwarded:
            self._unsent.sooner(self._pump.not_forwarded(serial, now), now)
        for origin, neighbour in batch.led.items():
            self._pump.led(origin, neighbour, now)
        for origin, neighbour in batch.repeated.items():
            self._pump.came_again(origin, neighbour, now)
        for destination in batch.unanswered:
            self._pump.unanswered(destination, now)
        if batch.done and self.acknowledged is not None:
            self.acknowledged(batch.done)
        for record, data in batch.send:
            straight = record.kind.direction is Direction.BESIDE
            hop = self._pump.send(record.destination, record.id, data, record.deadline, now, straight=straight)
            if record.kind.acknowledged:
                self._unsent.remember(record, data, hop, now)
        for destination in sorted(batch.acks.keys() | batch.seen.keys()):
            self._acknowledge(destination, batch.acks.get(destination, []), batch.seen.get(destination, []), now)
        for job in batch.jobs:
            if self._shards.holds(job.shard, now):
                self.jobs.start(job, self._shards.held[job.shard])
        for id in batch.stop:
            self.jobs.stop_early(id, "the server is being deleted")
        if batch.wakes and min(batch.wakes) <= now:
            self._poked = True

    def _acknowledge(
        self, destination: CellName, ids: list[bytes], seen: list[tuple[bytes, int]], now: Instant
    ) -> None:
        body = Ack(ids=tuple(ids), seen=tuple(seen))
        record = Record(id=self._new_id(), body=body, origin=self.name, destination=destination)
        self._pump.send(destination, record.id, codec.pack_record(record), now + 60 * SECOND, now)

    def _pump_turn(self, now: Instant) -> bool:
        events = self._pump.turn(now)
        self._unsent.sooner(events.retry, now)
        for packet, reason in events.dropped:
            self._not_forwarded(packet, reason, now)
        if events.settled:
            self._inbox.ack(events.settled)
        return bool(events.retry or events.dropped or events.settled)

    def _not_forwarded(self, packet: Packet, reason: str, now: Instant) -> None:
        # Word of a packet that went nowhere is itself sent once, and none is sent about that.
        log.info("%s: packet %d of %s not forwarded: %s", self.name, packet.serial, packet.origin, reason)
        body = NotForwarded(serial=packet.serial, destination=packet.destination, reason=reason[:200])
        record = Record(id=self._new_id(), body=body, origin=self.name, destination=packet.origin)
        self._pump.send(packet.origin, record.id, codec.pack_record(record), now + 60 * SECOND, now)

    # --- what waits ---

    def _resend(self, now: Instant) -> None:
        due = self._unsent.due(now)
        if not due:
            return
        try:
            with self.store.unit(lock=False) as unit:
                there = unit.get_many(OutboxRow, [(waiting.id,) for waiting in due])
        except Temporary:
            self._unsent.again(due)
            raise
        for waiting in due:
            if (waiting.id,) not in there:
                self._unsent.forget([waiting.id])
            elif waiting.deadline < now:
                self._expire(waiting)
            else:
                self.counts["resent"] += 1
                if waiting.hop:
                    self._pump.lost(waiting.destination, waiting.hop, now)
                hop = self._pump.send(waiting.destination, waiting.id, waiting.data, waiting.deadline, now)
                self._unsent.later(waiting, hop, now)

    def _expire(self, waiting: Waiting) -> None:
        record = codec.unpack_record(waiting.data)
        log.warning(
            "%s: %s to %s was not acknowledged before its deadline", self.name, record.kind.name, record.destination
        )
        body = Expired(
            id=waiting.id,
            kind=record.kind.name,
            destination=record.destination,
            server=record.server,
            number=record.number,
            body=codec.pack(record.body),
        )
        self._unsent.forget([waiting.id])
        expired = Record(
            id=self._new_id(),
            body=body,
            origin=self.name,
            destination=self.name,
            server=record.server,
            request=record.request,
        )
        self._local.append(Item(received=Received(record=expired)))

    def _housekeeping(self, now: Instant) -> None:
        if not self._is_sure and now >= self._next_look_back:
            self._next_look_back = now + LOOK_BACK
            self._make_sure(now)
        if now >= self._next_renew:
            self._next_renew = now + RENEW
            gained = self._shards.renew(now)
            self._taken_over = self._taken_over or 0 in gained
            if gained:
                self._adopt(now, gained, everything=True)
        if now >= self._next_adopt:
            self._next_adopt = now + SECOND
            self._adopt(now, frozenset(self._shards.held), everything=False)
        if now >= self._next_tick:
            self._next_tick = now + int(self.settings.tick * SECOND)
            self._refresh(now)
            if self._shards.holds(0, now):
                if now >= self._next_roll:
                    self._next_roll = now + ROLL
                    self.store.roll(now)
                self._tell_withdrawn(now)
                self._seal_anew(now)
                self._tell_self(Tick(taken_over=self._taken_over))
                self._taken_over = False

    def _make_sure(self, now: Instant) -> None:
        """Not sure yet that the database was not put back to a backup: have the role ask, and go on when it is."""
        with self.store.unit(lock=False) as unit:
            self._is_sure = self.deciding.role.is_sure(unit, now)
        if self._is_sure:
            self._next_adopt = self._next_tick = 0
        elif now >= self._next_ask:
            self._next_ask = now + SECOND
            self._tell_self(Started())

    def _adopt(self, now: Instant, shards: frozenset[int], *, everything: bool) -> None:
        """Take up what our shards hold and nobody works on: rows of daemons that died, or of our own former life."""
        if not shards:
            return
        in_shards = Where(column="shard", op="in", value=sorted(shards))
        due = () if everything else (Where(column="next_try", op="<=", value=now),)
        with self.store.unit(lock=False) as unit:
            jobs = unit.find(JobRow, in_shards) if self._is_sure else []
            rows = unit.find(OutboxRow, in_shards, *due, limit=5000)
        for job in jobs:
            self.jobs.start(job, self._shards.held[job.shard])
        if not rows:
            return
        self._unsent.adopt(rows, now)
        with self.store.unit() as unit:
            still = unit.get_many(OutboxRow, [(row.id,) for row in rows])
            unit.save(*(replace(row, next_try=now + ADOPT_AFTER) for row in still.values()))

    def _refresh(self, now: Instant) -> None:
        """Edges may have been added or changed by an administrator; the roster by another daemon of this cell."""
        with self.store.unit(lock=False) as unit:
            edges = {edge.neighbour: edge for edge in unit.all(EdgeRow)}
            self.deciding.role.load(unit, now)
            withdrawing.load(unit, self.identity)
        self._callers.take(edges.values(), now)
        for name, (box, url) in list(self._links.items()):
            if name in edges and edges[name].url == box:
                continue
            if name in edges and self._url(edges[name]) == url:
                self._links[name] = edges[name].url, url  # the same, sealed anew
                continue
            del self._links[name]
            self._pump.part(name)
        for name, edge in edges.items():
            if name in self._links:
                continue
            try:
                url = self._open_url(edge.url)
                self._pump.join(name, self._link(name, url))
                self._links[name] = edge.url, url
            except BadInput as error:
                log.error("%s: edge to %s is not usable: %s", self.name, name, error)

    def _tell_withdrawn(self, now: Instant) -> None:
        for neighbour in self._links:
            record = withdrawing.tell(self.identity, neighbour, self._new_id, now)
            if record is not None:
                data = codec.pack_record(record)
                self._pump.send(neighbour, record.id, data, record.deadline, now, straight=True)

    def _seal_anew(self, now: Instant) -> None:
        if self._resealing is None:
            return
        with suppress(Conflict):  # whoever won has changed these rows; the next tick looks at them again
            count = self._resealing.turn(now)
            if count:
                log.info("%s: %d rows are sealed with the newest key now", self.name, count)

    def _look_again(self, now: Instant) -> None:
        """Someone unknown has brought something: perhaps over an edge that was saved since our last tick."""
        if now < self._next_look:
            return
        self._next_look = now + SECOND
        with suppress(Temporary):
            self._refresh(now)

    def _link(self, neighbour: CellName, url: str) -> Link:
        return self._broker.link(neighbour, url)

    def _url(self, edge: EdgeRow) -> str:
        with suppress(BadInput):
            return self._open_url(edge.url)
        return ""
