"""What a project's servers took in a time, from the records of this cell: each counts from its creation to its
deletion, by the flavor it has (or had last). One that never ran counts nothing; deleted ones are known for 30 days."""

from collections.abc import Iterable
from dataclasses import dataclass

from api_cell.rows import GoneServerRow, ServerRow
from api_cell.service.api import Api
from api_cell.status import flavor_of
from cells.model import Flavor
from cells.names import SECOND, Id, Instant
from cells.ports import After, Unit, Where


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """From `start` to `end`; what is still to come of it counts nothing yet."""

    start: Instant
    end: Instant
    now: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerUsage:
    """A server's part of a period. `ended`: when it was deleted, 0 while it lives."""

    id: Id
    project: str
    name: str
    status: str
    flavor: Flavor
    started: Instant
    ended: Instant
    hours: float
    uptime: int


def page(
    api: Api, project: str | None, period: Period, after: Id | None, limit: int
) -> tuple[tuple[ServerUsage, ...], Id | None]:
    """The next servers in the order of their ids (of all projects: None), and where to go on, if there may be more."""

    def act(unit: Unit) -> list[tuple[ServerRow, Instant]]:
        mine = [] if project is None else [Where(column="project", op="=", value=project)]
        since = None if after is None else After(values=(after,))
        deleted = Where(column="updated", op=">=", value=period.start)
        living = unit.find(ServerRow, *mine, order=("id",), after=since, limit=limit)
        gone = unit.find(GoneServerRow, *mine, deleted, order=("id",), after=since, limit=limit)
        found = [(row, 0) for row in living] + [(row.server, row.updated) for row in gone]
        return sorted(found, key=lambda each: each[0].id)[:limit]

    found = api.read(act)
    usages = (_usage(row, ended, period) for row, ended in found)
    return tuple(usage for usage in usages if usage is not None), found[-1][0].id if len(found) == limit else None


def every(api: Api, project: str | None, period: Period, at_once: int) -> Iterable[ServerUsage]:
    """All servers, as many at once as a page holds."""
    after: Id | None = None
    while True:
        usages, after = page(api, project, period, after, at_once)
        yield from usages
        if after is None:
            return


def _usage(row: ServerRow, ended: Instant, period: Period) -> ServerUsage | None:
    if row.state is None or not row.state.launched_at:
        return None
    last = ended or period.now
    took = min(last, period.end, period.now) - max(row.created, period.start)
    if took <= 0:
        return None
    return ServerUsage(
        id=row.id,
        project=row.project,
        name=row.name,
        status=row.status,
        flavor=flavor_of(row),
        started=row.created,
        ended=ended,
        hours=took / (3600 * SECOND),
        uptime=(last - row.created) // SECOND,
    )
