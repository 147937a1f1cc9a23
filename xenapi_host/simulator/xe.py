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
_WRITABLE = ("name_label", "name_description", "other_config", "address", "hostname", "tags", "logging", "display")


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
    record = session.xenapi.host.get_record(_named(session, "host", given, "uuid", "host"))
    record = {"uuid": record.pop("uuid"), **record}
    width = max(len(name) for name in record) + len(" (MRO)")
    for field, value in record.items():
        access = "RW" if field in _WRITABLE else "RO"
        kind = "M" if isinstance(value, dict) else "S" if isinstance(value, list) else " "
        label = f"{field.replace('_', '-')} ({kind}{access})"
        print(f"{label.ljust(width) if field == 'uuid' else label.rjust(width)}: {_shown(value)}")
    print()


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {item}" for key, item in value.items())
    if isinstance(value, list):
        return "; ".join(str(item) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    return "<not in database>" if value == _NULL else str(value)


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
