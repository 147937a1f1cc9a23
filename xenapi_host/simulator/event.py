"""Class event: what changed since a token (event.from), and the old registered queue (event.next)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from xenapi_host.simulator.call import Call
from xenapi_host.simulator.dispatch import method
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import Failure, handle_invalid
from xenapi_host.simulator.implicit import record
from xenapi_host.simulator.model import model

_TOKEN = re.compile(r"(\d+),(\d+)\Z")
_BIGGEST = 2**63
_LONGEST_WAIT = 3600.0
_QUEUE_LIMIT = 5000
UNTOLD = {"session", "user", "role", "secret"}  # classes whose objects events do not tell of


@dataclass(slots=True)
class Registration:
    """One session's event.register: what it wants (as event.from takes it), and where it has read to."""

    wanted: set[str]
    generation: int
    number: int = 0


@dataclass(frozen=True, slots=True)
class Watched:
    """What event.from was asked for: whole classes, or single objects; names in lower case."""

    everything: bool = False
    classes: frozenset[str] = frozenset()
    objects: frozenset[tuple[str, str]] = field(default_factory=frozenset)

    def covers(self, class_name: str, ref: str) -> bool:
        if class_name in UNTOLD:
            return False
        lower = class_name.lower()
        return self.everything or lower in self.classes or (lower, ref) in self.objects


def watched(wanted: list[str]) -> Watched:
    classes, objects, everything = set(), set(), False
    for text in wanted:
        name, slash, ref = text.partition("/")
        if text == "*":
            everything = True
        elif slash and "/" in ref:
            raise Failure("EVENT_SUBSCRIPTION_PARSE_FAILURE", text)
        elif slash and ref != "*":
            objects.add((name.lower(), ref))
        elif not slash:
            classes.add(name.lower())
    return Watched(everything, frozenset(classes), frozenset(objects))


def token_text(generation: int) -> str:
    return f"{generation:020d},{0:020d}"


def _generation(token: str) -> int:
    if token == "":
        return 0
    found = _TOKEN.match(token)
    if found is None or int(found.group(1)) >= _BIGGEST or int(found.group(2)) >= _BIGGEST:
        raise Failure("EVENT_FROM_TOKEN_PARSE_FAILURE", token)
    return int(found.group(1))


def _event(number: int, class_name: str, operation: str, ref: str) -> dict[str, Any]:
    return {"id": str(number), "timestamp": "0.0", "class": class_name.lower(), "operation": operation, "ref": ref}


def events_since(engine: Engine, what: Watched, generation: int) -> list[dict[str, Any]]:
    """One event an object at most: the added, the changed, the deleted, each newest first."""
    added: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    deleted: list[dict[str, Any]] = []
    for row in engine.db.changed_since(generation):
        if what.covers(row.class_name, row.ref):
            new = row.created > generation
            event = _event(row.changed, row.class_name, "add" if new else "mod", row.ref)
            event["snapshot"] = record(engine, row)
            (added if new else changed).append(event)
    for gone in reversed(engine.db.deletions):
        if gone.generation <= generation:
            break
        if gone.created <= generation and what.covers(gone.class_name, gone.ref):
            deleted.append(_event(gone.generation, gone.class_name, "del", gone.ref))
    return [*added, *changed, *deleted]


def _counts(engine: Engine) -> dict[str, int]:
    counts = {name.lower(): len(engine.db.tables.get(name, ())) for name in model().classes}
    return {**counts, "diagnostics": 0}  # a class without objects that the published model leaves out


@method("event.from")
def from_(call: Call, classes: list[str], token: str, timeout: float) -> dict[str, Any]:
    engine = call.engine
    what, generation = watched(classes), _generation(token)
    if generation > engine.db.generation:
        generation = 0  # a token of another database: everything is new to its holder
    deadline = engine.clock() + (min(timeout, _LONGEST_WAIT) if timeout > 0 else 0)  # no number is no time
    found = events_since(engine, what, generation)
    while not found:
        left = deadline - engine.clock()
        if left <= 0:
            break
        seen = engine.db.generation
        engine.wait_for_change(left)
        call.refuse_interrupted()
        if call.asker.ref not in engine.db.rows:
            raise Failure("SESSION_INVALID", call.asker.ref)
        if engine.db.generation != seen:
            found = events_since(engine, what, generation)
    last = max((int(event["id"]) for event in found), default=generation)
    return {"events": found, "token": token_text(last), "valid_ref_counts": _counts(engine)}


@method("event.inject")
def inject(call: Call, class_name: str, ref: str) -> str:
    row = call.db.find(class_name, ref) if class_name in model().classes else None
    if row is None:
        raise handle_invalid(class_name, ref)
    before = token_text(call.db.generation)
    call.db.touch(row)
    return before


@method("event.get_current_id")
def get_current_id(call: Call) -> str:
    return str(call.db.generation)


# -- the old way --


@method("event.register")
def register(call: Call, classes: list[str]) -> str:
    known = call.engine.registrations.get(call.asker.ref)
    if known is None:
        known = call.engine.registrations[call.asker.ref] = Registration(set(), call.db.generation)
    watched(classes)
    known.wanted |= set(classes)
    return ""


@method("event.unregister")
def unregister(call: Call, classes: list[str]) -> str:
    known = call.engine.registrations.get(call.asker.ref)
    if known is not None:
        gone = {name.lower() for name in classes}
        known.wanted = {name for name in known.wanted if name.lower() not in gone}
    return ""


@method("event.next")
def next_(call: Call) -> list[dict[str, Any]]:
    engine = call.engine
    known = engine.registrations.get(call.asker.ref)
    if known is None:
        raise Failure("SESSION_NOT_REGISTERED", call.asker.ref)
    while not (found := events_since(engine, watched(sorted(known.wanted)), known.generation)):
        engine.wait_for_change(_LONGEST_WAIT)
        call.refuse_interrupted()
        if call.asker.ref not in engine.db.rows:
            raise Failure("SESSION_INVALID", call.asker.ref)
    known.generation = engine.db.generation
    if len(found) > _QUEUE_LIMIT:
        raise Failure("EVENTS_LOST")
    for event in found:
        event |= {"id": str(known.number), "timestamp": f"{int(engine.clock())}."}
        known.number += 1
    return found
