"""Behaviours that follow from the model alone: getters, setters, map and set changes, lookups, listings.

A constructor or destructor is made here only for the few classes whose objects are nothing but their row; any other
message without a behaviour of its own refuses honestly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from xenapi_host.simulator.database import Row
from xenapi_host.simulator.failure import Failure, internal
from xenapi_host.simulator.model import Class, Message, model
from xenapi_host.simulator.query import parse

if TYPE_CHECKING:
    from xenapi_host.simulator.call import Call
    from xenapi_host.simulator.engine import Engine

Value = Any
Behaviour = Callable[..., Value]
Computed = TypeVar("Computed", bound=Callable[..., Value])

# Fields that are worked out when read: (class, field) -> how.
COMPUTED: dict[str, dict[str, Callable[[Engine, Row], Value]]] = {}
PLAIN = {"secret", "subject", "VM_appliance", "user"}


def computed(class_name: str, field: str) -> Callable[[Computed], Computed]:
    def register(how: Computed) -> Computed:
        COMPUTED.setdefault(class_name, {})[field] = how
        return how

    return register


def record(engine: Engine, row: Row) -> dict[str, Value]:
    """A copy of the whole object, which the caller may keep and change."""
    known = model().classes[row.class_name]
    values = {**known.defaults, **row}
    for field, how in COMPUTED.get(row.class_name, {}).items():
        values[field] = how(engine, row)
    for field, value in values.items():
        if type(value) is list or type(value) is dict:
            values[field] = value.copy()
    return values


def field_value(engine: Engine, row: Row, field: str) -> Value:
    how = COMPUTED.get(row.class_name, {}).get(field)
    value = how(engine, row) if how else row[field]
    return value.copy() if type(value) is list or type(value) is dict else value


def construct(known: Class, given: Value) -> dict[str, Value]:
    """The fields of a constructor's record: unknown keys ignored, missing ones defaulted or refused."""
    if type(given) is not dict:
        raise internal('Failure("bad __structure")')
    values = {}
    for field in known.fields.values():
        if field.qualifier == "ro":
            continue
        if field.name in given:
            values[field.name] = field.coerce(given[field.name])
        elif field.required:
            raise internal(f'Server_helpers.Dispatcher_FieldNotFound("{field.name}")')
    return values


def from_model(class_name: str, message: Message) -> Behaviour | None:
    """The behaviour that follows from the model; None where it takes one written by hand."""
    known = model().classes[class_name]
    if class_name in PLAIN and message.name in ("create", "destroy"):
        return _plain(class_name, known, message.name)
    return _lookup(class_name, message.name) or _accessor(class_name, known, message)


def behaviour(class_name: str, message: Message) -> Behaviour:
    return from_model(class_name, message) or _absent(class_name, message)


def _lookup(class_name: str, name: str) -> Behaviour | None:
    def get_record(call: Call, ref: str) -> Value:
        return record(call.engine, call.row(class_name, ref))

    def get_by_uuid(call: Call, uuid: str) -> str:
        ref = call.db.by_uuid(class_name, uuid)
        if ref is None:
            raise Failure("UUID_INVALID", class_name, uuid)
        return ref

    def get_by_name_label(call: Call, label: str) -> list[str]:
        return call.db.by_name(class_name, label)

    def get_all(call: Call) -> list[str]:
        return call.db.refs(class_name)

    def get_all_records(call: Call) -> dict[str, Value]:
        return {row.ref: record(call.engine, row) for row in call.db.all(class_name)}

    def get_all_records_where(call: Call, expression: str) -> dict[str, Value]:
        matches = parse(expression, model().classes[class_name])
        found = {}
        for row in call.db.all(class_name):
            if matches(partial(field_value, call.engine, row)):
                found[row.ref] = record(call.engine, row)
        return found

    lookups: dict[str, Behaviour] = {
        "get_record": get_record,
        "get_by_uuid": get_by_uuid,
        "get_by_name_label": get_by_name_label,
        "get_all": get_all,
        "get_all_records": get_all_records,
        "get_all_records_where": get_all_records_where,
    }
    return lookups.get(name)


def _accessor(class_name: str, known: Class, message: Message) -> Behaviour | None:
    for prefix, (parameters, make) in _ACCESSORS.items():
        field = known.fields.get(message.name.removeprefix(prefix))
        held = prefix in _OF_ANY or (field is not None and field.kind.endswith(_HOLDS[prefix]))
        if message.name.startswith(prefix) and field is not None and held and len(message.parameters) == parameters:
            return make(class_name, field.name)
    return None


def _getter(class_name: str, field: str) -> Behaviour:
    how = COMPUTED.get(class_name, {}).get(field)

    def get(call: Call, ref: str) -> Value:
        row = call.row(class_name, ref)
        value = how(call.engine, row) if how else row[field]
        return value.copy() if type(value) is list or type(value) is dict else value

    return get


def _setter(class_name: str, field: str) -> Behaviour:
    def set_(call: Call, ref: str, value: Value) -> str:
        call.db.set(call.row(class_name, ref), field, value)
        return ""

    return set_


def _map_adder(class_name: str, field: str) -> Behaviour:
    database_name = model().classes[class_name].fields[field].database_name

    def add(call: Call, ref: str, key: str, value: Value) -> str:
        row = call.row(class_name, ref)
        if not key:
            raise internal("Db_exn.Empty_key_in_map")
        if key in row[field]:
            raise Failure("MAP_DUPLICATE_KEY", class_name, database_name, ref, key)
        call.db.set(row, field, {**row[field], key: value})
        return ""

    return add


def _map_remover(class_name: str, field: str) -> Behaviour:
    def remove(call: Call, ref: str, key: str) -> str:
        row = call.row(class_name, ref)
        call.db.set(row, field, {k: v for k, v in row[field].items() if k != key})
        return ""

    return remove


def _set_adder(class_name: str, field: str) -> Behaviour:
    def add(call: Call, ref: str, value: Value) -> str:
        row = call.row(class_name, ref)
        if value not in row[field]:
            call.db.set(row, field, [value, *row[field]])
        return ""

    return add


def _set_remover(class_name: str, field: str) -> Behaviour:
    def remove(call: Call, ref: str, value: Value) -> str:
        row = call.row(class_name, ref)
        call.db.set(row, field, [v for v in row[field] if v != value])
        return ""

    return remove


# Prefix -> how many parameters such a message has (a method of its own may have others), and what it does.
_ACCESSORS: dict[str, tuple[int, Callable[[str, str], Behaviour]]] = {
    "get_": (1, _getter),
    "set_": (2, _setter),
    "add_to_": (3, _map_adder),
    "remove_from_": (2, _map_remover),
    "add_": (2, _set_adder),
    "remove_": (2, _set_remover),
}

_OF_ANY = ("get_", "set_")
_HOLDS = {"add_to_": " map", "remove_from_": " map", "add_": " set", "remove_": " set"}


def _plain(class_name: str, known: Class, name: str) -> Behaviour:
    def create(call: Call, given: Value) -> str:
        return call.db.create(class_name, construct(known, given)).ref

    def destroy(call: Call, ref: str) -> str:
        call.db.delete(call.row(class_name, ref))
        return ""

    return create if name == "create" else destroy


def _absent(class_name: str, message: Message) -> Behaviour:
    """A message XAPI has and the simulator has not: bad handles are still told first, as XAPI would."""
    kinds = [p.kind.removesuffix(" ref") if p.kind.endswith(" ref") else "" for p in message.parameters]

    def refuse(call: Call, *params: Value) -> Value:
        for kind, value in zip(kinds, params, strict=False):
            if kind in model().classes:
                call.row(kind, value)
                break
        raise Failure("NOT_IMPLEMENTED", f"{class_name}.{message.name}")

    return refuse
