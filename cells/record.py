"""Records and the packets they travel in.

A record is one command, reply, report or acknowledgement. A packet is some records of one origin for one destination,
signed together once; relays pass packets on whole and touch only the mutable header (hops left, trail). A bundle is
one AMQP message: some packets for the same next hop.
"""

from dataclasses import dataclass
from typing import Any

from cells.messages import Kind, kind_of
from cells.names import NEVER, CellName, Id, Instant

NO_SERVER = bytes(16)
MAX_BUNDLE = 256 * 1024
MAX_HOPS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record. `body` is an instance of a registered kind. `number` orders an owner's commands to one server (0:
    no order asked). `deadline`: after it the record has no effect; that is reported, not silent."""

    id: Id
    body: Any
    origin: CellName
    destination: CellName
    server: Id = NO_SERVER
    number: int = 0
    deadline: Instant = NEVER
    request: str = ""

    @property
    def kind(self) -> Kind:
        return kind_of(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """A cell a packet has been through, and when that cell took it in."""

    cell: CellName
    at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """What travels. `records` are the wire forms of the records, in the signed part with origin and destination;
    `certificate` proves the origin's key. `serial` is the origin's own number for it, for NotForwarded."""

    origin: CellName
    destination: CellName
    serial: int
    deadline: Instant
    records: tuple[bytes, ...]
    signature: bytes
    certificate: bytes
    hops_left: int = MAX_HOPS
    trail: tuple[Hop, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A record at its destination, its signature checked: what a role decides on. `neighbour` is the cell it came in
    from, empty for a record of our own."""

    record: Record
    trail: tuple[Hop, ...] = ()
    neighbour: CellName = ""
