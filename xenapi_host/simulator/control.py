"""The control socket: what goes wrong in a simulated pool, on demand, by a door that no XenAPI client sees.

One request and one answer a line, as JSON, over a Unix socket. `{"do": WHAT, ...}` is answered with `{"ok": true, ...}`
or `{"ok": false, "error": WHY}`. The same requests, one a line, may stand in a file that is read at the start.
docs/simulator.md has them all with examples; control_client.py is the command.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import socketserver
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from xenapi_host.simulator import mishaps
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.dispatch import entry
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.faults import ASYNC, WHEN, Fault
from xenapi_host.simulator.server import REALMS

Answer = dict[str, Any]
LONGEST_LINE = 16 * 2**20
_GLOB = "*?["


class Refused(Exception):
    """A request that cannot be done, and why."""


class Given:
    """The members of a request, each taken once with its type; `end` refuses what nobody took."""

    def __init__(self, members: dict[str, Any]) -> None:
        self._members = members
        self._known: list[str] = []

    def take(self, name: str, kinds: tuple[type, ...], what: str, default: Any = ...) -> Any:
        self._known.append(name)
        value = self._members.get(name, default)
        if value is ...:
            raise Refused(f'"{name}" is missing: {what}')
        right = value is default or (isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)))
        if not right:
            raise Refused(f'"{name}" must be {what}')
        return value

    def text(self, name: str, what: str, default: Any = ...) -> str:
        return str(self.take(name, (str,), what, default))

    def whole(self, name: str, what: str, default: Any = ...) -> int:
        value = self.take(name, (int,), what, default)
        if value < 0:
            raise Refused(f'"{name}" must be {what}, not negative')
        return int(value)

    def flag(self, name: str) -> bool:
        return bool(self.take(name, (bool,), "true or false", False))

    def end(self) -> None:
        strange = sorted(set(self._members) - set(self._known) - {"do"})
        if strange:
            raise Refused(f'"{strange[0]}" means nothing here; known are {", ".join(self._known) or "no members"}')


def _object(engine: Engine, class_name: str, given: Given, name: str) -> str:
    """The reference of what is named by uuid, reference or, where only one has it, name."""
    text = given.text(name, f"the uuid or name of a {class_name}")
    given.end()
    with engine.lock:
        row: Row | None = engine.db.find(class_name, text)
        if row is not None:
            return row.ref
        known = engine.db.by_uuid(class_name, text)
        named = [known] if known is not None else engine.db.by_name(class_name, text)
    if len(named) != 1:
        why = "no" if not named else f"{len(named)} objects of class"
        raise Refused(f'{why} {class_name} has the uuid or name "{text}"; give a uuid, as {class_name}.get_all_records')
    return named[0]


# -- what can be asked for --


def _fault(engine: Engine, given: Given) -> Answer:
    fault = Fault(
        method=given.text("method", 'a method as "VM.start", or a glob as "VDI.*"'),
        when=given.text("when", "before, during or after", "before"),
        error=tuple(map(str, given.take("error", (list,), "an error code and its parameters, in an array", []))),
        delay=float(given.take("delay", (int, float), "a number of seconds", 0.0)),
        hang=given.flag("hang"),
        drop=given.flag("drop"),
        nth=given.whole("nth", "the number of the first call that is struck, from 1", 1),
        times=given.whole("times", "how many calls are struck; 0 for all that come", 1),
        probability=float(given.take("probability", (int, float), "between 0 and 1", 1.0)),
    )
    given.end()
    if fault.when not in WHEN:
        raise Refused(f'"when" must be {", ".join(WHEN)}')
    if not (fault.error or fault.delay or fault.hang or fault.drop):
        raise Refused('the fault does nothing: give it "error", "delay", "hang" or "drop"')
    if fault.drop and fault.when == "during":
        raise Refused('a connection drops "before" or "after" the effect; to end work under way, crash its host')
    if not 0 <= fault.probability <= 1 or fault.delay < 0 or fault.nth < 1:
        raise Refused('"probability" must be between 0 and 1, "delay" not negative, "nth" at least 1')
    if not any(mark in fault.method for mark in _GLOB) and not _known(fault.method):
        raise Refused(f'XenAPI has no method "{fault.method}"; names are as "VM.start", globs as "VM.*"')
    with engine.lock:
        return {"fault": engine.faults.add(fault).number}


def _known(method: str) -> bool:
    verb, _, path = method.partition(" ")
    return (verb, path) in REALMS or entry(method.removeprefix(ASYNC)) is not None


def _clear(engine: Engine, given: Given) -> Answer:
    number = given.take("fault", (int,), "the number of a fault, or nothing for all", None)
    given.end()
    with engine.lock:
        gone = engine.clear_faults(number)
    if number is not None and not gone:
        raise Refused(f'there is no fault {number}; "show" has their numbers')
    return {"cleared": gone}


def _show(engine: Engine, given: Given) -> Answer:
    given.end()
    with engine.lock:
        return {
            "faults": [_rule(fault) for fault in engine.faults.rules],
            "seed": engine.faults.seed,
            "hosts": [
                {
                    "uuid": host["uuid"],
                    "name": host["name_label"],
                    "master": host.ref == engine.pool["master"],
                    "down": host.ref in engine.down,
                }
                for host in engine.db.all("host")
            ],
            "repositories": [_space(engine, sr) for sr in engine.db.all("SR")],
            "sessions": len(engine.db.refs("session")),
            "tasks": sum(task["status"] == "pending" for task in engine.db.all("task")),
        }


def _rule(fault: Fault) -> Answer:
    names = ("number", "method", "when", "error", "delay", "hang", "drop", "nth", "times", "probability")
    return {name: getattr(fault, name) for name in (*names, "seen", "struck")}


def _space(engine: Engine, sr: Row) -> Answer:
    space = engine.storage_of(sr).space(sr["uuid"])
    return {"uuid": sr["uuid"], "name": sr["name_label"], "size": space.total, "free": space.total - space.used}


def _expire_sessions(engine: Engine, given: Given) -> Answer:
    originator = given.text("originator", "a glob on who logged in, as told at the log-in", "*")
    given.end()
    return {"expired": mishaps.end_sessions(engine, originator)}


def _fill_sr(engine: Engine, given: Given) -> Answer:
    free = given.take("free", (int, type(None)), "the bytes left free, or null to undo it")
    if free is not None and free < 0:
        raise Refused('"free" must not be negative')
    mishaps.fill_sr(engine, _object(engine, "SR", given, "sr"), free)
    return {}


def _crash_host(engine: Engine, given: Given) -> Answer:
    mishaps.kill_host(engine, _object(engine, "host", given, "host"))
    return {}


def _return_host(engine: Engine, given: Given) -> Answer:
    ref = _object(engine, "host", given, "host")
    if ref not in engine.down:
        raise Refused('the host is up; "crash_host" takes it down')
    mishaps.return_host(engine, ref)
    return {}


def _crash_vm(engine: Engine, given: Given) -> Answer:
    mishaps.crash_guest(engine, _object(engine, "VM", given, "vm"))
    return {}


def _write_disk(engine: Engine, given: Given) -> Answer:
    every = given.flag("every_block")
    offset = given.whole("offset", "where in the disk, in bytes", 0)
    text = given.text("data", "the bytes, in base64", "")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Refused('"data" must be base64') from None
    if every == bool(data):
        raise Refused('give either "data" in base64 or "every_block": true')
    ref = _object(engine, "VDI", given, "vdi")
    if every:
        mishaps.write_every_block(engine, ref)
    else:
        mishaps.write_disk(engine, ref, offset, data)
    return {}


DOES: dict[str, Callable[[Engine, Given], Answer]] = {
    "fault": _fault,
    "clear": _clear,
    "show": _show,
    "expire_sessions": _expire_sessions,
    "fill_sr": _fill_sr,
    "crash_host": _crash_host,
    "return_host": _return_host,
    "crash_vm": _crash_vm,
    "write_disk": _write_disk,
}


def obey(engine: Engine, line: str | bytes) -> Answer:
    """Do what one line asks for."""
    try:
        request = json.loads(line)
        if not isinstance(request, dict) or not isinstance(request.get("do"), str):
            raise Refused('a request is an object as {"do": "show"}')
        does = DOES.get(request["do"])
        if does is None:
            raise Refused(f'"do" must be one of {", ".join(DOES)}')
        return {"ok": True, **does(engine, Given(request))}
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        return {"ok": False, "error": f"not JSON: {error}"}
    except Failure as failure:
        return {"ok": False, "error": " ".join(failure.details)}
    except (Refused, ValueError, KeyError) as error:
        return {"ok": False, "error": str(error)}


def obey_file(engine: Engine, lines: Iterable[str]) -> None:
    """Do what a file asks for, a line each; empty ones and those that begin with # say nothing. Refused for the first
    that cannot be done."""
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            answer = obey(engine, line)
            if not answer["ok"]:
                raise Refused(f"line {number} of the faults: {answer['error']}")


# -- the socket --


class _Conversation(socketserver.StreamRequestHandler):
    server: ControlSocket

    def handle(self) -> None:
        try:
            while line := self.rfile.readline(LONGEST_LINE):
                self.wfile.write(json.dumps(obey(self.server.engine, line)).encode() + b"\n")
        except OSError:
            return  # the other side has gone


class ControlSocket(socketserver.ThreadingUnixStreamServer):
    """Listens for requests; only the user who runs the simulator can open it."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path, engine: Engine) -> None:
        self.engine = engine
        self.path = path
        if path.is_socket():
            path.unlink()  # of a simulator that was killed
        mask = os.umask(0o177)  # from its first moment on nobody else may open it
        try:
            super().__init__(str(path), _Conversation)
        except OSError as error:
            raise Refused(f"{path}: {error.strerror or error}; choose another --control") from error
        finally:
            os.umask(mask)

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True, name="simulator-control").start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self.path.unlink(missing_ok=True)
