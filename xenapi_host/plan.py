"""From a build's words to the records XenAPI takes. Pure: called by the leaf's jobs with facts that were measured
before; gives back a BuildPlan or raises Permanent for what no host of this kind can do."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cells.errors import Permanent
from cells.model import BuildSpec, Flavor, ImageRef
from cells.names import id_text
from xenapi_host import tags
from xenapi_host.facts import GIB, MIB, HostFacts

_KEY_OUTSIDE = re.compile(r"[^A-Za-z0-9@_-]")
_HOST_OUTSIDE = re.compile(r"[^a-z0-9-]+")
_PV_MODES = ("xen", "pv")
_WINDOWS_NAME_LENGTH = 15  # NetBIOS


@dataclass(frozen=True, slots=True, kw_only=True)
class VifPlan:
    """A network interface; `network` is a uuid."""

    device: int
    network: str
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """All that is made for one VM of a server. `serial`: 0 for the build, the command's number for a resize.
    `root_bytes`: the least size of the root disk; 0 leaves the image's."""

    server: bytes
    attempt: int
    serial: int
    host: str
    storage: str
    image: ImageRef
    flavor: Flavor
    root_bytes: int
    vm: Mapping[str, Any]
    vifs: tuple[VifPlan, ...]

    @property
    def name(self) -> str:
        return tags.vm_name(self.server)

    @property
    def root_claim(self) -> str:
        return tags.claim(self.server, self.attempt, self.serial)


def plan_build(spec: BuildSpec, *, server: bytes, attempt: int, host: HostFacts, serial: int = 0) -> BuildPlan:
    """Plan one VM on one host. For a resize: the spec with its new flavor, and the command's number as `serial`.
    Raises Permanent when the image is of a kind that cannot be built from, or too large for the flavor."""
    _refuse_image(spec)
    return BuildPlan(
        server=server,
        attempt=attempt,
        serial=serial,
        host=host.uuid,
        storage=host.storage,
        image=spec.image,
        flavor=spec.flavor,
        root_bytes=spec.flavor.disk_gib * GIB,
        vm=_vm_record(spec, server, attempt, serial, host),
        vifs=(VifPlan(device=0, network=host.network, mac=tags.mac(server, 0)),),
    )


def memory_needed_mib(flavor: Flavor) -> int:
    """What a server of this flavor takes of its host's memory: its RAM and what Xen needs to run it, rounded up."""
    return flavor.ram_mib + math.ceil(0.00781 * flavor.ram_mib + 1.5 * flavor.vcpus + 3)


def _refuse_image(spec: BuildSpec) -> None:
    image, flavor = spec.image, spec.flavor
    if image.disk_format != "vhd":
        raise Permanent(
            f"image {image.name or image.id} has disk format {image.disk_format}; servers are built from vhd images"
        )
    if flavor.disk_gib and image.min_disk_gib > flavor.disk_gib:
        raise Permanent(
            f"image {image.name or image.id} needs a disk of {image.min_disk_gib} GiB and flavor {flavor.name} has "
            f"{flavor.disk_gib} GiB; choose a larger flavor"
        )
    if image.min_ram_mib > flavor.ram_mib:
        raise Permanent(
            f"image {image.name or image.id} needs {image.min_ram_mib} MiB of RAM and flavor {flavor.name} has "
            f"{flavor.ram_mib} MiB; choose a larger flavor"
        )


def _vm_record(spec: BuildSpec, server: bytes, attempt: int, serial: int, host: HostFacts) -> dict[str, Any]:
    memory = str(spec.flavor.ram_mib * MIB)
    vcpus = str(spec.flavor.vcpus)
    return {
        "name_label": tags.vm_name(server),
        "name_description": spec.name,
        "user_version": "0",
        "is_a_template": False,
        "affinity": "",
        "memory_static_min": "0",
        "memory_static_max": memory,
        "memory_dynamic_min": memory,
        "memory_dynamic_max": memory,
        "memory_target": memory,
        "VCPUs_max": vcpus,
        "VCPUs_at_startup": vcpus,
        "VCPUs_params": _vcpu_params(spec.flavor),
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "destroy",
        "PV_kernel": "",
        "PV_ramdisk": "",
        "PV_args": "",
        "PV_bootloader_args": "",
        "PV_legacy_args": "",
        **_boot(spec.image),
        "PCI_bus": "",
        "platform": _platform(spec),
        "recommendations": "",
        "blocked_operations": {},
        "ha_always_run": False,
        "ha_restart_priority": "",
        "xenstore_data": _xenstore_data(spec),
        "tags": [],
        "other_config": {
            tags.SERVER: id_text(server),
            tags.ATTEMPT: str(attempt),
            tags.SERIAL: str(serial),
            tags.IMAGE: spec.image.id,
            tags.STORAGE: host.storage,
        },
    }


def _boot(image: ImageRef) -> dict[str, Any]:
    """HVM unless the image says that it is paravirtual, which XenServer 8 has given up."""
    if image.properties.get("vm_mode", "").lower() in _PV_MODES:
        return {"PV_bootloader": "pygrub", "HVM_boot_policy": "", "HVM_boot_params": {}}
    params = {"order": "dc"}
    if image.properties.get("hw_firmware_type", "").lower() == "uefi":
        params["firmware"] = "uefi"
    return {"PV_bootloader": "", "HVM_boot_policy": "BIOS order", "HVM_boot_params": params}


def _os_type(image: ImageRef) -> str:
    return image.properties.get("os_type", "linux").lower()


def _platform(spec: BuildSpec) -> dict[str, str]:
    image = spec.image
    uefi = image.properties.get("hw_firmware_type", "").lower() == "uefi"
    platform = {
        "acpi": "1",
        "apic": "true",
        "pae": "true",
        "nx": "true",
        "viridian": "true" if _os_type(image) == "windows" else "false",
        "timeoffset": "0",
    }
    if image.properties.get("vm_mode", "").lower() not in _PV_MODES:
        platform["device-model"] = "qemu-upstream-uefi" if uefi else "qemu-upstream-compat"
    if uefi and image.properties.get("os_secure_boot", "").lower() in ("required", "true"):
        platform["secureboot"] = "true"
    if image.properties.get("xenapi_device_id"):
        platform["device_id"] = image.properties["xenapi_device_id"].zfill(4)
    cores = spec.flavor.extra_specs.get("hw:cpu_cores", "")
    if cores.isdigit() and int(cores) and spec.flavor.vcpus % int(cores) == 0:
        platform["cores-per-socket"] = cores
    return platform


def _vcpu_params(flavor: Flavor) -> dict[str, str]:
    """Weight and cap count only together (Xen's scheduler); the mask stands alone."""
    specs = flavor.extra_specs
    params: dict[str, str] = {}
    if "quota:vcpu_weight" in specs or "quota:vcpu_cap" in specs:
        params = {"weight": specs.get("quota:vcpu_weight", "256"), "cap": specs.get("quota:vcpu_cap", "0")}
    if "quota:vcpu_mask" in specs:
        params["mask"] = specs["quota:vcpu_mask"]
    return params


def _xenstore_data(spec: BuildSpec) -> dict[str, str]:
    """What the guest finds in xenstore at its first boot; only vm-data/* is passed on to it."""
    data = {"vm-data/allowvssprovider": "false", "vm-data/hostname": host_name(spec.name, _os_type(spec.image))}
    if "auto_disk_config" in spec.image.properties:
        wanted = spec.image.properties["auto_disk_config"].lower() in ("true", "1", "yes")
        data["vm-data/auto-disk-config"] = str(wanted)
    for key, value in spec.metadata.items():
        data[f"vm-data/user-metadata/{_KEY_OUTSIDE.sub('_', key)}"] = json.dumps(value)
    return data


def host_name(name: str, os_type: str) -> str:
    """A host name made of a server's name: a DNS label, cut to what the guest's system can hold."""
    label = _HOST_OUTSIDE.sub("-", name.lower()).strip("-") or "server"
    return label[: _WINDOWS_NAME_LENGTH if os_type == "windows" else 63].strip("-")
