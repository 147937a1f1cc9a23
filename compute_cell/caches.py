"""Cached images that no server uses any more: when each pool's storage is looked over for them. Pure."""

from dataclasses import dataclass

from cells.codec import pack
from cells.decision import NOTHING, Decision, Job
from cells.names import SECOND, Instant, is_due
from cells.ports import View
from cells.record import NO_SERVER
from compute_cell.answers import Here
from compute_cell.rows import PoolRow
from compute_cell.tasks import ClearCacheTask

_LANE = "cache "
_SOONEST = 3600 * SECOND


@dataclass(slots=True, kw_only=True)
class Clearing:
    """Since when a daemon has not asked; lost with it, which costs an hour."""

    due: Instant = 0

    def look(self, here: Here, view: View, kept_for: float, now: Instant) -> Decision:
        """A job for each pool, once an hour. `kept_for` (seconds): how long an unused image stays; 0 keeps all."""
        if not kept_for or not is_due(self.due, _SOONEST, now):
            return NOTHING
        first, self.due = self.due == 0, now + _SOONEST
        if first:
            return NOTHING
        task = {
            pool.name: ClearCacheTask(pool=pool.name, at=now // SECOND, unused_for=int(kept_for))
            for pool in view.all(PoolRow)
        }
        return Decision(
            do=tuple(
                Job(id=here.new_id(), kind="pool.clear_cache", server=NO_SERVER, lane=_LANE + name, body=pack(body))
                for name, body in task.items()
            )
        )
