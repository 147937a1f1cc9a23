"""What neighbours tell each other at each tick, decided purely. Upwards: cell records, our own and what is news from
below. Downwards: who is above, and a checksum of what we know of the child's subtree.

A relayed cell record is believed because its own cell signed it, never because a neighbour says so; a parent's word
about who is above is only used to find ways, and one that names ourselves shows a cycle: then the edge is cut.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from cells.errors import BadInput
from cells.messages import HelloDown, HelloUp, SignedCellRecord
from cells.model import CellRecord, CellState
from cells.names import CellName, Id, Instant
from cells.record import MAX_HOPS
from cells.rows import EdgeRow
from routing.roster import Age, Entry, Roster

HELLO_BYTES = 200 * 1024
"""The most of cell records in one hello: it travels in one bundle of at most 256 KiB."""

MISMATCHES = 2
"""How many hellos of a parent must differ from what we have, one after another, before everything is sent again. One
may differ because both were on their way."""

CYCLE = "cycle: "
_MOST_ABOVE = 10_000
_FRAME = 64
_UNKNOWN_UUIDS = (b"", bytes(16))

Verify = Callable[[SignedCellRecord], CellRecord]
"""The record a cell signed; BadInput when it did not (cells.identity.Trust.cell_record)."""


def is_spoken_to(edge: EdgeRow) -> bool:
    """Whether anything is told over an edge."""
    return not edge.refused and edge.state is not CellState.DISABLED


@dataclass(slots=True, kw_only=True)
class EdgeMemory:
    """What was sent to one parent: the generation of each cell's record, and how many of its hellos in a row showed
    that it has something else. Memory of the daemon that ticks; another one that takes over sends everything once."""

    sent: dict[CellName, Age] = field(default_factory=dict)
    mismatches: int = 0

    def forget(self) -> None:
        """Everything is news again."""
        self.sent.clear()
        self.mismatches = 0

    def news(self, roster: Roster, names: Collection[CellName]) -> list[Entry]:
        """Those of the named cells whose records are newer than what was sent, by name."""
        return [
            entry
            for name in sorted(names)
            if (entry := roster.get(name)) is not None and (name not in self.sent or self.sent[name] < entry.age)
        ]

    def note_sent(self, entries: Iterable[Entry]) -> None:
        self.sent.update((entry.name, entry.age) for entry in entries)

    def compare(self, known: int, ours: int) -> bool:
        """Take in a parent's checksum. True when it has differed often enough: everything is news again."""
        if known == ours or not self.sent:
            self.mismatches = 0
            return False
        self.mismatches += 1
        if self.mismatches < MISMATCHES:
            return False
        self.forget()
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a hello changes: the edge, entries to merge, and remarks for the log. No edge: nothing is to be changed."""

    edge: EdgeRow | None = None
    entries: tuple[Entry, ...] = ()
    notes: tuple[str, ...] = ()


def hear_up(
    edge: EdgeRow | None,
    sender: CellName,
    hello: HelloUp,
    *,
    here: CellName,
    above: Collection[CellName],
    roster: Roster,
    verify: Verify,
    now: Instant,
) -> Heard:
    """A child's hello. One bad cell record does not spoil the rest."""
    if edge is None or edge.parent:
        return Heard(
            notes=(f"hello from {sender}, which is not a child of {here}: register the edge, or detach it there",)
        )
    entries: dict[CellName, Entry] = {}
    notes: list[str] = []
    for signed in hello.records:
        try:
            record = verify(signed)
        except BadInput as error:
            notes.append(f"cell record relayed by {sender} refused: {error}")
            continue
        held = roster.get(record.name) or entries.get(record.name)
        if reason := _why_not(record, edge, held, here, above):
            notes.append(f"cell record of {record.name} relayed by {sender} refused: {reason}")
            continue
        entry = Entry(record=record, signed=signed, arrived=now)
        earlier = entries.get(record.name)
        entries[record.name] = entry if earlier is None else earlier.newer(entry)
    own = entries.get(edge.neighbour)
    uuid = own.record.uuid if own is not None and edge.uuid in _UNKNOWN_UUIDS else edge.uuid
    changed = replace(edge, heard=now, uuid=uuid, answered=_answered(edge, hello))
    return Heard(edge=changed, entries=tuple(entries.values()), notes=tuple(notes))


def _answered(edge: EdgeRow, hello: HelloUp | HelloDown) -> Id:
    return hello.answers if len(hello.answers) == len(edge.answered) else edge.answered


def _why_not(record: CellRecord, edge: EdgeRow, held: Entry | None, here: CellName, above: Collection[CellName]) -> str:
    if record.name == here or record.name in above:
        return f"it is {'this cell itself' if record.name == here else 'above this cell'}; the tree has a cycle"
    if held is not None and held.record.uuid > record.uuid:
        return "the name belongs to another cell now, which was registered later; stop the daemons of this one"
    if record.name == edge.neighbour and edge.uuid not in (*_UNKNOWN_UUIDS, record.uuid):
        return "the edge was registered for another cell of this name; detach it and register it again"
    return ""


def hear_down(edge: EdgeRow | None, sender: CellName, hello: HelloDown, *, here: CellName, now: Instant) -> Heard:
    """A parent's hello. The edge is cut while we are among the cells above the parent, and healed when we no longer
    are."""
    if edge is None or not edge.parent:
        return Heard(
            notes=(f"hello from {sender}, which is not a parent of {here}: register the edge, or detach it there",)
        )
    nearest: dict[CellName, tuple[int, bool]] = {}
    for cell in hello.above[:_MOST_ABOVE]:
        if 0 <= cell.hops < MAX_HOPS and cell.hops < nearest.get(cell.name, (MAX_HOPS, False))[0]:
            nearest[cell.name] = (cell.hops, cell.api)
    refused = edge.refused
    notes: tuple[str, ...] = ()
    if here in nearest:
        refused = f"{CYCLE}{here} is itself above its parent {sender}; detach one edge of the ring"
    elif edge.refused.startswith(CYCLE):
        refused = ""
    if refused != edge.refused:
        notes = (f"edge to parent {sender} {f'cut: {refused}' if refused else 'healed: the cycle is gone'}",)
    above = tuple((name, hops, api) for name, (hops, api) in sorted(nearest.items()))
    changed = replace(edge, heard=now, above=above, refused=refused, answered=_answered(edge, hello))
    return Heard(edge=changed, notes=notes)


def word_of(signed: SignedCellRecord | None, verify: Verify) -> CellRecord | None:
    """What a cell said of itself; None where nothing was said, or its certificate counts no longer."""
    try:
        return None if signed is None else verify(signed)
    except BadInput:
        return None


def hellos_up(own: SignedCellRecord, news: Iterable[Entry], yours: SignedCellRecord | None = None) -> Iterator[HelloUp]:
    """Our own cell record and the news, in as many hellos as the size limit asks for."""
    batch, size = [own], _size(own)
    for entry in news:
        extra = _size(entry.signed)
        if size + extra > HELLO_BYTES:
            yield HelloUp(records=tuple(batch), yours=yours)
            batch, size = [], 0
        batch.append(entry.signed)
        size += extra
    yield HelloUp(records=tuple(batch), yours=yours)


def _size(signed: SignedCellRecord) -> int:
    return len(signed.certificate) + len(signed.payload) + len(signed.signature) + _FRAME


def newer_than(entries: Iterable[Entry], saved: Mapping[CellName, Age]) -> tuple[Entry, ...]:
    """The entries that the database does not have yet."""
    return tuple(entry for entry in entries if entry.name not in saved or saved[entry.name] < entry.age)
