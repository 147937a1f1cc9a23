"""The other pool of a migration, as the sending one sees it: XenAPI calls under the session that it has opened, disks
filled, and a VM handed over. Pools of one process without an HTTP face are called; all others are asked over HTTP.

Real XAPIs do the same with services of their own (/services/SM, /services/xenops); only simulators understand ours.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlsplit
from weakref import WeakValueDictionary

from xenapi_host import vhd
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import Dropped, Failure
from xenapi_host.simulator.vm_receiving import Handover, receive

PATH = "/services/xenops"
_SECONDS = 60.0
_LARGEST_ANSWER = 16 * 1024 * 1024
_EXPECTING: WeakValueDictionary[str, Engine] = WeakValueDictionary()  # session of a migrate_receive -> its pool


class Peer(Protocol):
    """Methods raise Failure: what the other pool has refused, or CANNOT_CONTACT_HOST. Called without any lock."""

    def call(self, method: str, *params: Any) -> Any: ...

    def fill(self, vdi: str, disk: vhd.Disk | None, passed: Callable[[int], None]) -> None:
        """Write a disk's bytes into an empty one over there; None where the source has no bytes."""

    def hand_over(self, handover: Handover) -> str:
        """The VM's reference over there. May be called twice."""


def expect(engine: Engine, session: str) -> None:
    """This pool is ready to receive under this session."""
    _EXPECTING[session] = engine


def peer_of(dest: dict[str, str]) -> Peer:
    """The pool that a destination (what host.migrate_receive has answered) names."""
    session = dest.get("session_id", "")
    engine = _EXPECTING.get(session)
    if engine is not None and not engine.urls:
        return _Neighbour(engine, session)
    url = urlsplit(dest["master"])
    if url.scheme not in ("http", "https") or not url.hostname:
        raise Failure("CANNOT_CONTACT_HOST", dest["master"])
    return _Remote(f"{url.scheme}://{url.netloc}", session)


@dataclass(frozen=True, slots=True)
class _Neighbour:
    engine: Engine
    session: str

    def call(self, method: str, *params: Any) -> Any:
        try:
            return self.engine.call(method, [self.session, *params])
        except Dropped as error:
            raise Failure("CANNOT_CONTACT_HOST", str(error)) from error

    def fill(self, vdi: str, disk: vhd.Disk | None, passed: Callable[[int], None]) -> None:
        """Light hosts keep sizes only, which VDI.create has noted."""

    def hand_over(self, handover: Handover) -> str:
        with self.engine.lock:
            try:
                return receive(self.engine, handover)
            finally:
                self.engine.after_call()


@dataclass(frozen=True, slots=True)
class _Remote:
    url: str
    session: str

    def call(self, method: str, *params: Any) -> Any:
        body = json.dumps({"method": method, "params": [self.session, *params], "id": 1}).encode()
        return self._answer("POST", "/jsonrpc", body)

    def fill(self, vdi: str, disk: vhd.Disk | None, passed: Callable[[int], None]) -> None:
        if disk is None:
            return
        plan = vhd.plan_export(disk)
        task = self.call("task.create", "VDI.import", "")
        try:
            query = f"vdi={quote(vdi)}&task_id={quote(task)}&session_id={quote(self.session)}&format=vhd"
            with self._asked("PUT", f"/import_raw_vdi?{query}", plan.size, _counted(plan.chunks(), passed)) as response:
                response.read(_LARGEST_ANSWER)  # until it hangs up: the head comes before the data has been taken
            if self.call("task.get_status", task) != "success":
                raise Failure(*self.call("task.get_error_info", task))
        finally:
            self.call("task.destroy", task)

    def hand_over(self, handover: Handover) -> str:
        return str(self._answer("PUT", f"{PATH}?session_id={quote(self.session)}", handover.packed()))

    def _answer(self, method: str, path: str, body: bytes) -> Any:
        with self._asked(method, path, len(body), iter([body])) as response:
            data = response.read(_LARGEST_ANSWER)
            if response.status != 200:
                raise Failure("CANNOT_CONTACT_HOST", f"{self.url} answered {response.status}")
        try:
            answer = json.loads(data)
            error, result = answer["error"], answer["result"]
        except (ValueError, KeyError, TypeError):
            raise Failure("CANNOT_CONTACT_HOST", f"{self.url} is no simulator of this kind") from None
        if error is not None and error[0] == "SESSION_INVALID":  # the client would take it for its own
            raise Failure("CANNOT_CONTACT_HOST", f"{self.url}: the session for receiving has ended")
        if error is not None:
            raise Failure(*map(str, error))
        return result

    @contextmanager
    def _asked(self, method: str, path: str, length: int, body: Iterator[bytes]) -> Iterator[http.client.HTTPResponse]:
        connection = self._connection()
        try:
            connection.request(method, path, body, {"Content-Length": str(length)})
            yield connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise Failure("CANNOT_CONTACT_HOST", f"{self.url}: {error}") from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        if parts.scheme == "http":
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=_SECONDS)
        # Pools do not know each other's certificates; XAPI does not check them between pools either (importexport.ml).
        context = ssl._create_unverified_context()
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=_SECONDS, context=context)


def _counted(pieces: Iterator[bytes], passed: Callable[[int], None]) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        passed(len(piece))
