"""Where packets leave a cell: our own records are signed and bundled here, other cells' packets are passed on.

Called by the node's loop only, and never waits. Nothing here is durable: what must not be lost is in the outbox, and
its origin sends it again until the destination has acknowledged it. A relayed packet that no next hop takes within
RELAY_LIMIT is dropped and its origin told (NotForwarded). A delivery is acknowledged to our broker when everything it
carried was passed on or dropped, so that a relay killed in between gets it again.

An edge flushes at once when nothing is on its way, and gathers while confirms are outstanding.

Which of several ways is taken: one by which something was lost, for this destination, is left aside for a while; then
comes the one by which the destination's last command came, because that one was alive; then the shortest.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from cells.codec import pack_bundle
from cells.identity import Identity
from cells.names import NEVER, SECOND, CellName, Instant
from cells.ports import Link
from cells.record import Hop, Packet

RELAY_LIMIT = 2 * SECOND
AVOID = 20 * SECOND
LED_LATELY = 2 * SECOND
PACKET_RECORDS = 64
PACKET_BYTES = 96 * 1024
BUNDLE_BYTES = 128 * 1024
MOST_ON_THE_WAY = 8
SERIALS_KEPT = 8192
_FRAME = 512


@dataclass(slots=True)
class _Own:
    """One of our records, waiting for an edge: its id, its wire form, and when it stops mattering."""

    id: bytes
    data: bytes
    deadline: Instant
    since: Instant


@dataclass(slots=True)
class _Passing:
    """Another cell's packet on its way through us. `delivery` is told when it is settled."""

    packet: Packet
    since: Instant
    delivery: "Pending"
    tried: tuple[CellName, ...] = ()


@dataclass(slots=True)
class Pending:
    """A delivery of our inbox and how many of its parts are not settled yet."""

    tag: Any
    parts: int = 0
    sealed: bool = False


@dataclass(slots=True)
class _Edge:
    """The waiting room of one link."""

    link: Link
    own: dict[CellName, list[_Own]] = field(default_factory=lambda: defaultdict(list))
    own_bytes: int = 0
    passing: list[_Passing] = field(default_factory=list)
    passing_bytes: int = 0
    on_the_way: dict[int, tuple[list[Packet], list[_Passing]]] = field(default_factory=dict)
    down_until: Instant = 0
    sent: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PumpEvents:
    """What a turn of the pump found out: records (ids) that went nowhere and should be tried again another way, packets
    dropped (packet, why) whose origin is to be told, deliveries settled (tags to acknowledge)."""

    retry: tuple[bytes, ...] = ()
    dropped: tuple[tuple[Packet, str], ...] = ()
    settled: tuple[Any, ...] = ()


class Pump:
    """Links to the neighbours and what waits for them."""

    def __init__(
        self, *, identity: Identity, next_hops: Callable[[CellName, Instant], tuple[CellName, ...]], first_serial: int
    ) -> None:
        self._identity = identity
        self._next_hops = next_hops
        self._edges: dict[CellName, _Edge] = {}
        self._doubted: dict[tuple[CellName, CellName], Instant] = {}
        self._led: dict[CellName, tuple[CellName, Instant]] = {}
        self._last: dict[CellName, CellName] = {}
        self._serial = first_serial
        self._serials: OrderedDict[int, tuple[CellName, CellName, tuple[bytes, ...]]] = OrderedDict()
        self._queued: dict[bytes, CellName] = {}
        self._ref = 0
        self._retry: list[bytes] = []
        self._dropped: list[tuple[Packet, str]] = []
        self._settled: list[Any] = []
        self.counts: dict[str, int] = defaultdict(int)

    def clock_was_put_back(self) -> None:
        """No way is left aside any longer."""
        self._doubted.clear()
        for edge in self._edges.values():
            edge.down_until = 0

    # --- edges ---

    @property
    def neighbours(self) -> frozenset[CellName]:
        return frozenset(self._edges)

    def join(self, neighbour: CellName, link: Link) -> None:
        """Use this link for the neighbour from now on."""
        self._edges[neighbour] = _Edge(link=link)

    def part(self, neighbour: CellName) -> None:
        """The edge is gone: what waited for it is tried another way."""
        edge = self._edges.pop(neighbour, None)
        if edge is None:
            return
        edge.link.close()
        self._unqueue([item for own in edge.own.values() for item in own])
        for packets, passing in edge.on_the_way.values():
            self._again(packets)
            edge.passing.extend(passing)
        for item in edge.passing:
            self._drop(item, f"the edge to {neighbour} was removed")

    def close(self) -> None:
        for edge in self._edges.values():
            edge.link.close()
        self._edges.clear()

    # --- in ---

    def lost(self, destination: CellName, hop: CellName, now: Instant) -> None:
        """What was sent there by this hop was not answered in time."""
        self._doubted[destination, hop] = now + AVOID

    def unanswered(self, destination: CellName, now: Instant) -> None:
        """Something that was sent there was not answered in time; by which hop is not known, so the last one is meant,
        unless the destination itself has used it since."""
        last, (led, at) = self._last.get(destination), self._led.get(destination, ("", 0))
        if last is not None and (last != led or at + LED_LATELY < now):
            self.lost(destination, last, now)

    def led(self, origin: CellName, neighbour: CellName, now: Instant) -> None:
        """A command has come this way: so go the answers."""
        self._led[origin] = (neighbour, now)

    def came_again(self, origin: CellName, neighbour: CellName, now: Instant) -> None:
        """Our acknowledgement is late or lost, and what it was for came by this neighbour."""
        last = self._last.get(origin, neighbour)
        if last != neighbour:
            self.lost(origin, last, now)

    def send(
        self, destination: CellName, id: bytes, data: bytes, deadline: Instant, now: Instant, *, straight: bool = False
    ) -> CellName | None:
        """Queue one of our records, or move it to a better way; the hop it leaves by, None when no way to the
        destination is known now. `straight`: by the edge to the destination or not at all."""
        hop = (
            self._choose(destination, (), now) if not straight else destination if destination in self._edges else None
        )
        if hop is None or self._queued.get(id) == hop:
            return hop
        self._withdraw(destination, id)
        edge = self._edges[hop]
        self._queued[id] = hop
        self._last[destination] = hop
        edge.own[destination].append(_Own(id=id, data=data, deadline=deadline, since=now))
        edge.own_bytes += len(data)
        return hop

    def relay(self, packet: Packet, delivery: Pending, now: Instant) -> None:
        """Pass on another cell's packet."""
        item = _Passing(packet=packet, since=now, delivery=delivery)
        delivery.parts += 1
        if packet.hops_left <= 0:
            self._drop(item, "hop limit reached")
        elif packet.deadline + RELAY_LIMIT < now:
            self._drop(item, "long past its deadline")
        else:
            trail = (*packet.trail, Hop(cell=self._identity.name, at=now))
            item.packet = replace(packet, hops_left=packet.hops_left - 1, trail=trail)
            self._forward(item, now)

    def not_forwarded(self, serial: int, now: Instant) -> tuple[bytes, ...]:
        """A relay dropped one of our packets: which records were in it; its first hop is left aside for a while."""
        known = self._serials.pop(serial, None)
        if known is None:
            return ()
        destination, hop, ids = known
        self.lost(destination, hop, now)
        return ids

    # --- out ---

    def turn(self, now: Instant) -> PumpEvents:
        """Take outcomes, flush what may leave, give up what waited too long."""
        for name, edge in list(self._edges.items()):
            if edge.on_the_way:
                self._outcomes(name, edge, now)
        for name, edge in list(self._edges.items()):
            if edge.own_bytes or edge.passing:
                self._flush(name, edge, now)
                self._give_up(name, edge, now)
        events = PumpEvents(retry=tuple(self._retry), dropped=tuple(self._dropped), settled=tuple(self._settled))
        self._retry, self._dropped, self._settled = [], [], []
        return events

    def settle(self, delivery: Pending) -> None:
        """The node is through with its own share of a delivery."""
        delivery.sealed = True
        self._check(delivery)

    @property
    def busy(self) -> bool:
        """Whether something waits that another turn could send."""
        return any(edge.own_bytes or edge.passing for edge in self._edges.values())

    # --- inside ---

    def _choose(self, destination: CellName, tried: Iterable[CellName], now: Instant) -> CellName | None:
        led, _ = self._led.get(destination, ("", 0))

        def worse(hop: CellName) -> tuple[bool, Instant, bool]:
            doubted = self._doubted.get((destination, hop), 0)
            return self._edges[hop].down_until > now, doubted if doubted > now else 0, hop != led

        hops = (hop for hop in self._next_hops(destination, now) if hop in self._edges and hop not in tried)
        return min(hops, key=worse, default=None)

    def _forward(self, item: _Passing, now: Instant) -> None:
        visited = {hop.cell for hop in item.packet.trail}
        hop = self._choose(item.packet.destination, visited | set(item.tried), now)
        if hop is None:
            reason = "no other way" if item.tried else "no way known"
            self._drop(item, f"{reason} from {self._identity.name} to {item.packet.destination}")
            return
        item.tried = (*item.tried, hop)
        edge = self._edges[hop]
        edge.passing.append(item)
        edge.passing_bytes += _size(item.packet)

    def _drop(self, item: _Passing, reason: str) -> None:
        self.counts["dropped"] += 1
        self._dropped.append((item.packet, reason))
        self._part_done(item.delivery)

    def _part_done(self, delivery: Pending) -> None:
        delivery.parts -= 1
        self._check(delivery)

    def _check(self, delivery: Pending) -> None:
        if delivery.sealed and delivery.parts == 0:
            self._settled.append(delivery.tag)

    def _outcomes(self, name: CellName, edge: _Edge, now: Instant) -> None:
        for outcome in edge.link.outcomes():
            packets, passing = edge.on_the_way.pop(outcome.ref, ([], []))
            if outcome.ok:
                edge.down_until = 0
                self.counts["confirmed"] += 1
                for item in passing:
                    self._part_done(item.delivery)
                continue
            self.counts["failed"] += 1
            edge.down_until = now + SECOND
            self._again(packets)
            for item in passing:
                self._retry_passing(name, item, outcome.reason, now)

    def _retry_passing(self, name: CellName, item: _Passing, reason: str, now: Instant) -> None:
        if item.since + RELAY_LIMIT < now:
            self._drop(item, f"{name}: {reason}")
        else:
            self._forward(item, now)

    def _again(self, packets: list[Packet]) -> None:
        for packet in packets:
            known = self._serials.pop(packet.serial, None)
            if known is not None:
                self._retry.extend(known[2])

    def _flush(self, name: CellName, edge: _Edge, now: Instant) -> None:
        while edge.own_bytes or edge.passing:
            waiting = edge.own_bytes + edge.passing_bytes
            if edge.on_the_way and (waiting < BUNDLE_BYTES or len(edge.on_the_way) >= MOST_ON_THE_WAY):
                return
            packets, passing = self._fill(name, edge, now)
            self._ref += 1
            data = pack_bundle(packets + [item.packet for item in passing])
            if not edge.link.offer(self._ref, data):
                edge.down_until = now + SECOND // 2
                self._again(packets)
                edge.passing = passing + edge.passing
                edge.passing_bytes += sum(_size(item.packet) for item in passing)
                return
            edge.sent += 1
            edge.on_the_way[self._ref] = (packets, passing)
            self.counts["bundles"] += 1
            self.counts["packets"] += len(packets) + len(passing)

    def _fill(self, name: CellName, edge: _Edge, now: Instant) -> tuple[list[Packet], list[_Passing]]:
        room = BUNDLE_BYTES
        passing: list[_Passing] = []
        while edge.passing and (room > 0 or not passing):
            size = _size(edge.passing[0].packet)
            if passing and size > room:
                break
            passing.append(edge.passing.pop(0))
            edge.passing_bytes -= size
            room -= size
        packets: list[Packet] = []
        for destination in list(edge.own):
            while edge.own[destination] and room > 0:
                batch = _take(edge.own[destination])
                size = sum(len(item.data) for item in batch)
                edge.own_bytes -= size
                room -= size + _FRAME
                packets.append(self._sign(destination, name, batch, now))
            if not edge.own[destination]:
                del edge.own[destination]
        return packets, passing

    def _sign(self, destination: CellName, hop: CellName, batch: list[_Own], now: Instant) -> Packet:
        self._serial += 1
        deadline = max((item.deadline for item in batch), default=NEVER)
        packet = self._identity.packet(destination, self._serial, deadline, tuple(item.data for item in batch), now)
        self._serials[self._serial] = (destination, hop, tuple(item.id for item in batch))
        self._leave(batch)
        if len(self._serials) > SERIALS_KEPT:
            self._serials.popitem(last=False)
        return packet

    def _leave(self, items: list[_Own]) -> None:
        for item in items:
            self._queued.pop(item.id, None)

    def _unqueue(self, items: list[_Own]) -> None:
        self._leave(items)
        self._retry.extend(item.id for item in items)

    def _withdraw(self, destination: CellName, id: bytes) -> None:
        """What waits for an edge shall go by another."""
        hop = self._queued.pop(id, None)
        if hop is None:
            return
        edge = self._edges[hop]
        kept = [item for item in edge.own[destination] if item.id != id]
        edge.own_bytes -= sum(len(item.data) for item in edge.own[destination] if item.id == id)
        edge.own[destination] = kept
        if not kept:
            del edge.own[destination]

    def _give_up(self, name: CellName, edge: _Edge, now: Instant) -> None:
        for destination, own in list(edge.own.items()):
            if own[0].since + RELAY_LIMIT < now:
                edge.own_bytes -= sum(len(item.data) for item in own)
                del edge.own[destination]
                self._unqueue(own)
        if not edge.passing or edge.passing[0].since + RELAY_LIMIT >= now:
            return
        late = [item for item in edge.passing if item.since + RELAY_LIMIT < now]
        edge.passing = [item for item in edge.passing if item.since + RELAY_LIMIT >= now]
        edge.passing_bytes = sum(_size(item.packet) for item in edge.passing)
        for item in late:
            self._drop(item, f"{name} took nothing for {RELAY_LIMIT // SECOND} s")


def _size(packet: Packet) -> int:
    return sum(len(record) for record in packet.records) + _FRAME


def _take(waiting: list[_Own]) -> list[_Own]:
    size = 0
    taken = 0
    for item in waiting[:PACKET_RECORDS]:
        size += len(item.data)
        if taken and size > PACKET_BYTES:
            break
        taken += 1
    batch = waiting[:taken]
    del waiting[:taken]
    return batch
