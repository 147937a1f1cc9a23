"""What comes from the broker, before anything is decided: bundles are taken apart, packets for others set aside for the
pump, and of ours every record is looked at once, whether its sender may send it. What may not come in becomes a row to
park, with its reason. Nothing here writes.
"""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from cells import codec
from cells.callers import Callers
from cells.errors import BadInput, CelltreeError
from cells.identity import Certificate, Identity
from cells.messages import REGISTRY, Direction
from cells.names import SECOND, CellName, Instant
from cells.ports import Delivery, NewId
from cells.pump import Pending
from cells.record import MAX_BUNDLE, Packet, Received, Record
from cells.rows import JobRow, ParkedRow, WakeRow

log = logging.getLogger("celltree.node")

ROOM, ROOM_TIME = 1000, 3600 * SECOND
"""How many refused messages of one neighbour are parked within what time."""


@dataclass(slots=True)
class Item:
    """One thing to decide on, and where it came from: a delivery, a wake, or a job that ran under `epoch` of its
    shard's lease. `origin`: who is to be told that a parked record has come, empty where that is not proved."""

    received: Received | None = None
    parked: ParkedRow | None = None
    origin: CellName = ""
    wake: bytes | None = None
    job: JobRow | None = None
    epoch: int = 0
    delivery: Pending | None = None


@dataclass(slots=True)
class Opened:
    """What was in a delivery: ours to decide on, and others' to pass on."""

    items: list[Item] = field(default_factory=list)
    passing: list[Packet] = field(default_factory=list)


class Intake:
    """The door of one cell. `callers`: who may hand it messages; `look_again` brings them up to date."""

    def __init__(
        self,
        *,
        identity: Identity,
        role_name: str,
        new_id: NewId,
        callers: Callers,
        look_again: Callable[[Instant], None],
        counts: Counter[str],
    ) -> None:
        self._identity = identity
        self._name = identity.name
        self._role_name = role_name
        self._new_id = new_id
        self._callers = callers
        self._look_again = look_again
        self._counts = counts
        self._room: Counter[CellName] = Counter()
        self._room_since: Instant = 0

    def open(self, delivery: Delivery, now: Instant) -> Opened:
        """Take a bundle apart."""
        opened = Opened()
        try:
            packets = codec.unpack_bundle(delivery.data)
        except BadInput as error:
            data = delivery.data[:MAX_BUNDLE]
            opened.items += self._refused(data, str(error), delivery.user, now, self._new_id())
            return opened
        if not all(self._callers.may_bring(_brought_by(packet), delivery.user, now) for packet in packets):
            self._look_again(now)
        for packet in packets:
            if not self._callers.may_bring(_brought_by(packet), delivery.user, now):
                opened.items += self._from_stranger(packet, delivery.user, now)
            elif packet.destination == self._name:
                opened.items += self._packet(packet, now)
            else:
                opened.passing.append(packet)
        return opened

    def wake(self, row: WakeRow, now: Instant) -> Item:
        """A wake that is due: the record it holds."""
        try:
            return Item(received=Received(record=codec.unpack_record(row.data)), wake=row.id)
        except BadInput as error:
            return Item(parked=self._park(row.data, str(error), "", now, row.id), wake=row.id)

    def poison(self, item: Item, error: Exception, now: Instant) -> Item:
        """The item again, its record parked because it cannot be decided on."""
        if item.parked is not None or item.received is None:
            return replace(item, parked=None, received=None)
        record = item.received.record
        known = str(error) if isinstance(error, CelltreeError) else f"see the log of {self._name} at this time"
        reason = f"{record.kind.name} could not be decided on: {known}"
        parked = self._park(codec.pack_record(record), reason, item.received.neighbour, now, record.id)
        return replace(item, parked=parked, origin=record.origin, received=None)

    def _packet(self, packet: Packet, now: Instant) -> list[Item]:
        neighbour = _brought_by(packet)
        items: list[Item] = []
        try:
            certificate = self._identity.trust.packet(packet)
        except BadInput as error:
            # Its ids are anybody's words and not acknowledged, or a forged copy would end a true record's journey.
            for data in packet.records:
                items += self._refused(data, str(error), neighbour, now, self._new_id())
            return items
        for data in packet.records:
            try:
                record = codec.unpack_record(data)
                self._may(record, certificate)
            except BadInput as error:
                id = codec.peek(data).id or self._new_id()
                # What a later version understands is not acknowledged: its origin sends it again, until this cell has
                # been upgraded or the deadline is past, and then knows that it was not done.
                origin = "" if isinstance(error, codec.NotUnderstood) else certificate.name
                items += self._refused(data, str(error), neighbour, now, id, origin=origin)
                continue
            if record.kind.direction is Direction.BESIDE and record.origin not in self._callers:
                self._unknown(record.kind.name, record.origin)
                continue
            items.append(Item(received=Received(record=record, trail=packet.trail, neighbour=neighbour)))
        return items

    def _may(self, record: Record, certificate: Certificate) -> None:
        """Raise BadInput unless a cell so certified may send us this record."""
        kind = record.kind
        if record.origin != certificate.name or record.destination != self._name:
            raise BadInput(f"{kind.name} says it is from {record.origin} to {record.destination}: it is not")
        wrong = (
            kind.direction is Direction.LOCAL
            or (kind.direction is Direction.DOWN and certificate.role != "api")
            or (kind.direction is Direction.UP and (certificate.role == "api" or self._role_name != "api"))
        )
        if wrong:
            raise BadInput(
                f"{record.origin} ({certificate.role}) may not send {kind.name} ({kind.direction}) to {self._name}"
            )

    def _from_stranger(self, packet: Packet, user: str, now: Instant) -> list[Item]:
        """What only a neighbour may bring, and someone else did. Not acknowledged: a true origin sends it again."""
        neighbour = _brought_by(packet)
        reason = f"brought in the name of {neighbour!r} by the broker user {user!r}, who is not this neighbour of ours"
        items: list[Item] = []
        for data in packet.records:
            kind = REGISTRY.get(codec.peek(data).kind)
            if kind is not None and kind.direction is Direction.BESIDE:
                self._unknown(kind.name, packet.origin)
            else:
                items += self._refused(data, reason, user or neighbour, now, self._new_id())
        return items

    def _unknown(self, kind: str, origin: CellName) -> None:
        # An edge is made, and taken away, at one end before the other: nothing an operator should look into.
        self._counts["from strangers"] += 1
        log.info("%s: %s from %s, which is no neighbour (yet)", self._name, kind, origin)

    def _refused(
        self, data: bytes, reason: str, neighbour: CellName, now: Instant, id: bytes, *, origin: CellName = ""
    ) -> list[Item]:
        """A row to park, while there is room for more of this neighbour's: who sends nothing sound shall not fill the
        database. What finds no room is not acknowledged; what is true in it comes again."""
        self._counts["refused"] += 1
        if now - self._room_since > ROOM_TIME:
            self._room.clear()
            self._room_since = now
        self._room[neighbour] += 1
        if self._room[neighbour] > ROOM:
            self._counts["refused unseen"] += 1
            log.log(
                logging.WARNING if self._room[neighbour] == ROOM + 1 else logging.DEBUG,
                "%s: over %d messages of %s refused within an hour; more are dropped: %s",
                self._name, ROOM, neighbour or "an unknown neighbour", reason,
            )  # fmt: skip
            return []
        return [Item(parked=self._park(data, reason, neighbour, now, id), origin=origin)]

    def _park(self, data: bytes, reason: str, neighbour: CellName, now: Instant, id: bytes) -> ParkedRow:
        peek = codec.peek(data)
        log.warning("%s: parked a message from %s: %s", self._name, neighbour or "an unknown neighbour", reason)
        return ParkedRow(
            id=id,
            at=now,
            neighbour=neighbour,
            kind=peek.kind,
            server=peek.server,
            reason=reason,
            data=data,
        )


def _brought_by(packet: Packet) -> CellName:
    """The neighbour a packet says it comes from; believed only together with its broker user."""
    return packet.trail[-1].cell if packet.trail else ""
