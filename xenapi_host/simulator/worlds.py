"""Worlds to start from: a demo pool of N like hosts, and the small world that the recordings were made in.

A world fills an empty engine with objects and gives it back. The full simulator then hangs dom0 roots under the hosts;
light hosts need nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xenapi_host.simulator import sr as repositories
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.vm import CPU_FEATURES, vm_row

MIB = 1024 * 1024
GIB = 1024 * MIB
DOM0_MIB = 1024

SOFTWARE_VERSION = {
    "product_version": "8.2.0",
    "product_version_text": "8.2",
    "product_version_text_short": "8.2",
    "platform_name": "XCP",
    "platform_version": "3.4.0",
    "product_brand": "XCP-ng",
    "build_number": "simulator",
    "hostname": "localhost",
    "date": "2024-09-01",
    "xapi": "24.16",
    "xapi_build": "24.16.0",
    "xen": "4.13.4",
    "linux": "4.19.0+1",
    "xencenter_min": "2.21",
    "xencenter_max": "2.21",
    "network_backend": "bridge",
    "db_schema": "5.776",
}
CAPABILITIES = ["xen-3.0-x86_64", "hvm-3.0-x86_32", "hvm-3.0-x86_32p", "hvm-3.0-x86_64"]
_DISK_DRIVER = ["SR_PROBE"] + [
    f"VDI_{operation}"
    for operation in (
        "ACTIVATE",
        "ATTACH",
        "CLONE",
        "CREATE",
        "DEACTIVATE",
        "DELETE",
        "DETACH",
        "MIRROR",
        "RESIZE",
        "SNAPSHOT",
    )
]
_FOLDER_DRIVER = [*_DISK_DRIVER, "SR_UPDATE", "THIN_PROVISIONING", "VDI_CONFIG_CBT", "VDI_GENERATE_CONFIG"]
CAPABLE = {  # by SR type; the folder drivers (file, ext, nfs) are alike
    "dummy": [*_DISK_DRIVER, "VDI_INTRODUCE"],
    "ext": [*_FOLDER_DRIVER, "VDI_INTRODUCE"],
    "nfs": [*_FOLDER_DRIVER, "VDI_INTRODUCE"],
    "iso": ["SR_ATTACH", "SR_DETACH", "SR_SCAN", "VDI_ATTACH", "VDI_CREATE", "VDI_DELETE", "VDI_DETACH"],
}
ROLES = {
    "pool-admin": "The Pool Administrator role has full access to all features and settings, including accessing "
    "Dom0 and managing subjects, roles and external authentication",
    "pool-operator": "The Pool Operator role manages host- and pool-wide resources, including setting up storage, "
    "creating resource pools and managing patches, high availability (HA) and workload balancing (WLB)",
    "vm-power-admin": "The VM Power Administrator role has full access to VM and template management and can choose "
    "where to start VMs and use the dynamic memory control and VM snapshot features",
    "vm-admin": "The VM Administrator role can manage VMs and templates",
    "vm-operator": "The VM Operator role can use VMs and interact with VM consoles",
    "read-only": "The Read-Only role can log in with basic read-only access",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostShape:
    """What every host of a pool has."""

    ram_mib: int = 16 * 1024
    cpus: int = 8
    disk_bytes: int = 200 * GIB
    sr_type: str = "ext"  # "nfs": one repository shared by the pool
    cpu_objects: bool = True  # CPUs and dom0 consoles, which a light fleet does without


def demo_pool(
    engine: Engine,
    *,
    hosts: int = 2,
    shape: HostShape | None = None,
    name: str = "demo",
    addresses: list[str] | None = None,
) -> Engine:
    """A pool of like hosts with storage, a network and a template."""
    shape = shape or HostShape()
    network = engine.db.create(
        "network",
        {"name_label": "Pool-wide network associated with eth0", "bridge": "xenbr0", "managed": True, "MTU": "1500"},
    )
    pool = engine.db.create("pool", {"name_label": name, "restrictions": {}, "ha_cluster_stack": "xhad"})
    members: list[Row] = []
    for number in range(hosts):
        address = addresses[number] if addresses else f"127.0.0.{number + 1}"
        host = add_host(engine, f"{name}-host{number + 1}", address, shape)
        _pif(engine, host, network, number, address)
        members.append(host)
        if not number:
            engine.db.set(pool, "master", host.ref)
    default = _storage(engine, members, shape)
    engine.db.update(pool, {"default_SR": default.ref, "suspend_image_SR": default.ref})
    _drivers(engine, ("ext", "nfs", "iso", "file", "dummy"))
    _roles(engine)
    _template(engine, "Other install media", default=True)
    _internal_network(engine)
    return engine


def _internal_network(engine: Engine) -> None:
    """Between a host and its guests; each pool has one."""
    engine.db.create(
        "network",
        {
            "name_label": "Host internal management network",
            "name_description": "Network on which guests will be assigned a private link-local IP address which can be "
            "used to talk XenAPI",
            "bridge": "xenapi",
            "managed": True,
            "MTU": "1500",
            "other_config": {
                "is_guest_installer_network": "true",
                "is_host_internal_management_network": "true",
                "ip_begin": "169.254.0.1",
                "ip_end": "169.254.255.254",
                "netmask": "255.255.0.0",
            },
        },
    )


def add_host(engine: Engine, name: str, address: str, shape: HostShape) -> Row:
    db = engine.db
    metrics = db.create(
        "host_metrics",
        {"memory_total": str(shape.ram_mib * MIB), "live": True, "last_updated": engine.now()},
    )
    host = db.create(
        "host",
        {
            "name_label": name,
            "name_description": "Default install",
            "hostname": name,
            "address": address,
            "metrics": metrics.ref,
            "enabled": True,
            "https_only": True,
            "API_version_major": "2",
            "API_version_minor": "21",
            "API_version_vendor": "XenSource",
            "sched_policy": "credit",
            "edition": "free",
            "software_version": SOFTWARE_VERSION,
            "capabilities": CAPABILITIES,
            "supported_bootloaders": ["pygrub", "eliloader"],
            "cpu_info": cpu_info(shape.cpus),
            "cpu_configuration": {},
            "display": "enabled",
            "virtual_hardware_platform_versions": ["0", "1", "2"],
            "license_server": {"address": "localhost", "port": "27000"},
            "memory_overhead": "0",
        },
    )
    _control_domain(engine, host, consoles=shape.cpu_objects)
    for number in range(shape.cpus if shape.cpu_objects else 0):
        db.create("host_cpu", {"host": host.ref, "number": str(number), **_CPU})
    return host


_CPU = {
    "vendor": "GenuineIntel",
    "speed": "2400",
    "modelname": "Simulated CPU",
    "family": "6",
    "model": "85",
    "stepping": "4",
    "flags": "fpu vmx",
}


def cpu_info(cpus: int) -> dict[str, str]:
    return {
        "cpu_count": str(cpus),
        "socket_count": "1",
        "threads_per_core": "1",
        "vendor": "GenuineIntel",
        "speed": "2400.000",
        "modelname": "Simulated CPU",
        "family": "6",
        "model": "85",
        "stepping": "4",
        "flags": "fpu vmx",
        "features_pv": CPU_FEATURES,
        "features_hvm": CPU_FEATURES,
        "features_hvm_host": CPU_FEATURES,
        "features_pv_host": CPU_FEATURES,
    }


def _control_domain(engine: Engine, host: Row, *, consoles: bool) -> None:
    memory = str(DOM0_MIB * MIB)
    vm = engine.db.create(
        "VM",
        {
            "name_label": f"Control domain on host: {host['name_label']}",
            "name_description": "The domain which manages physical devices and manages other domains",
            "power_state": "Running",
            "user_version": "1",
            "is_control_domain": True,
            "resident_on": host.ref,
            "affinity": host.ref,
            "domid": "0",
            "domarch": "x64",
            "domain_type": "pv",
            "memory_overhead": "11534336",
            "memory_target": memory,
            "memory_static_max": memory,
            "memory_dynamic_max": memory,
            "memory_dynamic_min": memory,
            "memory_static_min": memory,
            "VCPUs_max": "2",
            "VCPUs_at_startup": "2",
            "actions_after_shutdown": "destroy",
            "actions_after_reboot": "destroy",
            "actions_after_crash": "destroy",
            "generation_id": "",
            "other_config": {"is_system_domain": "true"},
        },
    )
    metrics = {"memory_actual": memory, "VCPUs_number": "2", "current_domain_type": "pv"}
    engine.db.set(vm, "metrics", engine.db.create("VM_metrics", metrics).ref)
    engine.db.set(host, "control_domain", vm.ref)
    if not consoles:
        return
    for protocol in ("rfb", "vt100"):
        ref = engine.new_ref()
        location = f"https://{host['address']}/console?ref={ref}"
        engine.db.create("console", {"protocol": protocol, "location": location, "VM": vm.ref}, ref)


def _pif(engine: Engine, host: Row, network: Row, number: int, address: str) -> None:
    metrics = engine.db.create("PIF_metrics", {"carrier": True, "speed": "10000", "duplex": True})
    engine.db.create(
        "PIF",
        {
            "device": "eth0",
            "host": host.ref,
            "network": network.ref,
            "MAC": f"02:00:00:00:{number // 256:02x}:{number % 256:02x}",
            "MTU": "1500",
            "VLAN": "-1",
            "metrics": metrics.ref,
            "physical": True,
            "currently_attached": True,
            "ip_configuration_mode": "Static",
            "IP": address,
            "netmask": "255.0.0.0",
            "management": True,
            "managed": True,
        },
    )


def _hardware(engine: Engine, host: Row) -> Row:
    """Certificates and devices, as far as clients list them; gives the network card."""
    for kind in ("host", "host_internal"):
        validity = {"not_before": engine.now(), "not_after": engine.now()}
        engine.db.create("Certificate", {"type": kind, "host": host.ref, **validity})
    for number, (kind, name) in enumerate((("Mass storage controller", "block"), ("Ethernet controller", "network"))):
        device = engine.db.create(
            "PCI",
            {
                "class_name": kind,
                "vendor_name": "Red Hat, Inc.",
                "device_name": f"Virtio 1.0 {name} device",
                "host": host.ref,
                "pci_id": f"0000:00:0{number + 2}.0",
                "subsystem_vendor_name": "Red Hat, Inc.",
                "subsystem_device_name": f"Virtio 1.0 {name} device",
                "driver_name": "virtio-pci",
            },
        )
    return device


def add_sr(engine: Engine, name: str, kind: str, hosts: list[Row], size: int, config: dict[str, str]) -> Row:
    sr = engine.db.create(
        "SR",
        {"name_label": name, "type": kind, "content_type": "user", "shared": len(hosts) > 1 or kind == "nfs"},
    )
    engine.db.set(sr, "physical_size", str(size))
    engine.storage_of(sr).open(sr["uuid"], size)
    for host in hosts:
        repositories.mark_plugged(engine, repositories.plug_row(engine, host, sr, config, plugged=False))
    return sr


def _storage(engine: Engine, hosts: list[Row], shape: HostShape) -> Row:
    if shape.sr_type == "nfs":
        config = {"server": "127.0.0.1", "serverpath": "/export/pool"}
        return add_sr(engine, "NFS storage", "nfs", hosts, shape.disk_bytes, config)
    made = [
        add_sr(engine, "Local storage", shape.sr_type, [host], shape.disk_bytes, {"device": "/dev/sda3"})
        for host in hosts
    ]
    for host, sr in zip(hosts, made, strict=True):
        engine.db.set(host, "suspend_image_sr", sr.ref)
    return made[0]


def _drivers(engine: Engine, kinds: tuple[str, ...]) -> None:
    for kind in kinds:
        capabilities = CAPABLE.get(kind, _FOLDER_DRIVER)
        engine.db.create(
            "SM",
            {
                "name_label": kind,
                "type": kind,
                "vendor": "celltree",
                "copyright": "",
                "version": "1.0",
                "required_api_version": "1.0",
                "capabilities": capabilities,
                "features": {c: "1" for c in capabilities},
                "driver_filename": f"/opt/xensource/sm/{kind}",
            },
        )


def _roles(engine: Engine) -> None:
    for name, description in ROLES.items():
        engine.db.create("role", {"name_label": name, "name_description": description})


def _template(engine: Engine, name: str, *, default: bool, config: dict[str, str] | None = None) -> Row:
    fields: dict[str, Any] = {
        "name_label": name,
        "is_a_template": True,
        "is_default_template": default,
        "user_version": "0",
        "memory_static_max": str(512 * MIB),
        "memory_dynamic_max": str(512 * MIB),
        "memory_dynamic_min": str(512 * MIB),
        "VCPUs_max": "2",
        "VCPUs_at_startup": "2",
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "destroy",
        "HVM_boot_policy": "BIOS order",
        "HVM_boot_params": {"order": "dc"},
        "platform": {"acpi": "true", "apic": "true", "pae": "true", "viridian": "true", "timeoffset": "0"},
        "domain_type": "hvm",
        "hardware_platform_version": "2",
        "has_vendor_device": True,
        "other_config": {"mac_seed": engine.new_uuid(), **(config or {})},
    }
    return vm_row(engine, fields)


def recorded_world(engine: Engine, *, hosts: int = 1, addresses: list[str] | None = None) -> Engine:
    """The world of the recordings' README: a dummy SR, a file SR, an internal network, a template."""
    db = engine.db
    internal = {
        "is_guest_installer_network": "true",
        "is_host_internal_management_network": "true",
        "ip_begin": "169.254.0.1",
        "ip_end": "169.254.255.254",
        "netmask": "255.255.0.0",
    }
    if hosts == 1:
        db.create(
            "network",
            {
                "name_label": "Host internal management network",
                "name_description": "Network on which guests will be assigned a private link-local IP address which "
                "can be used to talk XenAPI",
                "bridge": "xenapi",
                "managed": True,
                "other_config": internal,
            },
        )
    pool = db.create(
        "pool",
        {
            "restrictions": {"restrict_vlan": "false"},
            "other_config": {"memory-ratio-hvm": "0.25"},
            "ha_cluster_stack": "xhad",
            "telemetry_next_collection": engine.now(),
        },
    )
    shape = HostShape(ram_mib=64 * 1024, cpus=8)
    network = db.create("network", {"name_label": "eth0", "bridge": "xenbr0", "managed": True}) if hosts > 1 else None
    members = []
    for number in range(hosts):
        address = addresses[number] if addresses else f"127.0.0.{number + 1}"
        host = add_host(engine, f"rec-host{number + 1 if hosts > 1 else ''}", address, shape)
        members.append(host)
        if network is not None:
            _pif(engine, host, network, number, address)
        if not number:
            db.set(pool, "master", host.ref)
    add_sr(engine, "rec-file", "file", members[:1], 270 * GIB, {"location": "/srv/rec-file"})
    dummy = add_sr(engine, "rec-dummy", "dummy", members, 2_000_000_000_000, {})
    for host in members:
        db.set(host, "suspend_image_sr", dummy.ref)
    db.update(pool, {"default_SR": dummy.ref, "suspend_image_SR": dummy.ref})
    db.create(
        "network", {"name_label": "rec-net", "bridge": "xapi0", "managed": True, "default_locking_mode": "unlocked"}
    )
    _drivers(engine, ("file", "dummy", "iso"))
    _roles(engine)
    template = _template(engine, "rec-template", default=False, config={"disks": "<provision></provision>"})
    db.update(template, {"affinity": "", "xenstore_data": {"vm-data/allowvssprovider": "false"}})
    db.set(pool, "telemetry_uuid", db.create("secret", {"value": engine.new_uuid()}).ref)
    if hosts > 1:
        add_sr(engine, "rec-tools", "iso", members, GIB, {})
    for host in members:
        card = _hardware(engine, host)
        for pif in host["PIFs"]:
            db.set(db.rows[pif], "PCI", card.ref)
    return engine
