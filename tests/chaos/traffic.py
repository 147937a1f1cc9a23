"""Steady traffic for one leaf: servers there are stopped and started without a pause, and each action is timed from its
202 to its end. What a fault does to the traffic shows as waits."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.chaos.tenants import SMALL, Door

LOOK_EVERY = 0.1
STUCK_SECONDS = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One that has ended, or, with `took` below zero, one that never did. `asked`: seconds on the monotonic clock."""

    asked: float
    took: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """What tenants saw of a fault, in seconds: the longest wait for an action before it; the longest for one that was
    under way or was asked after it; and how long after it the first action asked since had ended."""

    actions: int
    stuck: int
    before: float
    longest: float
    resumed: float


def waits(actions: Sequence[Action], broken: float) -> Waits:
    """Pure. `broken`: when the fault came."""
    ended = [action for action in actions if action.took >= 0]
    before = [action.took for action in ended if action.asked + action.took < broken]
    after = [action.took for action in ended if action.asked + action.took >= broken]
    resumed = [action.asked + action.took - broken for action in ended if action.asked >= broken]
    return Waits(
        actions=len(actions),
        stuck=len(actions) - len(ended),
        before=round(max(before, default=0.0), 2),
        longest=round(max(after, default=0.0), 2),
        resumed=round(min(resumed, default=STUCK_SECONDS), 2),
    )


class Traffic:
    """`servers` of one leaf, each worked on by a thread of its own for as long as the block lasts."""

    def __init__(self, endpoints: Sequence[str], servers: Sequence[str]) -> None:
        self._doors = [Door(endpoints, random.Random(number)) for number in range(len(servers))]
        self._servers = servers
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.actions: list[Action] = []

    def __enter__(self) -> "Traffic":
        for door, server in zip(self._doors, self._servers, strict=True):
            self._threads.append(threading.Thread(target=self._work, args=(door, server)))
            self._threads[-1].start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def ended(self, count: int) -> None:
        """Wait until so many more actions have ended."""
        enough, limit = len(self.actions) + count, time.monotonic() + STUCK_SECONDS
        while len(self.actions) < enough and time.monotonic() < limit:
            time.sleep(LOOK_EVERY)

    def _work(self, door: Door, server: str) -> None:
        while not self._over.is_set():
            for action, status in (("os-stop", "SHUTOFF"), ("os-start", "ACTIVE")):
                done = self._do(door, server, action, (status, None))
                with self._lock:
                    self.actions.append(done)

    def _do(self, door: Door, server: str, action: str, after: tuple[str, None]) -> Action:
        asked = time.monotonic()
        answer = door.ask("POST", f"/servers/{server}/action", {action: None})
        done = answer.code == 202 and _until(lambda: shows(door, server) == after, STUCK_SECONDS)
        return Action(asked=asked, took=time.monotonic() - asked if done else -1.0)


def shows(door: Door, server: str) -> tuple[str, str | None]:
    """Status and task state of a server."""
    answer = door.ask("GET", f"/servers/{server}")
    if answer.code != 200:
        return str(answer.code), None
    seen = answer.body["server"]
    return seen["status"], seen["OS-EXT-STS:task_state"]


def build(door: Door, image: str, leaf: str, count: int) -> list[str]:
    """So many servers at a leaf, ACTIVE."""
    servers = []
    for number in range(count):
        wanted = {"name": f"traffic-{number}", "imageRef": image, "flavorRef": SMALL, "networks": "none"}
        answer = door.ask("POST", "/servers", {"server": wanted, "os:scheduler_hints": {"target_cell": leaf}})
        assert answer.code == 202, answer
        servers.append(answer.body["server"]["id"])
    for server in servers:
        assert _until(lambda server=server: shows(door, server)[0] in ("ACTIVE", "ERROR"), STUCK_SECONDS)
        assert shows(door, server)[0] == "ACTIVE", door.ask("GET", f"/servers/{server}").body["server"]["fault"]
    return servers


def _until(holds: Callable[[], bool], seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > limit:
            return False
        time.sleep(LOOK_EVERY)
    return True
