"""Class session: who may ask. A reference is good for both encodings and for the plugins' socket."""

from __future__ import annotations

from xenapi_host.simulator.call import Call
from xenapi_host.simulator.dispatch import idle, method
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import Failure

MOST_SESSIONS = 500


@method("session.login_with_password")
def login_with_password(call: Call, user: str, password: str, version: str = "", originator: str = "") -> str:
    engine = call.engine
    known = engine.credentials.get(user)
    if known != password or not password:
        if engine.login_delay:
            engine.pause(engine.login_delay)
        why = (
            "Authentication failure" if known is not None else "User not known to the underlying authentication module"
        )
        raise Failure("SESSION_AUTHENTICATION_FAILED", user, why)
    _make_room(engine, user, originator)
    return engine.open_session(originator, user).ref


def _make_room(engine: Engine, user: str, originator: str) -> None:
    """Sessions nobody has used for long go, and of a user and originator with too many the one longest unused."""
    for session in engine.db.all("session"):
        if idle(engine, session):
            engine.db.delete(session)
    if len(engine.db.tables.get("session", ())) < MOST_SESSIONS:
        return
    mine = [s for s in engine.db.all("session") if (s["auth_user_name"], s["originator"]) == (user, originator)]
    if len(mine) >= MOST_SESSIONS:
        engine.db.delete(min(mine, key=lambda s: str(s["last_active"].value)))


@method("session.slave_local_login_with_password")
def slave_local_login(call: Call, user: str, password: str) -> str:
    if call.engine.credentials.get(user) != password:
        raise Failure("SESSION_AUTHENTICATION_FAILED", user, "Authentication failure")
    return call.engine.open_session("slave local", user).ref


@method("session.slave_login")
def slave_login(call: Call, host: str, secret: str) -> str:
    raise Failure("SESSION_AUTHENTICATION_FAILED", host, "Pool credentials invalid")


@method("session.logout", "session.local_logout")
def logout(call: Call) -> str:
    call.db.delete(call.asker)
    call.engine.registrations.pop(call.asker.ref, None)
    call.engine.wakeup.notify_all()
    return ""


@method("session.get_all_subject_identifiers")
def get_all_subject_identifiers(call: Call) -> list[str]:
    return []


@method("session.change_password")
def change_password(call: Call, old: str, new: str) -> str:
    user = call.asker["auth_user_name"]
    if call.engine.credentials.get(user) != old:
        raise Failure("CHANGE_PASSWORD_REJECTED", "The old password is not right")
    call.engine.credentials[user] = new
    return ""
