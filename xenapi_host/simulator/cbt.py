"""Class VDI: changed block tracking. Which blocks were written is noted where disks are written (vhd.changes)."""

from __future__ import annotations

import base64
from typing import Any

from xenapi_host.simulator import chains, collector
from xenapi_host.simulator.call import Call
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.dispatch import method
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.tracking import Logs, Unrelated
from xenapi_host.simulator.vdi import refuse_in_use, sr_of

_TRACKABLE = ("user", "system")


def _logs(call: Call, sr: Row) -> Logs:
    logs = Logs.of(call.engine, sr)
    if logs is None:
        raise Failure("SR_OPERATION_NOT_SUPPORTED", sr.ref)
    return logs


@method("VDI.enable_cbt", "VDI.disable_cbt")
def switch_cbt(call: Call, ref: str) -> str:
    vdi = call.row("VDI", ref)
    sr = sr_of(call, vdi)
    logs = _logs(call, sr)
    if vdi["is_a_snapshot"]:
        raise Failure("OPERATION_NOT_ALLOWED", f"VDI is a snapshot: {ref}")
    if vdi["type"] not in _TRACKABLE:
        raise Failure("VDI_INCOMPATIBLE_TYPE", ref, vdi["type"])
    if vdi["on_boot"] == "reset":
        raise Failure("VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION")
    with call.engine.exclusive("VDI", ref), call.engine.exclusive("SR", sr.ref):
        vdi = call.row("VDI", ref)
        wanted = call.method == "VDI.enable_cbt"
        if wanted:
            logs.begin(vdi["uuid"], vdi.number("virtual_size"))
        else:
            logs.end(vdi["uuid"])
        call.db.set(vdi, "cbt_enabled", wanted)
    return ""


@method("VDI.list_changed_blocks")
def list_changed_blocks(call: Call, since_ref: str, until_ref: str) -> str:
    """The bitmap in base64: a bit for each 64 KiB that was written between the two disks, the first block's bit on
    top of the first byte."""
    since, until = call.row("VDI", since_ref), call.row("VDI", until_ref)
    logs = _logs(call, sr_of(call, since))
    if not since["cbt_enabled"]:
        raise Failure("VDI_NO_CBT_METADATA", since_ref)
    if since is until:
        raise _cannot_compare("Source and target VDI are same")
    try:
        return base64.b64encode(logs.changed(since["uuid"], until["uuid"])).decode()
    except Unrelated:
        raise _cannot_compare("Source and target VDI are unrelated") from None


def _cannot_compare(why: str) -> Failure:
    text = f"Failed to calculate changed blocks for given VDIs. [opterr={why}]"
    return Failure("SR_BACKEND_FAILURE_460", "", text, "")


@method("VDI.data_destroy")
def data_destroy(call: Call, ref: str) -> str:
    """A snapshot's data goes, its place in the chain of logs stays. Done twice it is no error."""
    vdi = call.row("VDI", ref)
    sr = sr_of(call, vdi)
    if not vdi["is_a_snapshot"]:
        raise Failure("OPERATION_NOT_ALLOWED", f"VDI is not a snapshot: {ref}")
    if not vdi["cbt_enabled"]:
        raise Failure("VDI_NO_CBT_METADATA", ref)
    if vdi["type"] == chains.NO_DATA:
        return ""
    refuse_in_use(call, vdi, "data_destroy")
    if vdi["VBDs"]:  # XAPI waits a moment for them to go
        raise Failure("VDI_IN_USE", ref, "data_destroy")
    chains.remove_data(call.engine, vdi)
    collector.kick(call.engine, sr)
    return ""


@method("VDI.get_nbd_info")
def get_nbd_info(call: Call, ref: str) -> list[Any]:
    """No network of the simulator has the purpose nbd, and then XAPI has nothing to tell either."""
    vdi = call.row("VDI", ref)
    if vdi["type"] == chains.NO_DATA:
        raise Failure("VDI_INCOMPATIBLE_TYPE", ref, vdi["type"])
    return []
