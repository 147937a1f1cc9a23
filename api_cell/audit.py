"""What an API cell says when it is audited: its servers as tenants see them, its usage, the capacity it knows of."""

from collections import defaultdict

from api_cell import quota
from api_cell.rows import GoneServerRow, Phase, ServerRow, UsageRow
from cells.audit import NO_ROOM, Audit, Room, ServerFact, Standing, UsageFact, capacity_fact
from cells.names import CellName
from cells.ports import View
from routing.roster import Roster


def audit(name: CellName, roster: Roster, view: View) -> Audit:
    """Everything at once."""
    rows = view.find(ServerRow)
    return Audit(
        cell=name,
        owned=tuple(_fact(name, row) for row in rows),
        gone=frozenset(row.id for row in view.find(GoneServerRow)),
        capacity=tuple(
            capacity_fact(leaf, entry.record.capacity)
            for leaf, entry in sorted(roster.items())
            if entry.record.capacity is not None
        ),
        usage=_usage(view, rows),
    )


def _fact(name: CellName, row: ServerRow) -> ServerFact:
    fault = row.fault or (row.state.fault.message if row.state is not None and row.state.fault is not None else "")
    return ServerFact(
        server=row.id,
        owner=name,
        leaf=row.leaf,
        name=row.name,
        project=row.project,
        attempt=row.attempt,
        standing=_standing(row),
        phase=row.phase,
        status=row.status,
        version=row.version,
        state=row.state,
        number=row.finished,
        open=tuple(wish.number for wish in row.intents),
        fault=fault,
        updated=row.updated,
    )


def _standing(row: ServerRow) -> Standing:
    if row.phase is Phase.FAILED:
        return Standing.FAILED
    if row.phase is not Phase.GRANTED or row.state is None:
        return Standing.PENDING
    if row.status == "ERROR" and not row.state.launched_at:
        return Standing.FAILED
    return Standing.HELD if row.state.launched_at else Standing.PENDING


def _usage(view: View, rows: tuple[ServerRow, ...]) -> tuple[UsageFact, ...]:
    counted: dict[str, Room] = defaultdict(lambda: NO_ROOM)
    for row in rows:
        held, sofar = quota.held(row), counted[row.project]
        counted[row.project] = (sofar[0] + held.servers, sofar[1] + held.vcpus, sofar[2] + held.ram_mib)
    kept = {row.project: (row.servers, row.vcpus, row.ram_mib) for row in view.find(UsageRow)}
    return tuple(
        UsageFact(project=project, kept=kept.get(project, NO_ROOM), counted=counted[project])
        for project in sorted(kept.keys() | counted.keys())
    )
