"""How much storage servers take, as the pool has last measured it (it measures a repository when it scans it)."""

from xenapi_host import tags
from xenapi_host.driver.disks import Disk, read
from xenapi_host.driver.errors import telling
from xenapi_host.driver.measure import guests
from xenapi_host.layers import layers_of
from xenapi_host.session import Session, XenFailure
from xenapi_host.usage import PoolUsage, usage_of


@telling("measure the servers' disks")
def disk_usage(session: Session) -> PoolUsage:
    """What every server of the pool takes with its own disks; volumes are not counted."""
    records = session.call("VDI.get_all_records")
    vbds = session.call("VBD.get_all_records")
    disks: dict[bytes, dict[str, int]] = {}
    for vm in guests(session).values():
        server = tags.server_of(vm["other_config"])
        if server is None:
            continue
        its = disks.setdefault(server, {})
        for ref in vm["VBDs"]:
            record = records.get(vbds[ref]["VDI"]) if ref in vbds else None
            if record is not None and tags.claimed_by(record["other_config"].get(tags.CLAIM, ""), server):
                its[str(record["uuid"])] = int(record["virtual_size"])
    return usage_of(disks, layers_of(records.values()))


def physical_size(session: Session, disk: Disk, counted: set[str]) -> int:
    """The bytes that a disk's layers take, but those that were counted before; `counted` grows."""
    total, at = 0, disk
    while at.uuid not in counted:
        counted.add(at.uuid)
        total += int(at.record["physical_utilisation"])
        below = _parent(session, at)
        if below is None:
            break
        at = below
    return total


def _parent(session: Session, disk: Disk) -> Disk | None:
    parent = disk.record["sm_config"].get("vhd-parent", "")
    if not parent:
        return None
    try:
        return read(session, session.call("VDI.get_by_uuid", parent))
    except XenFailure as failure:
        if failure.code == "UUID_INVALID":
            return None  # it was merged meanwhile
        raise
