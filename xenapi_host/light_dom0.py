"""Stand-ins on light hosts for the plugins that look at a running domain: xenstore, agent, console, versions.

`give_dom0(pool)`: every guest has an agent unless its VM's name is in `pool`'s `silent`; files and passwords it is
given are kept where tests can look at them.
"""

import base64
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from xenapi_host.driver import agent, console, plugins, xenstore
from xenapi_host.simulator.call import Call
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.light import LightPool

Answer = dict[str, str]


@dataclass(slots=True)
class LightGuests:
    """What guests have been told, by the uuid of their VM. `silent`: VMs whose agent says nothing."""

    silent: set[str] = field(default_factory=set)
    everybody_silent: bool = False
    live: dict[str, dict[str, str]] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)
    network_resets: dict[str, int] = field(default_factory=dict)
    exchanges: dict[str, Any] = field(default_factory=dict)


def give_dom0(pool: LightPool) -> LightGuests:
    """Let the plugins' functions work on a light pool."""
    guests = LightGuests()
    scripts = json.dumps(plugins.ours())
    pool.twin(plugins.PLUGIN, "scripts", lambda call, host, args: scripts)
    for name, function in _XENSTORE.items():
        pool.twin(xenstore.PLUGIN, name, _of_domain(guests, function))
    for name, answer in _AGENT.items():
        pool.twin(agent.PLUGIN, name, _asked(guests, answer))
    pool.twin(console.PLUGIN, "get_console_log", _console)
    return guests


def _domain(call: Call, host: Row, params: dict[str, Any]) -> Row | None:
    domid = str(params["dom_id"])
    for ref in host["resident_VMs"]:
        vm = call.db.rows[ref]
        if vm["domid"] == domid:
            return vm
    return None


def _of_domain(
    guests: LightGuests, function: Callable[[dict[str, str], dict[str, Any]], Any]
) -> Callable[[Call, Row, dict[str, str]], str]:
    def answer(call: Call, host: Row, args: dict[str, str]) -> str:
        params = json.loads(args["params"])
        vm = _domain(call, host, params)
        if vm is None:
            text = "the domain is not on this host any more"
            raise Failure("XENAPI_PLUGIN_FAILURE", "xenstore", "RetryableError", text)
        data = {name: value for name, value in vm["xenstore_data"].items() if name.startswith("vm-data/")}
        return json.dumps(function(guests.live.setdefault(f"{vm['uuid']} {vm['domid']}", data), params))

    return answer


def _write(live: dict[str, str], params: dict[str, Any]) -> Any:
    live[params["path"]] = params["value"]
    return {"written": 1}


def _replace(live: dict[str, str], params: dict[str, Any]) -> Any:
    path, records = params["path"], params["records"]
    gone = [name for name in live if name.startswith(f"{path}/") and name.removeprefix(f"{path}/") not in records]
    for name in gone:
        del live[name]
    live.update({f"{path}/{name}": value for name, value in records.items()})
    return {"written": len(records), "removed": len(gone)}


def _list(live: dict[str, str], params: dict[str, Any]) -> Any:
    start = params["path"] + "/"
    return {name.removeprefix(start): value for name, value in live.items() if name.startswith(start)}


_XENSTORE: dict[str, Callable[[dict[str, str], dict[str, Any]], Any]] = {
    "read_record": lambda live, params: live.get(params["path"]),
    "write_record": _write,
    "delete_record": lambda live, params: {"removed": int(live.pop(params["path"], None) is not None)},
    "list_records": _list,
    "replace_records": _replace,
}


def _asked(
    guests: LightGuests, answer: Callable[[LightGuests, str, dict[str, Any]], tuple[str, str]]
) -> Callable[[Call, Row, dict[str, str]], str]:
    def asked(call: Call, host: Row, args: dict[str, str]) -> str:
        params = json.loads(args["params"])
        vm = _domain(call, host, params)
        if vm is None:
            return json.dumps({"outcome": "reboot"})
        if guests.everybody_silent or vm["uuid"] in guests.silent or vm["power_state"] != "Running":
            return json.dumps({"outcome": "timeout"})
        code, message = answer(guests, vm["uuid"], params)
        return json.dumps({"outcome": "answered", "returncode": code, "message": message})

    return asked


def _key_init(guests: LightGuests, vm: str, params: dict[str, Any]) -> tuple[str, str]:
    from xenapi_host.agent_cipher import KeyExchange

    exchange = KeyExchange(lambda length: bytes(range(length)))
    guests.exchanges[vm] = exchange.shared(params["public"])
    return "D0", exchange.public


def _password(guests: LightGuests, vm: str, params: dict[str, Any]) -> tuple[str, str]:
    if vm not in guests.exchanges:
        return "500", "Key exchange has not been done"
    guests.passwords[vm] = guests.exchanges.pop(vm).decrypt(params["password"]).removesuffix("\n")
    return "0", ""


def _inject(guests: LightGuests, vm: str, params: dict[str, Any]) -> tuple[str, str]:
    guests.files.setdefault(vm, {})[params["path"]] = base64.b64decode(params["content"])
    return "0", ""


def _reset_network(guests: LightGuests, vm: str, params: dict[str, Any]) -> tuple[str, str]:
    guests.network_resets[vm] = guests.network_resets.get(vm, 0) + 1
    return "0", ""


_AGENT: dict[str, Callable[[LightGuests, str, dict[str, Any]], tuple[str, str]]] = {
    "agent_version": lambda guests, vm, params: ("0", "1.39.1"),
    "features": lambda guests, vm, params: ("0", "features,injectfile,keyinit,password,resetnetwork,version"),
    "key_init": _key_init,
    "password": _password,
    "inject_file": _inject,
    "reset_network": _reset_network,
    "agent_update": lambda guests, vm, params: ("0", ""),
    "kms_activate": lambda guests, vm, params: ("0", ""),
}


def _console(call: Call, host: Row, args: dict[str, str]) -> str:
    vm = _domain(call, host, json.loads(args["params"]))
    if vm is None:
        return json.dumps({"log": None})
    text = f"Linux version 5.10.0-celltree (simulated)\n{vm['name_label']} login: \n"
    return json.dumps({"log": base64.b64encode(zlib.compress(text.encode())).decode()})
