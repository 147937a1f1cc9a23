"""host.call_plugin: scripts in dom0, run as child processes; light hosts answer with twins of the same functions."""

from __future__ import annotations

from xenapi_host.simulator.call import Call
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.dispatch import method
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.placement import live


@method("host.call_plugin")
def call_plugin(call: Call, host_ref: str, plugin: str, function: str, args: dict[str, str]) -> str:
    engine = call.engine
    host = call.db.find("host", host_ref)
    if host is None or not live(engine, host):
        raise Failure("HOST_OFFLINE", host_ref)
    call.at = host.ref
    call.suffer(engine.faults.at(call.method, "during"))
    _need_alive(engine, host)
    twin = engine.plugin_twins.get((plugin, function))
    if twin is not None:
        return twin(call, host, args)
    dom0 = engine.dom0s.get(host.ref)
    if dom0 is None:
        raise Failure("XENAPI_MISSING_PLUGIN", plugin)
    session = call.asker.ref
    try:
        with engine.unlocked():
            return dom0.run_plugin(plugin, function, args, session)
    finally:
        _need_alive(engine, host)  # a host that dies kills its scripts; what they said then is not heard


def _need_alive(engine: Engine, host: Row) -> None:
    if host.ref in engine.down:
        raise Failure("CANNOT_CONTACT_HOST", host.ref) from None


@method("host.has_extension")
def has_extension(call: Call, host_ref: str, name: str) -> bool:
    call.row("host", host_ref)
    return False


@method("host.call_extension")
def call_extension(call: Call, host_ref: str, text: str) -> str:
    call.row("host", host_ref)
    raise Failure("INTERNAL_ERROR", f"Yojson.Json_error(\"Line 1, bytes 0-{len(text)}:\\nInvalid token '{text}'\")")
