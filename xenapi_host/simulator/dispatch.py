"""From a method name and wire values to an answer, refusing in XAPI's order.

Unknown names and wrong counts come first, then the session, then types, then the behaviour. What has no behaviour of
its own is made from the model (implicit.py); a known method that has none answers NOT_IMPLEMENTED, never a success.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from xenapi_host.simulator.call import Call
from xenapi_host.simulator.failure import NULL, Dropped, Failure
from xenapi_host.simulator.faults import ASYNC
from xenapi_host.simulator.model import Message, Parameter, model
from xenapi_host.simulator.wire_types import Coercion, text

if TYPE_CHECKING:
    from xenapi_host.simulator.database import Row
    from xenapi_host.simulator.engine import Engine

Value = Any
Behaviour = Callable[..., Value]
Registered = TypeVar("Registered", bound=Behaviour)

_LOG = logging.getLogger(__name__)
BEHAVIOURS: dict[str, Behaviour] = {}
# Implicit messages (constructors, destructors apart) have no asynchronous form, nor have these.
_SYNCHRONOUS_CLASSES = {"event", "session"}


def method(*names: str) -> Callable[[Registered], Registered]:
    """Register a behaviour under the names it answers."""

    def register(behaviour: Registered) -> Registered:
        for name in names:
            BEHAVIOURS[name] = behaviour
        return behaviour

    return register


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A method ready to be called."""

    name: str
    required: int
    maximum: int
    coercions: tuple[Coercion, ...]
    run: Behaviour
    sessionless: bool
    removed: bool
    has_async: bool


def _message(name: str) -> tuple[str, Message] | None:
    class_name, _, short = name.partition(".")
    known = model().classes.get(class_name)
    if known is None:
        return None
    message = known.messages.get(short)
    if message is not None:
        return class_name, message
    if short == "get_all_records_where" and "get_all_records" in known.messages:
        query = (Parameter(name="expr", kind="string", coerce=text),)
        listed = known.messages["get_all_records"]
        return class_name, Message(
            name=short,
            parameters=query,
            required=1,
            result=listed.result,
            removed=listed.removed,
            implicit=True,
            sessionless=False,
        )
    return None


@cache
def entry(name: str) -> Entry | None:
    """The method of this name; None where XAPI does not know it."""
    from xenapi_host.simulator import behaviours, implicit  # they register into BEHAVIOURS

    behaviours.load()
    found = _message(name)
    if found is None:
        class_name, _, short = name.partition("_")
        return entry(f"{class_name}.{short}") if "." not in name and class_name in model().classes else None
    class_name, message = found
    full = f"{class_name}.{message.name}"
    run = BEHAVIOURS.get(full) or implicit.behaviour(class_name, message)
    plain = message.implicit and message.name not in ("create", "destroy")
    return Entry(
        name=full,
        required=message.required,
        maximum=len(message.parameters),
        coercions=tuple(p.coerce for p in message.parameters),
        run=run,
        sessionless=message.sessionless,
        removed=message.removed,
        has_async=not (plain or class_name in _SYNCHRONOUS_CLASSES or full in _synchronous(full)),
    )


def _synchronous(name: str) -> tuple[str, ...]:
    """Setters with behaviour are setters all the same: XAPI has no asynchronous form of them."""
    short = name.partition(".")[2]
    field = short.partition("_")[2].removeprefix("to_").removeprefix("from_")
    owner = model().classes[name.partition(".")[0]]
    if (
        short.startswith(("set_", "add_", "remove_"))
        and field in owner.fields
        and owner.fields[field].qualifier == "rw"
    ):
        return (name,)
    return ()


def _unknown(engine: Engine, name: str, params: list[Value]) -> Failure:
    if params:
        session_of(engine, params[0])
    return Failure("MESSAGE_METHOD_UNKNOWN", name)


def idle(engine: Engine, session: Row) -> bool:
    """Whether nobody has used this session for so long that it is over."""
    engine.now()
    return str(session["last_active"].value) < engine.idle_before


def session_of(engine: Engine, given: Value) -> Row:
    ref = text(given)
    session = engine.db.find("session", ref)
    if session is None or idle(engine, session):
        raise Failure("SESSION_INVALID", ref)
    dict.__setitem__(session, "last_active", engine.now())
    return session


def answer(engine: Engine, name: str, params: list[Value], host: str | None) -> Value:
    asynchronous = name.startswith(ASYNC)
    known = entry(name[len(ASYNC) :] if asynchronous else name)
    if host is not None and host != engine.pool["master"] and (known is not None or params):
        return _at_slave(engine, host, known, name, params)
    if known is None:
        if name in model().forbidden:
            session_of(engine, params[0] if params else NULL)
            raise Failure("PERMISSION_DENIED", "")
        raise _unknown(engine, name[len(ASYNC) :] if asynchronous else name, params)
    given = len(params) if known.sessionless else len(params) - 1
    if given < known.required or (given > known.maximum and known.required == known.maximum):
        raise Failure("MESSAGE_PARAMETER_COUNT_MISMATCH", known.name, str(known.required), str(given))
    session = None if known.sessionless else session_of(engine, params[0])
    if known.removed:
        raise Failure("MESSAGE_REMOVED")
    if asynchronous and not known.has_async:
        raise Failure("Fault", f"No async mode for this operation (rpc: {known.name})")
    values = params if known.sessionless else params[1:]
    values = [coerce(value) for coerce, value in zip(known.coercions, values, strict=False)]
    if known.name in model().forbidden:
        raise Failure("PERMISSION_DENIED", "")
    if asynchronous:
        return _begin(engine, known, session, values)
    return _run(engine, known, Call(engine, known.name, session), values)


def _run(engine: Engine, known: Entry, call: Call, values: list[Value], *, connected: bool = True) -> Value:
    """The behaviour, among the faults that are set for it."""
    if not engine.faults.rules:
        return known.run(call, *values)
    call.suffer(engine.faults.at(known.name, "before", connected=connected))
    call.refuse_interrupted()
    result = known.run(call, *values)
    call.suffer(engine.faults.at(known.name, "after", connected=connected))
    return result


def _begin(engine: Engine, known: Entry, session: Row | None, values: list[Value]) -> Value:
    name = ASYNC + known.name
    asked = Call(engine, name, session)
    asked.suffer(engine.faults.at(name, "before"))
    task = engine.start_task(name, session)
    call = Call(engine, known.name, session, task)

    def work() -> None:
        with engine.lock:
            finish(engine, task, lambda: _run(engine, known, call, values, connected=False))
            engine.after_call()

    with engine.unlocked():
        engine.spawn(work)
    asked.suffer(engine.faults.at(name, "after"))
    return task.ref


def finish(engine: Engine, task: Row, work: Callable[[], Value]) -> None:
    """Run the work of a task and write its outcome as XAPI does: an XML value, or the error."""
    from xenapi_host.simulator.wire_xml import value_text

    outcome: dict[str, Value]
    try:
        result = work()
        outcome = {"status": "success", "result": f"<value>{value_text(result)}</value>"}
    except Dropped:  # the master died under it; a new one knows nothing of this task
        outcome = {"status": "failure", "error_info": ["CANNOT_CONTACT_HOST", engine.pool["master"]]}
    except Failure as failure:
        cancelled = failure.details[0] == "TASK_CANCELLED"
        outcome = {"status": "cancelled" if cancelled else "failure", "error_info": failure.details}
    except Exception as surprise:  # a bug of ours must end the task, or its client waits for ever
        _LOG.exception("a bug of the simulator in %s", task["name_label"])
        outcome = {"status": "failure", "error_info": ["INTERNAL_ERROR", repr(surprise)]}
    if task.ref in engine.db.rows:
        engine.db.update(task, {**outcome, "allowed_operations": [], "progress": 1.0, "finished": engine.now()})


def _at_slave(engine: Engine, host: str, known: Entry | None, name: str, params: list[Value]) -> Value:
    from xenapi_host.simulator.mastership import answer_at_slave

    sessionless = known is not None and known.sessionless
    if not sessionless and params and engine.local_sessions.get(text(params[0])) != host:
        session_of(engine, params[0])
    values = params if sessionless else params[1:]
    if known is not None and len(values) >= known.required:
        values = [coerce(value) for coerce, value in zip(known.coercions, values, strict=False)]
        return answer_at_slave(engine, host, known.name, params, values)
    return answer_at_slave(engine, host, "", params, values)
