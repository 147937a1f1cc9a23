"""What kind of guest an image holds, and what follows for the VM: how it boots, its platform, its processors' share,
its host name. Pure; from the image's and flavor's properties, named as OpenStack names them.

| guest | boots | besides |
|---|---|---|
| linux | HVM; PV where vm_mode is xen | ephemeral disks are ext3, swap is swap |
| windows | HVM with the viridian enlightenments | host name of 15 characters; fresh disks are blank |
| freebsd | HVM | fresh disks are blank |
"""

import re
from typing import Any

from cells.errors import Permanent
from cells.model import Flavor, ImageRef

LINUX, WINDOWS, FREEBSD = "linux", "windows", "freebsd"
_PV_MODES = ("xen", "pv")
_YES = ("true", "1", "yes", "on", "required")
_HOST_OUTSIDE = re.compile(r"[^a-z0-9-]+")
_KEY_OUTSIDE = re.compile(r"[^A-Za-z0-9@_-]")
_MASK = re.compile(r"[0-9]+(?:,[0-9]+)*")
_WINDOWS_NAME_LENGTH = 15  # NetBIOS
_MOST_WEIGHT = 65535
SHARES = (
    "quota:vcpu_weight",
    "quota:vcpu_cap",
    "quota:vcpu_mask",
    "quota:disk_io_class",
    "quota:disk_io_priority",
)
_IO_CLASSES = ("real-time", "best-effort", "idle")
_LOWEST_IO_PRIORITY = 7


def os_type(image: ImageRef) -> str:
    """linux unless the image says otherwise; what we have never heard of is treated as Linux."""
    said = image.properties.get("os_type", "").lower()
    if said.startswith("win"):
        return WINDOWS
    if said.endswith("bsd"):
        return FREEBSD
    distro = image.properties.get("os_distro", "").lower()
    return WINDOWS if distro.startswith("win") else FREEBSD if distro.endswith("bsd") else LINUX


def is_yes(text: str) -> bool:
    """Whether an image property says yes."""
    return text.lower() in _YES


def paravirtual(image: ImageRef) -> bool:
    return image.properties.get("vm_mode", "").lower() in _PV_MODES


def _uefi(image: ImageRef) -> bool:
    return image.properties.get("hw_firmware_type", "").lower() == "uefi"


def boot(image: ImageRef) -> dict[str, Any]:
    """HVM unless the image says that it is paravirtual, which XenServer 8 has given up."""
    if paravirtual(image):
        if os_type(image) == WINDOWS:
            raise Permanent("Windows cannot be paravirtual: set the image's vm_mode to hvm, or leave it out")
        return {"PV_bootloader": "pygrub", "HVM_boot_policy": "", "HVM_boot_params": {}}
    params = {"order": "dc"}
    if _uefi(image):
        params["firmware"] = "uefi"
    return {"PV_bootloader": "", "HVM_boot_policy": "BIOS order", "HVM_boot_params": params}


def platform(image: ImageRef, flavor: Flavor) -> dict[str, str]:
    """VM.platform: what Xen and the device model show the guest."""
    properties = image.properties
    found = {
        "acpi": "1",
        "apic": "true",
        "pae": "true",
        "nx": "true",
        "viridian": "true" if os_type(image) == WINDOWS else "false",
        "timeoffset": properties.get("os_time_offset", "0"),
    }
    if not found["timeoffset"].lstrip("-").isdigit():
        raise Permanent(f"image property os_time_offset {found['timeoffset']!r} is no number of seconds")
    if not paravirtual(image):
        found["device-model"] = "qemu-upstream-uefi" if _uefi(image) else "qemu-upstream-compat"
    if _uefi(image) and is_yes(properties.get("os_secure_boot", "")):
        found["secureboot"] = "true"
    if properties.get("xenapi_device_id"):
        found["device_id"] = properties["xenapi_device_id"].zfill(4)
    cores = flavor.extra_specs.get("hw:cpu_cores", "") or properties.get("hw_cpu_cores", "")
    if cores.isdigit() and int(cores) and flavor.vcpus % int(cores) == 0:
        found["cores-per-socket"] = cores
    return found


def vcpu_params(flavor: Flavor) -> dict[str, str]:
    """VM.VCPUs_params. Weight and cap count only together (Xen's scheduler); the mask stands alone."""
    specs = flavor.extra_specs
    params: dict[str, str] = {}
    if "quota:vcpu_weight" in specs or "quota:vcpu_cap" in specs:
        params = {"weight": specs.get("quota:vcpu_weight", "256"), "cap": specs.get("quota:vcpu_cap", "0")}
        if not (params["weight"].isdigit() and 0 < int(params["weight"]) <= _MOST_WEIGHT):
            raise Permanent(f"flavor {flavor.name}: quota:vcpu_weight must be a number from 1 to {_MOST_WEIGHT}")
        if not (params["cap"].isdigit() and int(params["cap"]) <= 100 * flavor.vcpus):
            raise Permanent(
                f"flavor {flavor.name}: quota:vcpu_cap is a percentage of one processor, at most {100 * flavor.vcpus} "
                "for its processors"
            )
    if "quota:vcpu_mask" in specs:
        if not _MASK.fullmatch(specs["quota:vcpu_mask"]):
            raise Permanent(f"flavor {flavor.name}: quota:vcpu_mask must list processors, such as 0,1,4")
        params["mask"] = specs["quota:vcpu_mask"]
    return params


def disk_shares(flavor: Flavor) -> dict[str, str]:
    """VBD.qos_algorithm_params of the server's disks: how its share of the storage's time is decided, as Linux's ionice
    knows it; 0 is the highest priority. Empty: as everybody's."""
    specs = flavor.extra_specs
    if "quota:disk_io_class" not in specs and "quota:disk_io_priority" not in specs:
        return {}
    io_class, priority = specs.get("quota:disk_io_class", "best-effort"), specs.get("quota:disk_io_priority", "4")
    if io_class not in _IO_CLASSES:
        raise Permanent(f"flavor {flavor.name}: quota:disk_io_class must be one of {', '.join(_IO_CLASSES)}")
    if not (priority.isdigit() and int(priority) <= _LOWEST_IO_PRIORITY):
        raise Permanent(
            f"flavor {flavor.name}: quota:disk_io_priority must be a number from 0 to {_LOWEST_IO_PRIORITY}"
        )
    return {"sched": "idle"} if io_class == "idle" else {"sched": io_class, "class": priority}


def host_name(name: str, kind: str) -> str:
    """A host name made of a server's name: a DNS label, cut to what the guest's system can hold."""
    label = _HOST_OUTSIDE.sub("-", name.lower()).strip("-") or "server"
    return label[: _WINDOWS_NAME_LENGTH if kind == WINDOWS else 63].strip("-")


def fresh_file_system(image: ImageRef) -> str:
    """What a new ephemeral disk is made as; "" leaves it blank, for a guest that formats disks itself."""
    return "ext3" if os_type(image) == LINUX else ""


def has_agent(image: ImageRef) -> bool:
    """Whether the image says that a guest agent is inside, which is then asked to configure the guest."""
    return is_yes(image.properties.get("xenapi_use_agent", ""))


def is_kit(image: ImageRef) -> bool:
    """Whether the image is no disk but what a classic guest needs beside its own files: a tar.gz."""
    return is_yes(image.properties.get("classic_kit", ""))


def metadata_key(key: str) -> str:
    """A metadata item's name as xenstore can hold it."""
    return _KEY_OUTSIDE.sub("_", key)
