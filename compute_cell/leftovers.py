"""Things on the hosts that nobody uses, left by a daemon that was frozen for too long: when each pool is looked over
for them, and what the leaf lets go. Pure.

A look (work.py) finds them, and removes what belongs to no server. What has a server goes as a job of that server, so
that nothing else is done with it meanwhile.
"""

from dataclasses import dataclass, replace

from cells.codec import pack, unpack
from cells.decision import NOTHING, Decision, Job
from cells.messages import JobEnded
from cells.names import SECOND, Instant, is_due
from cells.ports import View, Where
from cells.record import NO_SERVER
from compute_cell.answers import NO_JOB, Here
from compute_cell.build import never_ran, restoring, undone_while_busy
from compute_cell.commands import next_one
from compute_cell.rows import InstanceRow, LostCopyRow, Phase, PoolRow
from compute_cell.tasks import Found, SweepTask, TidyTask
from compute_cell.watching import story
from xenapi_host.leftovers import Age, Held

SWEEP, TIDY = "pool.sweep", "server.tidy"
_LANE = "sweep "
_MOST_SECONDS = 3600
_LOOKS = 4


@dataclass(slots=True, kw_only=True)
class Sweeping:
    """When a daemon looks next; lost with it, which costs some time. `kept_for` (seconds): how long an unused thing
    stays; 0 sweeps nothing."""

    kept_for: float
    due: Instant = 0

    @property
    def every(self) -> int:
        """Seconds between two looks."""
        return max(1, min(_MOST_SECONDS, int(self.kept_for / _LOOKS)))

    @property
    def remember(self) -> Instant:
        """How long a tombstone must stay, so that what a frozen daemon made of a deleted server is known for that."""
        return int(self.kept_for + 3 * self.every) * SECOND + 3600 * SECOND

    def look(self, here: Here, view: View, now: Instant) -> Decision:
        """A job for each pool, now and then."""
        every = self.every * SECOND
        if not self.kept_for or not is_due(self.due, every, now) or restoring(view) is not None:
            return NOTHING
        first, self.due = self.due == 0, now + every
        if first:
            return NOTHING
        task = {pool.name: SweepTask(pool=pool.name, age=self.age(now)) for pool in view.all(PoolRow)}
        return Decision(
            do=tuple(
                Job(id=here.new_id(), kind=SWEEP, server=NO_SERVER, lane=_LANE + name, body=pack(body))
                for name, body in task.items()
            )
        )

    def age(self, now: Instant) -> Age:
        return Age(now=now // SECOND, longer_than=int(self.kept_for), gap=3 * self.every)

    def found(self, here: Here, view: View, end: JobEnded, now: Instant) -> Decision:
        """A look is over: jobs for the servers that have something more than they need."""
        pool = end.lane.removeprefix(_LANE)
        if end.error:
            return Decision(notes=(f"leftovers of pool {pool}: {end.error}",))
        said: Found = unpack(Found, end.result)
        decision = Decision(
            notes=tuple(f"pool {pool}: {name}, which was nobody's, is removed" for name in said.removed)
        )
        for server in said.servers:
            decision += self._tidy(here, view, server, pool, now)
        return decision

    def _tidy(self, here: Here, view: View, server: bytes, pool: str, now: Instant) -> Decision:
        row = view.get(InstanceRow, server)
        held = held_on(row, pool)
        awaited = view.find(LostCopyRow, Where(column="server", op="=", value=server))
        if held is None or awaited:  # the host with what is left of it is to return first
            return NOTHING
        task = TidyTask(pool=pool, age=self.age(now), held=held, owner=row.owner if row is not None else None)
        job = Job(
            id=here.new_id(),
            kind=TIDY,
            server=server,
            lane=_LANE + pool,
            body=pack(task),
            request=row.request if row is not None else "",
        )
        locked = (replace(row, job=job.id),) if row is not None and row.phase is Phase.GRANTED else ()
        return Decision(save=locked, do=(job,))


def held_on(row: InstanceRow | None, pool: str) -> Held | None:
    """What the leaf says of a server on a pool; None while something goes on with it, or it is not sure."""
    if row is None:
        return Held.UNKNOWN
    if row.phase is Phase.GONE:
        return Held.GONE
    if row.phase is not Phase.GRANTED or row.job != NO_JOB or row.command is not None or row.stale:
        return None
    if row.moving is not None:
        return None
    if never_ran(row):
        return None if row.host else Held.GONE
    return Held.HERE if row.pool == pool else Held.GONE


def tidied(here: Here, view: View, row: InstanceRow | None, end: JobEnded, now: Instant) -> Decision:
    """A server was tidied up: its story says what went, and what waited meanwhile is next."""
    removed: tuple[str, ...] = () if end.error else unpack(tuple[str, ...], end.result)
    text = f"nobody used {', '.join(removed)} for long: removed"
    notes = (text,) if removed else ((f"tidying up: {end.error}",) if end.error else ())
    if row is None:
        return Decision(notes=notes)
    lines = (story(here, row, "tidied", text, now),) if removed else ()
    if row.job != end.job:
        return Decision(save=lines, notes=notes)
    idle = replace(row, job=NO_JOB)
    told = Decision(save=lines, notes=notes)
    if row.phase is Phase.UNDOING:  # its delete has waited for us
        return told + undone_while_busy(here, idle, now)
    return told + next_one(here, view, idle, now)
