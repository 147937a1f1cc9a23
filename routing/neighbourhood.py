"""A role's memory of the tree: its edges, the roster, and what follows from them. Both roles have one and pass it the
hellos, the ticks and the loads; everything in it can be made again from the rows, so that a daemon that has just
started, or that shares its cell with others, knows what they know.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from cells.decision import NOTHING, Decision, Remove
from cells.errors import BadInput
from cells.messages import HelloDown, HelloUp, SignedCellRecord
from cells.model import CellRecord, Generation
from cells.names import CellName, Id, Instant
from cells.ports import View
from cells.record import Received, Record
from cells.rows import EdgeRow, RosterRow
from routing.neighbours import (
    EdgeMemory,
    Heard,
    Verify,
    hear_down,
    hear_up,
    hellos_up,
    is_spoken_to,
    newer_than,
    word_of,
)
from routing.roster import Entry, Roster, checksum
from routing.topology import Topology

if TYPE_CHECKING:
    from routing.candidates import Candidates


class Neighbourhood:
    """What a cell knows of the tree around it. `api`: this cell is an API cell. `mute_after`: microseconds after which
    a silent neighbour counts as dead and a silent cell as stale; several ticks for each level of the tree."""

    def __init__(self, here: CellName, *, api: bool, mute_after: int, verify: Verify) -> None:
        self.here = here
        self.api = api
        self.mute_after = mute_after
        self.topology = Topology(here, mute_after=mute_after)
        self.roster = Roster()
        self._verify = verify
        self._own_epoch: int | None = None
        self._memory: dict[CellName, EdgeMemory] = {}
        self._shown: dict[CellName, Generation] = {}
        self._candidates: Candidates | None = None

    # --- taking in ---

    def load(self, view: View, now: Instant) -> None:
        """Take in the rows: at start, and now and then for what the cell's other daemons and its operators changed."""
        rows = {row.name: row for row in view.all(RosterRow) if row.name != self.here}
        gone = [name for name in self.roster if name not in rows]
        entries = self._read(
            row for name, row in rows.items() if (held := self.roster.get(name)) is None or held.row() != row
        )
        self.roster = self.roster.without(gone)
        self._merge(entries, gone)
        self._take_edges(view.all(EdgeRow))
        self._note_silent(now)

    def decide(self, view: View, received: Received, now: Instant) -> Decision:
        """What to do about a neighbour's hello (cell.hello_up, cell.hello_down); nothing for any other kind."""
        body = received.record.body
        sender = received.record.origin
        if not isinstance(body, HelloUp | HelloDown):
            return NOTHING
        if received.neighbour not in ("", sender):
            return Decision(notes=(f"hello from {sender} came round through {received.neighbour}: not counted",))
        edge = view.get(EdgeRow, sender)
        if isinstance(body, HelloDown):
            return self._told_down(edge, sender, body, now)
        heard = hear_up(
            edge,
            sender,
            body,
            here=self.here,
            above=self.topology.ancestors(),
            roster=self.roster,
            verify=self._verify,
            now=now,
        )
        self._shown.update((entry.name, entry.record.generation) for entry in heard.entries if entry.name == sender)
        names = [(entry.name,) for entry in heard.entries]
        saved = view.get_many(RosterRow, names) if names else {}
        news = newer_than(heard.entries, {row.name: (row.uuid, row.generation) for row in saved.values()})
        self._merge(heard.entries)
        return self._concluded(heard, tuple(entry.row() for entry in news))

    def hellos(self, own: SignedCellRecord | None, now: Instant, new_id: Callable[[], Id]) -> Decision:
        """What to tell every neighbour, at a tick or sooner, and which cells to forget. `own` is this cell's newest
        record, signed; it has a new generation at every tick, or others take this cell for stale. An API cell gives it
        to its children, who show it to it should it forget."""
        send: list[Record] = []
        if own is not None:
            self._own_epoch = self._verify(own).generation.epoch
        self._note_silent(now)
        for edge in self.topology.edges:
            bodies: Iterable[HelloUp | HelloDown] = ()
            if not is_spoken_to(edge):
                continue
            if not edge.parent:
                bodies = (self._hello_down(edge.neighbour, own, now),)
            elif own is not None:
                bodies = self._hello_up(edge, own, now)
            send.extend(self._record(edge.neighbour, body, now, new_id) for body in bodies)
        return Decision(save=self._forget_detached(now), send=tuple(send))

    def ask(self, own: SignedCellRecord, asks: bytes, now: Instant, new_id: Callable[[], Id]) -> Decision:
        """Ask those who keep what this cell has said of itself, an API cell its children and a compute cell its
        parents, for an answer at once."""
        send = []
        for edge in self.topology.edges:
            if not is_spoken_to(edge) or edge.parent is self.api:
                continue
            body: HelloUp | HelloDown
            if edge.parent:
                body = HelloUp(records=(own,), yours=self._forgotten(edge), asks=asks)
            else:
                body = replace(self._hello_down(edge.neighbour, own, now), asks=asks)
            send.append(self._record(edge.neighbour, body, now, new_id))
        return Decision(send=tuple(send))

    def answer(self, asker: CellName, hello: HelloUp | HelloDown, now: Instant, new_id: Callable[[], Id]) -> Decision:
        """The answer to a neighbour that has just started: what it once said of itself, if it says older things now."""
        edge = next((edge for edge in self.topology.edges if edge.neighbour == asker), None)
        if not hello.asks or edge is None or not is_spoken_to(edge):
            return NOTHING
        body: HelloUp | HelloDown
        if edge.parent:
            body = HelloUp(records=(), yours=self._forgotten(edge), answers=hello.asks)
        else:
            body = replace(self._hello_down(asker, None, now), answers=hello.asks)
        return Decision(send=(self._record(asker, body, now, new_id),))

    # --- asking ---

    def next_hops(self, destination: CellName, now: Instant) -> tuple[CellName, ...]:
        """The neighbours a packet for this cell may go to next, best first."""
        return self.topology.next_hops(destination, now)

    @property
    def candidates(self) -> "Candidates":
        """The leaves below, ready for routing.place.choose. Kept from the first time it is asked for."""
        if self._candidates is None:
            # Here, because a cell that never places need not hold numpy (11 MiB).
            from routing.candidates import Candidates

            self._candidates = Candidates(self.topology, self.roster)
        else:
            self._candidates.follow(self.topology, self.roster)
        return self._candidates

    def why_not_detach(self, neighbour: CellName, *, servers: int = 0) -> str:
        """Why the edge to this neighbour must stay; empty when it may go. `servers`: how many this cell itself has. No
        cell that has servers may lose its last way: downwards from here, or up to any API cell."""
        if neighbour in self.topology.children:
            blocked = self.roster.holding_servers(self.topology.cut_off_by(neighbour))
            if blocked:
                return f"{', '.join(blocked)} would be cut off with servers; move or delete them, or add another parent"
            return ""
        lost = self.topology.unreached_without(neighbour)
        if lost and (servers or self.roster.holding_servers(self.topology.below())):
            return f"no other parent leads to {', '.join(lost)}, and there are servers here; register another one first"
        return ""

    def said_before(self, hello: HelloUp | HelloDown) -> Generation | None:
        """The generation of what this cell once said of itself, where a neighbour shows it: a higher one than its own
        tells it that its database was put back to a backup. Only its own signature is believed."""
        if hello.yours is None:
            return None
        try:
            record = self._verify(hello.yours)
        except BadInput:
            return None
        return record.generation if record.name == self.here else None

    # --- within ---

    def _told_down(self, edge: EdgeRow | None, sender: CellName, hello: HelloDown, now: Instant) -> Decision:
        heard = hear_down(edge, sender, hello, here=self.here, now=now)
        if heard.edge is None:
            return Decision(notes=heard.notes)
        changed = heard.edge
        own = word_of(hello.own, self._verify)
        if own is not None and own.name == sender:
            self._shown[sender] = own.generation
            kept = word_of(changed.said, self._verify)
            if kept is None or kept.generation < own.generation:
                changed = replace(changed, said=hello.own)
        memory = self._memory.setdefault(sender, EdgeMemory())
        notes = heard.notes
        if edge is not None and now - edge.heard > self.mute_after:
            memory.forget()
        elif self._own_epoch is not None and memory.compare(hello.known, self._checksum(now)):
            notes += (f"parent {sender} lacks cells of this subtree: everything is sent again",)
        return self._concluded(Heard(edge=changed, notes=notes), ())

    def _concluded(self, heard: Heard, rows: tuple[RosterRow, ...]) -> Decision:
        if heard.edge is None:
            return Decision(notes=heard.notes)
        changed = heard.edge
        others = (edge for edge in self.topology.edges if edge.neighbour != changed.neighbour)
        self._take_edges((*others, changed))
        return Decision(save=(changed, *rows), notes=heard.notes)

    def _hello_up(self, edge: EdgeRow, own: SignedCellRecord, now: Instant) -> Iterable[HelloUp]:
        parent, yours = edge.neighbour, self._forgotten(edge)
        memory = self._memory.setdefault(parent, EdgeMemory())
        if not self.topology.is_live(parent, now):
            memory.forget()
            return hellos_up(own, (), yours)
        news = memory.news(self.roster, self.topology.below())
        memory.note_sent(news)
        return tuple(hellos_up(own, news, yours))

    def _forgotten(self, edge: EdgeRow) -> SignedCellRecord | None:
        """What a parent once said of itself, where it has said older things since."""
        said, shown = word_of(edge.said, self._verify), self._shown.get(edge.neighbour)
        return edge.said if said is not None and shown is not None and shown < said.generation else None

    def _record(self, neighbour: CellName, body: HelloUp | HelloDown, now: Instant, new_id: Callable[[], Id]) -> Record:
        deadline = now + self.mute_after
        return Record(id=new_id(), body=body, origin=self.here, destination=neighbour, deadline=deadline)

    def _hello_down(self, child: CellName, own: SignedCellRecord | None, now: Instant) -> HelloDown:
        subtree = self.topology.below(child) | {child}
        known = self.roster.checksum(subtree, now, self.mute_after)
        entry, shown = self.roster.get(child), self._shown.get(child)
        behind = entry is not None and shown is not None and shown < entry.record.generation
        return HelloDown(
            above=self.topology.above(now, api=self.api),
            known=known,
            own=own if self.api else None,
            yours=entry.signed if entry is not None and behind else None,
        )

    def _checksum(self, now: Instant) -> int:
        """What a parent should know of this subtree: this cell and the fresh ones below."""
        fresh = [
            (name, entry.record.generation.epoch)
            for name in self.topology.below()
            if (entry := self.roster.get(name)) is not None and entry.is_fresh(now, self.mute_after)
        ]
        return checksum([*fresh, (self.here, self._own_epoch or 0)])

    def _forget_detached(self, now: Instant) -> tuple[Remove, ...]:
        """Cells that no way leads to any more and that have gone silent leave the roster. One that has servers stays,
        so that they go on showing as out of reach; so does a silent cell with a way: it is dead, not detached."""
        stale = set(self.roster.stale(now, self.mute_after)) - self.topology.below()
        gone = sorted(stale - set(self.roster.holding_servers(stale)))
        if gone:
            self.roster = self.roster.without(gone)
            self._merge((), gone)
        return tuple(Remove(row=RosterRow, key=(name,)) for name in gone)

    def _merge(self, entries: Iterable[Entry], gone: Iterable[CellName] = ()) -> None:
        arrived = tuple(entries)
        self.roster = self.roster.merge(arrived)
        records: tuple[CellRecord, ...] = tuple(self.roster[entry.name].record for entry in arrived)
        self.topology = self.topology.changed(records=records, gone=gone)

    def _note_silent(self, now: Instant) -> None:
        self.topology = self.topology.changed(silent=frozenset(self.roster.stale(now, self.mute_after)))

    def _take_edges(self, edges: Iterable[EdgeRow]) -> None:
        self.topology = self.topology.changed(edges=edges)
        parents = {edge.neighbour for edge in self.topology.edges if edge.parent}
        self._memory = {name: memory for name, memory in self._memory.items() if name in parents}

    def _read(self, rows: Iterable[RosterRow]) -> list[Entry]:
        """Entries from rows. One that no longer verifies (the tree got a new root key) is left out: its cell will send
        another."""
        entries: list[Entry] = []
        for row in rows:
            signed = SignedCellRecord(certificate=row.certificate, payload=row.payload, signature=row.signature)
            try:
                entries.append(Entry(record=self._verify(signed), signed=signed, arrived=row.updated))
            except BadInput:
                continue
        return entries
