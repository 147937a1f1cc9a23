"""The few `xe` commands that plugins call in dom0, done through the pool's Unix socket, where root needs no password.

    xe host-param-list uuid=UUID | host-enable uuid=UUID | host-disable uuid=UUID | vm-start uuid=UUID [on=HOST]

Run by a dom0's bin/xe as `python -m xenapi_host.simulator.xe ..`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from xenapi_host.simulator.dom0_files.XenAPIPlugin import Failure, Session

_NULL = "OpaqueRef:NULL"
# What `xe host-param-list` shows after the uuid, in its order: name, access (S: a set, M: a map), class of references.
_HOST_PARAMETERS = """\
name-label -RW
name-description -RW
allowed-operations SRO
current-operations SRO
enabled -RO
display -RO
API-version-major -RO
API-version-minor -RO
API-version-vendor -RO
API-version-vendor-implementation MRO
logging MRW
suspend-image-sr-uuid -RW SR
crash-dump-sr-uuid -RW SR
software-version MRO
capabilities SRO
other-config MRW
cpu_info MRO
chipset-info MRO
hostname -RO
address -RO
https-only -RW
supported-bootloaders SRO
blobs -RO
memory-overhead -RO
memory-total -RO
memory-free -RO
memory-free-computed -RO
host-metrics-live -RO
patches SRO host_patch
updates SRO pool_update
ha-statefiles -RO
ha-network-peers -RO
external-auth-type -RO
external-auth-service-name -RO
external-auth-configuration MRO
edition -RO
license-server MRO
power-on-mode -RO
power-on-config MRO
local-cache-sr -RO SR
tags SRW
ssl-legacy -RW
guest_VCPUs_params MRW
virtual-hardware-platform-versions SRO
control-domain-uuid -RO VM
resident-vms SRO VM
updates-requiring-reboot SRO pool_update
features SRO Feature
iscsi_iqn -RW
multipathing -RW
pending-guidances -RO
tls-verification-enabled -RO
last-software-update -RO"""
_FIELDS = {
    "suspend-image-sr-uuid": "suspend_image_sr",
    "crash-dump-sr-uuid": "crash_dump_sr",
    "control-domain-uuid": "control_domain",
    "resident-vms": "resident_VMs",
}


class Refused(Exception):
    """What xe says before it leaves with exit code 1."""


def _named(session: Session, class_name: str, given: dict[str, str], *keys: str) -> str:
    """The one object that the arguments name, by uuid or by name; refused in xe's words."""
    key = next((key for key in keys if key in given), None)
    if key is None:
        raise Refused(f"Required parameter not found: {keys[0]}")
    ask, name = getattr(session.xenapi, class_name), given[key]
    found: list[str]
    try:
        found = [ask.get_by_uuid(name)]
    except Failure:
        if key == "uuid":
            raise Refused(f"The uuid you supplied was invalid.\ntype: {class_name}\nuuid: {name}") from None
        found = ask.get_by_name_label(name)
    kind = f"{class_name}s"
    if not found:
        raise Refused(f"Error: No matching {kind} found")
    if len(found) > 1:
        raise Refused(f"Error: Multiple matches {kind} found. --multiple required to complete the operation")
    return found[0]


def _host_param_list(session: Session, given: dict[str, str]) -> None:
    ref = _named(session, "host", given, "uuid", "host")
    record = session.xenapi.host.get_record(ref)
    metrics = session.xenapi.host_metrics.get_record(record["metrics"])
    record |= {
        "current_operations": list(record["current_operations"].values()),
        "memory_total": metrics["memory_total"],
        "memory_free": metrics["memory_free"],
        "memory_free_computed": session.xenapi.host.compute_free_memory(ref),
        "host_metrics_live": metrics["live"],
    }
    lines = [_parameter(session, record, *words.split()) for words in _HOST_PARAMETERS.splitlines()]
    width = max(len(label) for label, _ in lines)
    print(f"{'uuid ( RO)'.ljust(width)}: {record['uuid']}")
    for label, value in lines:
        print(f"{label.rjust(width)}: {value}")
    print()


def _parameter(session: Session, record: dict[str, Any], name: str, access: str, *of: str) -> tuple[str, str]:
    """One line of param-list: its label, and its value as xe prints it. `of`: the class whose uuids it shows."""
    value = record[_FIELDS.get(name, name.replace("-", "_"))]
    if of:
        (kind,) = of
        value = [_uuid(session, kind, ref) for ref in value] if isinstance(value, list) else _uuid(session, kind, value)
    separator = ", " if name in ("tags", "patches", "updates") else "; "
    return f"{name} ({access.replace('-', ' ')})", _shown(value, separator)


def _uuid(session: Session, class_name: str, ref: str) -> str:
    return "<not in database>" if ref == _NULL else str(getattr(session.xenapi, class_name).get_uuid(ref))


def _shown(value: Any, separator: str) -> str:
    if isinstance(value, dict):
        return separator.join(f"{key}: {item}" for key, item in value.items())
    if isinstance(value, list):
        return separator.join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _host_enable(session: Session, given: dict[str, str]) -> None:
    session.xenapi.host.enable(_named(session, "host", given, "uuid", "host"))


def _host_disable(session: Session, given: dict[str, str]) -> None:
    session.xenapi.host.disable(_named(session, "host", given, "uuid", "host"))


def _vm_start(session: Session, given: dict[str, str]) -> None:
    vm = _named(session, "VM", given, "uuid", "vm")
    paused, force = given.get("paused") == "true", given.get("force") == "true"
    if "on" in given:
        session.xenapi.VM.start_on(vm, _named(session, "host", given, "on"), paused, force)
    else:
        session.xenapi.VM.start(vm, paused, force)


COMMANDS: dict[str, Callable[[Session, dict[str, str]], None]] = {
    "host-param-list": _host_param_list,
    "host-enable": _host_enable,
    "host-disable": _host_disable,
    "vm-start": _vm_start,
}


def main(arguments: list[str]) -> int:
    words = [word for word in arguments if "=" not in word and not word.startswith("-")]
    given = dict(word.split("=", 1) for word in arguments if "=" in word)
    try:
        if not words or words[0] not in COMMANDS:
            raise Refused(f"Unknown command: {words[0] if words else ''}")
        session = Session.local()
        try:
            COMMANDS[words[0]](session, given)
        finally:
            session.xenapi.session.logout()
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 1
    except Failure as failure:
        code, *details = failure.params
        print("\n".join([f"Error code: {code}", f"Error parameters: {', '.join(details)}"]), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
