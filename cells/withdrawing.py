"""How cells learn which certificates count no longer: the list that the root has signed goes from neighbour to
neighbour. Each tick a cell that has one tells its neighbours the list's number; whoever knows an older one says so, and
is sent the list. So it reaches every cell that still has an edge, also one whose database no administrator can reach.
"""

from collections.abc import Callable

from cells.decision import NOTHING, Decision
from cells.errors import BadInput
from cells.identity import Identity, Withdrawn
from cells.messages import CertificatesWithdrawn
from cells.names import SECOND, CellName, Id, Instant
from cells.ports import View
from cells.record import Record
from cells.rows import SettingRow

WITHDRAWN = "withdrawn"
"""The setting that holds the list, in hexadecimal."""
_LIFE = 60 * SECOND


def load(view: View, identity: Identity) -> None:
    """Believe the list in the cell's own database, if it has one."""
    row = view.get(SettingRow, WITHDRAWN)
    if row is not None:
        identity.trust.take_withdrawn(identity.trust.read_withdrawn(bytes.fromhex(row.value)))


def tell(identity: Identity, neighbour: CellName, new_id: Callable[[], Id], now: Instant) -> Record | None:
    """What to tell a neighbour at a tick; nothing as long as nothing was withdrawn."""
    number = identity.trust.withdrawn.number
    return _record(identity, neighbour, CertificatesWithdrawn(number=number), new_id, now) if number else None


def decide(
    view: View, record: Record, body: CertificatesWithdrawn, identity: Identity, new_id: Callable[[], Id], now: Instant
) -> tuple[Decision, Withdrawn]:
    """What to do about a neighbour's word, and the list to believe once that is saved."""
    row = view.get(SettingRow, WITHDRAWN)
    own = bytes.fromhex(row.value) if row is not None else b""
    known = identity.trust.read_withdrawn(own) if own else Withdrawn()
    if body.signed:
        try:
            told = identity.trust.read_withdrawn(body.signed)
        except BadInput as error:
            return Decision(notes=(f"{record.origin} sends a list of withdrawn certificates: {error}",)), known
        if told.number <= known.number:
            return NOTHING, known
        save = SettingRow(name=WITHDRAWN, value=body.signed.hex())
        return Decision(save=(save,), notes=(f"certificates withdrawn: {', '.join(sorted(told.before))}",)), told
    if body.number == known.number:
        return NOTHING, known
    answer = CertificatesWithdrawn(number=known.number, signed=own if body.number < known.number else b"")
    return Decision(send=(_record(identity, record.origin, answer, new_id, now),)), known


def _record(
    identity: Identity, neighbour: CellName, body: CertificatesWithdrawn, new_id: Callable[[], Id], now: Instant
) -> Record:
    return Record(id=new_id(), body=body, origin=identity.name, destination=neighbour, deadline=now + _LIFE)
