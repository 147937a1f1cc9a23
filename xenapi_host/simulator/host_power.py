"""Class host: shut down, rebooted, declared dead; and how a host falls and rises, whether asked or not (mishaps.py)."""

from __future__ import annotations

from xenapi_host.simulator import mastership
from xenapi_host.simulator.call import Call
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.dispatch import method
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.placement import live
from xenapi_host.simulator.vm import halt


def guests(engine: Engine, host: Row) -> list[Row]:
    """The VMs that run on a host, its control domain apart."""
    rows = [engine.db.rows[ref] for ref in host["resident_VMs"]]
    return [vm for vm in rows if not vm["is_control_domain"]]


def fall(engine: Engine, host: Row) -> None:
    """The host stops answering: its scripts die, connections to it break, and what it is at ends in
    CANNOT_CONTACT_HOST. The pool's database still says that its VMs run, as XAPI's does. With a master goes what only
    its memory had: sessions and tasks; its slaves know no other until one is made master."""
    if host.ref in engine.down:
        return
    engine.down.add(host.ref)
    engine.db.set(engine.db.get("host_metrics", host["metrics"]), "live", False)
    if host.ref in engine.dom0s:
        engine.dom0s[host.ref].crash()
    engine.hang_up(host.ref)
    if host.ref == engine.pool["master"]:
        mastership.forget_memory(engine)
    engine.wakeup.notify_all()


def rise(engine: Engine, host: Row) -> None:
    """The host has booted: its VMs are found halted, and it takes new ones. A master that has been replaced returns as
    a slave."""
    engine.down.discard(host.ref)
    engine.db.set(engine.db.get("host_metrics", host["metrics"]), "live", True)
    engine.db.set(host, "enabled", True)
    for vm in guests(engine, host):
        halt(engine, vm)


def _need_idle(call: Call, host: Row) -> None:
    if host["enabled"]:
        raise Failure("HOST_NOT_DISABLED")
    for vm in guests(call.engine, host):
        raise Failure("HOST_IN_USE", host.ref, "vm", vm.ref)
    for ref in call.row("VM", host["control_domain"])["VBDs"]:
        if call.db.rows[ref]["currently_attached"]:
            raise Failure("HOST_IN_USE", host.ref, "vbd", ref)


@method("host.shutdown", "host.reboot")
def power(call: Call, ref: str) -> str:
    """Answers, and then it happens; a host that reboots is back at once, with new sessions if it is the master."""
    engine, host = call.engine, call.row("host", ref)
    if not live(engine, host):
        raise Failure("HOST_OFFLINE", ref)
    _need_idle(call, host)

    def work() -> None:
        with engine.lock:
            fall(engine, host)
            if call.method == "host.reboot":
                rise(engine, host)
            engine.after_call()

    with engine.unlocked():
        engine.spawn(work)
    return ""


@method("host.declare_dead")
def declare_dead(call: Call, ref: str) -> str:
    """The administrator's word that a host is off: the pool takes its VMs to be halted. Refused of one that lives."""
    host = call.row("host", ref)
    if ref == call.engine.pool["master"]:
        raise Failure("HOST_CANNOT_DESTROY_SELF", ref)
    if live(call.engine, host):
        raise Failure("HOST_IS_LIVE", ref)
    for vm in guests(call.engine, host):
        halt(call.engine, vm)
    return ""
