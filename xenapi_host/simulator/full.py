"""A whole simulated pool in a folder: engine, VHD files, dom0 roots, journal, and the HTTP face."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from xenapi_host.simulator.control import ControlSocket
from xenapi_host.simulator.dom0 import Dom0
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.guests import Guests
from xenapi_host.simulator.journal import Journal
from xenapi_host.simulator.measures import Meter
from xenapi_host.simulator.server import PoolServer
from xenapi_host.simulator.sr import mark_plugged
from xenapi_host.simulator.vhd_storage import VhdStorage

_STOP_SECONDS = 30.0
World = Callable[[Engine], Engine]


class Workers:
    """Threads of background work, which are waited for when the pool stops."""

    def __init__(self) -> None:
        self._threads: set[threading.Thread] = set()

    def __call__(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._run, args=(work,), daemon=True, name="simulator-task")
        self._threads.add(thread)
        thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            self._threads.discard(threading.current_thread())

    def join(self) -> None:
        for thread in list(self._threads):
            thread.join(_STOP_SECONDS)


class FullPool:
    """Opens the pool kept in `data`, or builds `world` there. `start` listens and returns the master's URL."""

    def __init__(
        self,
        data: Path,
        world: World,
        *,
        port: int = 0,
        user: str = "root",
        password: str = "xen",
        https: bool = False,
        seed: int | None = None,
        login_delay: float = 0.0,
        listen: str | None = None,
        reached: str | None = None,
        control: Path | None = None,
    ) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self.data = data.resolve()
        self.storage = VhdStorage(self.data / "sr")
        self.workers = Workers()
        self.engine = Engine(storage=self.storage, seed=seed, user=user, password=password, spawn=self.workers)
        self.engine.login_delay = login_delay
        self.journal = Journal(self.engine, self.data / "database.jsonl")
        self.restored = self.journal.restore()
        if not self.restored:
            world(self.engine)
        socket = self.data / "xapi.socket"
        for host in self.engine.db.all("host"):
            self.engine.dom0s[host.ref] = Dom0(self.data / "dom0" / host["uuid"], self.storage, socket)
            for ref in host["PBDs"]:
                if self.engine.db.rows[ref]["currently_attached"]:
                    mark_plugged(self.engine, self.engine.db.rows[ref])
        self.journal.follow()
        tls = _certificate(self.data) if https else None
        self.server = PoolServer(self.engine, port, tls=tls, listen=listen, reached=reached)
        self.server.serve_socket(socket)
        self.control = ControlSocket(control, self.engine) if control is not None else None
        self.agents = Guests(self.engine)
        self.meter = self.engine.meter = Meter(self.engine)

    @property
    def url(self) -> str:
        return self.server.url

    def dom0(self, number: int = 0) -> Dom0:
        """The private root of the n-th host."""
        return self.engine.dom0s[self.engine.db.refs("host")[number]]

    def start(self) -> str:
        self.server.start()
        self.agents.start()
        self.meter.start()
        if self.control is not None:
            self.control.start()
        return self.url

    def settle(self) -> None:
        """Wait until what works in the background (tasks, collectors) has done."""
        self.workers.join()

    def stop(self) -> None:
        if self.control is not None:
            self.control.stop()
        self.server.stop()
        with self.engine.lock:
            self.engine.clear_faults()  # what hangs would never end
        for dom0 in self.engine.dom0s.values():
            dom0.stop()
        self.settle()
        self.agents.stop()
        self.meter.stop()
        with self.engine.lock:
            self.journal.save()
            self.journal.close()


def _certificate(data: Path) -> ssl.SSLContext:
    """A certificate of our own, made once; clients pin it or take it from certificate.pem."""
    certificate, key = data / "certificate.pem", data / "key.pem"
    if not certificate.exists():
        command = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "3650",
            "-subj",
            "/CN=127.0.0.1",
        ]
        command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except FileNotFoundError:
            raise SystemExit("openssl is needed for --https: install it, or leave --https out") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
