"""The way to one neighbour's inbox over RabbitMQ: a thread, a connection, a window of unconfirmed messages.

`offer` only queues. The thread writes what is queued in one go, and each message ends as one Outcome: confirmed,
refused (the neighbour's queue is full), returned (there is no queue), or not confirmed within the time limit - then the
connection is dropped, since a silent link is a broken one. While there is no connection offers are refused at once.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from cells.broker.amqp.attendant import Attendant
from cells.broker.amqp.connection import AmqpConnection, Lost
from cells.broker.amqp.frames import (
    BASIC_ACK,
    BASIC_NACK,
    BASIC_RETURN,
    BODY,
    CONNECTION_BLOCKED,
    CONNECTION_UNBLOCKED,
    HEADER,
    Frame,
    PublishForm,
    confirmed,
    content,
)
from cells.broker.limits import INBOX, QUEUE_FULL, refuse_oversized
from cells.broker.options import AmqpOptions
from cells.names import CellName
from cells.ports import Outcome

_ONE_WRITE = 256 * 1024
_UNROUTABLE = f"unroutable: the neighbour's broker has no queue {INBOX}, its cell has never been started"
_BLOCKED = "the neighbour's broker blocks publishers: it is short of memory or disk"

_Offer = tuple[Any, bytes, float]


class AmqpLink:
    """Thread safe; see cells.ports.Link."""

    def __init__(
        self, *, cell: CellName, neighbour: CellName, url: str, bell: Callable[[], None], options: AmqpOptions
    ) -> None:
        self._bell = bell
        self._options = options
        self._lock = threading.Lock()
        self._accepting = True
        self._asleep = False
        self._waiting: deque[_Offer] = deque()
        self._unconfirmed: OrderedDict[int, tuple[Any, float]] = OrderedDict()
        self._returned: set[int] = set()
        self._outcomes: deque[Outcome] = deque()
        self._blocked = False
        self._attendant = Attendant(
            url=url, name=f"celltree {cell} to {neighbour}", options=options, serve=self._serve, lost=self._fail_all
        )
        self._attendant.start()

    def offer(self, ref: Any, data: bytes) -> bool:
        refuse_oversized(data)
        options = self._options
        with self._lock:
            if not self._accepting or len(self._waiting) + len(self._unconfirmed) >= options.window + options.backlog:
                return False
            self._waiting.append((ref, data, time.monotonic() + options.time_limit))
            asleep, self._asleep = self._asleep, False
        if asleep:
            self._attendant.wake.ring()
        return True

    def outcomes(self) -> list[Outcome]:
        return [self._outcomes.popleft() for _ in range(len(self._outcomes))]

    def close(self) -> None:
        """Returns at once; the thread ends soon after."""
        with self._lock:
            self._accepting = False
            self._waiting.clear()
        self._attendant.stop()

    @property
    def alive(self) -> bool:
        return self._attendant.alive

    def join(self, seconds: float) -> None:
        """Wait for the thread to end, after `close`."""
        self._attendant.join(seconds)

    # --- in the thread ---

    def _serve(self, connection: AmqpConnection, proven: Callable[[], None]) -> None:
        form = connection.publish_form()
        number = 0
        frames_of_return = _Return()
        self._blocked = False
        self._accept(True)
        while not self._attendant.is_stopping():
            number = self._publish(connection, form, number)
            self._expire()
            with self._lock:
                full = len(self._unconfirmed) >= self._options.window
                self._asleep = not self._waiting
                pause = 0.0 if self._waiting and not full else self._until_next_deadline()
            if not connection.wait(min(pause, connection.tick())):
                continue
            # Not by the length of the outcomes: the node takes them away meanwhile.
            if any([self._take(connection, received, frames_of_return) for received in connection.receive()]):
                proven()
                self._bell()

    def _publish(self, connection: AmqpConnection, form: PublishForm, number: int) -> int:
        parts: list[bytes] = []
        size = 0
        now = time.monotonic()
        with self._lock:
            while self._waiting and len(self._unconfirmed) < self._options.window and size < _ONE_WRITE:
                ref, data, deadline = self._waiting[0]
                if deadline <= now:
                    break
                self._waiting.popleft()
                number += 1
                self._unconfirmed[number] = (ref, deadline)
                parts += form.write(number, data)
                size += len(data)
        if parts:
            connection.send(b"".join(parts))
        return number

    def _take(self, connection: AmqpConnection, received: Frame, returned: "_Return") -> bool:
        """What the broker says; whether that gave outcomes."""
        kind, _, payload = received
        method = payload[:4]
        if returned.open and kind in (HEADER, BODY):
            self._returned.update(returned.take(kind, payload))
        elif method in (BASIC_ACK, BASIC_NACK):
            return self._settle(*confirmed(payload), ok=method == BASIC_ACK)
        elif method == BASIC_RETURN:
            returned.open = True
        elif method == CONNECTION_BLOCKED:
            self._blocked = True
            self._accept(False)
        elif method == CONNECTION_UNBLOCKED:
            self._blocked = False
            self._accept(True)
        else:
            connection.pass_on(received)
        return False

    def _settle(self, number: int, multiple: bool, *, ok: bool) -> bool:
        numbers = [number]
        if multiple:
            numbers = []
            for one in self._unconfirmed:
                if one > number:
                    break
                numbers.append(one)
        for one in numbers:
            known = self._unconfirmed.pop(one, None)
            if known is None:
                continue
            if one in self._returned:
                self._returned.discard(one)
                self._outcomes.append(Outcome(ref=known[0], ok=False, reason=_UNROUTABLE))
            else:
                self._outcomes.append(Outcome(ref=known[0], ok=ok, reason="" if ok else QUEUE_FULL))
        return bool(numbers)

    def _expire(self) -> None:
        """Fail what is past its deadline. A blocked connection is kept: the broker will tell when it is unblocked, and
        a new one would only find out anew."""
        now = time.monotonic()
        late: list[Any] = []
        if self._unconfirmed:
            first = next(iter(self._unconfirmed.values()))
            if first[1] <= now and not self._blocked:
                raise Lost(f"not confirmed within {self._options.time_limit:g} s")
            while self._unconfirmed and first[1] <= now:
                late.append(self._unconfirmed.popitem(last=False)[1][0])
                first = next(iter(self._unconfirmed.values()), first)
        with self._lock:
            while self._waiting and self._waiting[0][2] <= now:
                late.append(self._waiting.popleft()[0])
        reason = _BLOCKED if self._blocked else f"not sent within {self._options.time_limit:g} s"
        self._outcomes.extend(Outcome(ref=ref, ok=False, reason=reason) for ref in late)
        if late:
            self._bell()

    def _until_next_deadline(self) -> float:
        deadlines = [offer[2] for offer in list(self._waiting)[:1]]
        deadlines += [deadline for _, deadline in list(self._unconfirmed.values())[:1]]
        return min(deadlines) - time.monotonic() if deadlines else 3600.0

    def _accept(self, accepting: bool) -> None:
        with self._lock:
            self._accepting = accepting and not self._attendant.is_stopping()
        self._bell()

    def _fail_all(self, reason: str) -> None:
        with self._lock:
            self._accepting = False
            refs = [ref for ref, _ in self._unconfirmed.values()] + [offer[0] for offer in self._waiting]
            self._unconfirmed.clear()
            self._waiting.clear()
        self._returned.clear()
        self._outcomes.extend(Outcome(ref=ref, ok=False, reason=reason) for ref in refs)
        self._bell()


class _Return:
    """A message on its way back to us: a header, then as many body frames as its size says."""

    def __init__(self) -> None:
        self.open = False
        self._number = self._left = 0

    def take(self, kind: int, payload: bytes) -> tuple[int, ...]:
        """The next frame of it; gives the message's number when it is complete."""
        if kind == HEADER:
            self._left, message_id, _ = content(payload)
            self._number = int(message_id or 0)
        else:
            self._left -= len(payload)
        self.open = self._left > 0
        return () if self.open else (self._number,)
