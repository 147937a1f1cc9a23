"""The only loop. A turn takes what has come (deliveries, wakes that are due, ends of jobs), lets the role decide on all
of it over one unit, writes rows, inbox marks and outbox in that one transaction, commits, and only then sends, starts
jobs and acknowledges. Whatever dies in between is done again by the same rules, and the second time is a no-op.

`step` never waits, so that tests, stories and simulations drive it; `run` waits for the bell between turns.
"""

import heapq
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from cells import codec
from cells.decision import Decision, Remove
from cells.errors import AmbiguousCommit, BadInput, CelltreeError, Conflict, Temporary
from cells.identity import Certificate, Identity
from cells.jobs import Jobs, Workers
from cells.leases import RENEW, Shards
from cells.messages import Ack, Direction, Expired, JobEnded, NotForwarded, Tick
from cells.names import SECOND, CellName, Instant, id_text
from cells.ports import Broker, Clock, Link, NewId, Role, Store, Unit, Where
from cells.pump import Pending, Pump
from cells.record import MAX_BUNDLE, Packet, Received, Record
from cells.rows import (
    CounterRow,
    EdgeRow,
    InboxRow,
    JobRow,
    LeaseRow,
    OutboxRow,
    ParkedRow,
    WakeRow,
    shard_of,
)

log = logging.getLogger("celltree.node")

INBOX_KEPT = 3600 * SECOND
RESEND_FIRST = 2 * SECOND
RESEND_MOST = 60 * SECOND
RESEND_SOON = SECOND // 4
ADOPT_AFTER = 30 * SECOND
POLL_WAKES = SECOND // 4
ROLL = 3600 * SECOND
SERIALS_A_START = 1 << 40


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


@dataclass(slots=True)
class _Item:
    """One thing to decide on, and where it came from: a delivery, a wake, or a job that ran under `epoch` of its
    shard's lease. `origin`: who is to be told that a parked record has come, empty where that is not proved."""

    received: Received | None = None
    parked: ParkedRow | None = None
    origin: CellName = ""
    wake: bytes | None = None
    job: JobRow | None = None
    epoch: int = 0
    delivery: Pending | None = None


@dataclass(slots=True)
class _Unsent:
    """An outbox row as remembered here, with when to try it again."""

    data: bytes
    destination: CellName
    deadline: Instant
    next_try: Instant
    attempts: int = 0


@dataclass(slots=True)
class _Batch:
    """What a transaction's decisions want done after it has committed."""

    send: list[tuple[Record, bytes]] = field(default_factory=list)
    acks: dict[CellName, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    seen: dict[CellName, list[tuple[bytes, int]]] = field(default_factory=lambda: defaultdict(list))
    jobs: list[JobRow] = field(default_factory=list)
    done: list[bytes] = field(default_factory=list)
    stop: list[bytes] = field(default_factory=list)
    wakes: list[Instant] = field(default_factory=list)
    repeated: bool = False


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
    ) -> None:
        self.name: CellName = identity.name
        self.store = store
        self.role = role
        self.settings = settings
        self.identity = identity
        self.bell = bell
        self.counts: dict[str, int] = defaultdict(int)
        self.trace: Callable[[str, Received, Decision], None] | None = None
        # Told, after the commit, the ids of our records that their destinations have acknowledged.
        self.acknowledged: Callable[[Sequence[bytes]], None] | None = None
        self._broker = broker
        self._clock = clock
        self._new_id = new_id
        self._open_url = open_url or (lambda box: identity.kept(box).decode())
        self._inbox = broker.inbox()
        self._shards = Shards(store, settings.daemon)
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
        self._local: deque[_Item] = deque()
        self._carry: list[_Item] = []
        self._carry_until: Instant = 0
        self._unsent: dict[bytes, _Unsent] = {}
        self._retries: list[tuple[Instant, bytes]] = []
        self._links: dict[CellName, bytes] = {}
        self._poked = True
        self._next_wakes: Instant = 0
        self._next_renew: Instant = 0
        self._next_tick: Instant = 0
        self._next_adopt: Instant = 0
        self._next_roll: Instant = 0
        self._taken_over = False
        self._stopping = threading.Event()
        self._commits = 0
        with store.unit() as unit:
            start = unit.count_up("starts")
            role.load(unit, clock())
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
        if self._retries:
            due.append(self._retries[0][0])
        later = self.jobs.next_try()
        if later is not None:
            due.append(later)
        return min(due)

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

    # --- gathering ---

    def _gather(self, now: Instant) -> list[_Item]:
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
            items += self._unpack(delivery.tag, delivery.data, now)
        return items

    def _due_wakes(self, now: Instant) -> list[_Item]:
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
        items = []
        for row in rows:
            try:
                received = Received(record=codec.unpack_record(row.data))
                items.append(_Item(received=received, wake=row.id))
            except BadInput as error:
                items.append(_Item(parked=self._park(row.data, str(error), "", now, row.id), wake=row.id))
        return items

    def _unpack(self, tag: object, data: bytes, now: Instant) -> list[_Item]:
        delivery = Pending(tag)
        items: list[_Item] = []
        try:
            packets = codec.unpack_bundle(data)
        except BadInput as error:
            delivery.parts += 1
            row = self._park(data[:MAX_BUNDLE], str(error), "", now, self._new_id())
            items.append(_Item(parked=row, delivery=delivery))
            packets = []
        for packet in packets:
            if packet.destination != self.name:
                self.counts["relayed"] += 1
                self._pump.relay(packet, delivery, now)
                continue
            for item in self._open(packet, now):
                delivery.parts += 1
                item.delivery = delivery
                items.append(item)
        self._pump.settle(delivery)
        return items

    def _open(self, packet: Packet, now: Instant) -> list[_Item]:
        neighbour = packet.trail[-1].cell if packet.trail else ""
        try:
            certificate = self.identity.trust.packet(packet)
        except BadInput as error:
            # Its ids are anybody's words and not acknowledged, or a forged copy would end a true record's journey.
            return [
                _Item(parked=self._park(data, str(error), neighbour, now, self._new_id())) for data in packet.records
            ]
        items = []
        for data in packet.records:
            try:
                record = codec.unpack_record(data)
                self._may(record, certificate)
            except BadInput as error:
                id = codec.peek(data).id or self._new_id()
                parked = self._park(data, str(error), neighbour, now, id)
                items.append(_Item(parked=parked, origin=certificate.name))
                continue
            if record.kind.direction is Direction.BESIDE and record.origin not in self._links:
                # An edge is made, and taken away, at one end before the other: nothing an operator should look into.
                self.counts["from strangers"] += 1
                log.info("%s: %s from %s, which is no neighbour (yet)", self.name, record.kind.name, record.origin)
                continue
            items.append(_Item(received=Received(record=record, trail=packet.trail, neighbour=neighbour)))
        return items

    def _may(self, record: Record, certificate: Certificate) -> None:
        """Raise BadInput unless a cell so certified may send us this record."""
        kind = record.kind
        if record.origin != certificate.name or record.destination != self.name:
            raise BadInput(f"{kind.name} says it is from {record.origin} to {record.destination}: it is not")
        wrong = (
            kind.direction is Direction.LOCAL
            or (kind.direction is Direction.DOWN and certificate.role != "api")
            or (kind.direction is Direction.UP and (certificate.role == "api" or self.role.name != "api"))
        )
        if wrong:
            raise BadInput(
                f"{record.origin} ({certificate.role}) may not send {kind.name} ({kind.direction}) to {self.name}"
            )

    def _park(self, data: bytes, reason: str, neighbour: CellName, now: Instant, id: bytes) -> ParkedRow:
        peek = codec.peek(data)
        log.warning("%s: parked a message from %s: %s", self.name, neighbour or "an unknown neighbour", reason)
        return ParkedRow(
            id=id,
            at=now,
            neighbour=neighbour,
            kind=peek.kind,
            server=peek.server,
            reason=reason,
            data=data,
        )

    def _job_ended(self, row: JobRow, end: JobEnded, epoch: int) -> None:
        record = Record(
            id=row.id, body=end, origin=self.name, destination=self.name, server=row.server, request=row.request
        )
        self._local.append(_Item(received=Received(record=record), job=row, epoch=epoch))
        self.bell()

    def _tell_self(self, body: object) -> None:
        record = Record(id=self._new_id(), body=body, origin=self.name, destination=self.name)
        self._local.append(_Item(received=Received(record=record)))

    # --- deciding ---

    def _decide(self, items: Sequence[_Item], now: Instant) -> None:
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
                items = [self._poison(items[0], error, now)]
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

    def _put_off(self, items: Sequence[_Item], until: Instant) -> None:
        self._carry = [*items, *self._carry]
        self._carry_until = until

    def _poison(self, item: _Item, error: Exception, now: Instant) -> _Item:
        if item.parked is not None or item.received is None:
            return replace(item, parked=None, received=None)
        record = item.received.record
        known = str(error) if isinstance(error, CelltreeError) else f"see the log of {self.name} at this time"
        reason = f"{record.kind.name} could not be decided on: {known}"
        parked = self._park(codec.pack_record(record), reason, item.received.neighbour, now, record.id)
        return replace(item, parked=parked, origin=record.origin, received=None)

    def _unit(self, items: Sequence[_Item], now: Instant) -> _Batch:
        batch = _Batch()
        self._commits += 1
        try:
            with self.store.unit() as unit:
                self._decide_all(unit, items, batch, now)
                unit.save(CounterRow(name=self._token, value=self._commits))
        except AmbiguousCommit:
            with self.store.unit(lock=False) as unit:
                token = unit.get(CounterRow, self._token)
            if token is None or token.value != self._commits:
                raise
        return batch

    def _decide_all(self, unit: Unit, items: Sequence[_Item], batch: _Batch, now: Instant) -> None:
        marked = [
            (item.received.record.id,)
            for item in items
            if item.received is not None and item.received.record.kind.acknowledged and item.wake is None
        ]
        known = set(unit.get_many(InboxRow, marked)) if marked else set()
        wakes = [(item.wake,) for item in items if item.wake is not None]
        waiting = unit.get_many(WakeRow, wakes) if wakes else {}
        jobs = [item.job for item in items if item.job is not None]
        running = unit.get_many(JobRow, [(job.id,) for job in jobs]) if jobs else {}
        leases = unit.get_many(LeaseRow, [(job.shard,) for job in jobs]) if jobs else {}
        servers = {
            (item.received.record.server,)
            for item in items
            if item.received is not None and item.received.record.kind.of_server
        }
        if len(servers) > 1:
            for row in self.role.of_server:
                unit.get_many(row, sorted(servers))
        for item in items:
            if item.wake is not None:
                if (item.wake,) not in waiting:
                    continue
                unit.save(Remove(row=WakeRow, key=(item.wake,)))
            if item.job is not None:
                lease = leases.get((item.job.shard,))
                # Whoever holds the lease now runs the job again, and finds what was done.
                if (item.job.id,) not in running or lease is None or lease.epoch != item.epoch:
                    continue
                unit.save(Remove(row=JobRow, key=(item.job.id,)))
            if item.parked is not None:
                unit.save(item.parked)
                self.counts["parked"] += 1
                if item.origin and item.origin != self.name:
                    batch.acks[item.origin].append(item.parked.id)
                continue
            if item.received is None:
                continue
            record = item.received.record
            if record.kind.acknowledged and item.wake is None and record.origin != self.name:
                batch.acks[record.origin].append(record.id)
                if (record.id,) in known or record.deadline + INBOX_KEPT < now:
                    self.counts["repeated"] += 1
                    batch.repeated = True
                    continue
                known.add((record.id,))
                unit.save(InboxRow(id=record.id, expires=min(record.deadline, now + 24 * INBOX_KEPT) + INBOX_KEPT))
            self._apply(unit, item.received, batch, now)

    def _apply(self, unit: Unit, received: Received, batch: _Batch, now: Instant) -> None:
        record = received.record
        self.counts["records"] += 1
        if isinstance(record.body, NotForwarded):
            self._again(self._pump.not_forwarded(record.body.serial, now), now)
            return
        if isinstance(record.body, Expired):
            unit.save(Remove(row=OutboxRow, key=(record.body.id,)))
        if isinstance(record.body, Ack):
            self._acknowledged(unit, record, record.body, batch)
            if not record.body.seen:
                return
        decision = self.role.decide(unit, received, now)
        if self.trace is not None:
            self.trace(self.name, received, decision)
        for note in decision.notes:
            log.info("%s %s %s: %s", self.name, record.request or "-", id_text(record.server), note)
        unit.save(*decision.save)
        for wake in decision.wake:
            unit.save(
                WakeRow(
                    id=wake.record.id,
                    shard=shard_of(wake.record.server),
                    due=wake.due,
                    server=wake.record.server,
                    data=codec.pack_record(wake.record),
                )
            )
            batch.wakes.append(wake.due)
        for job in decision.do:
            row = JobRow(
                id=job.id,
                shard=shard_of(job.server),
                kind=job.kind,
                server=job.server,
                lane=job.lane,
                request=job.request,
                started=now,
                body=job.body,
            )
            unit.save(row)
            batch.jobs.append(row)
        for out in decision.send:
            data = codec.pack_record(out)
            if out.kind.acknowledged:
                unit.save(
                    OutboxRow(
                        id=out.id,
                        shard=shard_of(out.server),
                        destination=out.destination,
                        next_try=now + ADOPT_AFTER,
                        attempts=0,
                        deadline=out.deadline,
                        data=data,
                    )
                )
            batch.send.append((out, data))
        batch.stop += decision.stop
        for seen in decision.seen:
            batch.seen[seen.destination].append((seen.server, seen.version))

    def _acknowledged(self, unit: Unit, record: Record, ack: Ack, batch: _Batch) -> None:
        strangers = [id for id in ack.ids if id not in self._unsent]
        rows = unit.get_many(OutboxRow, [(id,) for id in strangers]) if strangers else {}
        for id in ack.ids:
            unsent = self._unsent.get(id)
            destination = unsent.destination if unsent is not None else rows[id,].destination if (id,) in rows else None
            if destination == record.origin:
                unit.save(Remove(row=OutboxRow, key=(id,)))
                batch.done.append(id)

    # --- after the commit ---

    def _after(self, batch: _Batch, now: Instant) -> None:
        for id in batch.done:
            self._unsent.pop(id, None)
        if batch.repeated:
            self._pump.turn_ways()
        if batch.done and self.acknowledged is not None:
            self.acknowledged(batch.done)
        for record, data in batch.send:
            if record.kind.acknowledged:
                self._remember(record.id, data, record.destination, record.deadline, now)
            self._pump.send(record.destination, record.id, data, record.deadline, now)
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

    def _remember(self, id: bytes, data: bytes, destination: CellName, deadline: Instant, now: Instant) -> None:
        next_try = now + RESEND_FIRST
        self._unsent[id] = _Unsent(data=data, destination=destination, deadline=deadline, next_try=next_try)
        heapq.heappush(self._retries, (next_try, id))

    def _pump_turn(self, now: Instant) -> bool:
        events = self._pump.turn(now)
        self._again(events.retry, now)
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

    def _again(self, ids: Sequence[bytes], now: Instant) -> None:
        for id in ids:
            unsent = self._unsent.get(id)
            if unsent is not None and unsent.next_try > now + RESEND_SOON:
                unsent.next_try = now + RESEND_SOON
                heapq.heappush(self._retries, (unsent.next_try, id))

    # --- what waits ---

    def _resend(self, now: Instant) -> None:
        due: list[tuple[bytes, _Unsent]] = []
        while self._retries and self._retries[0][0] <= now and len(due) < 1024:
            next_try, id = heapq.heappop(self._retries)
            unsent = self._unsent.get(id)
            if unsent is not None and unsent.next_try == next_try:
                due.append((id, unsent))
        if not due:
            return
        try:
            with self.store.unit(lock=False) as unit:
                there = unit.get_many(OutboxRow, [(id,) for id, _ in due])
        except Temporary:
            for id, unsent in due:
                heapq.heappush(self._retries, (unsent.next_try, id))
            raise
        if there:
            self._pump.turn_ways()
        for id, unsent in due:
            if (id,) not in there:
                del self._unsent[id]
            elif unsent.deadline < now:
                self._expire(id, unsent)
            else:
                self.counts["resent"] += 1
                unsent.attempts += 1
                unsent.next_try = now + min(RESEND_FIRST << min(unsent.attempts, 5), RESEND_MOST)
                heapq.heappush(self._retries, (unsent.next_try, id))
                self._pump.send(unsent.destination, id, unsent.data, unsent.deadline, now)

    def _expire(self, id: bytes, unsent: _Unsent) -> None:
        record = codec.unpack_record(unsent.data)
        log.warning(
            "%s: %s to %s was not acknowledged before its deadline", self.name, record.kind.name, record.destination
        )
        body = Expired(
            id=id,
            kind=record.kind.name,
            destination=record.destination,
            server=record.server,
            number=record.number,
            body=codec.pack(record.body),
        )
        del self._unsent[id]
        expired = Record(
            id=self._new_id(),
            body=body,
            origin=self.name,
            destination=self.name,
            server=record.server,
            request=record.request,
        )
        self._local.append(_Item(received=Received(record=expired)))

    def _housekeeping(self, now: Instant) -> None:
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
                self._tell_self(Tick(taken_over=self._taken_over))
                self._taken_over = False

    def _adopt(self, now: Instant, shards: frozenset[int], *, everything: bool) -> None:
        """Take up what our shards hold and nobody works on: rows of daemons that died, or of our own former life."""
        if not shards:
            return
        in_shards = Where(column="shard", op="in", value=sorted(shards))
        due = () if everything else (Where(column="next_try", op="<=", value=now),)
        with self.store.unit(lock=False) as unit:
            jobs = unit.find(JobRow, in_shards)
            rows = unit.find(OutboxRow, in_shards, *due, limit=5000)
        for job in jobs:
            self.jobs.start(job, self._shards.held[job.shard])
        if not rows:
            return
        for row in rows:
            if row.id not in self._unsent:
                self._unsent[row.id] = _Unsent(
                    data=row.data, destination=row.destination, deadline=row.deadline, next_try=now
                )
                heapq.heappush(self._retries, (now, row.id))
        with self.store.unit() as unit:
            still = unit.get_many(OutboxRow, [(row.id,) for row in rows])
            unit.save(*(replace(row, next_try=now + ADOPT_AFTER) for row in still.values()))

    def _refresh(self, now: Instant) -> None:
        """Edges may have been added or changed by an administrator; the roster by another daemon of this cell."""
        with self.store.unit(lock=False) as unit:
            edges = {edge.neighbour: edge for edge in unit.all(EdgeRow)}
            self.role.load(unit, now)
        for name, box in list(self._links.items()):
            if name not in edges or edges[name].url != box:
                del self._links[name]
                self._pump.part(name)
        for name, edge in edges.items():
            if name in self._links:
                continue
            try:
                self._pump.join(name, self._link(edge))
                self._links[name] = edge.url
            except BadInput as error:
                log.error("%s: edge to %s is not usable: %s", self.name, name, error)

    def _link(self, edge: EdgeRow) -> Link:
        return self._broker.link(edge.neighbour, self._open_url(edge.url))
