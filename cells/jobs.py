"""Slow work, in a bounded pool of threads. A job is a row until its end has been decided on, so a killed daemon's jobs
are run again by whoever takes the shard over; the work itself is resumable (cells.ports.Journal).

The end of a job is a record to ourselves (JobEnded) handed to `ended`; the job counts as known here until that has been
decided on (`forget`), or it would be adopted and done a second time in between. A Temporary failure is tried again
after its `retry_after`, growing, up to TRIES times; no thread is held meanwhile. With `threads=0` nothing runs by
itself: `run_waiting` does the work in the caller's thread, for stories and simulations.
"""

import heapq
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from cells.codec import pack, unpack
from cells.decision import Job
from cells.errors import CelltreeError, LeaseLost, Refusal, Temporary
from cells.messages import JobEnded
from cells.names import SECOND, Instant
from cells.ports import Clock, Role, Store
from cells.record import NO_SERVER
from cells.rows import JobRow, JournalRow, LeaseRow

TRIES = 6
log = logging.getLogger("celltree.jobs")


class StoreJournal:
    """The journal of one job, in the cell's database. Each write checks, in its own transaction, that the lease under
    which the job runs is still at the same epoch."""

    def __init__(
        self,
        store: Store,
        job: JobRow,
        epoch: int,
        *,
        stopping: Callable[[bytes], str],
        held: Callable[[int, int], bool],
    ) -> None:
        self._store = store
        self._job = job
        self._epoch = epoch
        self._stopping = stopping
        self._held = held

    def get(self, step: str) -> Any:
        with self._store.unit(lock=False) as unit:
            row = unit.get(JournalRow, self._job.id, step)
        return None if row is None else unpack(object, row.value)

    def put(self, step: str, value: Any) -> None:
        with self._store.unit() as unit:
            lease = unit.get(LeaseRow, self._job.shard)
            if lease is None or lease.epoch != self._epoch:
                raise LeaseLost(f"shard {self._job.shard} was taken over by {lease.holder if lease else 'nobody'}")
            unit.save(JournalRow(job=self._job.id, step=step, value=pack(value)))

    def check(self) -> None:
        if not self._held(self._job.shard, self._epoch):
            self._look()
        reason = self._stopping(self._job.id)
        if reason:
            raise Refusal("deleted", reason)

    def _look(self) -> None:
        with self._store.unit(lock=False) as unit:
            lease = unit.get(LeaseRow, self._job.shard)
            job = unit.get(JobRow, self._job.id)
        if lease is None or lease.epoch != self._epoch:
            raise LeaseLost(f"shard {self._job.shard} was taken over")
        if job is None:
            raise LeaseLost("the job's end has been decided on already")


class Workers(Protocol):
    """Who runs jobs: a pool of threads, or a simulation's strands of virtual time."""

    def submit(self, work: Callable[..., None], /, *arguments: Any) -> object:
        """Do this work, sometime soon, apart from the loop."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; `wait` for what runs."""


class Jobs:
    """Starts jobs, at most `per_lane` at once on one lane, and reports their ends. `held` tells when no other daemon
    can have this (shard, epoch) yet: then a check need not ask the database."""

    def __init__(
        self,
        *,
        role: Role,
        store: Store,
        clock: Clock,
        ended: Callable[[JobRow, JobEnded, int], None],
        held: Callable[[int, int], bool] = lambda shard, epoch: False,
        threads: int = 16,
        per_lane: int = 4,
        workers: Workers | None = None,
    ) -> None:
        self._role = role
        self._store = store
        self._clock = clock
        self._ended = ended
        self._held = held
        self._per_lane = per_lane
        self._lock = threading.Lock()
        self._known: dict[bytes, int] = {}
        self._running: dict[str, int] = defaultdict(int)
        self._ready: dict[str, deque[tuple[JobRow, int]]] = defaultdict(deque)
        self._later: list[tuple[Instant, bytes, JobRow, int]] = []
        self._stop_early: dict[bytes, str] = {}
        self._tries: dict[bytes, int] = {}
        if workers is None and threads:
            workers = ThreadPoolExecutor(threads, thread_name_prefix="job")
        self._pool = workers
        self._inline: deque[tuple[JobRow, int]] = deque()
        self._closed = False

    def knows(self, job: bytes) -> bool:
        """Whether this job waits, runs, or has ended here without a decision on its end yet."""
        return job in self._known

    def start(self, job: JobRow, epoch: int) -> None:
        """Run a job when its lane has room. Starting one that is known is no second start."""
        with self._lock:
            if job.id in self._known or self._closed:
                return
            self._known[job.id] = epoch
            self._ready[job.lane].append((job, epoch))
        self._dispatch()

    def forget(self, job: bytes) -> None:
        """The end of this job has been decided on."""
        with self._lock:
            self._known.pop(job, None)

    def stop_early(self, job: bytes, reason: str) -> None:
        """Ask a job to stop between two of its steps; it ends with a Refusal. One that waits for another try has it
        now."""
        with self._lock:
            if job not in self._known:
                return
            self._stop_early[job] = reason
            self._later = [(0 if row.id == job else due, id, row, epoch) for due, id, row, epoch in self._later]
            heapq.heapify(self._later)

    def clock_was_put_back(self) -> None:
        """What waits for another try has it now."""
        with self._lock:
            self._later = [(0, id, row, epoch) for _, id, row, epoch in self._later]
            heapq.heapify(self._later)

    def turn(self, now: Instant) -> None:
        """Start again what waited for another try."""
        with self._lock:
            while self._later and self._later[0][0] <= now:
                _, _, job, epoch = heapq.heappop(self._later)
                self._ready[job.lane].append((job, epoch))
        self._dispatch()

    def run_waiting(self) -> bool:
        """Without threads: do one waiting job now. False if there was none."""
        if not self._inline:
            return False
        self._run(*self._inline.popleft())
        return True

    @property
    def idle(self) -> bool:
        with self._lock:
            return not self._known

    def next_try(self) -> Instant | None:
        """When the next waiting try is due."""
        with self._lock:
            return self._later[0][0] if self._later else None

    def close(self, wait: bool = True) -> None:
        """Take no new jobs; running ones are given the time to reach their end if `wait`, or their next check where
        they are about no server."""
        with self._lock:
            self._closed = True
            self._ready.clear()
            self._later.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=wait, cancel_futures=True)

    # --- inside ---

    def _dispatch(self) -> None:
        starting = []
        with self._lock:
            for lane, queue in list(self._ready.items()):
                while queue and self._running[lane] < self._per_lane:
                    starting.append(queue.popleft())
                    self._running[lane] += 1
                if not queue:
                    del self._ready[lane]
        for job, epoch in starting:
            if self._pool is None:
                self._inline.append((job, epoch))
            else:
                self._pool.submit(self._run, job, epoch)

    def _run(self, row: JobRow, epoch: int) -> None:
        journal = StoreJournal(self._store, row, epoch, stopping=lambda job: self._reason_to_stop(row), held=self._held)
        again: float | None = None
        end: JobEnded | None = None
        try:
            job = Job(
                id=row.id,
                kind=row.kind,
                server=row.server,
                lane=row.lane,
                body=row.body,
                request=row.request,
            )
            end = JobEnded(job=row.id, kind=row.kind, lane=row.lane, result=pack(self._role.work(job, journal)))
        except LeaseLost as error:
            log.warning("job %s of server %s stops: %s", row.kind, row.server.hex(), error)
        except Temporary as error:
            tries = self._tries[row.id] = self._tries.get(row.id, 0) + 1
            if tries >= TRIES:
                end = JobEnded(job=row.id, kind=row.kind, lane=row.lane, error=str(error), permanent=False)
            else:
                again = error.retry_after * 2 ** (tries - 1)
                log.info("job %s of server %s waits %.1f s: %s", row.kind, row.server.hex(), again, error)
        except CelltreeError as error:
            end = JobEnded(job=row.id, kind=row.kind, lane=row.lane, error=str(error))
        except Exception:
            log.exception("job %s of server %s failed in an unforeseen way", row.kind, row.server.hex())
            end = JobEnded(job=row.id, kind=row.kind, lane=row.lane, error="an internal error; see the cell's log")
        self._leave(row, epoch, end, again)

    def _reason_to_stop(self, row: JobRow) -> str:
        # What a cell does for itself is no loss half done: the next daemon begins it anew.
        ending = "the daemon is ending" if self._closed and row.server == NO_SERVER else ""
        return self._stop_early.get(row.id, "") or ending

    def _leave(self, row: JobRow, epoch: int, end: JobEnded | None, again: float | None) -> None:
        with self._lock:
            self._running[row.lane] -= 1
            if not self._running[row.lane]:
                del self._running[row.lane]
            if again is not None and not self._closed:
                heapq.heappush(self._later, (self._clock() + int(again * SECOND), row.id, row, epoch))
            else:
                if end is None:
                    self._known.pop(row.id, None)
                self._tries.pop(row.id, None)
                self._stop_early.pop(row.id, None)
        if end is not None:
            self._ended(row, end, epoch)
        self._dispatch()
