"""Tasks that take long and must not be begun twice: an image going up, a disk being copied.

XAPI's tasks outlive the daemon that began them. Its journal names the task, so that the daemon that takes the job over
waits for it; when the task is over the journal has its result, and only then is it removed from the pool.
"""

from typing import Any

from cells.ports import Journal
from xenapi_host.session import Session, TaskForgotten, XenFailure, end_task, wait_for_task


def run_noted(session: Session, journal: Journal, step: str, method: str, *params: Any, limit: float) -> Any:
    """Run an `Async.` call as run_task does, noted in the journal under `step`. Forgotten means failed."""
    task = str(session.call(method, *params))
    journal.put(step, {"task": task})
    return _finished(session, journal, step, task, limit)


def earlier(session: Session, journal: Journal, step: str, *, limit: float) -> Any:
    """The result of the task that an earlier try has begun under `step`, waiting for it; None when there is none, or
    when it came to nothing."""
    noted = journal.get(step)
    if noted is None:
        return None
    if "result" in noted:
        return noted["result"]
    try:
        return _finished(session, journal, step, noted["task"], limit)
    except XenFailure:
        return None


def _finished(session: Session, journal: Journal, step: str, task: str, limit: float) -> Any:
    try:
        result = wait_for_task(session, task, limit=limit)
    except TaskForgotten as forgotten:
        raise XenFailure("HANDLE_INVALID", "task", task) from forgotten
    journal.put(step, {"result": result})
    end_task(session, task)
    return result
