"""The cell a decision is made in, and how the last steps of every change to a server's row are taken. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from api_cell.rows import GoneServerRow, SecretRow, ServerRow
from api_cell.status import settle
from cells.decision import Remove, Wake
from cells.model import BuildSpec
from cells.names import NEVER, CellName, Id, Instant
from cells.ports import View
from cells.record import Received, Record
from cells.rows import StoryRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """Our name, and where new ids and draws come from. `sealed` gives a leaf's secret for an image (leaf, image,
    whether to write it); `personal` the same for reading, with a tenant's kept secrets in it; `lends_images` tells
    whether there are such secrets now; if not, they will be soon, unless `images_refused` says why not. `prove` signs
    that this attempt was asked of this leaf, `proved` tells whether we did. `attempt_time`
    (seconds): how long a leaf has to answer an offer; `command_time`: how long it has to take up any other command."""

    name: CellName
    new_id: Callable[[], bytes]
    draw: Callable[[], float]
    sealed: Callable[[CellName, str, bool], bytes]
    personal: Callable[[CellName, str, bytes], bytes]
    prove: Callable[[Id, int, CellName, BuildSpec], bytes]
    proved: Callable[[Id, int, CellName, BuildSpec, bytes], bool]
    lends_images: Callable[[], bool] = lambda: True
    images_refused: Callable[[], str] = lambda: ""
    attempt_time: int = 60
    command_time: int = 3600

    def record(
        self,
        destination: CellName,
        body: Any,
        row: ServerRow,
        *,
        number: int = 0,
        deadline: Instant = NEVER,
        asked: Received | None = None,
    ) -> Record:
        """A record about this server, under the request that asked for it (else the one that made the server)."""
        return Record(
            id=self.new_id(),
            body=body,
            origin=self.name,
            destination=destination,
            server=row.id,
            number=number,
            deadline=deadline,
            request=asked.record.request if asked is not None else row.request,
        )

    def wake(self, due: Instant, body: Any, row: ServerRow, asked: Received | None = None) -> Wake:
        return Wake(due=due, record=self.record(self.name, body, row, asked=asked))

    def story(
        self, row: ServerRow, now: Instant, event: str, text: str = "", received: Received | None = None, **more: Any
    ) -> StoryRow:
        """One line of the server's story, with the way of the message that told it."""
        trail = tuple((hop.cell, hop.at) for hop in received.trail) if received is not None else ()
        request = (received.record.request if received is not None else "") or row.request
        return StoryRow(
            id=self.new_id(),
            server=row.id,
            request=request,
            at=now,
            cell=received.record.origin if received is not None else self.name,
            event=event,
            text=text,
            trail=more.pop("trail", trail),
            detail=more or None,
        )


def saved(row: ServerRow, now: Instant, *, silent: bool = False) -> ServerRow:
    """The row as it goes into the database: derived columns true, `updated` never back."""
    return settle(replace(row, updated=max(row.updated, now)), silent=silent)


def forgotten(row: ServerRow) -> tuple[ServerRow, tuple[Remove, ...]]:
    """The row without its tenant's secrets, which have served; and what to save with it."""
    if not row.secret:
        return row, ()
    return replace(row, secret=False), (Remove(row=SecretRow, key=(row.id,)),)


def is_gone(view: View, server: Id) -> GoneServerRow | None:
    return view.get(GoneServerRow, server)
