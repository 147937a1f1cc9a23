"""Finding a server again of which the leaf's database knows nothing, or old things: what is so on the pool alone."""

from xenapi_host import tags
from xenapi_host.driver import disks, vms, volumes
from xenapi_host.driver.errors import telling
from xenapi_host.driver.measure import host_uuid
from xenapi_host.driver.vms import Vm, power_state
from xenapi_host.facts import MIB, Refound
from xenapi_host.session import Session


@telling("find the server again")
def refind(session: Session, server: bytes, owner: str) -> Refound | None:
    """The server of this owner as it stands on the pool, or None. Raises Temporary, BelongsToAnother."""
    kept = vms.originals(session, server)
    found = vms.current(session, server) or kept
    vms.refuse_others(found, owner)
    if not found:
        return None
    vm = found[0]
    return Refound(
        vm_uuid=vm.uuid,
        power_state=vm.power_state,
        host=_host_of(session, vm),
        ram_mib=int(vm.record["memory_static_max"]) // MIB,
        kept=power_state(kept[0].tags.get(tags.ORIGINAL, "")) if kept else None,
        kept_host=_host_of(session, kept[0]) if kept else "",
        volumes=volumes.attached(session, vm),
    )


def _host_of(session: Session, vm: Vm) -> str:
    resident = host_uuid(session, vm.record["resident_on"])
    root = None if resident else disks.root(session, vm)
    if root is None:
        return resident
    plugs = session.call("SR.get_PBDs", root.storage)
    hosts = {str(session.call("PBD.get_host", plug)) for plug in plugs}
    return host_uuid(session, hosts.pop()) if len(hosts) == 1 else ""
