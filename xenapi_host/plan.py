"""From a build's words to the records XenAPI takes. Pure: called by the leaf's jobs with facts that were measured
before; gives back a BuildPlan or raises Permanent for what no host of this kind can do."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cells.errors import Permanent
from cells.model import BuildSpec, Flavor, ImageRef
from cells.names import id_text
from xenapi_host import guests, tags
from xenapi_host.config_drive import Personal, config_drive
from xenapi_host.facts import GIB, MIB, HostFacts

_BUILT_FROM = ("vhd", "raw")
_NO_SPECIAL_FILES = ("kernel_id", "ramdisk_id")

SWAP_DEVICE, CONFIG_DEVICE, FIRST_EPHEMERAL_DEVICE = 2, 3, 4
_LARGEST_EPHEMERAL, _EVEN_EPHEMERAL = 2000 * GIB, 1024 * GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class VifPlan:
    """A network interface; `network` is a uuid."""

    device: int
    network: str
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskPlan:
    """A disk besides the root. `name` is the last word of its claim and name label. `kind`: what it is made as: ext3,
    swap, or "" for a blank one; `content`: its first bytes instead."""

    name: str
    device: int
    size: int
    kind: str = ""
    content: bytes = field(default=b"", repr=False)

    @property
    def kept(self) -> bool:
        """Whether it holds what cannot be made anew, so that a resize takes it along: a tenant's data, or what he gave
        for the first start."""
        return self.name.startswith(("ephemeral", "config"))


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """All that is made for one VM of a server. `serial`: 0 for the build, the command's number for what makes a VM
    anew. `root_bytes`: the size of the root disk; 0 leaves the image's. `disk_shares`: of the storage's time
    (guests.disk_shares). `suffix`: what its name ends in."""

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
    disks: tuple[DiskPlan, ...] = ()
    auto_disk_config: bool = False
    disk_shares: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""

    @property
    def name(self) -> str:
        return tags.vm_name(self.server) + self.suffix

    @property
    def owner(self) -> str:
        return str(self.vm["other_config"].get(tags.OWNER, ""))

    @property
    def root_claim(self) -> str:
        return self.claim("root")

    def claim(self, disk: str) -> str:
        return tags.claim(self.server, self.attempt, self.serial, disk)


def plan_build(
    spec: BuildSpec,
    *,
    server: bytes,
    attempt: int,
    host: HostFacts,
    serial: int = 0,
    personal: Personal | None = None,
    owner: str = "",
) -> BuildPlan:
    """Plan one VM on one host, for a server of the API cell `owner`. For a resize: the spec with its new flavor, and
    the command's number as `serial`.
    Raises Permanent when the image is of a kind that cannot be built from, or too large for the flavor."""
    _refuse_classic(spec) if spec.classic else _refuse_image(spec)
    disks = _disks(spec, server, personal or Personal())
    return BuildPlan(
        server=server,
        attempt=attempt,
        serial=serial,
        host=host.uuid,
        storage=host.storage,
        image=spec.image,
        flavor=spec.flavor,
        root_bytes=spec.flavor.disk_gib * GIB,
        vm=_vm_record(spec, server, attempt, serial, host, disks, owner),
        vifs=(VifPlan(device=0, network=host.network, mac=tags.mac(server, 0)),),
        disks=disks,
        auto_disk_config=spec.auto_disk_config,
        disk_shares=guests.disk_shares(spec.flavor),
    )


def plan_rescue(
    spec: BuildSpec, *, server: bytes, attempt: int, host: HostFacts, serial: int, owner: str = ""
) -> BuildPlan:
    """Plan the VM that looks after a server's disk: the spec's flavor and image, a disk of the image's size, a name
    of its own."""
    plain = replace(spec, flavor=replace(spec.flavor, ephemeral_gib=0, swap_mib=0), config_drive=False)
    plan = plan_build(plain, server=server, attempt=attempt, host=host, serial=serial, owner=owner)
    vm = {**plan.vm, "name_label": plan.name + tags.RESCUE_SUFFIX}
    return replace(plan, vm=vm, suffix=tags.RESCUE_SUFFIX, root_bytes=0, auto_disk_config=False)


def _disks(spec: BuildSpec, server: bytes, personal: Personal) -> tuple[DiskPlan, ...]:
    found = []
    if spec.flavor.swap_mib:
        kind = "swap" if guests.fresh_file_system(spec.image) else ""
        found.append(DiskPlan(name="swap", device=SWAP_DEVICE, size=spec.flavor.swap_mib * MIB, kind=kind))
    if spec.config_drive or guests.is_yes(spec.image.properties.get("img_config_drive", "").replace("mandatory", "1")):
        content = config_drive(spec, server, personal)
        size = -(-len(content) // (2 * MIB)) * 2 * MIB  # storage rounds up to whole blocks of a VHD
        found.append(DiskPlan(name="config", device=CONFIG_DEVICE, size=size, content=content))
    for place, size in enumerate(ephemeral_sizes(spec.flavor.ephemeral_gib)):
        kind = guests.fresh_file_system(spec.image)
        found.append(DiskPlan(name=f"ephemeral{place}", device=FIRST_EPHEMERAL_DEVICE + place, size=size, kind=kind))
    return tuple(found)


def ephemeral_sizes(total_gib: int) -> tuple[int, ...]:
    """A flavor's ephemeral room as disks: of 1024 GiB where that comes out even, else of at most 2000 GiB, below the
    2040 GiB a VHD can have."""
    left, sizes = total_gib * GIB, []
    most = _EVEN_EPHEMERAL if left % _EVEN_EPHEMERAL == 0 else _LARGEST_EPHEMERAL
    while left:
        sizes.append(min(left, most))
        left -= sizes[-1]
    return tuple(sizes)


def memory_needed_mib(flavor: Flavor) -> int:
    """What a server of this flavor takes of its host's memory: its RAM and what Xen needs to run it, rounded up."""
    return flavor.ram_mib + math.ceil(0.00781 * flavor.ram_mib + 1.5 * flavor.vcpus + 3)


def _refuse_classic(spec: BuildSpec) -> None:
    if not guests.is_kit(spec.image):
        raise Permanent(
            f"image {spec.image.name or spec.image.id} is no kit for classic guests; choose one with the property "
            "classic_kit, a tar.gz with kernel, ramdisk and agent"
        )
    if not spec.flavor.disk_gib:
        raise Permanent(f"flavor {spec.flavor.name} has no disk; a classic guest needs one that its files fit on")


def _refuse_image(spec: BuildSpec) -> None:
    image, flavor = spec.image, spec.flavor
    if guests.is_kit(image):
        raise Permanent(
            f"image {image.name or image.id} is a kit for classic guests (classic_kit), not a disk; choose another"
        )
    if image.disk_format == "iso":
        raise Permanent(
            f"image {image.name or image.id} is an ISO image; servers are built from disks: install it into a vhd or "
            "raw image first"
        )
    if image.disk_format not in _BUILT_FROM:
        raise Permanent(
            f"image {image.name or image.id} has disk format {image.disk_format}; servers are built from vhd and raw "
            "images: convert it with qemu-img"
        )
    if any(image.properties.get(name) for name in _NO_SPECIAL_FILES):
        raise Permanent(
            f"image {image.name or image.id} needs a kernel of its own beside it; servers are built from whole disks"
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


def _vm_record(
    spec: BuildSpec,
    server: bytes,
    attempt: int,
    serial: int,
    host: HostFacts,
    disks: tuple[DiskPlan, ...],
    owner: str,
) -> dict[str, Any]:
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
        "VCPUs_params": guests.vcpu_params(spec.flavor),
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "destroy",
        "PV_kernel": "",
        "PV_ramdisk": "",
        "PV_args": "",
        "PV_bootloader_args": "",
        "PV_legacy_args": "",
        **guests.boot(spec.image),
        "PCI_bus": "",
        "platform": guests.platform(spec.image, spec.flavor),
        "recommendations": "",
        "blocked_operations": {},
        "ha_always_run": False,
        "ha_restart_priority": "",
        "xenstore_data": _xenstore_data(spec, server),
        "tags": [],
        "other_config": {
            tags.SERVER: id_text(server),
            tags.ATTEMPT: str(attempt),
            tags.SERIAL: str(serial),
            tags.IMAGE: spec.image.id,
            tags.STORAGE: host.storage,
            **({tags.OWNER: owner} if owner else {}),
            **({tags.DISKS: " ".join(disk.name for disk in disks)} if disks else {}),
        },
    }


def _xenstore_data(spec: BuildSpec, server: bytes) -> dict[str, str]:
    """What the guest finds in xenstore at its first boot; only vm-data/* is passed on to it."""
    data = {
        "vm-data/allowvssprovider": "false",
        "vm-data/hostname": guests.host_name(spec.name, guests.os_type(spec.image)),
    }
    if spec.auto_disk_config or "auto_disk_config" in spec.image.properties:
        data["vm-data/auto-disk-config"] = str(spec.auto_disk_config)
    if guests.has_agent(spec.image):
        mac = tags.mac(server, 0)
        interface = {"label": "net0", "mac": mac, "ips": [], "ip6s": [], "routes": [], "dns": []}
        data[f"vm-data/networking/{mac.replace(':', '').upper()}"] = json.dumps(interface, sort_keys=True)
    for key, value in spec.metadata.items():
        data[f"vm-data/user-metadata/{guests.metadata_key(key)}"] = json.dumps(value)
    return data
