"""The data model of XenAPI, read once from model.json: classes, fields, messages, as typed tables.

Everything that needs no behaviour of its own (getters, setters, constructors, arity, types) is driven by it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from xenapi_host.simulator.wire_types import Coercion, coercion, date, zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    name: str
    kind: str
    qualifier: str  # "ro" the system writes it, "con" fixed at creation, "rw" a client may set it
    coerce: Coercion
    default: Any
    required: bool  # a constructor must be given it
    database_name: str  # as queries and MAP_DUPLICATE_KEY spell it


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    name: str
    kind: str
    coerce: Coercion


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    name: str
    parameters: tuple[Parameter, ...]
    required: int
    result: str
    removed: bool
    implicit: bool
    sessionless: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Class:
    name: str
    fields: dict[str, Field]
    messages: dict[str, Message]
    defaults: dict[str, Any]  # never changed in place: rows share these values
    by_database_name: dict[str, Field]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    classes: dict[str, Class]
    enums: dict[str, list[str]]
    forbidden: frozenset[str]
    lower: dict[str, str]  # class name in any case -> its spelling


# The database splits a field's name where the data model nests it; these prefixes are the nested groups.
_NESTED = (
    "name_",
    "memory_",
    "VCPUs_",
    "actions_after_",
    "PV_",
    "HVM_",
    "API_version_",
    "qos_",
    "bios_",
    "ha_",
    "IP_",
    "last_boot_",
)
_NESTED_IN = {
    "VM": (
        "memory_overhead memory_target memory_static_max memory_dynamic_max memory_dynamic_min memory_static_min "
        "VCPUs_params VCPUs_max VCPUs_at_startup actions_after_softreboot actions_after_shutdown "
        "actions_after_reboot actions_after_crash PV_bootloader PV_kernel PV_ramdisk PV_args PV_bootloader_args "
        "PV_legacy_args HVM_boot_policy HVM_boot_params HVM_shadow_multiplier PCI_bus"
    ),
    "host": "memory_overhead API_version_major API_version_minor API_version_vendor",
    "VBD": "qos_algorithm_type qos_algorithm_params qos_supported_algorithms",
    "VIF": "qos_algorithm_type qos_algorithm_params qos_supported_algorithms",
    "VM_metrics": "memory_actual VCPUs_number VCPUs_utilisation VCPUs_CPU VCPUs_params VCPUs_flags",
    "host_metrics": "memory_total memory_free",
}


def _database_name(class_name: str, field: str) -> str:
    if field not in ("name_label", "name_description") and field not in _NESTED_IN.get(class_name, "").split():
        return field
    for prefix in (*_NESTED, "PCI_"):
        if field.startswith(prefix):
            return prefix.removesuffix("_") + "__" + field.removeprefix(prefix)
    return field


def _field(class_name: str, entry: list[Any], enums: dict[str, list[str]]) -> Field:
    name, kind, qualifier = entry[:3]
    default = entry[3] if len(entry) > 3 else zero(kind)
    if kind == "datetime" and isinstance(default, str):
        default = date(default)
    return Field(
        name=name,
        kind=kind,
        qualifier=qualifier,
        coerce=coercion(kind, enums),
        default=default,
        required=len(entry) == 3 and qualifier != "ro",
        database_name=_database_name(class_name, name),
    )


def _message(name: str, entry: list[Any], enums: dict[str, list[str]]) -> Message:
    parameters, required, result, flags = entry
    pairs = [parameter.rpartition(" ") for parameter in parameters]
    return Message(
        name=name,
        parameters=tuple(Parameter(name=n, kind=k, coerce=coercion(k, enums)) for k, _, n in pairs),
        required=required,
        result=result,
        removed="r" in flags,
        implicit="i" in flags,
        sessionless="s" in flags,
    )


@cache
def model() -> Model:
    """The one model of this process."""
    data = json.loads(files("xenapi_host.simulator").joinpath("model.json").read_text(encoding="utf-8"))
    enums: dict[str, list[str]] = data["enums"]
    classes: dict[str, Class] = {}
    for name, entry in data["classes"].items():
        fields = {f[0]: _field(name, f, enums) for f in entry["fields"]}
        classes[name] = Class(
            name=name,
            fields=fields,
            messages={m: _message(m, e, enums) for m, e in entry["messages"].items()},
            defaults={f.name: f.default for f in fields.values()},
            by_database_name={f.database_name: f for f in fields.values()},
        )
    return Model(
        classes=classes,
        enums=enums,
        forbidden=frozenset(data["forbidden"]),
        lower={name.lower(): name for name in classes},
    )
