"""What tenants and operators ask of guests: passwords, network, the console, diagnostics."""

import json
from typing import Any

from api_cell.errors import Forbidden, Invalid
from api_cell.http.actions import ACCEPTED
from api_cell.http.call import Answer, Call
from api_cell.http.servers import asking
from api_cell.service import actions, servers
from api_cell.service.questions import ask
from cells.messages import Question

_DIRECT = "xvpvnc"
_POWER = {"Running": "running", "Paused": "paused", "Halted": "shutdown", "Suspended": "suspended"}


def change_password(call: Call) -> Answer:
    actions.change_password(call.api, asking(call), call.body["changePassword"]["adminPass"])
    return ACCEPTED


def reset_network(call: Call) -> Answer:
    actions.reset_network(call.api, asking(call))
    return ACCEPTED


def inject_network(call: Call) -> Answer:
    actions.inject_network(call.api, asking(call))
    return ACCEPTED


def console_output(call: Call) -> Answer:
    """The last lines of the console: all that there are, or as many as asked."""
    length = call.body["os-getConsoleOutput"].get("length")
    lines = -1 if length is None else int(length)
    text = ask(call.api, asking(call), Question.CONSOLE_LOG).decode(errors="replace")
    if lines >= 0:
        text = "\n".join(text.splitlines()[-lines:]) if lines else ""
    return Answer(body={"output": text})


def vnc_console(call: Call) -> Answer:
    kind = call.body["os-getVNCConsole"]["type"]
    return Answer(body={"console": {"type": kind, "url": _console(call, kind)}})


def remote_console(call: Call) -> Answer:
    wish = call.body["remote_console"]
    if wish["protocol"] != "vnc":
        raise Invalid(f"Unavailable console type {wish['type']}. XenServer's consoles speak VNC")
    url = _console(call, wish["type"])
    return Answer(body={"remote_console": {"protocol": "vnc", "type": wish["type"], "url": url}})


def _console(call: Call, kind: str) -> str:
    """There is no proxy that would bring a tenant to his server's screen. An operator gets the address on the host, for
    which he needs a XenServer login of his own."""
    servers.show(call.api, call.caller, asking(call).server)
    if kind != _DIRECT:
        raise Invalid(f"Unavailable console type {kind}. There is no such proxy here; read os-getConsoleOutput instead")
    if not call.caller.admin:
        raise Forbidden("The address of a console on its host is for administrators; read os-getConsoleOutput instead")
    return ask(call.api, asking(call), Question.CONSOLE_URL).decode()


def diagnostics(call: Call) -> Answer:
    row = servers.show(call.api, call.caller, asking(call).server)
    found = json.loads(ask(call.api, asking(call), Question.DIAGNOSTICS))
    return Answer(body=_standard(found, row.spec.config_drive) if call.version >= 48 else _plain(found))


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """Before 2.48 each hypervisor had names of its own; these are XenServer's. What is not measured is left out."""
    values: dict[str, Any] = {f"cpu{number}": used for number, used in enumerate(found["cpus"])}
    values["memory"] = found["memory_mib"] * 1024 * 1024
    values["memory_internal_free"] = found["memory_free_kib"]
    for disk in found["disks"]:
        vbd = f"vbd_{disk['name']}"
        values[f"{vbd}_read"], values[f"{vbd}_write"] = disk["read"], disk["written"]
        values[f"{vbd}_virtual_size"], values[f"{vbd}_physical_size"] = disk["virtual_size"], disk["physical_size"]
    for number, interface in enumerate(found["interfaces"]):
        values[f"vif_{number}_rx"], values[f"vif_{number}_tx"] = interface["read"], interface["written"]
    return {name: value for name, value in values.items() if value is not None}


def _standard(found: dict[str, Any], config_drive: bool) -> dict[str, Any]:
    """The shape of 2.48. XenServer measures rates, not totals: fields for totals are null."""
    used = None if found["memory_free_kib"] is None else found["memory_mib"] - int(found["memory_free_kib"]) // 1024
    nothing = dict.fromkeys(("read_bytes", "read_requests", "write_bytes", "write_requests", "errors_count"))
    counts = dict.fromkeys(f"{way}_{what}" for way in ("rx", "tx") for what in ("octets", "errors", "drop", "packets"))
    cpus = [
        {"id": number, "time": None, "utilisation": None if share is None else round(share * 100)}
        for number, share in enumerate(found["cpus"])
    ]
    nics = [
        {
            "mac_address": each["name"],
            **counts,
            "rx_rate": None if each["read"] is None else round(each["read"]),
            "tx_rate": None if each["written"] is None else round(each["written"]),
        }
        for each in found["interfaces"]
    ]
    return {
        "state": _POWER.get(found["power_state"], "pending"),
        "driver": "xenapi",
        "hypervisor": "xenserver",
        "hypervisor_os": None,
        "uptime": found["uptime"],
        "config_drive": config_drive,
        "num_cpus": len(cpus),
        "num_nics": len(nics),
        "num_disks": len(found["disks"]),
        "cpu_details": cpus,
        "nic_details": nics,
        "disk_details": [dict(nothing) for _ in found["disks"]],
        "memory_details": {"maximum": found["memory_mib"], "used": used},
    }
