"""The pool's object database: rows of the model's classes, their relations, and what changed in which order.

Every change goes through `create`, `set` and `delete`, so that a row, the sets that point back at it (SR.VDIs and the
like), the events and the journal always tell one truth. Rows hold only what differs from the model's defaults, which
keeps a host of a large fleet small. Values in rows are never changed in place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from xenapi_host.simulator.failure import NULL, handle_invalid
from xenapi_host.simulator.model import model

_DEFAULTS = {name: entry.defaults for name, entry in model().classes.items()}
_REMEMBERED_DELETIONS = 20_000

# (class, field that points) -> set in the object pointed at.
RELATIONS: dict[tuple[str, str], str] = {
    ("VBD", "VM"): "VBDs",
    ("VBD", "VDI"): "VBDs",
    ("VIF", "VM"): "VIFs",
    ("VIF", "network"): "VIFs",
    ("VDI", "SR"): "VDIs",
    ("VDI", "snapshot_of"): "snapshots",
    ("PBD", "SR"): "PBDs",
    ("PBD", "host"): "PBDs",
    ("PIF", "host"): "PIFs",
    ("PIF", "network"): "PIFs",
    ("VLAN", "tagged_PIF"): "VLAN_slave_of",
    ("VM", "resident_on"): "resident_VMs",
    ("VM", "snapshot_of"): "snapshots",
    ("VM", "parent"): "children",
    ("console", "VM"): "consoles",
    ("host_cpu", "host"): "host_CPUs",
    ("task", "subtask_of"): "subtasks",
    ("crashdump", "VM"): "crash_dumps",
    ("VTPM", "VM"): "VTPMs",
}
_POINTERS: dict[str, dict[str, str]] = {}
for (_class, _field), _set in RELATIONS.items():
    _POINTERS.setdefault(_class, {})[_field] = _set


class Row(dict[str, Any]):
    """One object: its fields, where they differ from the defaults, and when it was made and changed."""

    __slots__ = ("changed", "class_name", "created", "ref")

    def __init__(self, class_name: str, ref: str, fields: dict[str, Any]) -> None:
        super().__init__(fields)
        self.class_name = class_name
        self.ref = ref
        self.created = 0
        self.changed = 0

    def __missing__(self, field: str) -> Any:
        return _DEFAULTS[self.class_name][field]

    def number(self, field: str) -> int:
        return int(self[field])


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    generation: int
    created: int
    class_name: str
    ref: str


class Database:
    """All objects of one pool. Not locked here: the engine's lock covers it."""

    def __init__(self, new_uuid: Callable[[], str]) -> None:
        self.new_uuid = new_uuid
        self.rows: dict[str, Row] = {}
        self.tables: dict[str, dict[str, Row]] = {}
        self.generation = 0
        self.deletions: deque[Deletion] = deque(maxlen=_REMEMBERED_DELETIONS)
        self.unsaved: dict[str, None] | None = None  # what a journal has still to write, where one follows
        self.changed: Callable[[], None] = lambda: None
        self._order: dict[str, None] = {}
        self._uuids: dict[tuple[str, str], str] = {}
        self._names: dict[tuple[str, str], dict[str, None]] = {}

    # -- reading --

    def find(self, class_name: str, ref: str) -> Row | None:
        row = self.rows.get(ref)
        return row if row is not None and row.class_name == class_name else None

    def get(self, class_name: str, ref: str) -> Row:
        row = self.rows.get(ref)
        if row is None or row.class_name != class_name:
            raise handle_invalid(class_name, ref)
        return row

    def all(self, class_name: str) -> list[Row]:
        return list(self.tables.get(class_name, {}).values())

    def refs(self, class_name: str) -> list[str]:
        return list(self.tables.get(class_name, ()))

    def by_uuid(self, class_name: str, uuid: str) -> str | None:
        return self._uuids.get((class_name, uuid))

    def by_name(self, class_name: str, name: str) -> list[str]:
        return list(self._names.get((class_name, name), ()))

    def changed_since(self, generation: int) -> Iterator[Row]:
        """Rows made or changed after `generation`, newest first."""
        for ref in reversed(self._order):
            row = self.rows[ref]
            if row.changed <= generation:
                return
            yield row

    # -- writing --

    def create(self, class_name: str, fields: dict[str, Any], ref: str | None = None) -> Row:
        row = Row(class_name, ref or "OpaqueRef:" + self.new_uuid(), fields)
        if "uuid" in _DEFAULTS[class_name] and "uuid" not in row:
            dict.__setitem__(row, "uuid", self.new_uuid())
        self.insert(row)
        for field, back in _POINTERS.get(class_name, {}).items():
            self._link(row[field], back, row.ref)
        return row

    def insert(self, row: Row) -> None:
        """Put a row in place with its indexes; used alone only where relations are restored with the rows."""
        self.rows[row.ref] = row
        self.tables.setdefault(row.class_name, {})[row.ref] = row
        self._index(row)
        self._stamp(row)
        row.created = row.changed

    def set(self, row: Row, field: str, value: Any) -> None:
        """Write one field; nothing happens, and nothing is told, where it already held the value."""
        old = row[field]
        if old == value and type(old) is type(value):
            return
        if field == "uuid" or field == "name_label":
            self._unindex(row)
            dict.__setitem__(row, field, value)
            self._index(row)
        else:
            dict.__setitem__(row, field, value)
        back = _POINTERS.get(row.class_name, {}).get(field)
        if back:
            self._unlink(old, back, row.ref)
            self._link(value, back, row.ref)
        self._stamp(row)

    def update(self, row: Row, fields: dict[str, Any]) -> None:
        for field, value in fields.items():
            self.set(row, field, value)

    def touch(self, row: Row) -> None:
        """Tell of a row whose computed fields changed though no stored one did."""
        self._stamp(row)

    def delete(self, row: Row) -> None:
        if row.ref not in self.rows:
            return
        for field, back in _POINTERS.get(row.class_name, {}).items():
            self._unlink(row[field], back, row.ref)
        self._unindex(row)
        del self.rows[row.ref]
        del self.tables[row.class_name][row.ref]
        del self._order[row.ref]
        self.generation += 1
        self.deletions.append(
            Deletion(generation=self.generation, created=row.created, class_name=row.class_name, ref=row.ref)
        )
        if self.unsaved is not None:
            self.unsaved[row.ref] = None
        self.changed()

    # -- inside --

    def _stamp(self, row: Row) -> None:
        self.generation += 1
        row.changed = self.generation
        self._order.pop(row.ref, None)
        self._order[row.ref] = None
        if self.unsaved is not None:
            self.unsaved[row.ref] = None
        self.changed()

    def _link(self, target: str, back: str, ref: str) -> None:
        row = self.rows.get(target) if target != NULL else None
        if row is not None:
            dict.__setitem__(row, back, [ref, *row[back]])
            self._stamp(row)

    def _unlink(self, target: str, back: str, ref: str) -> None:
        row = self.rows.get(target) if target != NULL else None
        if row is not None and ref in row[back]:
            dict.__setitem__(row, back, [r for r in row[back] if r != ref])
            self._stamp(row)

    def _index(self, row: Row) -> None:
        if "uuid" in row:
            self._uuids[row.class_name, row["uuid"]] = row.ref
        if "name_label" in _DEFAULTS[row.class_name]:
            self._names.setdefault((row.class_name, row["name_label"]), {})[row.ref] = None

    def _unindex(self, row: Row) -> None:
        if self._uuids.get((row.class_name, row.get("uuid", ""))) == row.ref:
            del self._uuids[row.class_name, row["uuid"]]
        if "name_label" in _DEFAULTS[row.class_name]:
            key = (row.class_name, row["name_label"])
            named = self._names.get(key, {})
            named.pop(row.ref, None)
            if not named:
                self._names.pop(key, None)
