"""The narrow door to a XenServer pool: one call in, its answer or a typed error out. The only importer of XenAPI.

The driver gets a `Session` and never knows what stands behind it: a real pool or the simulator over HTTP
(`connect`), or light hosts in memory (`in_process`). A Session may be used by many threads.
"""

import hashlib
import http.client
import ssl
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit
from xml.parsers.expat import ExpatError

import XenAPI
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring
from defusedxml.xmlrpc import DefusedExpatParser

from cells.errors import BadInput, Temporary

API_VERSION = "2.21"
ORIGINATOR = "celltree"
NULL = "OpaqueRef:NULL"
IDLE_SECONDS = 15.0  # an idle connection older than this may be dead; a new one costs less than a lost call
_FIRST_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.01, 1.0


class XenFailure(Exception):
    """The pool's own no: an error code of XAPI with its parameters. Its text is the code alone, because parameters
    may hold what tenants must not read."""

    def __init__(self, code: str, *parameters: str) -> None:
        super().__init__(code)
        self.code = code
        self.parameters = parameters


class TaskTimedOut(Exception):
    """A task was still running at its time limit; its cancellation has been asked for."""


class TaskForgotten(Exception):
    """The pool knows no such task: it was removed, or the pool has started anew."""


class Door(Protocol):
    """What stands behind a Session. Thread safe; may block, within time limits of its own."""

    def call(self, method: str, params: tuple[Any, ...]) -> Any:
        """The answer; XenFailure when the pool refuses, Temporary when it cannot be reached (the call may have had
        its effect)."""

    def close(self) -> None:
        """Log out and let go of every connection."""


class Session:
    """One pool, as the driver sees it: calls, time, and what this process remembers of the pool.

    `known` maps (class, uuid) to what was read of an object, as a hint only: whoever finds one to be stale clears it.
    """

    def __init__(
        self, door: Door, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._door = door
        self._locks: dict[str, tuple[threading.Lock, int]] = {}
        self._guard = threading.Lock()
        self.now = clock
        self.sleep = sleep
        self.known: dict[tuple[str, str], Any] = {}

    def call(self, method: str, *params: Any) -> Any:
        """One XenAPI call, without the session parameter: `call("VM.get_record", ref)`. Integers are decimal text.
        Raises XenFailure, or Temporary when the pool cannot be reached."""
        return self._door.call(method, params)

    def handle(self, class_name: str, uuid: str) -> str:
        """The reference of a host, SR or network, asked once."""
        known: str | None = self.known.get((class_name, uuid))
        if known is None:
            known = str(self.call(f"{class_name}.get_by_uuid", uuid))
            self.known[class_name, uuid] = known
        return known

    @contextmanager
    def exclusively(self, what: str) -> Iterator[None]:
        """One at a time in this process for `what` on this pool."""
        with self._guard:
            lock, users = self._locks.get(what, (threading.Lock(), 0))
            self._locks[what] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, users = self._locks.pop(what)
                if users > 1:
                    self._locks[what] = (lock, users - 1)

    def close(self) -> None:
        """Log out."""
        self._door.close()


def run_task(session: Session, method: str, *params: Any, limit: float) -> Any:
    """Run an `Async.` call and wait for its result, at most `limit` seconds; longer calls than a connection should be
    kept waiting for go this way.

    Raises XenFailure with the task's error, TaskTimedOut, Temporary when the pool cannot be reached: the task may
    then go on, and looking at its object tells."""
    task = str(session.call(method, *params))
    try:
        result = wait_for_task(session, task, limit=limit)
    except TaskForgotten as forgotten:
        raise Temporary("the pool has forgotten a task that was running; looking again") from forgotten
    end_task(session, task)
    return result


def wait_for_task(session: Session, task: str, *, limit: float) -> Any:
    """The result of a task that was begun, now or by an earlier try. As run_task, and TaskForgotten when the pool has
    no such task (any more); one that has failed is removed."""
    deadline = session.now() + limit
    pause = _FIRST_LOOK_SECONDS
    while True:
        record = _task_record(session, task)
        if record["status"] not in ("pending", "cancelling"):
            break
        if session.now() >= deadline:
            with suppress(XenFailure):
                session.call("task.cancel", task)
            raise TaskTimedOut(task)
        session.sleep(pause)
        pause = min(pause * 1.6, _LONGEST_LOOK_SECONDS)
    if record["status"] == "success":
        return _task_result(record["result"])
    end_task(session, task)
    raise XenFailure(*(record["error_info"] or ["TASK_CANCELLED"]))


def end_task(session: Session, task: str) -> None:
    """Remove a task that has ended. The pool would, too, after an hour."""
    with suppress(XenFailure):
        session.call("task.destroy", task)


def _task_record(session: Session, task: str) -> Mapping[str, Any]:
    try:
        record: Mapping[str, Any] = session.call("task.get_record", task)
    except XenFailure as failure:
        if failure.code == "HANDLE_INVALID":
            raise TaskForgotten(task) from failure
        raise
    return record


def _task_result(text: str) -> Any:
    """A task's result: `<value>..</value>` around a text or an array of texts; nothing for void."""
    if not text:
        return ""
    try:
        root = fromstring(text)
    except (ParseError, DefusedXmlException) as error:
        raise Temporary("the pool gave a task result that is not XML; looking again") from error
    values = root.findall("array/data/value")
    if values or root.find("array") is not None:
        return ["".join(value.itertext()) for value in values]
    return "".join(root.itertext())


# --- light hosts ---


class Face(Protocol):
    """The in-process face of the simulator. What it raises for a refusal carries `details`: code and parameters."""

    def call(self, method: str, *params: Any) -> Any:
        """The answer to one call."""

    def log_in_again(self) -> None:
        """A new session in place of one that has ended."""

    def close(self) -> None:
        """Log out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcess:
    """The door to hosts in this process's memory. Like the SDK it logs in again when its session has ended."""

    face: Face

    def call(self, method: str, params: tuple[Any, ...]) -> Any:
        try:
            return self._ask(method, params)
        except XenFailure as failure:
            if failure.code != "SESSION_INVALID":
                raise
        self.face.log_in_again()
        return self._ask(method, params)

    def _ask(self, method: str, params: tuple[Any, ...]) -> Any:
        try:
            return self.face.call(method, *params)
        except ConnectionError as error:
            raise Temporary("the pool does not answer", retry_after=5.0) from error
        except Exception as error:
            details = getattr(error, "details", None)
            if not isinstance(details, list):
                raise
            raise XenFailure(*details) from None

    def close(self) -> None:
        self.face.close()


def in_process(
    face: Face, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
) -> Session:
    """A Session on light hosts."""
    return Session(InProcess(face=face), clock=clock, sleep=sleep)


# --- a pool on the network ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a pool is reached. Times in seconds; `largest_answer` in bytes. `fingerprint` is the SHA-256 of the
    pool's certificate in hexadecimal (colons allowed): with it no certificate authority is asked; it must hold for
    every member of the pool that may become master."""

    url: str
    user: str
    password: str = field(repr=False)
    fingerprint: str = ""
    ca_file: str = ""
    logins: int = 4
    connect_seconds: float = 10.0
    read_seconds: float = 120.0
    largest_answer: int = 128 * 2**20


def connect(access: Access) -> Session:
    """A Session on a pool over HTTP or HTTPS. Logs in at the first call, so a pool that is down now does no harm.
    BadInput for an address that cannot be one."""
    parts = urlsplit(access.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise BadInput("the pool's url must be like https://10.0.0.5, with user and password given apart from it")
    if access.logins < 1:
        raise BadInput("the number of logins must be 1 or more")
    return Session(Pool(access))


class _TooLarge(Exception):
    """An answer is larger than we take."""


class _Transport(xmlrpc.client.Transport):
    """One kept-alive connection with time limits and a size limit. Never repeats a request by itself, as its base
    would: the first copy may have had its effect."""

    accept_gzip_encoding = False
    user_agent = "celltree"

    def __init__(self, access: Access, tls: ssl.SSLContext | None) -> None:
        super().__init__()
        self._access = access
        self._tls = tls
        self._limit = 0.0

    def request(self, host: Any, handler: str, request_body: Any, verbose: bool = False) -> Any:
        self._limit = time.monotonic() + self._access.read_seconds
        return self.single_request(host, handler, request_body, verbose)

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        if self._connection[0] == host and self._connection[1] is not None:
            return self._connection[1]
        connection: http.client.HTTPConnection
        if self._tls is None:
            connection = http.client.HTTPConnection(host, timeout=self._access.connect_seconds)
        else:
            connection = http.client.HTTPSConnection(host, timeout=self._access.connect_seconds, context=self._tls)
        connection.connect()
        if self._access.fingerprint and self._tls is not None:
            self._check_certificate(connection)
        connection.sock.settimeout(self._access.read_seconds)
        self._extra_headers: list[tuple[str, str]] = []
        self._connection = host, connection
        return connection

    def _check_certificate(self, connection: http.client.HTTPConnection) -> None:
        assert isinstance(connection.sock, ssl.SSLSocket)
        seen = hashlib.sha256(connection.sock.getpeercert(binary_form=True) or b"").hexdigest()
        if seen != _plain(self._access.fingerprint):
            connection.close()
            raise ssl.SSLError("the certificate is not the one whose fingerprint was given")

    def getparser(self) -> tuple[Any, xmlrpc.client.Unmarshaller]:
        target = xmlrpc.client.Unmarshaller(use_datetime=False)
        return DefusedExpatParser(target), target

    def parse_response(self, response: Any) -> Any:
        parser, target = self.getparser()
        size = 0
        while data := response.read(65536):
            size += len(data)
            if size > self._access.largest_answer:
                raise _TooLarge
            if time.monotonic() > self._limit:
                raise TimeoutError("the answer took too long")
            parser.feed(data)
        parser.close()
        return target.close()


def _plain(fingerprint: str) -> str:
    return fingerprint.replace(":", "").strip().lower()


def _tls_of(access: Access) -> ssl.SSLContext:
    if access.fingerprint:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the pin is checked instead, on each connection
        return context
    return ssl.create_default_context(cafile=access.ca_file or None)


@dataclass(slots=True, kw_only=True)
class _Login:
    """One log-in at one address, used by one call at a time."""

    address: str
    sdk: Any
    transport: _Transport
    used_at: float = 0.0

    def ask(self, method: str, *params: Any) -> Any:
        """One call; the SDK logs in again by itself when the session has expired."""
        try:
            return self.sdk.xenapi_request(method, params)
        except XenAPI.Failure as failure:
            raise XenFailure(*[str(detail) for detail in failure.details]) from None


_TROUBLE = (
    OSError,
    http.client.HTTPException,
    xmlrpc.client.Error,
    ExpatError,
    DefusedXmlException,
    _TooLarge,
    TypeError,  # the SDK's own, on an answer without a status
)


class Pool:
    """The door to a pool on the network: a bounded number of log-ins, each used by one call at a time; follows the
    pool to its master."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._master = access.url
        self._tls = _tls_of(access) if access.url.startswith("https") else None
        self._free = threading.Semaphore(access.logins)
        self._guard = threading.Lock()
        self._idle: list[_Login] = []
        self._closed = False

    def __repr__(self) -> str:
        return f"Pool({urlsplit(self._access.url).hostname})"

    def call(self, method: str, params: tuple[Any, ...]) -> Any:
        # A getter may be asked twice; anything else may have had its effect though its answer was lost.
        tries = 2 if method.partition(".")[2].startswith("get_") else 1
        while True:
            tries -= 1
            try:
                return self._call_at_master(method, params)
            except _TooLarge as error:
                raise Temporary("an answer of the pool is larger than allowed", retry_after=30.0) from error
            except _TROUBLE as error:
                if tries <= 0:
                    raise Temporary(f"the pool does not answer ({type(error).__name__})", retry_after=5.0) from error

    def _call_at_master(self, method: str, params: tuple[Any, ...]) -> Any:
        for _ in range(3):
            try:
                with self._login() as login:
                    return login.ask(method, *params)
            except XenFailure as failure:
                if failure.code != "HOST_IS_SLAVE" or not failure.parameters:
                    raise
                self._follow(failure.parameters[0])
        raise Temporary("the pool's members do not agree on their master", retry_after=10.0)

    def _follow(self, address: str) -> None:
        """Go to the master: its address replaces the host of the URL; scheme and port stay unless it names a port."""
        parts = urlsplit(self._access.url)
        if ":" in address and not address.startswith("[") and address.count(":") > 1:
            address = f"[{address}]"
        port = f":{parts.port}" if parts.port and not address.rpartition("]")[2].count(":") else ""
        with self._guard:
            self._master = f"{parts.scheme}://{address}{port}"

    @contextmanager
    def _login(self) -> Iterator[_Login]:
        if not self._free.acquire(timeout=self._access.read_seconds):
            raise Temporary("all log-ins of the pool are in use", retry_after=2.0)
        login: _Login | None = None
        try:
            login = self._take()
            yield login
        except _TROUBLE:
            if login is not None:
                login.transport.close()
                login = None
            raise
        finally:
            if login is not None:
                self._give_back(login)
            self._free.release()

    def _take(self) -> _Login:
        with self._guard:
            if self._closed:
                raise Temporary("this session has been closed")
            master = self._master
            login = self._idle.pop() if self._idle else None
        if login is not None and login.address != master:
            self._log_out(login)
            login = None
        if login is not None:
            if time.monotonic() - login.used_at > IDLE_SECONDS:
                login.transport.close()
            return login
        transport = _Transport(self._access, self._tls)
        login = _Login(address=master, sdk=XenAPI.Session(master, transport=transport), transport=transport)
        try:
            login.ask("login_with_password", self._access.user, self._access.password, API_VERSION, ORIGINATOR)
        except (XenFailure, *_TROUBLE):
            transport.close()
            raise
        return login

    def _give_back(self, login: _Login) -> None:
        login.used_at = time.monotonic()
        with self._guard:
            if not self._closed:
                self._idle.append(login)
                return
        self._log_out(login)

    def _log_out(self, login: _Login) -> None:
        with suppress(XenFailure, *_TROUBLE):
            login.ask("session.logout")
        login.transport.close()

    def close(self) -> None:
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
        for login in idle:
            self._log_out(login)
