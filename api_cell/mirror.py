"""The tenant's view of what leaves report: newer versions are taken over, everything else is answered and forgotten.

A leaf is the only writer of its servers' state: a report from any other cell changes nothing, and one about a server
nobody asked us for is parked, never adopted.
"""

from dataclasses import replace

from api_cell import backups, quota, unfilled
from api_cell.ending import gone
from api_cell.here import Here, forgotten, is_gone, saved
from api_cell.restored import inquire, told, wished_again
from api_cell.rows import BUILD_NUMBER, Phase, QuestionRow, ServerRow
from cells.decision import NOTHING, Decision, Remove, Seen
from cells.digest import BUCKETS, bucket_of, buckets, checksum
from cells.messages import Agreed, Answer, Compare, DeleteServer, Digest, Discard, InstanceReport
from cells.model import VmState
from cells.names import NEVER, SECOND, Instant
from cells.ports import View, Where
from cells.record import Received, Record

MOST_COMPARED = 8
LATE = 10 * SECOND
STALE_WISH = 60 * SECOND
"""How old a wish is that is wished again when its leaf is not at it."""


def report(here: Here, view: View, received: Received, body: InstanceReport, now: Instant) -> Decision:
    """Take over a newer state, and say which version is saved."""
    record = received.record
    row = view.get(ServerRow, record.server)
    seen = Seen(destination=record.origin, server=record.server, version=body.version)
    if row is None:
        return _of_nobody(here, view, received, body, now)
    gone_there = body.state.vm_state is VmState.DELETED
    if row.leaf == record.origin and gone_there and (row.phase is Phase.DELETING or not body.attempt):
        # Whichever attempt: the delete may have come first, and then the build finds a tombstone. One of no attempt is
        # left by a delete only; if we know nothing of it, it was lost with our database.
        story = here.story(row, now, "state", _words(body), received)
        return Decision(save=(story,), seen=(seen,), notes=(_words(body),)) + gone(here, view, row, now)
    if row.phase is Phase.INQUIRING or body.attempt > row.attempt:
        return inquire(here, received)
    if row.leaf != record.origin or row.attempt != body.attempt:
        return Decision(seen=(seen,)) + _stray(here, row, received, body)
    if (body.version, body.number) <= (row.version, row.finished):
        # The number counts, too: a leaf that was put back may give a version twice, but a command only once.
        return Decision(seen=(seen,))
    if gone_there and not body.state.launched_at and body.number <= BUILD_NUMBER:
        # An attempt that the leaf itself undid: its refusal comes first, and says why, or was lost with our database.
        # Not so if a command came after its build: a delete of ours that was lost with our database.
        return inquire(here, received) if row.phase is Phase.GRANTED else Decision(seen=(seen,))
    after = replace(
        row,
        state=body.state,
        version=body.version,
        heard=now,
        number=max(row.number, body.number),
        finished=max(row.finished, body.number),
        intents=tuple(wish for wish in row.intents if wish.number > body.number),
    )
    secret: tuple[Remove, ...] = ()
    if body.state.vm_state is not VmState.BUILDING:
        after, secret = forgotten(after)
    story = here.story(after, now, "state", _words(body), received)
    decision = Decision(save=(story, *secret), seen=(seen,), notes=(_words(body),))
    if gone_there and body.number > row.finished and all(wish.number != body.number for wish in row.intents):
        return decision + gone(here, view, after, now)  # by a delete of ours that was lost with our database
    if gone_there:
        removed = Decision(save=(saved(_removed(after, now), now),))
        return decision + removed + unfilled.given_up(here, row, *after.intents)
    after = _rebuild_over(row, after, body)
    if body.failed is not None and body.failed[0] > row.finished:
        decision += _failed(here, row, body.failed, received, now)
    failed = body.failed[0] if body.failed is not None else 0
    done = [wish for wish in row.intents if wish.number <= body.number and wish.number != failed]
    decision += backups.over(here, after, done)
    if row.phase is Phase.DELETING:  # overtaken by the delete, rather than done
        decision += unfilled.given_up(here, row, *done)
    after, usage = _resize_over(view, after)
    return decision + Decision(save=(saved(after, now), *usage))


def _words(body: InstanceReport) -> str:
    state = body.state
    task = f" ({state.task_state})" if state.task_state else ""
    note = f"; {state.note}" if state.note else ""
    return f"{state.vm_state}{task} on {state.host or 'no host'}, version {body.version}{note}"


def _removed(row: ServerRow, now: Instant) -> ServerRow:
    """A running server that its leaf has deleted, and nobody asked for it."""
    return replace(
        row,
        phase=Phase.FAILED,
        leaf="",
        intents=(),
        finished=row.number,
        fault_code=500,
        fault="The server was removed from its host without being asked for.",
        fault_at=now,
    )


def _rebuild_over(row: ServerRow, after: ServerRow, body: InstanceReport) -> ServerRow:
    """A rebuild that is over, one way or the other: the server is what was asked, or what it was before."""
    wish = next((wish for wish in row.intents if wish.action == "server.rebuild"), None)
    if after.before_rebuild is None or wish is None or wish.number > body.number:
        return after
    if body.failed is not None and body.failed[0] == wish.number:
        return as_before_rebuild(after)
    return replace(after, before_rebuild=None)


def as_before_rebuild(row: ServerRow) -> ServerRow:
    """The server as it was asked to be before a rebuild that failed."""
    before = row.before_rebuild
    return row if before is None else replace(row, spec=before, name=before.name, before_rebuild=None)


def _resize_over(view: View, row: ServerRow) -> tuple[ServerRow, tuple[object, ...]]:
    """A resize that is confirmed, reverted or failed gives back the room that was charged for both flavors."""
    open_ones = any(wish.action.endswith("_resize") or wish.action == "server.resize" for wish in row.intents)
    if row.resize_to is None or open_ones or row.state is None or row.state.vm_state is VmState.RESIZED:
        return row, ()
    after = replace(row, resize_to=None, spec=replace(row.spec, flavor=row.state.flavor))
    return after, (quota.charge(quota.usage_of(view, row.project), row, after),)


def _failed(here: Here, row: ServerRow, failed: tuple[int, str], received: Received, now: Instant) -> Decision:
    number, why = failed
    wish = next((wish for wish in row.intents if wish.number == number), None)
    action = wish.action if wish is not None else "a command"
    story = here.story(row, now, "command failed", f"{action}: {why}", received)
    return Decision(save=(story,), notes=(f"{action} failed: {why}",)) + unfilled.given_up(here, row, wish)


def _of_nobody(here: Here, view: View, received: Received, body: InstanceReport, now: Instant) -> Decision:
    record = received.record
    seen = Seen(destination=record.origin, server=record.server, version=body.version)
    past = is_gone(view, record.server)
    if past is None:
        return Decision(seen=(seen,)) if body.state.vm_state is VmState.DELETED else inquire(here, received)
    if body.state.vm_state is VmState.DELETED:
        return Decision(seen=(seen,))
    again = DeleteServer(build_deadline=past.server.deadline)
    number = past.server.number + 1
    return Decision(seen=(seen,), send=(here.record(record.origin, again, past.server, number=number),))


def _stray(here: Here, row: ServerRow, received: Received, body: InstanceReport) -> Decision:
    if body.state.vm_state is VmState.DELETED or body.attempt > row.attempt:
        return NOTHING
    return Decision(send=(here.record(received.record.origin, Discard(attempt=body.attempt), row),))


def digest(here: Here, view: View, received: Received, body: Digest, now: Instant) -> Decision:
    """Compare a leaf's sums with ours; ask about the buckets that differ."""
    leaf = received.record.origin
    rows = view.find(ServerRow, Where(column="leaf", op="=", value=leaf))
    ours = [(row, checksum(row.version, row.state)) for row in rows if row.state is not None]
    unheard = [row for row in rows if row.state is None and row.phase in (Phase.GRANTED, Phase.DELETING)]
    late = [row for row in unheard if row.updated + LATE < now][:MOST_COMPARED]
    sums = buckets((row.id, check) for row, check in ours)
    if len(body.buckets) != BUCKETS:
        return Decision(notes=(f"digest of {leaf} has {len(body.buckets)} buckets, {BUCKETS} are compared here",))
    differing = [number for number in range(BUCKETS) if sums[number] != body.buckets[number]][:MOST_COMPARED]
    decision = NOTHING
    for row in late:
        decision += told(here, row, now)
    for row in [row for row in rows if _is_stale(row, now)][:MOST_COMPARED]:
        decision += wished_again(here, row, now)
    if body.answer and not (differing or unheard):
        decision += Decision(send=(Record(id=here.new_id(), body=Agreed(), origin=here.name, destination=leaf),))
    return decision + Decision(
        send=tuple(
            Record(
                id=here.new_id(),
                body=Compare(
                    bucket=number,
                    servers=tuple((row.id, row.version, check) for row, check in ours if bucket_of(row.id) == number),
                ),
                origin=here.name,
                destination=leaf,
                deadline=NEVER,
            )
            for number in differing
        )
    )


def _is_stale(row: ServerRow, now: Instant) -> bool:
    """A wish is old, and the leaf is not at it: it may have taken the command before its database was put back. If it
    still has it, another copy changes nothing."""
    if row.phase is not Phase.GRANTED or row.state is None or row.state.task_state:
        return False
    return any(wish.body and wish.at + STALE_WISH < now for wish in row.intents)


def answered(view: View, received: Received, body: Answer) -> Decision:
    """The leaf's answer to a question that a client waits for; one that nobody waits for any more is dropped."""
    asked = view.get(QuestionRow, body.question)
    if asked is None or asked.done or asked.leaf != received.record.origin:
        return NOTHING
    return Decision(save=(replace(asked, done=True, body=body.body, error=body.error),))
