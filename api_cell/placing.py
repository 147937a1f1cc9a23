"""How a server finds its leaf: offer, accept or refuse, grant. One grant a server, ever, unless its leaf itself says
that it takes no part: so at most one VM of a build is started, however often anything is sent.

    PLACING --choose--> OFFERED --Accepted--> GRANTED
       ^                   | Refused, no answer in time: one more leaf in `tried`
       +-------------------+          no leaf is left: FAILED, with every leaf's reason
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from api_cell.here import Here, forgotten, saved
from api_cell.rows import BUILD_NUMBER, Phase, SecretRow, ServerRow, Tried
from cells import codec
from cells.decision import NOTHING, Decision
from cells.errors import BadInput
from cells.messages import Accepted, AttemptDue, BuildServer, Discard, Grant, Intent, Refused
from cells.model import BuildSpec, Generation
from cells.names import SECOND, CellName, Instant, id_from_text
from cells.ports import View
from cells.record import Received
from routing.demand import demand_of
from routing.place import Explanation, NoRoom, choose
from routing.reservations import Reservation, Reservations
from routing.roster import Roster
from routing.weights import PlacementSettings

MOST_NAMED = 20

WAIT = SECOND

if TYPE_CHECKING:
    from routing.candidates import Candidates


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """What placing looks at: the leaves, what is promised already, how to weigh."""

    roster: Roster
    candidates: "Candidates"
    reservations: Reservations
    settings: PlacementSettings


def place(here: Here, market: Market, view: View, row: ServerRow, now: Instant) -> Decision:
    """Offer the server to the best leaf that has not been asked yet; FAILED when there is none."""
    if row.phase is not Phase.PLACING:
        return NOTHING
    if row.deadline < now:
        return failed(here, row, "the build's deadline passed before a leaf took it", now)
    if not here.lends_images():
        if refused := here.images_refused():
            return failed(here, row, refused, now)
        again = here.wake(now + WAIT, Intent(action="place", number=BUILD_NUMBER), row)
        return Decision(wake=(again,), notes=("waits for a token for its image",))
    tried = frozenset(each.leaf for each in row.tried)
    try:
        choice = choose(
            row.spec,
            market.candidates,
            market.reservations,
            market.settings,
            draw=here.draw(),
            now=now,
            tried=tried,
            near=_leaves_of(view, row.spec, "near"),
            far=_leaves_of(view, row.spec, "far"),
        )
    except BadInput as error:
        return failed(here, row, str(error), now, code=400)
    if isinstance(choice, NoRoom):
        if choice.may_pass and now < row.created + here.attempt_time * SECOND:
            return _wait(here, row, choice, now)
        return failed(here, row, _no_room(row, choice), now, explanation=choice.explanation)
    attempt = row.attempt + 1
    deadline = min(row.deadline, now + here.attempt_time * SECOND)
    offered = replace(row, phase=Phase.OFFERED, attempt=attempt, leaf=choice.leaf, version=0, state=None)
    market.reservations.reserve(
        Reservation(
            server=row.id,
            attempt=attempt,
            leaf=choice.leaf,
            room=choice.demand.room,
            expires=deadline + here.attempt_time * SECOND,
        )
    )
    secret = view.get(SecretRow, row.id) if row.secret else None
    sealed = here.personal(choice.leaf, row.spec.image.id, b"" if secret is None else secret.box)
    proof = here.prove(row.id, attempt, choice.leaf, row.spec)
    build = BuildServer(attempt=attempt, spec=replace(row.spec, sealed=sealed), proof=proof)
    explanation = codec.plain(choice.explanation.shortened())
    story = here.story(row, now, "placed", f"attempt {attempt}: offered to {choice.leaf}", explanation=explanation)
    look = min(deadline, now + market.settings.mute_after)
    due = here.wake(look, AttemptDue(attempt=attempt, until=deadline), row)
    return Decision(
        save=(saved(offered, now), story),
        send=(here.record(choice.leaf, build, row, number=BUILD_NUMBER, deadline=deadline),),
        wake=(due,),
        notes=(f"attempt {attempt}: offered to {choice.leaf}",),
    )


def _leaves_of(view: View, spec: BuildSpec, hint: str) -> frozenset[CellName] | None:
    """The leaves of the servers a hint names (uuids, separated by commas), None when it is absent. One that has no
    leaf yet, or is gone, bounds nothing."""
    text = spec.hints.get(hint)
    if text is None:
        return None
    ids = [(id_from_text(each.strip(), f"hint {hint}"),) for each in text.split(",")]
    leaves = frozenset(row.leaf for row in view.get_many(ServerRow, ids).values() if row.leaf)
    return leaves or None


def _wait(here: Here, row: ServerRow, none: NoRoom, now: Instant) -> Decision:
    """Leaves that are out of reach may be back soon: the server stays in BUILD and is placed again."""
    again = here.wake(now + WAIT, Intent(action="place", number=BUILD_NUMBER), row)
    return Decision(save=(saved(row, now),), wake=(again,), notes=(f"waits for a leaf: {none.summary()}",))


def _no_room(row: ServerRow, none: NoRoom) -> str:
    """What the leaves that were asked said, and why the others were not asked."""
    said = [f"{tried.leaf}: {tried.reason}" for tried in row.tried]
    asked = {tried.leaf for tried in row.tried}
    others = [f"{leaf}: {reason}" for leaf, reason in none.reasons.items() if leaf not in asked]
    if len(others) > MOST_NAMED or not (said or others):
        others = [none.summary()]
    return f"No valid host was found. {'; '.join([*said, *others])}"


def failed(
    here: Here, row: ServerRow, reason: str, now: Instant, code: int = 500, explanation: Explanation | None = None
) -> Decision:
    """No leaf takes the server: ERROR, with the reasons."""
    lost = replace(
        row,
        phase=Phase.FAILED,
        leaf="",
        intents=(),
        finished=row.number,
        fault_code=code,
        fault=reason,
        fault_at=now,
    )
    detail = {} if explanation is None else {"explanation": codec.plain(explanation.shortened())}
    lost, secret = forgotten(lost)
    return Decision(save=(saved(lost, now), here.story(row, now, "failed", reason, **detail), *secret), notes=(reason,))


def accepted(here: Here, market: Market, view: View, received: Received, body: Accepted, now: Instant) -> Decision:
    """Grant the attempt that is wanted; discard any other."""
    row = view.get(ServerRow, received.record.server)
    leaf = received.record.origin
    if row is None or row.leaf != leaf or row.attempt != body.attempt:
        return _discard(here, received, body.attempt)
    if row.phase is not Phase.OFFERED:
        return NOTHING
    generation = Generation(epoch=body.epoch, sequence=body.sequence)
    entry = market.roster.get(leaf)
    known = entry.record.generation if entry is not None else None
    market.reservations.settle(row.id, body.attempt, generation, known)
    granted = replace(row, phase=Phase.GRANTED, heard=now)
    came = here.story(row, now, "accepted", f"host {body.host}", received, down=[list(hop) for hop in body.trail])
    return Decision(
        save=(saved(granted, now), came),
        send=(here.record(leaf, Grant(attempt=body.attempt), row, number=BUILD_NUMBER),),
        notes=(f"accepted by {leaf}, granted",),
    )


def _discard(here: Here, received: Received, attempt: int) -> Decision:
    record = replace(
        received.record,
        id=here.new_id(),
        body=Discard(attempt=attempt),
        origin=here.name,
        destination=received.record.origin,
        number=0,
    )
    return Decision(send=(record,), notes=(f"attempt {attempt} is not wanted any more, discarded",))


def refused(here: Here, market: Market, view: View, received: Received, body: Refused, now: Instant) -> Decision:
    """Try the next leaf. A leaf that refuses after the grant has started nothing and never will."""
    row = view.get(ServerRow, received.record.server)
    if row is None or row.leaf != received.record.origin or row.attempt != body.attempt:
        return NOTHING
    if row.phase not in (Phase.OFFERED, Phase.GRANTED):
        return NOTHING
    story = here.story(row, now, "refused", body.reason, received, down=[list(hop) for hop in body.trail])
    return Decision(save=(story,)) + _next(here, market, view, row, body.code, body.reason, now)


def attempt_due(here: Here, market: Market, view: View, received: Received, body: AttemptDue, now: Instant) -> Decision:
    """The leaf had its time to answer the offer, or has itself fallen silent meanwhile."""
    row = view.get(ServerRow, received.record.server)
    if row is None or row.attempt != body.attempt or row.phase is not Phase.OFFERED:
        return NOTHING
    entry = market.roster.get(row.leaf)
    if now < body.until and entry is not None and entry.is_fresh(now, market.settings.mute_after):
        return Decision(wake=(here.wake(min(body.until, now + market.settings.mute_after), body, row),))
    return _next(here, market, view, row, "no_answer", "did not answer in time", now)


def _next(here: Here, market: Market, view: View, row: ServerRow, code: str, reason: str, now: Instant) -> Decision:
    market.reservations.release(row.id, row.attempt)
    tried = (*row.tried, Tried(leaf=row.leaf, code=code, reason=reason))
    again = replace(row, phase=Phase.PLACING, leaf="", tried=tried, state=None, version=0)
    return place(here, market, view, again, now)


def reservation_of(here: Here, row: ServerRow) -> Reservation:
    """The room an open offer holds, for filling the reservations after a start."""
    return Reservation(
        server=row.id,
        attempt=row.attempt,
        leaf=row.leaf,
        room=demand_of(row.spec).room,
        expires=row.updated + 2 * here.attempt_time * SECOND,
    )
