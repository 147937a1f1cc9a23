"""The rows of a compute cell: pools, hosts, storage groups, and the instances it holds. A cell without hosts has none.

The leaf is the only writer of an instance's state; each change raises `version`, in the same transaction.
"""

from dataclasses import dataclass
from enum import StrEnum

from cells.model import BuildSpec, Flavor, InstanceState
from cells.names import CellName, Id, Instant
from cells.rows import Text, row


class HostState(StrEnum):
    """ENABLED takes builds. DISABLED keeps what it has (an administrator's wish). DOWN does not answer. DEAD is
    confirmed powered off or fenced: what it ran may be rebuilt elsewhere."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    DOWN = "down"
    DEAD = "dead"


@row("pools", key=("name",))
@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRow:
    """A XenServer pool and how to log in to it; `secret` is the password, sealed with the cell's own key.
    `when_host_dies`, `when_disks_are_lost`: as the cell's settings of these names, for this pool; empty: as they are
    there."""

    name: str
    url: str
    user: str
    secret: bytes
    fingerprint: str = ""
    asked: Instant = 0
    heard: Instant = 0
    error: Text = ""
    when_host_dies: str = ""
    when_disks_are_lost: str = ""


@row("hosts", key=("uuid",), indexes=(("pool",),))
@dataclass(frozen=True, slots=True, kw_only=True)
class HostRow:
    """A host: what it has for guests after reserve and overcommit, and what of that is free after claims. The claim
    of a build is in the same transaction as the instance. `sr`: the storage repository its servers' disks are on;
    `group`: the name of the storage group where that is shared, else empty and `free_disk_gib` is the host's own.
    `foreign_mib`: memory of what runs there without being ours, as last seen; -1: not seen yet. `fenced_from`: the
    state it had when its pool's high availability fenced it, and has again when it returns; empty where a person
    confirmed that it is dead."""

    uuid: str
    pool: str
    name: str
    state: HostState
    ram_mib: int
    physical_mib: int
    vcpus: int
    disk_gib: int
    free_ram_mib: int
    free_vcpus: int
    free_disk_gib: int
    sr: str
    network: str
    group: str = ""
    hypervisor_version: str = ""
    zone: str = ""
    traits: tuple[str, ...] = ()
    foreign_mib: int = -1
    fenced_from: str = ""


@row("storage_groups", key=("name",))
@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRow:
    """A storage repository shared by several hosts."""

    name: str
    pool: str
    sr: str
    disk_gib: int
    free_disk_gib: int


class Phase(StrEnum):
    """How far a build has come. PREPARING: job under way, not granted. PREPARED: waits for the grant. GRANTED: may
    start (or has). UNDOING: discarded or deleted, its host objects are being removed. GONE: a tombstone."""

    PREPARING = "preparing"
    PREPARED = "prepared"
    GRANTED = "granted"
    UNDOING = "undoing"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedCommand:
    """An owner's command that waits for the one before it. `data` is the record's wire form."""

    number: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Where a server is moving to: a host (uuid and name) and its pool; `room` is what is claimed there. `serial`: of
    the VM that is made anew there, because the disks of the old one are lost; 0 where it is moved."""

    host: str
    pool: str
    name: str
    room: Flavor
    serial: int = 0


@row("lost_copies", key=("server", "host"))
@dataclass(frozen=True, slots=True, kw_only=True)
class LostCopyRow:
    """What is left of a server on a dead host, since it was made anew elsewhere with this serial: set aside as soon as
    the host returns. `due`: when to try (again)."""

    server: Id
    host: str
    pool: str
    serial: int
    due: Instant = 0


@row("instances", key=("id",), indexes=(("unseen", "owner", "updated"), ("owner", "id"), ("host",), ("stale",)))
@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow:
    """A server this cell holds, or its tombstone. `unseen`: the owner has not seen `version` yet. `number`: the
    newest command that is over. `job`: the slow work under way (16 zero bytes: none), for `command` if that is set.
    `before`: what the server was while a resize waits for its confirmation; its claim on `old_host` is kept.
    `moving`: where it is on its way to, or may have gone; both hosts' claims are kept. `proof`: the owner's, of having
    asked for this attempt. `stale`: it is from an old backup: its owner is asked, and commands wait."""

    id: Id
    owner: CellName
    request: str
    attempt: int
    phase: Phase
    version: int
    unseen: bool
    updated: Instant
    host: str
    pool: str
    spec: BuildSpec
    state: InstanceState
    number: int = 0
    failed: tuple[int, str] | None = None
    job: Id = bytes(16)
    command: QueuedCommand | None = None
    queue: tuple[QueuedCommand, ...] = ()
    old_host: str = ""
    before: InstanceState | None = None
    forget: Instant = 0
    moving: Move | None = None
    proof: bytes = b""
    stale: bool = False


ROWS: tuple[type, ...] = (PoolRow, HostRow, GroupRow, InstanceRow, LostCopyRow)
