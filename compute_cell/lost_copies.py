"""What is left of servers on dead hosts since they were made anew elsewhere: set aside as soon as the host returns, so
that nothing can start it beside the one that counts. Pure.
"""

from dataclasses import replace

from cells.codec import pack
from cells.decision import NOTHING, Decision, Job, Remove
from cells.messages import JobEnded
from cells.names import SECOND, Instant
from cells.ports import View
from compute_cell.answers import Here
from compute_cell.rows import HostRow, HostState, LostCopyRow
from compute_cell.tasks import SetAsideTask

SET_ASIDE = "host.set_aside"
_AGAIN = 60 * SECOND


def look(here: Here, view: View, now: Instant) -> Decision:
    """At each tick: a job for each copy whose host is back."""
    decision = NOTHING
    for copy in view.all(LostCopyRow):
        host = view.get(HostRow, copy.host)
        if host is None or host.state in (HostState.DEAD, HostState.DOWN) or now < copy.due:
            continue
        task = SetAsideTask(pool=copy.pool, serial=copy.serial)
        job = Job(id=here.new_id(), kind=SET_ASIDE, server=copy.server, lane=copy.host, body=pack(task))
        decision += Decision(save=(replace(copy, due=now + _AGAIN),), do=(job,))
    return decision


def over(server: bytes, end: JobEnded) -> Decision:
    """It is set aside, or is tried again."""
    if end.error:
        return Decision(notes=(f"setting a lost copy aside: {end.error}",))
    return Decision(save=(Remove(row=LostCopyRow, key=(server, end.lane)),), notes=("a lost copy is set aside",))
