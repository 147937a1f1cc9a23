"""Waiting until storage has merged the layers of a disk that it can merge, before the disk's files are read.

The collector rewrites files while it works, and every snapshot makes one more layer for it. No thread is held: a look
that finds it at work is Temporary, and the next try looks again. After LOOKS of them the files are read as they are.
"""

from cells.errors import Temporary
from cells.ports import Journal
from xenapi_host.layers import layers_of, to_be_merged
from xenapi_host.session import Session

LOOKS = 4
_FIRST_SECONDS = 5.0  # the job runner doubles it each time: 75 seconds in all
_SHORTEST = 3  # a leaf and its base: nothing to merge
_LOOKS = "looks at merging"


def await_merging(session: Session, storage: str, chain: list[str], journal: Journal) -> str:
    """Nothing of this chain (uuids, leaf first) in this SR (a reference) is being merged any more when this returns; or
    why that was not waited for. Temporary while the collector has something to do."""
    if len(chain) < _SHORTEST:
        return ""
    found = session.call("VDI.get_all_records_where", f'field "SR" = "{storage}"')
    left = to_be_merged(chain, layers_of(found.values()))
    if not left:
        return ""
    if session.call("SR.get_other_config", storage).get("coalesce") == "false":
        return f"{len(left)} layers of the disk are not merged: its storage is told not to"
    looks = int(journal.get(_LOOKS) or 0)
    if looks >= LOOKS:
        return f"{len(left)} layers of the disk were not merged by its storage in time"
    journal.put(_LOOKS, looks + 1)
    raise Temporary(f"the host's storage is merging {len(left)} layers of the disk", retry_after=_FIRST_SECONDS)
