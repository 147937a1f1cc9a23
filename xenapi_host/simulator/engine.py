"""The engine: one XenServer pool as objects and rules. Both faces (HTTP and in process) call `Engine.call`.

A call walks: name -> arity -> session -> types -> faults -> behaviour, in the order in which XAPI refuses. The lock is
held while a behaviour looks and decides, and is let go while a plugin runs, bytes are copied, a client waits for
events or an injected delay passes. Time, randomness and the way background work is run are given from outside.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any
from xmlrpc.client import DateTime

from xenapi_host.simulator import dispatch
from xenapi_host.simulator.database import Database, Row
from xenapi_host.simulator.failure import Dropped
from xenapi_host.simulator.faults import Faults
from xenapi_host.simulator.storage import MemoryStorage, Storage

if TYPE_CHECKING:
    from xenapi_host.simulator.call import Call
    from xenapi_host.simulator.dom0 import Dom0
    from xenapi_host.simulator.event import Registration
    from xenapi_host.simulator.measures import Meter

Value = Any
TASK_KEPT_SECONDS = 65 * 60
CHAINLESS = ("dummy", "iso")  # SR types without files of ours: their disks are sizes only
Spawn = Callable[[Callable[[], None]], None]
PluginTwin = Callable[["Call", Row, dict[str, str]], str]


def in_thread(work: Callable[[], None]) -> None:
    """How the full simulator runs background work: a thread that does not keep the process alive."""
    threading.Thread(target=work, daemon=True, name="simulator-task").start()


def at_once(work: Callable[[], None]) -> None:
    """How light hosts run background work: now. The engine's lock is free when this is called."""
    work()


class Engine:
    """One pool. Thread safe."""

    def __init__(
        self,
        *,
        storage: Storage | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] | None = None,
        seed: int | None = None,
        spawn: Spawn = in_thread,
        user: str = "root",
        password: str = "xen",
    ) -> None:
        self.random = random.Random(seed)
        self.clock = clock
        self.sleep = sleep
        self.spawn = spawn
        self.credentials = {user: password}
        self.lock = threading.Lock()
        self.wakeup = threading.Condition(self.lock)
        self.db = Database(self.new_uuid)
        self.db.changed = self._announce
        self.storage: Storage = storage if storage is not None else MemoryStorage()
        self.sizes_only = MemoryStorage()
        self.faults = Faults(seed or 0)
        self.down: set[str] = set()  # hosts that do not answer
        self.hang_up: Callable[[str], None] = lambda host: None  # breaks the connections that a host has
        self.believed_master: dict[str, str] = {}  # slaves that were not told of a new master, and whom they follow
        self.local_sessions: dict[str, str] = {}  # session of a slave's own -> the slave
        self.dom0s: dict[str, Dom0] = {}  # host ref -> its private root, in the full simulator
        self.plugin_twins: dict[tuple[str, str], PluginTwin] = {}  # (plugin, function) -> stand-in of light hosts
        self.told_operations: dict[str, list[str]] = {}  # VM ref -> its allowed_operations while they are behind
        self.next_domid: dict[str, int] = {}
        self.login_delay = 0.0
        self.session_idle = 24 * 3600.0  # seconds; XAPI's own
        self.idle_before = ""  # a session last active before this time has ended
        self.tasks_for_calls = True  # XAPI shows a task for a running synchronous operation, too
        self.busy: set[tuple[str, str]] = set()
        self.registrations: dict[str, Registration] = {}  # session ref -> what event.next tells it
        self.url = "http://127.0.0.1"
        self.meter: Meter | None = None  # what has been measured so far, in the full simulator
        self.urls: dict[str, str] = {}  # host ref -> where it answers, in the full simulator
        self.after_call: Callable[[], None] = lambda: None
        self.waiting = 0
        self._second = -1
        self._stamp = DateTime("19700101T00:00:00Z")

    # -- what behaviours need --

    def new_uuid(self) -> str:
        digits = f"{self.random.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"

    def new_ref(self) -> str:
        return "OpaqueRef:" + self.new_uuid()

    def now(self) -> DateTime:
        second = int(self.clock())
        if second != self._second:
            self._second = second
            self.idle_before = self.ago(self.session_idle)
            self._stamp = DateTime(time.strftime("%Y%m%dT%H:%M:%SZ", time.gmtime(second)))
        return self._stamp

    def ago(self, seconds: float) -> str:
        """The time so long before now, as the text of a dateTime: these texts compare as their times do."""
        return time.strftime("%Y%m%dT%H:%M:%SZ", time.gmtime(self.clock() - seconds))

    @property
    def pool(self) -> Row:
        return next(iter(self.db.tables["pool"].values()))

    @property
    def master(self) -> Row:
        return self.db.get("host", self.pool["master"])

    def storage_of(self, sr: Row) -> Storage:
        """Where this repository's disks are kept."""
        return self.sizes_only if sr["type"] in CHAINLESS else self.storage

    @contextmanager
    def unlocked(self) -> Iterator[None]:
        """Let other calls in while this one waits or moves bytes. Look at everything anew afterwards."""
        self.lock.release()
        try:
            yield
        finally:
            self.lock.acquire()

    @contextmanager
    def exclusive(self, class_name: str, ref: str) -> Iterator[None]:
        """One at a time for this object, though the lock may be let go inside: one worker per SR."""
        key = (class_name, ref)
        while key in self.busy:
            self.waiting += 1
            self.wakeup.wait()
            self.waiting -= 1
        self.busy.add(key)
        try:
            yield
        finally:
            self.busy.discard(key)
            self._announce()

    def wait_for_change(self, seconds: float) -> None:
        self.waiting += 1
        try:
            self.wakeup.wait(seconds)
        finally:
            self.waiting -= 1

    def pause(self, seconds: float, over: Callable[[], bool] = lambda: False) -> None:
        """Let others in for so long, or until `over` says so: it is asked whenever anything has changed."""
        if self.sleep is not None and seconds != inf:
            with self.unlocked():
                self.sleep(seconds)
            return
        deadline = time.monotonic() + seconds
        while not over() and (left := deadline - time.monotonic()) > 0:
            self.wait_for_change(min(left, threading.TIMEOUT_MAX))

    def clear_faults(self, number: int | None = None) -> int:
        """Take back one rule or all; calls that wait by them go on. The lock is held."""
        gone = self.faults.clear(number)
        self._announce()
        return gone

    def _announce(self) -> None:
        if self.waiting:
            self.wakeup.notify_all()

    # -- the one door --

    def call(self, method: str, params: list[Value], *, host: str | None = None, trusted: bool = False) -> Value:
        """Answer one call, or raise Failure. `host` is the member asked; slaves send callers to the master.

        `trusted` is the plugins' Unix socket: a session reference of the caller is used there as it is.
        """
        with self.lock:
            if self.down and (host or self.pool["master"]) in self.down:
                raise Dropped("the host that was asked is down")
            try:
                return dispatch.answer(self, method, params, host)
            finally:
                self.after_call()

    def open_session(self, originator: str = "", user: str = "root", host: str | None = None) -> Row:
        return self.db.create(
            "session",
            {
                "this_host": host or self.pool["master"],
                "last_active": self.now(),
                "validation_time": self.now(),
                "is_local_superuser": True,
                "auth_user_name": user,
                "originator": originator,
            },
        )

    def start_task(self, label: str, session: Row | None) -> Row:
        self._forget_old_tasks()
        fields: dict[str, Value] = {"name_label": label, "created": self.now(), "status": "pending"}
        fields["resident_on"] = self.pool["master"]
        return self.db.create("task", {**fields, "type": "<none/>", "backtrace": "()"})

    def _forget_old_tasks(self) -> None:
        """XAPI forgets a task 65 minutes after it ended. Tasks stand in the order in which they were made."""
        oldest = self.ago(TASK_KEPT_SECONDS)
        for task in list(self.db.tables.get("task", {}).values())[:10]:
            if task["status"] == "pending" or str(task["finished"].value) > oldest:
                return
            self.db.delete(task)
