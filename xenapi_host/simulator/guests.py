"""The guests inside running domains: agents that answer what is asked over xenstore.

One thread a pool looks at every host's xenstore. An agent answers for a running VM whose root disk holds the agent's
program, and changes that disk; where there is none, nobody ever answers.
"""

from __future__ import annotations

import json
import logging
import threading
import time

from cells.errors import CelltreeError
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.dom0 import Dom0
from xenapi_host.simulator.domains import home_of, say
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.guest_agent import PROGRAM, GuestAgent
from xenapi_host.simulator.guest_disk import GuestFiles, guest_files
from xenapi_host.simulator.xenstore import Xenstore

_LOOK_SECONDS = 0.1
_LOG = logging.getLogger(__name__)


class Guests:
    """The agents inside the running guests of one pool."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._seen: dict[str, int] = {}
        self._agents: dict[tuple[str, str], GuestAgent | None] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="simulator-guests")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def heard(self, dom0: Dom0) -> bool:
        """Whether all that lies in this host's xenstore now has been looked at."""
        host = next(ref for ref, known in self._engine.dom0s.items() if known is dom0)
        return self._seen.get(host) == dom0.xenstore.changes

    def _run(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            for host, dom0 in list(self._engine.dom0s.items()):
                try:
                    self._look(host, dom0)
                except Exception:  # one guest's trouble must not silence all others
                    _LOG.exception("the guests of host %s", host)

    def _look(self, host: str, dom0: Dom0) -> None:
        changes = dom0.xenstore.changes
        if self._seen.get(host) == changes:
            return
        unheard = False
        for domid in dom0.xenstore.children("/local/domain") or ():
            for request in dom0.xenstore.children(f"{home_of(domid)}/data/host") or ():
                unheard |= not self._answer(host, dom0, domid, request)
        if not unheard:
            self._seen[host] = changes

    def _answer(self, host: str, dom0: Dom0, domid: str, request: str) -> bool:
        """Answer one request, if there is somebody to do so now; False when there may be later."""
        vm = self._running(host, domid)
        if vm is None:
            return False
        asked = dom0.xenstore.text(f"{home_of(domid)}/data/host/{request}")
        if asked is None:
            return True
        with guest_files(self._engine, vm) as files:
            agent = self._agent(host, domid, files)
            if agent is None or files is None:
                return True
            dom0.xenstore.remove(f"{home_of(domid)}/data/host/{request}")
            code, message = _done(agent, asked, files, dom0.xenstore, domid)
        answer = json.dumps({"returncode": code, "message": message})
        dom0.xenstore.write(f"{home_of(domid)}/data/guest/{request}", answer)
        say(dom0, domid, f"{time.strftime('%H:%M:%S')} nova-agent: {agent.last} -> {code}")
        return True

    def _running(self, host: str, domid: str) -> Row | None:
        with self._engine.lock:
            for vm in self._engine.db.all("VM"):
                if vm["resident_on"] == host and vm["domid"] == domid and not vm["is_control_domain"]:
                    return vm if vm["power_state"] == "Running" else None
        return None

    def _agent(self, host: str, domid: str, files: GuestFiles | None) -> GuestAgent | None:
        """The agent of a domain, which lives as long as the domain and forgets all with it."""
        key = (host, domid)
        if key not in self._agents:
            has = files is not None and files.read(PROGRAM) is not None
            self._agents[key] = GuestAgent() if has else None
        return self._agents[key]


def _done(agent: GuestAgent, asked: str, files: GuestFiles, store: Xenstore, domid: str) -> tuple[str, str]:
    home = home_of(domid)
    try:
        return agent.answer(
            asked, files, lambda path: store.text(f"{home}/{path}"), lambda path: store.children(f"{home}/{path}") or []
        )
    except CelltreeError as error:
        return "500", str(error)
