"""What a pool has and what runs on it: facts for capacity, and the power states of our servers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cells.model import PowerState
from xenapi_host import tags
from xenapi_host.driver import vms
from xenapi_host.driver.errors import telling
from xenapi_host.driver.vms import Vm
from xenapi_host.facts import MIB, HostFacts, PoolFacts, StorageFacts
from xenapi_host.session import NULL, Session

Records = Mapping[str, Mapping[str, Any]]

# Repositories whose disks are VHD files in a mounted folder, which the image plugin needs.
_WITH_FILES = ("ext", "nfs", "smb", "xfs", "cephfs", "glusterfs", "moosefs")
_OURS = 'field "is_control_domain" = "false" and field "is_a_template" = "false" and field "is_a_snapshot" = "false"'


@dataclass(frozen=True, slots=True, kw_only=True)
class VmState:
    """A server's VM as a look over the pool found it. `host`: the uuid of the host it is on, "" where it is off."""

    vm_uuid: str
    attempt: int
    power_state: PowerState
    host: str
    domid: int


@telling("measure the pool")
def measure(session: Session, *, storage_choice: str = "default-sr:true") -> PoolFacts:
    """The pool's hosts and storage in seven calls. `storage_choice` says which SR servers are built on:
    `default-sr:true` the pool's default where it is plugged, else the host's own; `other-config:KEY=VALUE` the SR
    that carries this."""
    pool = next(iter(session.call("pool.get_all_records").values()))
    hosts: Records = session.call("host.get_all_records")
    metrics: Records = session.call("host_metrics.get_all_records")
    storages: Records = session.call("SR.get_all_records")
    plugged: Records = session.call("PBD.get_all_records")
    interfaces: Records = session.call("PIF.get_all_records")
    dom0s: Records = session.call("VM.get_all_records_where", 'field "is_control_domain" = "true"')
    networks = _management_networks(session, interfaces)
    taken = {dom0["resident_on"]: int(dom0["memory_target"]) + int(dom0["memory_overhead"]) for dom0 in dom0s.values()}
    storages_of: dict[str, list[str]] = {}
    hosts_of: dict[str, list[str]] = {}
    for pbd in plugged.values():
        if pbd["currently_attached"] and pbd["host"] in hosts and pbd["SR"] in storages:
            storages_of.setdefault(pbd["host"], []).append(pbd["SR"])
            hosts_of.setdefault(pbd["SR"], []).append(hosts[pbd["host"]]["uuid"])
    wanted = _matching(storages, pool["default_SR"], storage_choice)
    for ref, host in hosts.items():
        session.known["host", host["uuid"]] = ref
        session.known["host of", ref] = host["uuid"]
    for ref, storage in storages.items():
        session.known["SR", storage["uuid"]] = ref
    return PoolFacts(
        uuid=pool["uuid"],
        name=pool["name_label"],
        master=hosts[pool["master"]]["uuid"],
        hosts=tuple(
            _host(
                host,
                metrics.get(host["metrics"], {}),
                _storage_of(storages, storages_of.get(ref, []), wanted, default_only="other-config" in storage_choice),
                networks.get(ref, ""),
                taken.get(ref, 0),
                ha=pool["ha_enabled"],
            )
            for ref, host in hosts.items()
        ),
        storages=tuple(_storage(storage, tuple(hosts_of.get(ref, ()))) for ref, storage in storages.items()),
    )


def _management_networks(session: Session, interfaces: Records) -> dict[str, str]:
    """Host reference -> uuid of the network of its management interface."""
    found: dict[str, str] = {}
    for interface in interfaces.values():
        if not interface["management"]:
            continue
        network = interface["network"]
        uuid = session.known.get(("network of", network))
        if uuid is None:
            uuid = str(session.call("network.get_uuid", network))
            session.known["network of", network] = uuid
            session.known["network", uuid] = network
        found[interface["host"]] = uuid
    return found


def _matching(storages: Records, default: str, choice: str) -> frozenset[str]:
    kind, _, rest = choice.partition(":")
    if kind != "other-config":
        return frozenset([default])
    key, _, value = rest.partition("=")
    return frozenset(ref for ref, storage in storages.items() if storage["other_config"].get(key) == value)


def _storage_of(storages: Records, plugged: list[str], wanted: frozenset[str], *, default_only: bool) -> str:
    """The uuid of the SR to build on: the wanted one, else the host's own with the most room."""
    fitting = [ref for ref in plugged if storages[ref]["type"] in _WITH_FILES]
    chosen = [ref for ref in fitting if ref in wanted]
    if not chosen and not default_only:
        own = [ref for ref in fitting if not storages[ref]["shared"]] or fitting
        chosen = sorted(own, key=lambda ref: -int(storages[ref]["physical_size"]))
    return str(storages[chosen[0]]["uuid"]) if chosen else ""


def _storage(record: Mapping[str, Any], hosts: tuple[str, ...]) -> StorageFacts:
    return StorageFacts(
        uuid=record["uuid"],
        name=record["name_label"],
        type=record["type"],
        shared=record["shared"],
        size_bytes=int(record["physical_size"]),
        used_bytes=int(record["physical_utilisation"]),
        virtual_bytes=int(record["virtual_allocation"]),
        hosts=hosts,
    )


def _host(
    record: Mapping[str, Any], metrics: Mapping[str, Any], storage: str, network: str, dom0_bytes: int, *, ha: bool
) -> HostFacts:
    software: Mapping[str, str] = record["software_version"]
    overhead = int(record["memory_overhead"]) + dom0_bytes
    return HostFacts(
        uuid=record["uuid"],
        name=record["name_label"],
        address=record["address"],
        enabled=record["enabled"],
        live=bool(metrics.get("live", False)),
        memory_total_mib=max(0, int(metrics.get("memory_total", 0)) - overhead) // MIB,
        memory_free_mib=int(metrics.get("memory_free", 0)) // MIB,
        cpus=int(record["cpu_info"].get("cpu_count", 0)),
        product=software.get("product_brand", ""),
        version=software.get("product_version", ""),
        traits=_traits(record["capabilities"]),
        storage=storage,
        network=network,
        # Under high availability XAPI calls a host dead when xha says that it has fenced itself.
        fenced=ha and not metrics.get("live", False),
    )


def _traits(capabilities: list[str]) -> tuple[str, ...]:
    """Xen's capability words, such as xen-3.0-x86_64 and hvm-3.0-x86_64, as traits."""
    found = set()
    if any(word.startswith("hvm-") for word in capabilities):
        found |= {"hvm", "uefi"}
    if any(word.startswith("xen-") for word in capabilities):
        found.add("pv")
    return tuple(sorted(found))


@telling("look over the pool's servers")
def power_states(session: Session) -> dict[bytes, VmState]:
    """Every server of ours on the pool: id -> its VM's state, in one call. A VM that only waits for a resize to be
    confirmed is left out; a server that is being rescued is as its rescue VM is."""
    return states_of(session, guests(session))


def guests(session: Session) -> Records:
    """Every VM of the pool that is no control domain, template or snapshot: reference -> record."""
    found: Records = session.call("VM.get_all_records_where", _OURS)
    return found


def states_of(session: Session, records: Records) -> dict[bytes, VmState]:
    """Of these VMs those that are servers of ours."""
    found: dict[bytes, VmState] = {}
    for ref, record in records.items():
        server = tags.server_of(record["other_config"])
        # By name, too: an administrator's copy of a VM has its tags, and so has the VM that a resize keeps.
        if server is None or record["name_label"].removesuffix(tags.RESCUE_SUFFIX) != tags.vm_name(server):
            continue
        seen = found.get(server)
        if seen is None or seen.power_state is PowerState.HALTED:
            found[server] = _state(session, Vm(ref=ref, record=record))
    return found


@telling("find the server")
def find(session: Session, server: bytes, attempt: int | None = None) -> VmState | None:
    """The state of one server's VM, or None if the pool has none."""
    found = vms.current(session, server, attempt)
    return _state(session, found[0]) if found else None


def _state(session: Session, vm: Vm) -> VmState:
    return VmState(
        vm_uuid=vm.uuid,
        attempt=vm.attempt,
        power_state=vm.power_state,
        host=host_uuid(session, vm.record["resident_on"]),
        domid=int(vm.record["domid"]),
    )


def host_uuid(session: Session, ref: str) -> str:
    """The uuid of a host, asked once; "" for none."""
    if ref in (NULL, ""):
        return ""
    known: str | None = session.known.get(("host of", ref))
    if known is None:
        known = str(session.call("host.get_uuid", ref))
        session.known["host of", ref] = known
    return known
