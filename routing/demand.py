"""What a build asks of a host, taken from its flavor and image once: room, and what the host must be able to do.

A Demand is a value and may be a key: two builds that ask the same share one search. The front door makes a demand of
each request it validates, so that a malformed flavor or image is told to the tenant at once.
"""

import re
from dataclasses import dataclass
from functools import cached_property

from cells.errors import BadInput
from cells.model import BuildSpec, Flavor, HostClass

VM_MODES = {"xen": "CUSTOM_VM_MODE_XEN", "hvm": "CUSTOM_VM_MODE_HVM"}
"""The image property vm_mode as a trait of hosts. A host class that names neither takes both."""

_CONDITION = re.compile(r"\s*(<=|>=|==|!=|<|>|=)?\s*(\d+(?:\.\d+)*)\s*")

Version = tuple[int, ...]
Condition = tuple[str, Version]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Room:
    """What one server takes of a host and its storage. A dimension of 0 does not bound."""

    ram_mib: int
    vcpus: int
    disk_gib: int

    def units_of(self, taken: "Room") -> int:
        """The most servers of this room that can no longer be built once `taken` is gone from some host: exact when
        both are the same, never too few otherwise."""
        return max(
            1 if taken == self else 0,
            *(
                -(-gone // size)
                for gone, size in (
                    (taken.ram_mib, self.ram_mib),
                    (taken.vcpus, self.vcpus),
                    (taken.disk_gib, self.disk_gib),
                )
                if size > 0
            ),
            0,
        )


def room_of(flavor: Flavor) -> Room:
    """The room a server of this flavor takes. Root, ephemeral and swap disks lie on the same storage; swap is rounded
    up to whole GiB. The leaf claims by the same sum, or the two would drift apart."""
    disk_gib = flavor.disk_gib + flavor.ephemeral_gib + -(-flavor.swap_mib // 1024)
    return Room(ram_mib=flavor.ram_mib, vcpus=flavor.vcpus, disk_gib=disk_gib)


@dataclass(frozen=True, kw_only=True)
class Demand:
    """Room, and which host classes will do. `versions`: every condition on the hypervisor's version must hold."""

    room: Room
    required: frozenset[str] = frozenset()
    forbidden: frozenset[str] = frozenset()
    vm_mode: str = ""
    versions: tuple[Condition, ...] = ()
    zone: str = ""

    @cached_property
    def _hash(self) -> int:
        return hash((self.room, self.required, self.forbidden, self.vm_mode, self.versions, self.zone))

    def __hash__(self) -> int:
        return self._hash

    def why_not(self, host_class: HostClass) -> str:
        """Why hosts of this class will not do; empty when they will."""
        if self.zone and host_class.zone != self.zone:
            return f"zone is not {self.zone}"
        traits = set(host_class.traits)
        if missing := self.required - traits:
            return f"lacks trait {', '.join(sorted(missing))}"
        if unwanted := self.forbidden & traits:
            return f"has forbidden trait {', '.join(sorted(unwanted))}"
        modes = traits & set(VM_MODES.values())
        if self.vm_mode and modes and VM_MODES[self.vm_mode] not in modes:
            return f"does not run vm_mode {self.vm_mode}"
        if self.versions and not _meets(host_class.hypervisor_version, self.versions):
            return f"hypervisor version {host_class.hypervisor_version or 'unknown'} does not meet the image's"
        return ""


def demand_of(spec: BuildSpec) -> Demand:
    """What this build asks. BadInput for a trait or an image property that cannot be understood."""
    required, forbidden = _traits(spec.flavor.extra_specs, "flavor")
    image_required, image_forbidden = _traits(spec.image.properties, "image")
    vm_mode = spec.image.properties.get("vm_mode", "").lower()
    if vm_mode and vm_mode not in VM_MODES:
        raise BadInput(f"image property vm_mode {vm_mode!r} is not known here: use 'xen' or 'hvm'")
    classic = {f"classic:{spec.classic.source}"} if spec.classic else set()
    return Demand(
        room=room_of(spec.flavor),
        required=required | image_required | classic,
        forbidden=forbidden | image_forbidden,
        vm_mode=vm_mode,
        versions=_conditions(spec.image.properties.get("hypervisor_version_requires", "")),
        zone=spec.zone,
    )


def _traits(specs: dict[str, str], where: str) -> tuple[frozenset[str], frozenset[str]]:
    wanted: dict[str, set[str]] = {"required": set(), "forbidden": set()}
    for key, value in specs.items():
        if not key.startswith("trait:"):
            continue
        if value not in wanted:
            raise BadInput(f"{where} {key}={value!r}: a trait is 'required' or 'forbidden'")
        wanted[value].add(key.removeprefix("trait:"))
    return frozenset(wanted["required"]), frozenset(wanted["forbidden"])


def _conditions(text: str) -> tuple[Condition, ...]:
    if not text.strip():
        return ()
    conditions: list[Condition] = []
    for part in text.split(","):
        match = _CONDITION.fullmatch(part)
        if match is None:
            raise BadInput(f"image property hypervisor_version_requires {text!r}: write it like '>=6.2,<8'")
        conditions.append((match[1] or "==", _version(match[2])))
    return tuple(conditions)


def _version(text: str) -> Version:
    """Numbers up to the first part that is none; trailing zeros do not count, so that 8.0 is 8."""
    numbers: list[int] = []
    for part in text.split("."):
        digits = re.match(r"\d+", part)
        if digits is None:
            break
        numbers.append(int(digits[0]))
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _meets(text: str, conditions: tuple[Condition, ...]) -> bool:
    if not text:
        return False
    version = _version(text)
    return all(
        {
            "<": version < wanted,
            "<=": version <= wanted,
            ">": version > wanted,
            ">=": version >= wanted,
            "!=": version != wanted,
        }.get(operator, version == wanted)
        for operator, wanted in conditions
    )
