"""Room that was chosen but is not yet missing from the leaf's record. Without it, every build of a burst would see the
same free leaf and go there.

A reservation begins with the choice. It ends when the leaf refuses, when its lease passes, or, once the leaf has
accepted and named the generation that counts the claim, when the roster has that generation.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from cells.model import Generation
from cells.names import CellName, Id, Instant
from routing.demand import Room


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """One server's room at one leaf. `counted_at` is the first generation of the leaf's record that counts it, None
    until the leaf has accepted."""

    server: Id
    attempt: int
    leaf: CellName
    room: Room
    expires: Instant
    counted_at: Generation | None = None


class Reservations:
    """The open reservations of one owner, in memory; after a start the role fills it again from its attempts."""

    def __init__(self, held: Iterable[Reservation] = ()) -> None:
        self._held: dict[Id, Reservation] = {}
        self._at: dict[CellName, dict[Room, int]] = {}
        self._settled: dict[CellName, set[Id]] = {}
        for reservation in held:
            self.reserve(reservation)

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, server: Id) -> bool:
        return server in self._held

    def reserve(self, reservation: Reservation) -> None:
        """Hold this room. One reservation a server: a later attempt takes the place of an earlier one, and so does the
        same attempt decided again (a unit that lost a race may choose another leaf), until its leaf has accepted."""
        held = self._held.get(reservation.server)
        if held is not None:
            if held.attempt > reservation.attempt:
                return
            if held.attempt == reservation.attempt and held.counted_at is not None:
                return
            self._drop(held)
        self._held[reservation.server] = reservation
        at = self._at.setdefault(reservation.leaf, {})
        at[reservation.room] = at.get(reservation.room, 0) + 1
        if reservation.counted_at is not None:
            self._settled.setdefault(reservation.leaf, set()).add(reservation.server)

    def settle(self, server: Id, attempt: int, counted_at: Generation, known: Generation | None = None) -> None:
        """The leaf has accepted: its record counts the claim from `counted_at` on. `known`: the generation of the
        leaf's record in the roster now."""
        held = self._held.get(server)
        if held is None or held.attempt != attempt:
            return
        settled = self._held[server] = replace(held, counted_at=counted_at)
        self._settled.setdefault(held.leaf, set()).add(server)
        if known is not None and known >= counted_at:
            self._drop(settled)

    def release(self, server: Id, attempt: int) -> None:
        """The attempt has ended without a claim: refused, expired, or the server deleted."""
        held = self._held.get(server)
        if held is not None and held.attempt == attempt:
            self._drop(held)

    def reached(self, leaf: CellName, known: Generation) -> None:
        """The roster now has this generation of the leaf's record; what it counts is reserved no longer."""
        for held in [self._held[server] for server in self._settled.get(leaf, ())]:
            if held.counted_at is not None and held.counted_at <= known:
                self._drop(held)

    def expire(self, now: Instant) -> tuple[Reservation, ...]:
        """Let go of those whose lease has passed; gives them back."""
        late = tuple(held for held in self._held.values() if held.expires <= now)
        for held in late:
            self._drop(held)
        return late

    def units_at(self, leaf: CellName, room: Room) -> int:
        """How many servers of this room the leaf's reservations may take away. Which host a reserved server will get is
        the leaf's choice, so this is the most it can be; exact when all ask the same."""
        at = self._at.get(leaf)
        if at is None:
            return 0
        return sum(count * room.units_of(taken) for taken, count in at.items())

    @property
    def leaves(self) -> frozenset[CellName]:
        """The leaves at which something is reserved."""
        return frozenset(self._at)

    def _drop(self, held: Reservation) -> None:
        del self._held[held.server]
        at = self._at[held.leaf]
        at[held.room] -= 1
        if not at[held.room]:
            del at[held.room]
        if not at:
            del self._at[held.leaf]
        settled = self._settled.get(held.leaf, set())
        settled.discard(held.server)
        if not settled:
            self._settled.pop(held.leaf, None)
