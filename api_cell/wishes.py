"""A tenant's wishes on their way down: each becomes one numbered command to the leaf that holds the server. Pure."""

from dataclasses import replace

from api_cell import unfilled
from api_cell.ending import gone
from api_cell.here import Here, saved
from api_cell.mirror import as_before_rebuild
from api_cell.placing import Market, place
from api_cell.rows import Phase, ServerRow
from cells import codec
from cells.decision import NOTHING, Decision
from cells.messages import (
    REGISTRY,
    Ask,
    DeleteServer,
    EvacuateServer,
    Expired,
    Intent,
    RebuildServer,
    RescueServer,
    SetPassword,
    SnapshotServer,
)
from cells.names import NEVER, SECOND, Instant
from cells.ports import View
from cells.record import Received

ANSWER_TIME = 10 * SECOND
_WITH_IMAGE = (SnapshotServer, RebuildServer, RescueServer, EvacuateServer)


def take(here: Here, market: Market, view: View, received: Received, body: Intent, now: Instant) -> Decision:
    """What the front door has saved as due at once."""
    row = view.get(ServerRow, received.record.server)
    if row is None:
        return NOTHING
    if body.action == "place":
        return place(here, market, view, row, now)
    command = codec.unpack(REGISTRY[body.action].body, body.body)
    if isinstance(command, Ask):
        return _ask(here, row, received, command, now)
    if isinstance(command, DeleteServer):
        return _delete(here, market, view, row, received, body, command, now)
    if all(wish.number != body.number for wish in row.intents):
        return NOTHING  # it was wished again for a leaf that had lost it, and is over meanwhile
    if row.phase in (Phase.PLACING, Phase.OFFERED):
        return Decision(wake=(here.wake(now + SECOND // 2, body, row, received),))
    if row.phase is not Phase.GRANTED:
        return _not_now(here, row, body.number, "the server is not held by any leaf", now)
    if any(wish.number < body.number and wish.action != "place" for wish in row.intents):
        # One command of a server is on its way at a time: two could change places there, and the later one would win.
        return Decision(wake=(here.wake(now + SECOND // 2, body, row, received),))
    if isinstance(command, _WITH_IMAGE) and not here.lends_images():
        return _wait_for_token(here, row, received, body, now)
    if isinstance(command, SnapshotServer):
        command = replace(command, sealed=here.sealed(row.leaf, command.image.id, True))
    elif isinstance(command, RebuildServer | RescueServer):
        sealed = here.personal(row.leaf, command.image.id, command.sealed)
        if command.sealed and not sealed:
            return _not_now(here, row, body.number, f"{row.leaf} is out of reach", now)
        command = replace(command, sealed=sealed)
    elif isinstance(command, EvacuateServer):
        command = replace(command, sealed=here.sealed(row.leaf, row.spec.image.id, False))
    elif isinstance(command, SetPassword):
        sealed = here.personal(row.leaf, "", command.sealed)
        if not sealed:
            return _not_now(here, row, body.number, f"{row.leaf} is out of reach", now)
        command = SetPassword(sealed=sealed)
    record = here.record(
        row.leaf, command, row, number=body.number, deadline=now + here.command_time * SECOND, asked=received
    )
    return Decision(send=(record,), notes=(f"{body.action} {body.number} to {row.leaf}",))


def _wait_for_token(here: Here, row: ServerRow, received: Received, body: Intent, now: Instant) -> Decision:
    if refused := here.images_refused():
        return _not_now(here, row, body.number, refused, now)
    wished = min(wish.at for wish in row.intents if wish.number == body.number)
    if now > wished + here.command_time * SECOND:
        return _not_now(here, row, body.number, "there is no token for the image service: Keystone gives none", now)
    wake = here.wake(now + SECOND // 2, body, row, received)
    return Decision(wake=(wake,), notes=(f"{body.action} waits for a token for its image",))


def _ask(here: Here, row: ServerRow, received: Received, command: Ask, now: Instant) -> Decision:
    if row.phase is not Phase.GRANTED:
        return NOTHING  # who waits for the answer is told when his time is over
    record = here.record(row.leaf, command, row, deadline=now + ANSWER_TIME, asked=received)
    return Decision(send=(record,), notes=(f"asks {row.leaf}",))


def _delete(
    here: Here,
    market: Market,
    view: View,
    row: ServerRow,
    received: Received,
    body: Intent,
    command: DeleteServer,
    now: Instant,
) -> Decision:
    market.reservations.release(row.id, row.attempt)
    if not row.leaf:
        return gone(here, view, row, now)
    record = here.record(row.leaf, command, row, number=body.number, deadline=NEVER, asked=received)
    return Decision(send=(record,), notes=(f"delete to {row.leaf}",))


def expired(here: Here, market: Market, view: View, received: Received, body: Expired, now: Instant) -> Decision:
    """A command was not taken up before its deadline: the wish is over, and the server says so."""
    row = view.get(ServerRow, body.server)
    if row is None:
        return NOTHING
    # An offer is no wish of a tenant: its own wake, AttemptDue, looks after it.
    if all((wish.action, wish.number) != (body.kind, body.number) for wish in row.intents):
        return NOTHING
    reason = f"{body.destination} did not take it up before its deadline"
    return _not_now(here, row, body.number, reason, now)


def _not_now(here: Here, row: ServerRow, number: int, reason: str, now: Instant) -> Decision:
    wish = next((wish for wish in row.intents if wish.number == number), None)
    if wish is None:
        return NOTHING
    after = _without(row, number)
    story = here.story(row, now, "command failed", f"{wish.action}: {reason}")
    decision = Decision(save=(saved(after, now), story), notes=(f"{wish.action} failed: {reason}",))
    return decision + unfilled.given_up(here, row, wish)


def _without(row: ServerRow, number: int) -> ServerRow:
    left = tuple(wish for wish in row.intents if wish.number != number)
    after = replace(row, finished=max(row.finished, number), intents=left)
    rebuild = next((wish for wish in row.intents if wish.number == number and wish.action == "server.rebuild"), None)
    return after if rebuild is None else as_before_rebuild(after)
