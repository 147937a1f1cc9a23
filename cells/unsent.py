"""The outbox as one daemon remembers it: which records wait for their destination's acknowledgement, and when each is
sent again. Memory only; the rows are the truth, and a daemon that starts or takes over reads them in (`adopt`).
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cells.names import SECOND, CellName, Instant
from cells.record import Record
from cells.rows import OutboxRow

# How long to wait for an acknowledgement, each time it was sent. Soon three times, because two ways may be dead and a
# command and its report are lost one after the other, and five seconds are promised; the last is also how long a record
# may still wait once its destination is back.
RESEND_AFTER = tuple(seconds * SECOND for seconds in (1, 1, 1, 2, 4, 8, 16, 20))
RESEND_SOON = SECOND // 4
DUE_AT_ONCE = 1024


@dataclass(slots=True)
class Waiting:
    """A record, packed, with when to try it again. `hop`: the neighbour by which it went and was not answered, empty
    where it is known to have gone nowhere."""

    id: bytes
    data: bytes
    destination: CellName
    deadline: Instant
    next_try: Instant
    hop: CellName = ""
    attempts: int = 0


class Unsent:
    """Records that wait, and a heap of when. An entry of the heap whose time is not its record's is void."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, Waiting] = {}
        self._heap: list[tuple[Instant, bytes]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def get(self, id: bytes) -> Waiting | None:
        return self._waiting.get(id)

    def next_due(self) -> Instant | None:
        return self._heap[0][0] if self._heap else None

    def remember(self, record: Record, data: bytes, hop: CellName | None, now: Instant) -> None:
        """A record that has been sent for the first time."""
        self._add(Waiting(record.id, data, record.destination, record.deadline, now + RESEND_AFTER[0], hop or ""))

    def adopt(self, rows: Iterable[OutboxRow], now: Instant) -> None:
        """Take up rows of a daemon that died, or of our own former life; those known are left as they are."""
        for row in rows:
            if row.id not in self._waiting:
                self._add(Waiting(row.id, row.data, row.destination, row.deadline, now))

    def forget(self, ids: Iterable[bytes]) -> None:
        for id in ids:
            self._waiting.pop(id, None)

    def sooner(self, ids: Iterable[bytes], now: Instant) -> None:
        """These went nowhere: try them again soon, by another way."""
        for id in ids:
            waiting = self._waiting.get(id)
            if waiting is None:
                continue
            waiting.hop = ""
            if waiting.next_try > now + RESEND_SOON:
                self._at(waiting, now + RESEND_SOON)

    def due(self, now: Instant) -> list[Waiting]:
        """Take out what is to be tried now; each comes back by `later`, `again` or `forget`."""
        due: list[Waiting] = []
        while self._heap and self._heap[0][0] <= now and len(due) < DUE_AT_ONCE:
            next_try, id = heapq.heappop(self._heap)
            waiting = self._waiting.get(id)
            if waiting is not None and waiting.next_try == next_try:
                due.append(waiting)
        return due

    def clock_was_put_back(self, now: Instant) -> None:
        """Nothing waits longer than it can."""
        for waiting in self._waiting.values():
            if waiting.next_try > now + RESEND_AFTER[-1]:
                self._at(waiting, now)

    def again(self, due: Sequence[Waiting]) -> None:
        """They could not be looked at: due at once again."""
        for waiting in due:
            self._at(waiting, waiting.next_try)

    def later(self, waiting: Waiting, hop: CellName | None, now: Instant) -> None:
        """It was sent once more."""
        waiting.attempts += 1
        waiting.hop = hop or ""
        self._at(waiting, now + RESEND_AFTER[min(waiting.attempts, len(RESEND_AFTER) - 1)])

    def _add(self, waiting: Waiting) -> None:
        self._waiting[waiting.id] = waiting
        heapq.heappush(self._heap, (waiting.next_try, waiting.id))

    def _at(self, waiting: Waiting, next_try: Instant) -> None:
        waiting.next_try = next_try
        heapq.heappush(self._heap, (next_try, waiting.id))
