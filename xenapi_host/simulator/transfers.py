"""Bytes of disks and VMs on their way in or out over HTTP, under a task.

XAPI answers 200 before the data, so what goes wrong later is told by the task: the one whose reference the client sent
as task_id, else one that is made for the transfer; the header task-id names it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from xenapi_host import vhd
from xenapi_host.simulator.chains import no_room
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.dispatch import finish
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.http_wire import Refused, Request, Response, Sink, trouble
from xenapi_host.simulator.storage import NoRoom

_LOG = logging.getLogger(__name__)
_STEP = 2 * 1024 * 1024


class Transfer:
    """One transfer and its task. Used by one thread, with the engine's lock free unless a method says otherwise."""

    def __init__(self, engine: Engine, request: Request, label: str, total: int = 0) -> None:
        """The lock is held. `total`: how many bytes are expected, for the task's progress; 0 if nobody knows."""
        known = engine.db.find("task", request.parameter("task_id"))
        self.engine = engine
        self.task: Row = known if known is not None else engine.start_task(label, None)
        self.header = ("task-id", self.task.ref)
        self.total = total
        self.check: Callable[[], None] = lambda: None  # asked now and then while data comes in; raises to end it
        self._done = self._told = 0

    def refuse(self, failure: Failure) -> Response:
        """End before any data: HTTP 500 with the error in words. The lock is held."""
        self._end(failure)
        return trouble(f"{failure.details[0]}: [ {'; '.join(failure.details[1:])} ]")

    def refuse_request(self, why: str) -> Response:
        """The request itself is no good: 404, and the task says why. The lock is held."""
        self._end(Failure("INTERNAL_ERROR", why))
        return Response(status=404, content_type="text/html", close=True, version="HTTP/1.0")

    def passed(self, count: int) -> None:
        """So many bytes more have gone through. Raises Failure once the task has been cancelled."""
        self._done += count
        if self._done - self._told < _STEP:
            return
        self._told = self._done
        self.check()
        with self.engine.lock:
            if "cancel" in self.task["current_operations"].values():
                raise Failure("TASK_CANCELLED", self.task.ref)
            if self.total and self.task.ref in self.engine.db.rows:
                percents = min(self._done * 100 // self.total, 99)  # whole ones: each new value is an event
                self.engine.db.set(self.task, "progress", percents / 100)

    @contextmanager
    def underway(self, result: list[str] | None = None) -> Iterator[None]:
        """While the data moves; the outcome goes into the task. `result`: references, filled in meanwhile."""
        failure: Failure | None = None
        try:
            yield
        except Failure as refused:
            failure = refused
        except NoRoom as full:
            failure = no_room(full)
        except (vhd.VhdError, Refused) as error:
            failure = Failure("VDI_IO_ERROR", str(error))
        except OSError:
            failure = Failure("VDI_IO_ERROR", "Device I/O errors")
        except Exception as surprise:  # a bug of ours must not look like a success
            _LOG.exception("a bug of the simulator in %s", self.task["name_label"])
            failure = Failure("INTERNAL_ERROR", repr(surprise))
        finally:
            with self.engine.lock:
                self._end(failure, result)
                self.engine.after_call()

    def _end(self, failure: Failure | None, result: list[str] | None = None) -> None:
        def outcome() -> list[str] | str:
            if failure is not None:
                raise failure
            return "" if result is None else result

        finish(self.engine, self.task, outcome)


class Incoming:
    """A request's body as a stream that ends where its Content-Length says, if it has one."""

    def __init__(self, reader: BinaryIO, length: int | None, transfer: Transfer) -> None:
        self._reader = reader
        self._left = length
        self._transfer = transfer

    def read(self, length: int, /) -> bytes:
        data = self._reader.read(length if self._left is None else min(length, self._left))
        if self._left is not None:
            self._left -= len(data)
        self._transfer.passed(len(data))
        return data

    def exactly(self, length: int) -> bytes:
        data = self.read(length)
        if len(data) < length:
            raise Refused("the data ended early")
        return data


class Outgoing:
    """A response's body as a stream."""

    def __init__(self, sink: Sink, transfer: Transfer) -> None:
        self._sink = sink
        self._transfer = transfer

    def write(self, data: bytes, /) -> None:
        self._sink.write(data)
        self._transfer.passed(len(data))
