"""What goes wrong in a pool without any client asking: hosts that die and return, guests that crash, sessions that end.

For tests and, later, the control command. Each takes the engine's lock itself.
"""

from __future__ import annotations

from xenapi_host.simulator.database import Row
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.vm import boot, halt


def _metrics(engine: Engine, host: Row) -> Row:
    return engine.db.get("host_metrics", host["metrics"])


def kill_host(engine: Engine, ref: str) -> None:
    """The host stops answering. The pool's database still says that its VMs run, as XAPI's does."""
    with engine.lock:
        engine.db.set(_metrics(engine, engine.db.get("host", ref)), "live", False)
        engine.after_call()


def return_host(engine: Engine, ref: str) -> None:
    """The host has booted again: its VMs are found halted."""
    with engine.lock:
        host = engine.db.get("host", ref)
        engine.db.set(_metrics(engine, host), "live", True)
        for vm in [engine.db.rows[r] for r in host["resident_VMs"]]:
            if not vm["is_control_domain"]:
                halt(engine, vm)
        engine.after_call()


def crash_guest(engine: Engine, ref: str) -> None:
    """The guest crashes; what follows is the VM's actions_after_crash."""
    with engine.lock:
        vm = engine.db.get("VM", ref)
        host = engine.db.get("host", vm["resident_on"])
        halt(engine, vm)
        if vm["actions_after_crash"] in ("restart", "coredump_and_restart"):
            boot(engine, vm, host, paused=False)
        engine.after_call()


def end_sessions(engine: Engine) -> None:
    """Every session is forgotten, as after a restart of the toolstack; who waits is told."""
    with engine.lock:
        for session in engine.db.all("session"):
            engine.db.delete(session)
        engine.registrations.clear()
        engine.wakeup.notify_all()
