"""The control command: one request to a simulated pool's control socket, in words."""

from __future__ import annotations

import argparse
import base64
import json
import socket
from pathlib import Path
from typing import Any

WAIT_SECONDS = 60.0
_MEMBERS = {
    "show": (),
    "expire-sessions": ("originator",),
    "fill-sr": ("sr", "free"),
    "crash-host": ("host",),
    "return-host": ("host",),
    "crash-vm": ("vm",),
}


class Unreachable(Exception):
    """Nobody listens there."""


def ask(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    """One request and its answer; Unreachable."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(WAIT_SECONDS)
        try:
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            line = connection.makefile("rb").readline()
        except OSError as error:
            raise Unreachable(
                f"{path}: {error.strerror or error}; start the pool with celltree xenserver --control {path}"
            ) from error
    answer: dict[str, Any] = json.loads(line or b'{"ok": false, "error": "the pool has ended"}')
    return answer


def add_words(parser: argparse.ArgumentParser) -> None:
    """The command's arguments: SOCKET, what to do, and its own."""
    parser.add_argument("socket", type=Path, metavar="SOCKET", help="as given to celltree xenserver --control")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="WHAT", help="--help after each tells its words")
    fail = _rule(verbs, "fail", "calls of a method fail")
    fail.add_argument("error", nargs="+", metavar="ERROR", help="an error code and its parameters")
    delay = _rule(verbs, "delay", "calls of a method take their time")
    delay.add_argument("delay", type=float, metavar="SECONDS")
    _rule(verbs, "hang", "calls of a method wait until the fault is cleared")
    _rule(verbs, "drop", "the connection breaks under calls of a method")
    clear = verbs.add_parser("clear", help="take back one fault, or all")
    clear.add_argument("fault", type=int, nargs="?", metavar="NUMBER")
    verbs.add_parser("show", help="faults, hosts, repositories and sessions")
    expire = verbs.add_parser("expire-sessions", help="end sessions, as a restart of the toolstack does")
    expire.add_argument("--originator", default="*", help="only those who logged in as this; a glob")
    fill = verbs.add_parser("fill-sr", help="leave only so many bytes free in a repository")
    fill.add_argument("sr", metavar="SR", help="uuid or name")
    fill.add_argument("free", type=_bytes, metavar="BYTES", help="left free; none undoes it")
    for verb, help_text in (("crash-host", "a host stops answering"), ("return-host", "a host that crashed boots")):
        verbs.add_parser(verb, help=help_text).add_argument("host", metavar="HOST", help="uuid or name")
    verbs.add_parser("crash-vm", help="a running guest crashes").add_argument("vm", metavar="VM", help="uuid or name")
    write = verbs.add_parser("write-disk", help="write to a disk as if its guest had")
    write.add_argument("vdi", metavar="VDI", help="uuid or name")
    write.add_argument("--offset", type=int, default=0, metavar="BYTES")
    what = write.add_mutually_exclusive_group(required=True)
    what.add_argument("--text", help="these characters")
    what.add_argument("--file", type=Path, help="the bytes of this file")
    what.add_argument("--every-block", action="store_true", help="something into every block")


def _rule(verbs: Any, name: str, help_text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=help_text)
    parser.add_argument("method", metavar="METHOD", help="as VM.start, or a glob as 'VDI.*'")
    parser.add_argument("--when", choices=("before", "during", "after"), default="before", help="the effect")
    parser.add_argument("--nth", type=int, default=1, metavar="N", help="the first call that is struck")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="how many are; 0 for all that come")
    parser.add_argument("--probability", type=float, default=1.0, metavar="P", help="that a call is struck")
    return parser


def _bytes(text: str) -> int | None:
    return None if text == "none" else int(text)


def request_of(words: argparse.Namespace) -> dict[str, Any]:
    """The request that parsed words mean."""
    given = {name: value for name, value in vars(words).items() if name not in ("socket", "verb")}
    verb = words.verb
    if verb in ("fail", "delay", "hang", "drop"):
        names = ("method", "when", "nth", "times", "probability", "error", "delay")
        rule = {name: given[name] for name in names if name in given}
        return {"do": "fault", **rule, **({verb: True} if verb in ("hang", "drop") else {})}
    if verb == "clear":
        return {"do": "clear", **({} if words.fault is None else {"fault": words.fault})}
    if verb == "write-disk":
        request = {"do": "write_disk", "vdi": words.vdi, "offset": words.offset}
        if words.every_block:
            return {**request, "every_block": True}
        data = words.file.read_bytes() if words.file else words.text.encode()
        return {**request, "data": base64.b64encode(data).decode()}
    return {"do": verb.replace("-", "_"), **{name: given[name] for name in _MEMBERS[verb]}}
