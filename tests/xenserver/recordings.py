"""Recorded requests and answers of a real XAPI, replayed against a simulated pool and compared step by step.

The format is explained in recorded/README.md. Placeholders are bound where they first appear; the same name is the
same value within a file. Sets are unordered, error arrays and event lists are not.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xmlrpc.client import DateTime, Fault, dumps, loads

from xenapi_host.simulator.full import FullPool
from xenapi_host.simulator.mishaps import write_every_block
from xenapi_host.simulator.worlds import recorded_world

FOLDER = Path(__file__).parent / "recorded"
PLUGINS = Path(__file__).parent / "recorded_plugins"
LONGEST_WAIT = 0.1  # an empty batch comes after the time asked for; nobody needs all of it
USER, PASSWORD = "root", "xen"
_IN_TEXT = re.compile(r"\{\$(\w+):([^}]*)\}")
_FORMS = ("$ref", "$uuid", "$id", "$token", "$mac", "$addr", "$hostname", "$xapi", "$track")
# What the recorded machine could not do, or what comes and goes by itself (README: "Not real", "Order"): members that
# may be missing, and members of which only the type counts.
_COME_AND_GO = {"dirty", "vhd-blocks", "debug_info:cancel_points_seen"}
_NOT_REAL = {"consoles", "memory_actual", "memory_free", "PV_drivers_detected", "PV_drivers_up_to_date"}
_ONE_EACH = ("$ref", "$uuid", "$id")  # another name means another value
Step = dict[str, Any]
Bindings = dict[str, str]


def scenarios() -> list[str]:
    return sorted(str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.glob("*/*.jsonl"))


def steps_of(scenario: str) -> list[Step]:
    lines = (FOLDER / f"{scenario}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


class Unbound(Exception):
    """A request names something that no answer has shown: the step before it went differently."""


class Comparison:
    """What the placeholders of one file stand for, and how a recorded value is compared with one received."""

    def __init__(self) -> None:
        self.bound: Bindings = {}
        self.candidates: dict[str, list[str]] = {}  # of sets with several unknown members: any order would do

    # -- requests --

    def concrete(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.concrete(item) for item in value]
        if isinstance(value, dict):
            form = next(iter(value), "")
            if len(value) == 1 and form.startswith("$"):
                return self._stands_for(form, value[form])
            return {self._text(key): self.concrete(item) for key, item in value.items()}
        return value

    def _stands_for(self, form: str, name: Any) -> Any:
        if form == "$str":
            return self._text(name)
        if form == "$user":
            return USER
        if form == "$password":
            return PASSWORD
        if form == "$time":
            return DateTime("19700101T00:00:00Z" if not str(name).startswith("19") else name)
        if form in ("$vol", "$env"):
            return self.concrete(name)
        known = self.bound.get(f"{form}:{name}")
        return known if known is not None else self._chosen(f"{form}:{name}")

    def _chosen(self, key: str) -> str:
        free = [value for value in self.candidates.get(key, []) if value not in self.bound.values()]
        if not free:
            raise Unbound(key)
        self.bound[key] = free[0]
        return free[0]

    def _text(self, text: str) -> str:
        def replaced(found: re.Match[str]) -> str:
            form, name = f"${found.group(1)}", found.group(2)
            if form == "$time":
                return name
            if form == "$basic":
                return "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            known = self.bound.get(f"{form}:{name}")
            return known if known is not None else self._chosen(f"{form}:{name}")

        return _IN_TEXT.sub(replaced, text)

    # -- answers --

    def difference(self, expected: Any, actual: Any, *, ordered: bool = False) -> str:
        """Where the two differ, or nothing; on agreement the new bindings are kept."""
        for bound in self._match(expected, actual, self.bound, ordered):
            self.bound = bound
            return ""
        return self._explain(expected, actual, "")

    def _match(self, expected: Any, actual: Any, bound: Bindings, ordered: bool) -> Iterator[Bindings]:
        if isinstance(expected, dict) and len(expected) == 1 and next(iter(expected)).startswith("$"):
            form, name = next(iter(expected.items()))
            yield from self._match_form(form, name, actual, bound)
        elif isinstance(expected, dict):
            if not isinstance(actual, dict):
                return
            expected = {key: value for key, value in expected.items() if key in actual or key not in _COME_AND_GO}
            if len(actual) == len(expected):
                yield from self._match_members(list(expected.items()), list(actual.items()), bound)
        elif isinstance(expected, list):
            if isinstance(actual, list) and len(actual) == len(expected):
                yield from self._match_items(expected, actual, bound, ordered)
        elif type(expected) is type(actual) and expected == actual:
            yield bound

    def _match_items(
        self, expected: list[Any], actual: list[Any], bound: Bindings, ordered: bool
    ) -> Iterator[Bindings]:
        if not expected:
            yield bound
            return
        if not ordered and all(type(item) is str for item in expected):
            if sorted(expected) == sorted(map(str, actual)):
                yield bound
            return
        unknown = [item for item in expected if self._is_open(item) == 2 and "$ref" in item]
        if not ordered and len(unknown) == len(expected) > 1:
            left = [value for value in actual if isinstance(value, str)]
            if len(left) == len(expected):
                for item in unknown:
                    key = f"$ref:{item['$ref']}"
                    self.candidates[key] = [ref for ref in self.candidates.get(key, left) if ref in left]
                yield bound
            return
        expected = expected if ordered else sorted(expected, key=self._is_open)
        first, rest = expected[0], expected[1:]
        for position, candidate in enumerate(actual[:1] if ordered else actual):
            left = actual[:position] + actual[position + 1 :]
            for found in self._match(first, candidate, bound, False):
                yield from self._match_items(rest, left, found, ordered)

    def _match_members(self, expected: list[Any], actual: list[Any], bound: Bindings) -> Iterator[Bindings]:
        if not expected:
            yield bound
            return
        here = {key for key, _ in actual}
        missing = [key for key, _ in expected if key not in here and "{$" not in key]
        if missing:
            return
        expected = sorted(expected, key=lambda pair: self._is_open(pair[1]))
        (key, value), rest = expected[0], expected[1:]
        exact = [pair for pair in actual if pair[0] == key]
        for pair in exact or actual:
            left = [other for other in actual if other is not pair]
            for named in self._match_text(key, pair[0], bound):
                ordered = key in ("events", "headers", "error_info")
                if key in _NOT_REAL and type(value) is type(pair[1]):
                    value = pair[1]
                for found in self._match(value, pair[1], named, ordered):
                    yield from self._match_members(rest, left, found)

    def _is_open(self, value: Any) -> int:
        """How much a value leaves open: what can only match one thing is tried first, so wrong ways end early."""
        if isinstance(value, dict) and len(value) == 1 and next(iter(value)).startswith("$"):
            form, name = next(iter(value.items()))
            return 0 if f"{form}:{name}" in self.bound else 2
        return 1 if isinstance(value, (dict, list)) and value else 0

    def _match_form(self, form: str, name: Any, actual: Any, bound: Bindings) -> Iterator[Bindings]:
        if form in ("$vol", "$env"):
            if _wire_type(name) is _wire_type(actual):
                yield bound
        elif form == "$time":
            if isinstance(actual, DateTime) and (str(actual.value) == "19700101T00:00:00Z") == (
                str(name)[:4] == "1970"
            ):
                yield bound
        elif form in ("$str", "$text"):
            if isinstance(actual, str):
                yield from self._match_text(name, actual, bound)
        elif form in ("$user", "$password"):
            if actual == self._stands_for(form, name):
                yield bound
        elif form in _FORMS and isinstance(actual, str):
            yield from _bind(f"{form}:{name}", form, actual, bound)

    def _match_text(self, pattern: str, actual: Any, bound: Bindings) -> Iterator[Bindings]:
        if not isinstance(actual, str):
            return
        parts = _IN_TEXT.split(pattern)
        regular = re.escape(parts[0])
        names = []
        for form, name, after in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            names.append((f"${form}", name))
            regular += (r"([^\"'<>&|,;\]\s]*?)" if form != "num" else r"(\d+)") + re.escape(after)
        found = re.fullmatch(regular, actual, re.DOTALL)
        if found is None:
            return
        for (form, name), value in zip(names, found.groups(), strict=True):
            if form in ("$num", "$time", "$basic"):
                continue
            tried = next(_bind(f"{form}:{name}", form, value, bound), None)
            if tried is None:
                return
            bound = tried
        yield bound

    def _explain(self, expected: Any, actual: Any, path: str) -> str:
        plain = isinstance(expected, dict) and not (len(expected) == 1 and next(iter(expected)).startswith("$"))
        if plain and isinstance(actual, dict):
            lines = []
            for key in sorted(set(expected) | set(actual)):
                if key not in actual or key not in expected:
                    lines.append(f"{path}.{key}: {'missing' if key not in actual else 'not expected'}")
                elif not any(True for _ in self._match(expected[key], actual[key], self.bound, key == "events")):
                    lines.append(self._explain(expected[key], actual[key], f"{path}.{key}"))
            return "; ".join(lines) or f"{path}: members do not fit together"
        return f"{path}: expected {json.dumps(expected)[:300]} got {actual!r:.300}"


def _bind(key: str, form: str, value: str, bound: Bindings) -> Iterator[Bindings]:
    known = bound.get(key)
    if known is not None:
        if known == value:
            yield bound
        return
    if form in _ONE_EACH:
        group = key.partition("/")[0] if form == "$id" else form
        if any(v == value and k.startswith(group) for k, v in bound.items()):
            return
    if value or form not in _ONE_EACH:
        yield {**bound, key: value}


def _wire_type(value: Any) -> type:
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)).startswith("$"):
        form = next(iter(value))
        return DateTime if form == "$time" else _wire_type(value[form]) if form in ("$vol", "$env") else str
    return type(value)


class Player:
    """Plays one scenario against a pool of its own."""

    def __init__(self, scenario: str, data: Path) -> None:
        self.steps = steps_of(scenario)
        hosts = 2 if scenario.startswith("pool/") else 1
        self.pool = FullPool(data, lambda engine: recorded_world(engine, hosts=hosts), seed=1)
        for number in range(hosts):
            for script in PLUGINS.iterdir():
                mode = 0o644 if script.name == "rec_notexec" else 0o755
                if script.is_file():
                    self.pool.dom0(number).install(script.name, script.read_text(encoding="utf-8"), mode=mode)
        self.pool.start()
        self.comparison = Comparison()
        self.token = ""

    def close(self) -> None:
        self.pool.stop()

    def differences(self) -> dict[int, str]:
        """Step number -> how it differed; steps that are not behaviour are played and not compared."""
        found = {}
        for step in self.steps:
            try:
                problem = self._play(step)
            except Unbound as unbound:
                problem = f"needs {unbound}, which was not seen"
            if problem and not (step.get("cleanup") or step.get("artefact")):
                found[step["step"]] = f"{step['method']}: {problem}"
        return found

    def _play(self, step: Step) -> str:
        special = getattr(self, "_play_" + step["method"].lstrip("$"), None) if step["method"].startswith("$") else None
        if special is not None:
            return str(special(step))
        params = self.comparison.concrete(step["params"])
        if step["method"] == "event.from" and type(params[-1]) is float:
            params[-1] = min(params[-1], LONGEST_WAIT)
        status, answer = self.call(step["method"], params, step.get("at", 0))
        return self._compare(step, status, answer)

    def _compare(self, step: Step, status: str, answer: Any) -> str:
        if status != step["status"]:
            wanted = json.dumps(step.get("error", step.get("value")))
            return f"expected {step['status']} {wanted[:200]} got {answer!r:.300}"
        if status == "Fault":
            return ""
        if status == "Failure":
            return self.comparison.difference(step["error"], answer, ordered=True)
        if "reduce" in step:
            answer = self._reduced(step["reduce"], answer)
        elif isinstance(answer, dict) and "events" in answer:
            answer["events"] = [event for event in answer["events"] if event["class"] != "console"]
        return self.comparison.difference(step["value"], answer)

    def call(self, method: str, params: list[Any], at: int = 0) -> tuple[str, Any]:
        """One XML-RPC call: Success and value, Failure and error, or Fault."""
        response, body = self.http("POST", "/", dumps(tuple(params), method, allow_none=True), {}, at)
        if response.status != 200:
            return "Fault", body
        try:
            (answer,), _ = loads(body)
        except Fault as fault:
            return "Fault", fault.faultString
        if isinstance(answer, dict) and "Status" in answer:
            status = str(answer["Status"])
            return status, answer["Value"] if status == "Success" else answer["ErrorDescription"]
        return "Success", answer

    def http(
        self, method: str, path: str, body: str, headers: dict[str, str], at: int = 0
    ) -> tuple[http.client.HTTPResponse, str]:
        parts = urlsplit(self.pool.server.urls[at])
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=30)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True, skip_host="Host" in headers)
            given = {**({"Content-Length": str(len(body.encode()))} if body else {}), **headers}
            for name, value in given.items():
                connection.putheader(name, value)
            connection.endheaders(body.encode() or None)
            response = connection.getresponse()
            return response, response.read().decode()
        finally:
            connection.close()

    def _reduced(self, form: str, answer: Any) -> Any:
        if form == "type":
            return type(answer).__name__
        if form == "count":
            return len(answer)
        if form == "record_keys":
            return sorted({key for record in answer.values() for key in record})
        if form == "known":
            names = {value: key for key, value in self.comparison.bound.items() if key.startswith("$ref:")}
            return sorted(names[ref].removeprefix("$ref:") for ref in answer if ref in names)
        if form == "event_classes":
            return sorted([list(pair) for pair in {(e["class"], e["operation"]) for e in answer["events"]}])
        return answer["token"]

    # -- steps that are no call --

    def _play_sleep(self, step: Step) -> str:
        """Nothing happens in a real XAPI's own time here but tasks; their end is waited for."""
        engine = self.pool.engine
        with engine.lock:
            while any(t["status"] == "pending" and t["name_label"].startswith("Async") for t in engine.db.all("task")):
                engine.wait_for_change(30)
        return ""

    def _play_wait_task(self, step: Step) -> str:
        ref = self.comparison.concrete(step["params"])[-1]
        session = self.comparison.bound["$ref:session/1"]
        engine = self.pool.engine
        with engine.lock:
            while ref in engine.db.rows and engine.db.rows[ref]["status"] == "pending":
                engine.wait_for_change(30)
        status, answer = self.call("task.get_record", [session, ref])
        return self._compare(step, status, answer)

    def _play_wait_value(self, step: Step) -> str:
        method, *params = self.comparison.concrete(step["params"])
        status, answer = self.call(method, params)
        return self._compare(step, status, answer)

    def _play_fill_disk(self, step: Step) -> str:
        write_every_block(self.pool.engine, self.comparison.concrete(step["params"])[-1])
        return ""

    def _play_http(self, step: Step) -> str:
        asked = step["params"][0]
        headers = {name: self.comparison._text(value) for name, value in asked["headers"]}
        path = self.comparison._text(asked["path"])
        response, body = self.http(asked["method"], path, self.comparison._text(asked.get("body") or ""), headers)
        expected = step["value"]
        version = {10: "HTTP/1.0", 11: "HTTP/1.1"}[response.version]
        line = f"{version} {response.status} {response.reason}"
        if line != expected["status_line"]:
            return f"expected {expected['status_line']} got {line}"
        known = {name.lower(): value for name, value in response.getheaders()}
        for name, value in expected["headers"]:
            if name.lower() != "content-length" and known.get(name.lower()) != value:
                return f"header {name}: expected {value} got {known.get(name.lower())}"
        text = expected["body"]["$text"] if isinstance(expected["body"], dict) else expected["body"]
        if response.status != 200:  # the texts of errors are XAPI's own exceptions
            return ""
        return self._same_body(text, body)

    def _same_body(self, expected: str, actual: str) -> str:
        """Bodies are compared as text, but members and sets have no order."""
        if expected.startswith("{"):
            return self.comparison.difference(_json(expected), json.loads(actual))
        if expected.startswith("<?xml") and "<methodResponse>" in expected:
            (wanted,), _ = loads(re.sub(r"\{\$num:\d+\}", "1", expected))
            (got,), _ = loads(actual)
            shape = re.compile(r"<(\w[\w.]*)>")
            if sorted(set(shape.findall(expected))) != sorted(set(shape.findall(actual))):
                return f"other tags: {sorted(set(shape.findall(expected)) ^ set(shape.findall(actual)))}"
            return self.comparison.difference(_patterns(wanted), got)
        return self.comparison.difference({"$text": expected}, actual)

    def _play_watch(self, step: Step) -> str:
        """event.from in a loop while the call is made: what each object ended as, and how it was told."""
        session = self.comparison.concrete(step["params"][1])
        if not self.token:
            self.token = self.call("event.from", [session, step["classes"], "", 0.0])[1]["token"]
        batches: list[Any] = []
        done = threading.Event()

        def watch() -> None:
            token = self.token
            while True:
                last = done.is_set()
                batch = self.call("event.from", [session, step["classes"], token, LONGEST_WAIT])[1]
                batches.append(batch["events"])
                token = self.token = batch["token"]
                if last and not batch["events"]:
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        method, *params = self.comparison.concrete(step["params"])
        status, answer = self.call(method, params)
        done.set()
        watcher.join(30)
        problem = self._compare(step, status, answer)
        return problem or self._same_fates(step["batches"], batches)

    def _same_fates(self, expected: list[Any], actual: list[Any]) -> str:
        """Each object's last event, tasks apart (whose number is timing)."""
        wanted: dict[str, Any] = {}
        for event in [e for batch in expected for e in (batch["events"] if isinstance(batch, dict) else batch)]:
            if event["class"] != "task":
                wanted[json.dumps(event["ref"])] = event
        got = {event["ref"]: event for batch in actual for event in batch if event["class"] != "task"}
        for event in wanted.values():
            try:
                ref = self.comparison.concrete(event["ref"])
            except Unbound:
                same = [e for e in got.values() if (e["class"], e["operation"]) == (event["class"], event["operation"])]
                ref = same[0]["ref"] if same else ""
            if ref not in got:
                return f"nothing was told of {event['class']} {event['ref']} ({event['operation']})"
            snapshot, seen = event.get("snapshot"), got[ref].get("snapshot")
            problem = self.comparison.difference(snapshot, seen) if snapshot is not None else ""
            if problem:
                return f"{event['class']}: {problem}"
        return ""


def _patterns(value: Any) -> Any:
    """Texts with placeholders inside, as loads left them."""
    if isinstance(value, list):
        return [_patterns(item) for item in value]
    if isinstance(value, dict):
        return {key: _patterns(item) for key, item in value.items()}
    if isinstance(value, DateTime):
        return {"$time": "19700101T00:00:00Z" if "1970" in str(value.value) else "start"}
    if type(value) is int:
        return {"$vol": value}
    if isinstance(value, str) and _IN_TEXT.search(value):
        return {"$str": value}
    return value


def _json(text: str) -> Any:
    """A JSON body whose numbers may be placeholders."""
    plain = json.loads(re.sub(r":(\{\$num:\d+\})", r':"\1"', text))

    def restored(value: Any) -> Any:
        if isinstance(value, list):
            return [restored(item) for item in value]
        if isinstance(value, dict):
            return {key: restored(item) for key, item in value.items()}
        if isinstance(value, str) and value.startswith("{$num:"):
            return {"$vol": 1}
        if isinstance(value, str) and _IN_TEXT.search(value):
            return {"$str": value}
        return value

    return restored(plain)
