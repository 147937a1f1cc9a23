"""Which of a cell's shards this daemon looks after. Several daemons per cell share them out; each is held under a lease
whose epoch rises with every change of holder, so that a daemon that was frozen finds out before it writes.

Called by the node now and then; the journal of a job asks `epoch_of` and compares it in the database before each write.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from cells.names import SECOND, Instant
from cells.ports import Store
from cells.rows import SHARDS, DaemonRow, LeaseRow

LEASE = 10 * SECOND
RENEW = 3 * SECOND
SKEW = 5 * SECOND
FAR = 60 * SECOND
"""What is further off than that was written before a clock was put back, and does not count."""


class Shards:
    """The shards held by one daemon. A daemon's name must be its own: whoever starts under it takes its leases over.
    `signer` tells others which key the daemon signs with."""

    def __init__(self, store: Store, daemon: str, signer: Callable[[], str] = str) -> None:
        self._store = store
        self._daemon = daemon
        self._signer = signer
        self._held: dict[int, int] = {}
        self._until: Instant = 0
        self._begun = False

    @property
    def held(self) -> Mapping[int, int]:
        """Epoch by shard, as of the last renewal."""
        return self._held

    def holds(self, shard: int, now: Instant) -> bool:
        return shard in self._held and now < self._until

    def is_sure(self, shard: int, epoch: int, now: Instant) -> bool:
        """Whether nobody else can have taken the shard, even by a clock that is SKEW ahead of ours."""
        return self._held.get(shard) == epoch and now + SKEW < self._until

    def renew(self, now: Instant) -> frozenset[int]:
        """Prolong what is ours, take our fair share of what is free, give back what is too much. The shards gained."""
        with self._store.unit() as unit:
            unit.save(DaemonRow(name=self._daemon, seen=now, signer=self._signer()))
            alive = [d.name for d in unit.all(DaemonRow) if d.seen - FAR < now < d.seen + LEASE]
            fair = -(-SHARDS // max(1, len(alive)))
            rows = {lease.shard: lease for lease in unit.all(LeaseRow)}
            held: dict[int, int] = {}
            for shard, lease in sorted(rows.items()):
                if lease.holder != self._daemon or (self._begun and self._held.get(shard) != lease.epoch):
                    continue
                if len(held) >= fair:
                    unit.save(replace(lease, holder="", expires=now))
                    continue
                epoch = lease.epoch if self._begun else lease.epoch + 1
                held[shard] = epoch
                unit.save(replace(lease, epoch=epoch, expires=now + LEASE))
            for shard in range(SHARDS):
                row = rows.get(shard)
                if len(held) >= fair or shard in held or (row is not None and row.holder and _runs(row, now)):
                    continue
                epoch = row.epoch + 1 if row is not None else 1
                held[shard] = epoch
                unit.save(LeaseRow(shard=shard, holder=self._daemon, epoch=epoch, expires=now + LEASE))
        gained = frozenset(shard for shard, epoch in held.items() if self._held.get(shard) != epoch)
        self._held = held
        self._until = now + LEASE
        self._begun = True
        return gained

    def clock_was_put_back(self, now: Instant) -> None:
        """What is held is held for one lease from now at most."""
        self._until = min(self._until, now + LEASE)

    def give_back(self, now: Instant) -> None:
        """At a clean stop: free every lease at once."""
        with self._store.unit() as unit:
            for lease in unit.all(LeaseRow):
                if lease.holder == self._daemon and self._held.get(lease.shard) == lease.epoch:
                    unit.save(replace(lease, holder="", expires=now))
        self._held = {}


def _runs(lease: LeaseRow, now: Instant) -> bool:
    return now < lease.expires < now + FAR
