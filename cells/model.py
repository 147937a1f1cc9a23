"""The nouns that cross package borders: flavors, images, builds, capacity, cell records. Frozen values, no behaviour
beyond their own arithmetic. Sizes carry their unit in the name (MiB = 2**20 bytes, GiB = 2**30 bytes)."""

from dataclasses import dataclass, field
from enum import StrEnum

from cells.names import CellName, Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavor:
    """A size of server. `extra_specs` as in OpenStack; keys understood: see docs/reference."""

    id: str
    name: str
    vcpus: int
    ram_mib: int
    disk_gib: int
    ephemeral_gib: int = 0
    swap_mib: int = 0
    extra_specs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart:
    """An image that another one builds upon; `checksum` as in ImageRef."""

    id: str
    checksum: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """An image as a leaf needs it: where to fetch it and what to expect. `url` is the Glance v2 endpoint, without
    /v2; `checksum` is Glance's md5 of the stored bytes, or empty where unknown; sizes in bytes. `parents`: what an
    incremental image builds upon, newest first, the full one last; at the same endpoint."""

    id: str
    name: str = ""
    url: str = ""
    checksum: str = ""
    disk_format: str = "vhd"
    container_format: str = "ovf"
    size: int = 0
    min_disk_gib: int = 0
    min_ram_mib: int = 0
    properties: dict[str, str] = field(default_factory=dict)
    parents: tuple[ImagePart, ...] = ()


class BackupMark(StrEnum):
    """Properties that a leaf gives the image of a backup: "full" or "incremental", the image that it builds upon, and
    why it is a full one though it might have been incremental."""

    KIND = "celltree_backup"
    PARENT = "celltree_parent_image"
    REASON = "celltree_full_reason"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incremental:
    """That a backup may hold only what changed since an earlier one of the server: one of the images `bases`, which
    are whole or about to be; `most` such backups may follow each full one."""

    bases: tuple[str, ...] = ()
    most: int = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What only the leaf may read. `image_token`: sent as X-Auth-Token with the image's bytes. `files`: path in the
    guest -> content. `user_data`: for the guest's own first start, as it is."""

    image_token: str = field(default="", repr=False)
    admin_password: str = field(default="", repr=False)
    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    user_data: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicGuest:
    """A guest of a classic Xen host, by the name of the leaf's source that reaches it, and its own there."""

    source: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSpec:
    """All a leaf needs to make one server. `hints` are scheduler hints, already checked by the API cell; `sealed` is
    a secret box only the leaf can open (cells.identity): a packed Secrets value, empty when there is none.
    `auto_disk_config`: the one partition and file system of the root disk follow the flavor's disk. `classic`: what
    the root disk is copied from; `image` is then the kit that goes on top."""

    name: str
    project: str
    user: str
    flavor: Flavor
    image: ImageRef
    metadata: dict[str, str] = field(default_factory=dict)
    hints: dict[str, str] = field(default_factory=dict)
    zone: str = ""
    key_name: str = ""
    public_key: str = ""
    config_drive: bool = False
    auto_disk_config: bool = False
    sealed: bytes = b""
    classic: ClassicGuest | None = None


class VmState(StrEnum):
    """OpenStack's vm_state: what a server is when nothing is going on."""

    BUILDING = "building"
    ACTIVE = "active"
    STOPPED = "stopped"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    RESCUED = "rescued"
    RESIZED = "resized"
    ERROR = "error"
    DELETED = "deleted"


class PowerState(StrEnum):
    """XenAPI's VM.power_state, as the leaf last saw it."""

    HALTED = "Halted"
    RUNNING = "Running"
    PAUSED = "Paused"
    SUSPENDED = "Suspended"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why something failed, in words a tenant may read: no internals, no addresses, no secrets."""

    code: int
    message: str
    at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A volume that a server has: the uuid of its VDI, and which of the server's disks it is (8: the ninth, xvdi)."""

    id: str
    device: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceState:
    """What is so of one server: the leaf alone writes it, and sends it whole each time (a level, not an event).
    `note`: what a tenant should know of what went well, such as why a disk's partitions were left as they are."""

    vm_state: VmState
    task_state: str = ""
    power_state: PowerState = PowerState.UNKNOWN
    flavor: Flavor
    host: str = ""
    vm_uuid: str = ""
    launched_at: Instant = 0
    terminated_at: Instant = 0
    progress: int = 0
    fault: Fault | None = None
    note: str = ""
    volumes: tuple[Volume, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Generation:
    """(epoch, sequence), allocated in the cell's database; the larger wins. A restored database gets
    a higher epoch."""

    epoch: int = 0
    sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeShape:
    """`hosts` hosts that each have this much free, after reserve. `disk_gib` is the free disk of each host's own
    storage; where `group` names a shared storage group it is 0 and the group's free disk counts instead."""

    ram_mib: int
    vcpus: int
    disk_gib: int
    hosts: int
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostClass:
    """Hosts alike in all that placement asks of them."""

    hypervisor_version: str = ""
    traits: tuple[str, ...] = ()
    zone: str = ""
    shapes: tuple[FreeShape, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageGroup:
    """A storage repository that several hosts share; free is after reserve and overcommit."""

    name: str
    free_gib: int
    total_gib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a leaf can still take, exactly, and what it has in all."""

    classes: tuple[HostClass, ...] = ()
    groups: tuple[StorageGroup, ...] = ()
    hosts: int = 0
    total_ram_mib: int = 0
    total_vcpus: int = 0
    total_disk_gib: int = 0
    servers: int = 0


class CellState(StrEnum):
    """What the cell's administrator wants of it. Draining: runs what it has, takes no new builds."""

    ENABLED = "enabled"
    DRAINING = "draining"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRecord:
    """What a cell says of itself; signed by it and relayed unchanged. `parents` are those it has heard lately."""

    name: CellName
    uuid: bytes
    role: str
    generation: Generation
    at: Instant
    parents: tuple[CellName, ...] = ()
    state: CellState = CellState.ENABLED
    versions: tuple[int, int] = (1, 1)
    capacity: Capacity | None = None
    weight_offset: float = 0.0
    projects: tuple[str, ...] = ()


MOST_HOSTS, MOST_OF_A_HOST, MOST_OFFSET = 2**20, 2**40, 10.0**9
"""Of a leaf's hosts, of MiB, processors and GiB of one host or all, of a weight: what no cell has. Within them every
sum and product of placement is exact."""


def believable(record: CellRecord) -> bool:
    """Whether what a cell says of itself is within what any cell can have."""
    capacity = record.capacity or Capacity()
    shapes = [shape for known in capacity.classes for shape in known.shapes]
    hosts = (capacity.hosts, sum(max(0, shape.hosts) for shape in shapes))
    others = (
        *(number for shape in shapes for number in (shape.ram_mib, shape.vcpus, shape.disk_gib, -shape.hosts)),
        *(number for group in capacity.groups for number in (group.free_gib, group.total_gib)),
        *(capacity.total_ram_mib, capacity.total_vcpus, capacity.total_disk_gib, capacity.servers),
    )
    return (
        all(abs(number) <= MOST_HOSTS for number in hosts)
        and all(abs(number) <= MOST_OF_A_HOST for number in others)
        and abs(record.weight_offset) <= MOST_OFFSET
    )
