"""The pool's objects on disk: one line of JSON a change, read back and compacted at the next start.

Sessions and tasks are not kept, as they do not outlive XAPI either. A line cut short by a crash is the last one and is
left out; everything before it was answered for.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TextIO
from xmlrpc.client import DateTime

from xenapi_host.simulator.database import Row
from xenapi_host.simulator.engine import CHAINLESS, Engine

LONGEST_TAIL = 10_000
_FLEETING = {"session", "task"}


def as_json(value: Any) -> Any:
    """For json.dumps: what JSON has no word for."""
    return {"$time": value.value} if isinstance(value, DateTime) else value


def from_json(given: dict[str, Any]) -> Any:
    """The way back, for json.loads."""
    return DateTime(given["$time"]) if set(given) == {"$time"} else given


class Journal:
    """Follows one engine. `restore` fills an empty one and says whether there was anything to fill it with."""

    def __init__(self, engine: Engine, path: Path, *, longest_tail: int = LONGEST_TAIL) -> None:
        self._engine = engine
        self._path = path
        self._longest_tail = longest_tail
        self._file: TextIO | None = None
        self._written = 0  # lines since the file was last made fresh

    def restore(self) -> bool:
        if not self._path.exists():
            return False
        rows: dict[str, Row] = {}
        with self._path.open(encoding="utf-8") as lines:
            for line in lines:
                try:
                    entry = json.loads(line, object_hook=from_json)
                except ValueError:
                    break
                if "v" in entry:
                    rows[entry["r"]] = Row(entry["c"], entry["r"], entry["v"])
                else:
                    rows.pop(entry["r"], None)
        for row in rows.values():
            self._engine.db.insert(row)
        self._resume()
        return bool(rows)

    def _resume(self) -> None:
        """What is not an object but follows from them: open repositories, domain numbers, nothing under way."""
        engine = self._engine
        for sr in engine.db.all("SR"):
            if sr["PBDs"]:
                engine.storage_of(sr).open(sr["uuid"], sr.number("physical_size"))
                for vdi in sr["VDIs"] if sr["type"] in CHAINLESS else ():
                    row = engine.db.rows[vdi]
                    engine.sizes_only.create(sr["uuid"], row["uuid"], row.number("virtual_size"))
        for row in list(engine.db.rows.values()):
            if row.get("current_operations"):
                engine.db.set(row, "current_operations", {})
        for vm in engine.db.all("VM"):
            host = vm["resident_on"]
            engine.next_domid[host] = max(engine.next_domid.get(host, 0), vm.number("domid"))

    def follow(self) -> None:
        """Write the whole database into a fresh file, then every change after it."""
        new = self._path.with_suffix(".new")
        with new.open("w", encoding="utf-8") as file:
            for row in self._engine.db.rows.values():
                if row.class_name not in _FLEETING:
                    file.write(self._line(row))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        self._engine.db.unsaved = {}
        self.close()
        self._written = 0
        self._file = self._path.open("a", encoding="utf-8")
        self._engine.after_call = self.save

    def save(self) -> None:
        """Append what the last call changed; the engine's lock is held."""
        db = self._engine.db
        if not db.unsaved or self._file is None:
            return
        changed, db.unsaved = db.unsaved, {}
        lines = []
        for ref in changed:
            row = db.rows.get(ref)
            if row is None:
                lines.append(json.dumps({"r": ref}) + "\n")
            elif row.class_name not in _FLEETING:
                lines.append(self._line(row))
        self._file.writelines(lines)
        self._file.flush()
        self._written += len(lines)
        if self._written > self._longest_tail + 4 * len(db.rows):
            self.follow()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @staticmethod
    def _line(row: Row) -> str:
        entry = {"c": row.class_name, "r": row.ref, "v": row}
        return json.dumps(entry, default=as_json, separators=(",", ":")) + "\n"
