"""Tenants who build servers and work on them over REST, each in a thread, by a seed. An answer that does not come is
unknown, never a refusal; a build is then asked for again under the same request id, which must not build twice."""

import http.client
import itertools
import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from tests.chaos.history import End, Event, History
from tests.support.canary import PASSWORD, planted

MICROVERSION = "2.47"
ANSWER_SECONDS = 12.0
PAUSE = 0.15
AT_ONCE = 3
SMALL, LARGER = "1", "2"
# What is done to a server that shows this status, and how often.
MENU: dict[str, tuple[tuple[str, int], ...]] = {
    "ACTIVE": (("os-stop", 3), ("reboot", 2), ("createImage", 1), ("resize", 2), ("delete", 4), ("look", 4)),
    "SHUTOFF": (("os-start", 5), ("delete", 1)),
    "VERIFY_RESIZE": (("confirmResize", 2), ("revertResize", 1), ("delete", 1)),
    "ERROR": (("delete", 1),),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. `code` 0: nothing did; `sent` then says whether the request may have been taken."""

    code: int = 0
    body: Any = None
    sent: bool = True
    error: str = ""

    @property
    def end(self) -> End:
        """An error of the service (5xx) may have come after the deed; 503 before it is told with Retry-After and still
        counts as unknown."""
        if 200 <= self.code < 300:
            return End.OK
        if 400 <= self.code < 500 or not self.sent:
            return End.FAIL
        return End.INFO


class Door:
    """An API cell's REST at its several daemons: one that does not take connections is passed over."""

    def __init__(self, endpoints: Sequence[str], chance: random.Random) -> None:
        self._hosts = [urlsplit(endpoint).netloc for endpoint in endpoints]
        self._chance = chance

    def ask(self, method: str, path: str, body: Any = None, request: str = "", service: str = "/v2.1") -> Answer:
        return self._first(lambda host: _ask(host, method, f"{service}{path}", body, request, json.loads))

    def fetch(self, path: str) -> Answer:
        """What lies there, as bytes."""
        return self._first(lambda host: _ask(host, "GET", path, None, "", bytes))

    def _first(self, ask: Callable[[str], Answer]) -> Answer:
        answer = Answer(sent=False)
        for host in self._chance.sample(self._hosts, len(self._hosts)):
            answer = ask(host)
            if answer.sent:
                break
        return answer


def _ask(host: str, method: str, path: str, body: Any, request: str, read: Callable[[bytes], Any]) -> Answer:
    headers = {"OpenStack-API-Version": f"compute {MICROVERSION}", "Connection": "close"}
    if request:
        headers["X-Openstack-Request-Id"] = request
    data = None
    if body is not None:
        data, headers["Content-Type"] = json.dumps(body), "application/json"
    connection = http.client.HTTPConnection(host, timeout=ANSWER_SECONDS)
    try:
        connection.connect()
    except OSError as error:
        return Answer(sent=False, error=str(error))
    try:
        connection.request(method, path, data, headers)
        response = connection.getresponse()
        text = response.read()
        return Answer(code=response.status, body=read(text) if text else None)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Answer(error=f"{type(error).__name__} {error}")
    finally:
        connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A server of this tenant's."""

    name: str
    id: str


class Tenant:
    """One of them. `run` returns when `stopping` is set and the request under way is answered."""

    def __init__(self, name: str, seed: int, endpoints: Sequence[str], image: str, history: History) -> None:
        self._name = name
        self._chance = random.Random(f"{seed} {name}")
        self._door = Door(endpoints, self._chance)
        self._image = image
        self._history = history
        self._numbers = itertools.count(1)
        self._servers: list[Known] = []

    def run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            if len(self._servers) < AT_ONCE:
                self._build()
            else:
                self._work_on(self._chance.choice(self._servers))
            stopping.wait(PAUSE * self._chance.random())

    def _build(self) -> None:
        number = next(self._numbers)
        name = f"{self._name}-{number}"
        # A disk more is work: one server of each tenant has all that can be secret.
        secrets = planted() if number == 1 else {"adminPass": PASSWORD}
        event = Event(at=0, by=self._name, end=End.INVOKE, action="build", name=name, flavor=SMALL)
        wanted = {"name": name, "imageRef": self._image, "flavorRef": SMALL, "networks": "none", **secrets}
        request = f"req-{uuid.UUID(int=self._chance.getrandbits(128), version=4)}"
        self._tell(event)
        unknown = False
        for _ in range(4):
            answer = self._door.ask("POST", "/servers", {"server": wanted}, request)
            if answer.end is End.OK:
                server = answer.body["server"]["id"]
                self._tell(replace(event, end=End.OK, server=server))
                self._servers.append(Known(name=name, id=server))
                return
            unknown = unknown or answer.end is End.INFO
            time.sleep(PAUSE * 4)
        self._tell(replace(event, end=End.INFO if unknown else End.FAIL, detail=f"{answer.code} {answer.error}"))

    def _work_on(self, server: Known) -> None:
        shown = self._door.ask("GET", f"/servers/{server.id}")
        if shown.code == 404:
            self._servers.remove(server)
            return
        if shown.code != 200:
            detail = f"{shown.code} {shown.error}"
            self._tell(Event(at=0, by=self._name, end=shown.end, action="look", name=server.name, detail=detail))
        seen = shown.body["server"] if shown.code == 200 else {}
        menu = MENU.get(seen.get("status", ""))
        if menu is None or seen["OS-EXT-STS:task_state"]:
            time.sleep(PAUSE)
            return
        action = self._chance.choices([word for word, _ in menu], [weight for _, weight in menu])[0]
        if action == "delete":
            self._ask(server, action, "DELETE", f"/servers/{server.id}")
        elif action != "look":
            detail = self._detail(server, action)
            flavor = LARGER if action == "resize" else ""
            self._ask(server, action, "POST", f"/servers/{server.id}/action", {action: detail}, flavor)

    def _detail(self, server: Known, action: str) -> Any:
        match action:
            case "reboot":
                return {"type": self._chance.choice(("SOFT", "HARD"))}
            case "resize":
                return {"flavorRef": LARGER}
            case "createImage":
                return {"name": f"snapshot of {server.name} {next(self._numbers)}"}
            case _:
                return None

    def _ask(self, server: Known, action: str, method: str, path: str, body: Any = None, flavor: str = "") -> None:
        event = Event(
            at=0, by=self._name, end=End.INVOKE, action=action, name=server.name, server=server.id, flavor=flavor
        )
        self._tell(event)
        answer = self._door.ask(method, path, body)
        image = (answer.body or {}).get("image_id", "") if answer.end is End.OK else ""
        detail = "" if answer.end is End.OK else f"{answer.code} {answer.error or answer.body}"
        self._tell(replace(event, end=answer.end, image=image, detail=detail))

    def _tell(self, event: Event) -> None:
        self._history.add(replace(event, at=self._history.now()))
