"""Watching a pool: wait until something happens to a VM, then look at all of them in one call.

Events only say when to look, so a lost token costs one look and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cells.names import id_text
from xenapi_host import tags
from xenapi_host.driver.errors import telling
from xenapi_host.driver.measure import Records, VmState, guests, host_uuid, states_of
from xenapi_host.facts import MIB
from xenapi_host.session import NULL, Session, XenFailure

_CLASSES = ["vm"]
_TOKEN_LOST = {"EVENT_FROM_TOKEN_PARSE_FAILURE", "EVENTS_LOST"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """What runs on a host without being ours: how many VMs, and their memory."""

    count: int
    memory_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """`quiet`: nothing has happened since the token, and nothing was looked at. `foreign`: by the host's uuid."""

    token: str
    quiet: bool = False
    servers: Mapping[bytes, VmState] = field(default_factory=dict)
    foreign: Mapping[str, Foreign] = field(default_factory=dict)


@telling("watch the pool")
def look(session: Session, token: str = "", *, wait: float = 0.0) -> Looked:
    """Every VM of the pool as it is, after at most `wait` seconds without a change since `token`; at once without a
    token, or if the pool does not know it any more. One log-in is in use meanwhile."""
    if token:
        try:
            said = session.call("event.from", _CLASSES, token, float(wait))
        except XenFailure as failure:
            if failure.code not in _TOKEN_LOST:
                raise
            token = ""
        else:
            token = str(said["token"])
            if not said["events"]:
                return Looked(token=token, quiet=True)
    if not token:
        # The token of this instant: asking for events from the beginning would bring every VM's record twice.
        token = str(session.call("event.inject", "pool", session.call("pool.get_all")[0]))
    records = guests(session)
    return Looked(token=token, servers=states_of(session, records), foreign=_foreign(session, records))


def _foreign(session: Session, records: Records) -> dict[str, Foreign]:
    found: dict[str, Foreign] = {}
    for record in records.values():
        host = record["resident_on"]
        if host == NULL or _is_ours(record["name_label"], record["other_config"]):
            continue
        uuid = host_uuid(session, host)
        before = found.get(uuid, Foreign(count=0, memory_mib=0))
        memory = (int(record["memory_dynamic_max"]) + int(record["memory_overhead"])) // MIB
        found[uuid] = Foreign(count=before.count + 1, memory_mib=before.memory_mib + memory)
    return found


def _is_ours(name: str, other_config: Mapping[str, str]) -> bool:
    """Under its server's name, or one of the names we give it; an administrator's copy has the tags alone."""
    server = tags.server_of(other_config)
    return server is not None and name.startswith(f"celltree-{id_text(server)}")
