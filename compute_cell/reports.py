"""Keeping owners right: reports again until seen, digests now and then, differences found and reported. Pure."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate

from cells.decision import NOTHING, Decision, Wake
from cells.digest import bucket_of, buckets, checksum
from cells.messages import Ack, Compare, Digest, InstanceReport, RecallServer, ReportsDue
from cells.names import NEVER, SECOND, CellName, Instant
from cells.ports import View, Where
from cells.record import Received, Record
from cells.unsent import RESEND_AFTER
from compute_cell.answers import NO_JOB, Here
from compute_cell.rows import InstanceRow, Phase

# A report goes again when it is so old and still unseen, then every LAST.
AGES = tuple(accumulate(RESEND_AFTER))
LAST = RESEND_AFTER[-1]
# Of one owner.
MOST_AT_ONCE = 500
# Looks are as far apart at least; those of a cell's daemons at the same time are one wake.
APART = SECOND // 4


def seen(view: View, body: Ack, owner: CellName) -> Decision:
    """The owner has saved these versions; a newer one is still unseen."""
    versions = {(server,): version for server, version in body.seen}
    rows = view.get_many(InstanceRow, list(versions))
    return Decision(
        save=tuple(
            replace(row, unseen=False)
            for key, row in rows.items()
            if row.unseen and row.owner == owner and row.version <= versions[key]
        )
    )


def due_again(sent: Instant, after: Instant) -> Instant:
    """The first time after `after` when a report of then goes again, should it still be unseen."""
    for age in AGES:
        if sent + age > after:
            return sent + age
    last = sent + AGES[-1]
    return last + ((after - last) // LAST + 1) * LAST


class Unseen:
    """Looks for reports that their owners have not seen in time, for as long as there are any: a second after one was
    sent, not at the next tick only, because the parent it went through may be dead. `_since`, `_looked`: the last look
    but one, and the last; `_next`: when this daemon knows of one to come."""

    def __init__(self) -> None:
        self._since: Instant = 0
        self._looked: Instant = 0
        self._next: Instant = 0

    def again(self, here: Here, view: View, now: Instant) -> Decision:
        """Report once more what was not seen."""
        if now > self._looked:  # else the same look is decided on once more
            self._since, self._looked = self._looked, now
        unseen = _oldest_unseen(view)
        if not unseen:
            return NOTHING
        late = tuple(here.report(row) for row in unseen if due_again(row.updated, self._since) <= now)
        decision = Decision(send=late, unanswered=frozenset(report.destination for report in late))
        return self._look(here, decision, min(due_again(row.updated, now) for row in unseen), now)

    def after(self, here: Here, decision: Decision, now: Instant) -> Decision:
        """The decision, and a look at what becomes of its reports."""
        if not any(isinstance(record.body, InstanceReport) for record in decision.send):
            return decision
        return self._look(here, decision, now + AGES[0], now)

    def _look(self, here: Here, decision: Decision, due: Instant, now: Instant) -> Decision:
        if now < self._next <= due + APART:
            return decision
        self._next = -(-max(due, now + APART) // APART) * APART
        id = b"reports " + self._next.to_bytes(8, "big")
        record = Record(id=id, body=ReportsDue(), origin=here.name, destination=here.name)
        return decision.but(wake=(*decision.wake, Wake(due=self._next, record=record)))


def _oldest_unseen(view: View) -> list[InstanceRow]:
    """Of each owner the oldest that it has not seen, so many at most: one that is dead holds up nobody else's."""
    found: list[InstanceRow] = []
    after = ""
    while True:
        rows = view.find(
            InstanceRow,
            Where(column="unseen", op="=", value=True),
            Where(column="owner", op=">", value=after),
            order=("owner", "updated"),
            limit=MOST_AT_ONCE,
        )
        if len(rows) < MOST_AT_ONCE:
            return sorted((*found, *rows), key=lambda row: row.updated)
        last = rows[-1].owner
        # The last one may have more than have come here, unless all are its: it is the first of the next look.
        whole = [row for row in rows if row.owner != last] or rows
        found += whole
        after = whole[-1].owner


def sums_for(view: View, owner: CellName) -> tuple[int, ...]:
    """The buckets of one owner's servers here."""
    rows = view.find(InstanceRow, Where(column="owner", op="=", value=owner))
    return buckets((row.id, checksum(row.version, row.state)) for row in rows if row.phase is not Phase.GONE)


def digests(here: Here, view: View, owners: Iterable[CellName] = ()) -> Decision:
    """One digest for each owner of servers here, and for these: they may know of servers that we have forgotten."""
    of_owner: dict[CellName, list[tuple[bytes, int]]] = {owner: [] for owner in owners}
    for row in view.find(InstanceRow):
        if row.phase is not Phase.GONE:
            of_owner.setdefault(row.owner, []).append((row.id, checksum(row.version, row.state)))
    return Decision(
        send=tuple(
            Record(
                id=here.new_id(),
                body=Digest(buckets=buckets(servers)),
                origin=here.name,
                destination=owner,
                deadline=NEVER,
            )
            for owner, servers in sorted(of_owner.items())
        )
    )


def _doubt(here: Here, row: InstanceRow) -> Decision:
    if row.job != NO_JOB or row.phase not in (Phase.GRANTED, Phase.PREPARED):
        return NOTHING  # the next digest comes when it is over
    recall = here.record(row.owner, RecallServer(attempt=row.attempt), row)
    return Decision(save=(replace(row, stale=True),), send=(recall,), notes=("its owner is ahead of us",))


def compare(here: Here, view: View, received: Received, body: Compare, now: Instant) -> Decision:
    """The owner's side of a bucket: raise and report what differs, ask for what is not known here."""
    owner = received.record.origin
    theirs = {server: (version, check) for server, version, check in body.servers}
    ours = {
        row.id: row
        for row in view.find(InstanceRow, Where(column="owner", op="=", value=owner))
        if bucket_of(row.id) == body.bucket
    }
    decision = NOTHING
    for server, row in ours.items():
        version, check = theirs.get(server, (0, 0))
        if version == row.version and check == checksum(row.version, row.state):
            continue
        if row.stale or (row.phase is Phase.GONE and server not in theirs):
            continue
        if version > row.version and row.phase is not Phase.GONE:
            # Its view is ahead of our truth: either was put back to a backup. The host decides.
            decision += _doubt(here, row)
            continue
        decision += here.changed(replace(row, version=max(row.version, version)), now)
    for server in theirs.keys() - ours.keys():
        record = replace(received.record, server=server)
        decision += Decision(send=(here.record(owner, RecallServer(), record),))
    return decision
