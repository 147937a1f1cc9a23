"""The slow work of a compute cell: each kind of job is one call of the driver. Run in job threads; resumable.

What the driver raises goes up as it is: Temporary is tried again, Permanent and Refusal end the job with their text.
Before each call that changes something on a host the lease is looked at, so that a daemon that was frozen does one such
call too many at most.
"""

from typing import Any

from cells import codec
from cells.decision import Job
from cells.errors import Permanent
from cells.ports import Journal
from compute_cell.work import builds, moves, pools, servers
from compute_cell.work.tools import Counting, Kinds, Tools

__all__ = ["Counting", "Tools", "Work"]

KINDS: Kinds = {**builds.KINDS, **servers.KINDS, **moves.KINDS, **pools.KINDS}


class Work:
    """The jobs of one cell."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def __call__(self, job: Job, journal: Journal) -> Any:
        if job.kind not in KINDS:
            raise Permanent(f"a compute cell knows no job {job.kind!r}")
        shape, act = KINDS[job.kind]
        return act(self._tools, job, codec.unpack(shape, job.body), journal)
