"""Light hosts: the engine called in process, without HTTP and without a byte of storage.

For fleets of thousands of hosts and tests by the thousand. A LightSession answers `call` with the very answers and
failures of the HTTP face: both ask the same engine. Background work runs at once, so a task is over when it is seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from xenapi_host.simulator.engine import Engine, PluginTwin, at_once
from xenapi_host.simulator.worlds import HostShape, demo_pool


class LightSession:
    """One logged-in client of a light pool."""

    def __init__(self, engine: Engine, user: str, password: str, originator: str = "light") -> None:
        self._engine = engine
        self._login = [user, password, "2.21", originator]
        self.ref = ""
        self.log_in_again()

    def log_in_again(self) -> None:
        """A new session; the old one, if it lives, is left."""
        self.ref = self._engine.call("session.login_with_password", self._login)

    def call(self, method: str, *params: Any) -> Any:
        """The answer's Value, or the Failure. May block only in event.from and event.next."""
        return self._engine.call(method, [self.ref, *params])

    def close(self) -> None:
        self._engine.call("session.logout", [self.ref])


class LightPool:
    """A pool of light hosts: `login` gives sessions; `twin` registers a stand-in for a plugin's function."""

    def __init__(
        self,
        *,
        hosts: int = 1,
        shape: HostShape | None = None,
        name: str = "light",
        seed: int | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] | None = None,
        user: str = "root",
        password: str = "xen",
    ) -> None:
        self.engine = Engine(spawn=at_once, seed=seed, clock=clock, sleep=sleep, user=user, password=password)
        self.engine.tasks_for_calls = False
        self._login = (user, password)
        shape = shape or HostShape(cpu_objects=False)
        demo_pool(self.engine, hosts=hosts, shape=shape, name=name)

    def login(self, originator: str = "light") -> LightSession:
        return LightSession(self.engine, *self._login, originator)

    def twin(self, plugin: str, function: str, stand_in: PluginTwin) -> None:
        self.engine.plugin_twins[plugin, function] = stand_in
