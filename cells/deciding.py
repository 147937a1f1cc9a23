"""One transaction's worth of decisions: items are decided on in order over one unit, and what they want done outside is
gathered for after the commit. The rules that make a second time a no-op are here: inbox marks, wakes and jobs that must
still be there, leases whose epoch must still be ours.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cells import codec, withdrawing
from cells.decision import Decision, Remove
from cells.identity import Identity, Withdrawn
from cells.intake import Item
from cells.messages import Ack, CertificatesWithdrawn, Direction, Expired, NotForwarded
from cells.names import SECOND, CellName, Instant, id_text
from cells.ports import NewId, Role, Unit
from cells.record import Received, Record
from cells.rows import InboxRow, JobRow, LeaseRow, OutboxRow, WakeRow, shard_of
from cells.unsent import Unsent

log = logging.getLogger("celltree.node")

INBOX_KEPT = 3600 * SECOND
ADOPT_AFTER = 30 * SECOND


@dataclass(slots=True)
class Batch:
    """What a transaction's decisions want done after it has committed. `led`: the neighbour by which each owner's last
    command came; `repeated`: by which came what an origin has sent again; `unanswered`: who has not answered what was
    sent without an outbox."""

    send: list[tuple[Record, bytes]] = field(default_factory=list)
    acks: dict[CellName, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    seen: dict[CellName, list[tuple[bytes, int]]] = field(default_factory=lambda: defaultdict(list))
    jobs: list[JobRow] = field(default_factory=list)
    done: list[bytes] = field(default_factory=list)
    stop: list[bytes] = field(default_factory=list)
    wakes: list[Instant] = field(default_factory=list)
    not_forwarded: list[int] = field(default_factory=list)
    led: dict[CellName, CellName] = field(default_factory=dict)
    repeated: dict[CellName, CellName] = field(default_factory=dict)
    unanswered: set[CellName] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    withdrawn: Withdrawn | None = None


class Deciding:
    """A role's decisions, in rows."""

    def __init__(self, *, identity: Identity, role: Role, new_id: NewId, unsent: Unsent) -> None:
        self._identity = identity
        self._name = identity.name
        self._new_id = new_id
        self.role = role
        self._unsent = unsent
        self.trace: Callable[[CellName, Received, Decision], None] | None = None

    def batch(self, unit: Unit, items: Sequence[Item], now: Instant) -> Batch:
        """Decide on the items; the unit has the rows, the answer what is to be done when it has committed."""
        batch = Batch()
        known = self._marks(unit, items)
        waiting, running, leases = self._still_there(unit, items)
        self._read_ahead(unit, items)
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
                batch.counts["parked"] += 1
                if item.origin and item.origin != self._name:
                    batch.acks[item.origin].append(item.parked.id)
                continue
            if item.received is None:
                continue
            record = item.received.record
            if record.kind.direction is Direction.DOWN and item.received.neighbour:
                batch.led[record.origin] = item.received.neighbour
            marked = record.kind.acknowledged and item.wake is None and record.origin != self._name
            if marked and ((record.id,) in known or record.deadline + INBOX_KEPT < now):
                batch.acks[record.origin].append(record.id)
                batch.counts["repeated"] += 1
                batch.repeated[record.origin] = item.received.neighbour
                continue
            taken = self._one(unit, item.received, batch, now)
            if marked and taken:
                batch.acks[record.origin].append(record.id)
                known.add((record.id,))
                unit.save(InboxRow(id=record.id, expires=min(record.deadline, now + 24 * INBOX_KEPT) + INBOX_KEPT))
        return batch

    def _marks(self, unit: Unit, items: Sequence[Item]) -> set[tuple[bytes, ...]]:
        marked = [
            (item.received.record.id,)
            for item in items
            if item.received is not None and item.received.record.kind.acknowledged and item.wake is None
        ]
        return set(unit.get_many(InboxRow, marked)) if marked else set()

    def _still_there(
        self, unit: Unit, items: Sequence[Item]
    ) -> tuple[dict[tuple[bytes, ...], WakeRow], dict[tuple[bytes, ...], JobRow], dict[tuple[int, ...], LeaseRow]]:
        wakes = [(item.wake,) for item in items if item.wake is not None]
        jobs = [item.job for item in items if item.job is not None]
        return (
            unit.get_many(WakeRow, wakes) if wakes else {},
            unit.get_many(JobRow, [(job.id,) for job in jobs]) if jobs else {},
            unit.get_many(LeaseRow, [(job.shard,) for job in jobs]) if jobs else {},
        )

    def _read_ahead(self, unit: Unit, items: Sequence[Item]) -> None:
        """The rows of all servers of a batch in one statement for each table."""
        servers = {
            (item.received.record.server,)
            for item in items
            if item.received is not None and item.received.record.kind.of_server
        }
        if len(servers) > 1:
            for row in self.role.of_server:
                unit.get_many(row, sorted(servers))

    def _one(self, unit: Unit, received: Received, batch: Batch, now: Instant) -> bool:
        """Decide on a record; whether it has had its effect."""
        record = received.record
        batch.counts["records"] += 1
        if isinstance(record.body, NotForwarded):
            batch.not_forwarded.append(record.body.serial)
            return True
        if isinstance(record.body, Expired):
            unit.save(Remove(row=OutboxRow, key=(record.body.id,)))
        if isinstance(record.body, Ack):
            self._acknowledged(unit, record, record.body, batch)
            if not record.body.seen:
                return True
        if isinstance(record.body, CertificatesWithdrawn):
            decision, batch.withdrawn = withdrawing.decide(unit, record, record.body, self._identity, self._new_id, now)
        else:
            decision = self.role.decide(unit, received, now)
        if self.trace is not None:
            self.trace(self._name, received, decision)
        for note in decision.notes:
            log.info("%s %s %s: %s", self._name, record.request or "-", id_text(record.server), note)
        self._write(unit, decision, batch, now)
        return decision.taken

    def _write(self, unit: Unit, decision: Decision, batch: Batch, now: Instant) -> None:
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
        for record in decision.send:
            data = codec.pack_record(record)
            if record.kind.acknowledged:
                unit.save(
                    OutboxRow(
                        id=record.id,
                        shard=shard_of(record.server),
                        destination=record.destination,
                        next_try=now + ADOPT_AFTER,
                        attempts=0,
                        deadline=record.deadline,
                        data=data,
                    )
                )
            batch.send.append((record, data))
        batch.stop += decision.stop
        batch.unanswered.update(decision.unanswered)
        for seen in decision.seen:
            batch.seen[seen.destination].append((seen.server, seen.version))

    def _acknowledged(self, unit: Unit, record: Record, ack: Ack, batch: Batch) -> None:
        strangers = [id for id in ack.ids if self._unsent.get(id) is None]
        rows = unit.get_many(OutboxRow, [(id,) for id in strangers]) if strangers else {}
        for id in ack.ids:
            waiting = self._unsent.get(id) or rows.get((id,))
            if waiting is not None and waiting.destination == record.origin:
                unit.save(Remove(row=OutboxRow, key=(id,)))
                batch.done.append(id)
