"""The HTTP face: XML-RPC on every POST path, JSON-RPC on /jsonrpc, disks on /import_raw_vdi and /export_raw_vdi.

Each host of the pool listens on an address of its own, all on one port; slaves send clients to the master.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xenapi_host.simulator import peers, raw_vdi, rrd_pages, vm_export, vm_import, vm_receiving, wire_json, wire_xml
from xenapi_host.simulator.call import Call
from xenapi_host.simulator.dispatch import idle
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import Dropped, Failure, internal
from xenapi_host.simulator.http_wire import (
    Listener,
    Request,
    Response,
    UnixListener,
    forbidden,
    trouble,
    unauthorised,
    unsupported,
)
from xenapi_host.simulator.sundry import METHODS_OF_NO_CLASS, list_methods

_LOG = logging.getLogger(__name__)
_ORIGIN = [("Access-Control-Allow-Origin", "*"), ("Access-Control-Allow-Headers", "X-Requested-With")]
_METHODS = ("GET", "POST", "PUT", "OPTIONS", "CONNECT")

# Every handler asks for credentials first, as XAPI's do, also those that the simulator has not. (method, path) -> realm
REALMS = {
    ("GET", "/rrd_updates"): "rrd_updates",
    ("GET", "/host_rrd"): "host_rrd",
    ("GET", "/vm_rrd"): "vm_rrd",
    ("GET", "/sr_rrd"): "sr_rrd",
    ("GET", "/export"): "get_export",
    ("GET", "/export_metadata"): "get_export_metadata",
    ("PUT", "/import"): "put_import",
    ("PUT", "/import_metadata"): "put_import_metadata",
    ("GET", "/console"): "connect_console_ws",
    ("CONNECT", "/console"): "connect_console",
    ("GET", "/pool/xmldbdump"): "get_pool_xml_db_sync",
    ("GET", "/host_backup"): "get_host_backup",
    ("GET", "/services"): "get_services",
    ("PUT", peers.PATH): "put_services",
    ("GET", "/system-status"): "get_system_status",
    ("GET", "/audit_log"): "get_audit_log",
    ("GET", "/export_raw_vdi"): "get_export_raw_vdi",
    ("PUT", "/import_raw_vdi"): "put_import_raw_vdi",
}

_ANSWERS: dict[str, Callable[[Engine, Request], Response]] = {  # whichever host is asked
    "/export": vm_export.answer,
    "/export_metadata": vm_export.answer,
    "/import": vm_import.answer,
    "/import_metadata": vm_import.answer,
    peers.PATH: vm_receiving.answer,
}
_ANSWERS_AT: dict[str, Callable[[Engine, Request, str | None], Response]] = {  # what the host asked has, or sees
    "/export_raw_vdi": raw_vdi.answer,
    "/import_raw_vdi": raw_vdi.answer,
    "/rrd_updates": rrd_pages.answer,
    "/host_rrd": rrd_pages.answer,
    "/vm_rrd": rrd_pages.answer,
    "/sr_rrd": rrd_pages.answer,
}


def _handler_of(method: str, path: str) -> str:
    """XAPI takes the handler whose path is the longest beginning of the one asked for: /export/ is /export, too."""
    return max((known for verb, known in REALMS if verb == method and path.startswith(known)), key=len, default="")


class Face:
    """What one address of the pool answers. `host` is the member that listens there. `local`: only dom0's root gets
    there, who needs no password to log in."""

    def __init__(self, engine: Engine, host: str | None = None, *, local: bool = False) -> None:
        self.engine = engine
        self.host = host
        self.local = local

    def __call__(self, request: Request) -> Response:
        if self.host in self.engine.down:
            raise Dropped("this host is down")
        if request.method == "POST":
            return self._post(request)
        if request.method == "OPTIONS":
            methods = ("Access-Control-Allow-Methods", "PUT")
            return Response(content_type="", headers=[*_ORIGIN, methods])
        if request.method not in _METHODS:
            return unsupported(request.method)
        handler = _handler_of(request.method, request.path)
        if handler:
            request.path = handler
            return self._handler(request, REALMS[request.method, handler])
        if request.path == "/blob":
            return Response(status=400, content_type="text/html", close=True)
        return forbidden()

    def _post(self, request: Request) -> Response:
        if request.length is None:
            return trouble('Failure("We require a content-length: HTTP header")')
        body = request.body()
        if not body:
            return trouble('Failure("We require a content-length: HTTP header")')
        try:
            if request.path == "/json" or request.path.startswith("/jsonrpc"):
                return Response(body=self._json(body), content_type="application/json", headers=_ORIGIN)
            return Response(body=self._xml(body), content_type="text/xml", headers=_ORIGIN)
        except (wire_xml.Malformed, wire_json.Malformed) as error:
            return trouble(str(error))

    def _xml(self, body: bytes) -> bytes:
        name, params = wire_xml.method_call(body)
        if name in METHODS_OF_NO_CLASS:
            return wire_xml.success(list_methods(), bare=True)
        if not name:
            raise wire_xml.Malformed("Xmlrpc.Parse_error")
        try:
            return wire_xml.success(self._ask(name, params))
        except Failure as failed:
            return wire_xml.failure(failed)

    def _json(self, body: bytes) -> bytes:
        request = wire_json.Request(body)
        if request.method in METHODS_OF_NO_CLASS:
            return request.success(list_methods())
        try:
            return request.success(self._ask(request.method, request.params))
        except Failure as failed:
            return request.failure(failed)

    def _ask(self, name: str, params: list[Any]) -> Any:
        if self.local and name == "session.login_with_password":
            with self.engine.lock:
                return self.engine.open_session("local").ref
        try:
            return self.engine.call(name, params, host=self.host)
        except (Failure, Dropped):
            raise
        except Exception as bug:  # the edge: the client is told, as XAPI tells of its own surprises
            _LOG.exception("a bug of the simulator in %s", name)
            raise internal(repr(bug)) from bug

    def _handler(self, request: Request, realm: str) -> Response:
        name = f"{request.method} {request.path}"
        try:
            if self.engine.faults.rules:
                with self.engine.lock:
                    Call(self.engine, name, None).suffer(self.engine.faults.at(name, "before"))
        except Failure as failed:
            return trouble(f"{failed.details[0]}: [ {'; '.join(failed.details[1:])} ]")
        try:
            session = self._session_of(request)
        except ValueError as error:
            return trouble(f'Failure("Unknown authorization header: {error}")')
        if session is None:
            return unauthorised(realm)
        if request.path in _ANSWERS_AT:
            return _ANSWERS_AT[request.path](self.engine, request, self.host)
        if request.path in _ANSWERS:
            return _ANSWERS[request.path](self.engine, request)
        if request.path == "/console":
            return trouble("Console.Failure")
        return Response(status=404, content_type="text/html", close=True, version="HTTP/1.0")

    def _session_of(self, request: Request) -> str | None:
        """Whoever asks, by a session or by name and password; None for nobody we know."""
        given = request.parameter("session_id")
        with self.engine.lock:
            if given:
                session = self.engine.db.find("session", given)
                return given if session is not None and not idle(self.engine, session) else None
            known = request.credentials()
            if known is None or self.engine.credentials.get(known[0]) != known[1]:
                return None
            return known[0]


class PoolServer:
    """All addresses of one pool. `start` returns when every one listens; `stop` ends them and their connections."""

    def __init__(
        self,
        engine: Engine,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        listen: str | None = None,
        reached: str | None = None,
    ) -> None:
        """`listen`: one address for the master alone (0.0.0.0 in a container), instead of one per host. `reached`: the
        URL by which other pools get there, where it is another one."""
        self.engine = engine
        hosts = engine.db.all("host")
        hosts.sort(key=lambda host: host.ref != engine.pool["master"])
        self.listeners: list[Listener] = []
        self._listener_of: dict[str, Listener] = {}
        for host in hosts[:1] if listen else hosts:
            face = Face(engine, None if listen else host.ref)  # one address for all: whoever is master answers
            listener = Listener((listen or host["address"], port), face, tls)
            port = int(listener.server_address[1])
            self.listeners.append(listener)
            self._listener_of[host.ref] = listener
        engine.hang_up = self._hang_up
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://{listen or hosts[0]['address']}:{port}"
        self.urls = [f"{scheme}://{host['address']}:{port}" for host in hosts]
        self.port = port
        engine.url = self.url
        one = reached or (self.url if listen else None)
        engine.urls = {host.ref: one or url for host, url in zip(hosts, self.urls, strict=True)}

    def _hang_up(self, host: str) -> None:
        if host in self._listener_of:
            self._listener_of[host].drop_connections()

    def serve_socket(self, path: Path) -> None:
        """Also answer on a Unix socket, for scripts in dom0."""
        path.unlink(missing_ok=True)
        self.listeners.append(UnixListener(str(path), Face(self.engine, local=True)))

    def start(self) -> None:
        for listener in self.listeners:
            _run(listener.serve_forever)

    def stop(self) -> None:
        for listener in self.listeners:
            listener.shutdown()
            listener.server_close()
            listener.drop_connections()


def _run(work: Callable[[float], None]) -> None:
    threading.Thread(target=work, args=(0.1,), daemon=True, name="simulator-listener").start()
