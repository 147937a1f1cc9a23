"""Who is master, and what a slave answers: itself only what concerns it alone, else HOST_IS_SLAVE and where to go.

A new master has the pool's database, but not what only the old one's memory held: sessions and tasks. Slaves that
were not told (the old master died) send their callers to the old one until pool.recover_slaves or
pool.emergency_reset_master. There is one database, so two masters at a time cannot be: an old one follows at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xenapi_host.simulator.call import Call
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.dispatch import method
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import Failure


def end_sessions(engine: Engine, which: Callable[[Row], bool] = lambda session: True) -> int:
    ended = [session for session in engine.db.all("session") if which(session)]
    for session in ended:
        engine.db.delete(session)
        engine.registrations.pop(session.ref, None)
    engine.wakeup.notify_all()
    return len(ended)


def forget_memory(engine: Engine) -> None:
    """What ends with a master."""
    end_sessions(engine)
    for task in engine.db.all("task"):
        engine.db.delete(task)


def _take_over(engine: Engine, host: Row) -> None:
    engine.db.set(engine.pool, "master", host.ref)
    engine.believed_master.pop(host.ref, None)
    forget_memory(engine)


@method("pool.designate_new_master")
def designate_new_master(call: Call, host_ref: str) -> str:
    """Every member must agree, so every member must live."""
    engine, host = call.engine, call.row("host", host_ref)
    if host.ref == engine.pool["master"]:
        return ""
    if host.ref in engine.down:
        raise Failure("HOST_OFFLINE", host.ref)
    for member in engine.db.all("host"):
        if member.ref in engine.down:
            raise Failure("CANNOT_CONTACT_HOST", member.ref)
    engine.believed_master.clear()
    _take_over(engine, host)
    return ""


@method("pool.emergency_transition_to_master")
def emergency_transition_to_master(call: Call) -> str:
    """Asked at a slave, whose host is `call.at`; at the master it changes nothing."""
    engine = call.engine
    old = engine.pool["master"]
    if not call.at or call.at == old:
        return ""
    for member in engine.db.all("host"):
        if member.ref not in (call.at, old):
            engine.believed_master.setdefault(member.ref, old)
    _take_over(engine, call.row("host", call.at))
    return ""


@method("pool.emergency_reset_master")
def emergency_reset_master(call: Call, address: str) -> str:
    """Asked at a slave: from now on it follows the master at this address."""
    engine = call.engine
    for host in engine.db.all("host"):
        if host["address"] == address:
            if host.ref == engine.pool["master"]:
                engine.believed_master.pop(call.at, None)
            elif call.at:
                engine.believed_master[call.at] = host.ref
            return ""
    raise Failure("HOST_UNKNOWN_TO_MASTER", address)


@method("pool.recover_slaves")
def recover_slaves(call: Call) -> list[str]:
    """The slaves that could be told who is master now."""
    engine = call.engine
    told = [ref for ref in engine.believed_master if ref not in engine.down]
    for ref in told:
        del engine.believed_master[ref]
    return told


@method("pool.is_slave")
def is_slave(call: Call, host: str) -> bool:
    call.row("host", host)
    return call.at not in ("", call.engine.pool["master"])  # whoever is asked answers for himself


@method("host.is_in_emergency_mode")
def is_in_emergency_mode(call: Call) -> bool:
    """A slave that cannot reach its master."""
    return call.at != "" and master_of(call.engine, call.at) in call.engine.down


def master_of(engine: Engine, slave: str) -> str:
    """Whom this slave takes to be master."""
    master: str = engine.believed_master.get(slave, engine.pool["master"])
    return master


# -- what a slave answers --

_LOGIN = "session.slave_local_login_with_password"
_ITSELF: dict[str, Callable[..., Any]] = {
    "pool.emergency_transition_to_master": emergency_transition_to_master,
    "pool.emergency_reset_master": emergency_reset_master,
    "pool.is_slave": is_slave,
    "host.is_in_emergency_mode": is_in_emergency_mode,
}


def answer_at_slave(engine: Engine, host: str, name: str, params: list[Any], values: list[Any]) -> Any:
    """The answer of a slave to a call that is in order; `values` are its parameters without the session."""
    if name == _LOGIN:
        return _log_in(engine, host, *values)
    if engine.local_sessions.get(params[0] if params else "") == host:
        if name in ("session.local_logout", "session.logout"):
            del engine.local_sessions[params[0]]
            return ""
        behaviour = _ITSELF.get(name)
        if behaviour is not None:
            call = Call(engine, name, None)
            call.at = host
            return behaviour(call, *values)
    raise Failure("HOST_IS_SLAVE", engine.db.get("host", master_of(engine, host))["address"])


def _log_in(engine: Engine, host: str, user: str, password: str) -> str:
    if engine.credentials.get(user) != password:
        raise Failure("SESSION_AUTHENTICATION_FAILED", user, "Authentication failure")
    ref = engine.new_ref()
    engine.local_sessions[ref] = host
    return ref
