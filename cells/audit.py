"""What a cell can be asked about itself by whoever checks the promises: facts in neutral words, read from its rows.

A role gives an Audit (Role.audit); a simulated pool gives PoolFacts. The invariants (cells.simulation.invariants)
compare the two and the audits of different cells, and know no role and no host.
"""

from dataclasses import dataclass
from enum import StrEnum

from cells.model import Capacity, InstanceState
from cells.names import CellName, Id, Instant

Room = tuple[int, int, int]
"""RAM in MiB, vCPUs, disk in GiB."""
NO_ROOM: Room = (0, 0, 0)


class Standing(StrEnum):
    """How a server stands with the cell that is asked. PENDING: something is still to happen. HELD: it is there.
    FAILED: it is not there, and the tenant is told why. GONE: deleted."""

    PENDING = "pending"
    HELD = "held"
    FAILED = "failed"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFact:
    """A server as its owner or its leaf has it in its rows. `phase` and `status` in the role's own words. `number`: the
    newest command that is over; `open`: those that are not. `copies`: how many VMs it should have. `seen`: a leaf's
    owner has this version. `fault`: what the tenant is told."""

    server: Id
    owner: CellName
    leaf: CellName
    name: str
    project: str
    attempt: int
    standing: Standing
    phase: str
    status: str
    version: int
    state: InstanceState | None
    number: int
    open: tuple[int, ...] = ()
    copies: int = 1
    seen: bool = True
    fault: str = ""
    updated: Instant = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceFact:
    """A host, or a storage group that hosts share: what it has, what of that is free, and what is claimed of it."""

    name: str
    total: Room
    free: Room
    claimed: Room


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityFact:
    """What a cell knows of a leaf's capacity: all leaves below it (an API cell), or itself (a leaf)."""

    leaf: CellName
    hosts: int
    free: Room
    servers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFact:
    """A project's usage as it is kept, and as its servers add up to it: servers, vCPUs, RAM in MiB."""

    project: str
    kept: Room
    counted: Room


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Everything at once, as of one transaction. `owned`: servers asked of this cell; `held`: servers on its hosts;
    `gone`: servers it has seen the end of."""

    cell: CellName
    owned: tuple[ServerFact, ...] = ()
    held: tuple[ServerFact, ...] = ()
    gone: frozenset[Id] = frozenset()
    places: tuple[PlaceFact, ...] = ()
    capacity: tuple[CapacityFact, ...] = ()
    usage: tuple[UsageFact, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VmFact:
    """A VM of ours as it is on its pool. `kept`: the one that a resize keeps until it is confirmed or reverted.
    `disks`: the sizes in bytes of its disks."""

    server: Id
    attempt: int
    uuid: str
    kept: bool
    power: str
    ram_mib: int
    disks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFact:
    """A disk of ours that hangs on no VM of ours: what it is, and whose if that is known."""

    name: str
    server: Id | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFact:
    """An image that was made for a snapshot of a server, as the image service of the server's owner has it."""

    image: str
    server: Id
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFacts:
    """The truth of one pool."""

    vms: tuple[VmFact, ...]
    loose: tuple[DiskFact, ...]


def capacity_fact(leaf: CellName, capacity: Capacity) -> CapacityFact:
    """The sum of what a leaf says is free."""
    shapes = [shape for each in capacity.classes for shape in each.shapes]
    return CapacityFact(
        leaf=leaf,
        hosts=capacity.hosts,
        free=(
            sum(shape.ram_mib * shape.hosts for shape in shapes),
            sum(shape.vcpus * shape.hosts for shape in shapes),
            sum(shape.disk_gib * shape.hosts for shape in shapes) + sum(group.free_gib for group in capacity.groups),
        ),
        servers=capacity.servers,
    )
