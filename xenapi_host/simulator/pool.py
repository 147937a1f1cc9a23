"""Class pool."""

from __future__ import annotations

from xenapi_host.simulator.call import Call
from xenapi_host.simulator.dispatch import method
from xenapi_host.simulator.failure import Failure, internal
from xenapi_host.simulator.implicit import COMPUTED

_OPERATIONS = [
    "cluster_create",
    "sync_updates",
    "tls_verification_enable",
    "designate_new_master",
    "exchange_ca_certificates_on_join",
    "configure_repositories",
    "apply_updates",
    "get_updates",
    "ha_enable",
    "cert_refresh",
    "eject",
    "copy_primary_host_certs",
    "exchange_certificates_on_join",
]
COMPUTED.setdefault("pool", {})["allowed_operations"] = lambda engine, row: list(_OPERATIONS)


@method("pool.get_license_state")
def get_license_state(call: Call, ref: str) -> dict[str, str]:
    call.row("pool", ref)
    return {"edition": "free", "expiry": "never"}


@method("pool.ha_compute_max_host_failures_to_tolerate")
def ha_compute_max(call: Call) -> str:
    return str(len(call.db.refs("host")))


@method("pool.ha_prevent_restarts_for")
def ha_prevent_restarts_for(call: Call, seconds: str) -> str:
    return ""


@method("pool.sync_database")
def sync_database(call: Call) -> str:
    return ""


@method("pool.join", "pool.join_force")
def join(call: Call, *params: str) -> str:
    raise Failure("JOINING_HOST_CONNECTION_FAILED")


@method("pool.eject")
def eject(call: Call, host_ref: str) -> str:
    host = call.row("host", host_ref)
    if host.ref == call.engine.pool["master"]:
        raise internal("Xapi_pool.Cannot_eject_master")
    raise Failure("NOT_IMPLEMENTED", "pool.eject")
