"""What a server's guest finds in xenstore: kept in the VM's xenstore_data for its next start, and written live into a
running domain by the plugin, because XenAPI itself cannot.

    vm-data/user-metadata/KEY     a metadata item, JSON
    vm-data/hostname              until the first boot is over
    vm-data/networking/MAC        one interface, JSON; MAC without colons
"""

import ipaddress
import json
from collections.abc import Mapping
from typing import Any

from cells.errors import Permanent
from xenapi_host.driver import domain, vms
from xenapi_host.driver.disks import claimed_is_fine
from xenapi_host.driver.domain import Domain
from xenapi_host.driver.errors import telling
from xenapi_host.driver.vms import Vm
from xenapi_host.guests import metadata_key
from xenapi_host.session import Session

PLUGIN = "celltree_xenstore.py"
METADATA = "vm-data/user-metadata"
NETWORKING = "vm-data/networking"
HOSTNAME = "vm-data/hostname"


@telling("tell the server's guest its metadata")
def put_metadata(session: Session, server: bytes, metadata: Mapping[str, str]) -> None:
    """Let the guest find this metadata and no other."""
    records = {metadata_key(key): json.dumps(value) for key, value in metadata.items()}
    _replace(session, server, METADATA, records)


@telling("tell the server's guest its network")
def put_network(session: Session, server: bytes) -> None:
    """Let the guest find how its interfaces are to be configured, as their records in XenAPI say."""
    vm = vms.the_one(session, server)
    _replace(session, server, NETWORKING, interfaces(session, vm))


@telling("look into the server's xenstore")
def read_live(session: Session, server: bytes, path: str) -> str | None:
    """One value of the running domain's xenstore, below /local/domain/ID; None where there is none."""
    found: str | None = domain.ask(session, server, PLUGIN, "read_record", {"path": path}, find=_at)
    return found


@telling("write into the server's xenstore")
def write_live(session: Session, server: bytes, path: str, value: str) -> None:
    """Set one value of the running domain's xenstore, until the domain ends."""
    domain.ask(session, server, PLUGIN, "write_record", {"path": path, "value": value}, find=_at)


def forget_hostname(session: Session, server: bytes) -> None:
    """The host name is for the first boot: an administrator inside the guest may have chosen another since."""
    vm = vms.the_one(session, server)
    if HOSTNAME in vm.record["xenstore_data"]:
        session.call("VM.remove_from_xenstore_data", vm.ref, HOSTNAME)


def interfaces(session: Session, vm: Vm) -> dict[str, str]:
    """MAC without colons -> the interface in the agents' layout. One without addresses of its own asks DHCP."""
    found = {}
    for ref in vm.record["VIFs"]:
        vif = vms.record_of(session, "VIF", ref)
        if vif is None:
            continue
        network = vms.record_of(session, "network", vif["network"])
        label = str(network["name_label"]) if network is not None else ""
        found[str(vif["MAC"]).replace(":", "").upper()] = json.dumps(_interface(vif, label), sort_keys=True)
    return found


def _interface(vif: Mapping[str, Any], label: str) -> dict[str, Any]:
    layout: dict[str, Any] = {"label": label, "mac": vif["MAC"], "ips": [], "ip6s": [], "routes": [], "dns": []}
    if vif.get("ipv4_configuration_mode") == "Static":
        for text in vif["ipv4_addresses"]:
            address = ipaddress.IPv4Interface(text)
            layout["ips"].append({"ip": str(address.ip), "netmask": str(address.netmask), "enabled": "1"})
        layout["gateway"] = vif["ipv4_gateway"]
    if vif.get("ipv6_configuration_mode") == "Static":
        for text in vif["ipv6_addresses"]:
            six = ipaddress.IPv6Interface(text)
            layout["ip6s"].append({"ip": str(six.ip), "netmask": str(six.network.prefixlen), "enabled": "1"})
        # Agents differ in how they spell it.
        layout["gateway6"] = layout["gateway_v6"] = vif["ipv6_gateway"]
    return layout


def _replace(session: Session, server: bytes, path: str, records: Mapping[str, str]) -> None:
    """These records below `path` and no others: at the next start, and now if there is a domain."""
    vm = vms.the_one(session, server)
    _keep(session, vm, {f"{path}/{name}": value for name, value in records.items()}, path)
    if domain.domain_of(session, server) is not None:
        params = {"path": path, "records": dict(records)}
        domain.ask(session, server, PLUGIN, "replace_records", params, find=_at)


def _keep(session: Session, vm: Vm, wanted: Mapping[str, str], path: str) -> None:
    had: Mapping[str, str] = vm.record["xenstore_data"]
    for name, value in had.items():
        if name.startswith(f"{path}/") and wanted.get(name) != value:
            session.call("VM.remove_from_xenstore_data", vm.ref, name)
    for name, value in wanted.items():
        if had.get(name) != value:
            with claimed_is_fine():
                session.call("VM.add_to_xenstore_data", vm.ref, name, value)


def _at(session: Session, server: bytes) -> Domain:
    found = domain.domain_of(session, server)
    if found is None:
        raise Permanent("the server is off; its guest will find it at its next start")
    return found
