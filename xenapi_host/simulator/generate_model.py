"""Make model.json, the simulator's compact data model, from XAPI's published xenapi.json.

Run by hand when XAPI's data model moves on: `python -m xenapi_host.simulator.generate_model xenapi.json`.
What comes out is data only: per class its fields (type, qualifier, default) and messages (parameters, how many of
them are required, result), and the enums. The published file does not say which trailing parameters may be left
out, nor which messages are hidden; those few facts are the two tables below.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

Published = dict[str, Any]

SOURCE = "xapi-project/xen-api, doc/data/xenapi.json (describes XAPI 24.10)"
LICENCE = "GNU LGPL 2.1 with XAPI's linking exception; data only, no code"

# Required parameters (the session not counted) of messages whose trailing parameters have a default in XAPI.
REQUIRED = {
    "session.login_with_password": 2,
    "session.slave_local_login_with_password": 2,
    "VDI.snapshot": 1,
    "VDI.clone": 1,
    "VDI.copy": 1,
    "VDI.introduce": 9,
    "VM.snapshot": 2,
    "VM.migrate_send": 6,
    "VM.assert_can_migrate": 6,
    "VM.restart_device_models": 1,
    "SR.create": 8,
    "SR.introduce": 6,
    "SR.probe": 3,
    "SR.probe_ext": 3,
    "SR.make": 8,
    "host.evacuate": 1,
    "host.disable": 1,
    "VIF.configure_ipv4": 2,
    "VIF.configure_ipv6": 2,
    "Bond.create": 3,
    "VGPU.create": 3,
    "VTPM.create": 1,
    "tunnel.create": 2,
    "pool.eject": 1,
}

# Known to XAPI, absent from the published file: (parameters, result).
HIDDEN: dict[str, tuple[list[str], str]] = {
    "session.slave_login": (["host ref host", "string psecret"], "session ref"),
    "pool.is_slave": (["host ref host"], "bool"),
    "host.is_in_emergency_mode": ([], "bool"),
    "VM.assert_can_migrate_sender": (
        [
            "VM ref vm",
            "(string -> string) map dest",
            "bool live",
            "(VDI ref -> SR ref) map vdi_map",
            "(VIF ref -> network ref) map vif_map",
            "(VGPU ref -> GPU_group ref) map vgpu_map",
            "(string -> string) map options",
        ],
        "void",
    ),
}
# Setters that XAPI keeps for itself: it answers them with PERMISSION_DENIED instead of not knowing them.
FORBIDDEN = [
    "VDI.set_managed",
    "VDI.set_physical_utilisation",
    "VDI.set_virtual_size",
    "VDI.set_read_only",
    "VDI.set_sharable",
    "VDI.set_is_a_snapshot",
    "VDI.set_snapshot_of",
    "VDI.set_snapshot_time",
    "VDI.set_missing",
    "PBD.set_device_config",
]
# Without a session as first parameter, though the published file may say otherwise.
SESSIONLESS = {
    "session.login_with_password",
    "session.slave_local_login_with_password",
    "session.slave_login",
    "host.is_in_emergency_mode",
}

# Written at 24.10; the recordings of 24.16 leave these out of records or show other defaults.
DEFAULTS = {
    "VM.hardware_platform_version": "0",
    "VM.user_version": None,
    "VDI.metadata_of_pool": "",
}

QUALIFIERS = {"RO/runtime": "ro", "RO/constructor": "con", "RW": "rw"}


def wire_default(kind: str, text: str) -> Any:
    """The published default, a piece of OCaml-like text, as the value that travels."""
    if kind.endswith(" set"):
        inner = text.strip("{}").strip()
        return [part.strip().strip('"') for part in inner.split(",")] if inner else []
    if kind.endswith(" map"):
        pairs = [pair.split("->") for pair in text.strip("{}").split(",") if "->" in pair]
        return {key.strip().strip('"'): value.strip().strip('"') for key, value in pairs}
    if kind.endswith(" ref"):
        return "OpaqueRef:NULL" if text in ("Null", "OpaqueRef:NULL") else text
    if kind == "bool":
        return text == "true"
    if kind == "float":
        return float(text + "0" if text.endswith(".") else text)
    return text.strip('"')


def field_entry(class_name: str, field: Published) -> list[Any]:
    kind = field["type"]
    entry: list[Any] = [field["name"], kind, QUALIFIERS[field["qualifier"]]]
    if "default" in field:
        entry.append(DEFAULTS.get(f"{class_name}.{field['name']}", wire_default(kind, field["default"])))
    return entry


def message_entry(class_name: str, message: Published) -> list[Any]:
    full = f"{class_name}.{message['name']}"
    params = [
        f"{p['type']} {p['name']}" for p in message["params"] if p["type"] != "session ref" or p["name"] != "session_id"
    ]
    needs_session = len(params) < len(message["params"])
    result = message["result"][0]
    flags = ""
    if message["lifecycle"]["state"] == "Removed_s":
        flags += "r"
    if message.get("implicit"):
        flags += "i"
    if full in SESSIONLESS or (not needs_session and class_name == "session"):
        flags += "s"
    return [message["name"], params, REQUIRED.get(full, len(params)), result, flags]


def compact(published: list[Published], digest: str) -> Published:
    classes: Published = {}
    enums: dict[str, list[str]] = {}
    for entry in published:
        name = entry["name"]
        messages = {m["name"]: message_entry(name, m)[1:] for m in entry["messages"]}
        for hidden, (params, result) in HIDDEN.items():
            owner, _, short = hidden.partition(".")
            if owner == name:
                messages[short] = [params, len(params), result, "s" if hidden in SESSIONLESS else ""]
        classes[name] = {"fields": [field_entry(name, f) for f in entry["fields"]], "messages": messages}
        for enum in entry["enums"]:
            enums[enum["name"]] = [value["name"] for value in enum["values"]]
    return {
        "source": SOURCE,
        "licence": LICENCE,
        "sha256": digest,
        "forbidden": FORBIDDEN,
        "enums": enums,
        "classes": classes,
    }


def main() -> None:
    source = Path(sys.argv[1]).read_bytes()
    model = compact(json.loads(source), hashlib.sha256(source).hexdigest())
    target = Path(__file__).with_name("model.json")
    lines = json.dumps(model, separators=(",", ":"), ensure_ascii=False)
    target.write_text(lines.replace('},"', '},\n"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
