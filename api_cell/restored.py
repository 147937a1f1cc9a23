"""An API cell whose database was put back to an old backup. It is told so (`celltree api rebuild`), or hears it when a
child shows it its own signature under a newer generation than it has. Pure.

What no leaf had for good in the backup may since have been granted to one: every leaf is asked before it is placed
again, so that no server gets a second VM.

    PLACING, OFFERED --put_back--> INQUIRING --HeldServer(granted)--> GRANTED there
                                       +--every leaf says no--> PLACING

Servers asked for since the backup are made anew when a leaf reports them: the leaf shows this cell's own proof of
having asked. Numbers of wishes begin anew above all that were given before.
"""

from collections.abc import Iterable
from dataclasses import replace

from api_cell import placing, quota
from api_cell.ending import gone
from api_cell.here import Here, is_gone, saved
from api_cell.placing import Market, failed
from api_cell.rows import BUILD_NUMBER, Phase, ServerRow
from cells import codec
from cells.decision import NOTHING, Decision, Seen
from cells.messages import (
    DeleteServer,
    Discard,
    Grant,
    HeldServer,
    InquireServer,
    Intent,
    RecallServer,
    RefusalCode,
    Refused,
    RememberServer,
)
from cells.model import BuildSpec, Generation, VmState
from cells.names import SECOND, CellName, Instant
from cells.ports import View, Where
from cells.record import Received, Record
from cells.rows import CounterRow, ParkedRow

EPOCH = "epoch"
GENERATION = "generation"
MOST_AT_ONCE = 200
UNDONE = "the leaf gave the attempt up"
LOST = "The cell was put back to a backup while the server was being built; delete it and ask again."


def epoch_of(view: View) -> int:
    """The epoch of this database. Not locked: it changes only when a backup was put back."""
    found = view.find(CounterRow, Where(column="name", op="=", value=EPOCH))
    return found[0].value if found else 1


def next_number(view: View, row: ServerRow) -> int:
    """The number of the server's next wish: above all that an earlier epoch may have given."""
    return max(row.number, (epoch_of(view) - 1) << 32) + 1


def put_back(view: View, said: Generation, now: Instant) -> Decision:
    """A new epoch; what was not decided yet is to be asked about."""
    epoch = view.get(CounterRow, EPOCH) or CounterRow(name=EPOCH, value=1)
    undecided = [
        row
        for phase in (Phase.PLACING, Phase.OFFERED)
        for row in view.find(ServerRow, Where(column="phase", op="=", value=phase))
    ]
    return Decision(
        save=(
            replace(epoch, value=max(epoch.value, said.epoch) + 1),
            *(
                saved(replace(row, phase=Phase.INQUIRING, leaf="", state=None, version=0, told=(), heard=now), now)
                for row in undecided
            ),
        ),
        notes=(f"this database was put back to a backup: {len(undecided)} servers are asked for at every leaf",),
    )


def asking(here: Here, view: View, leaves: Iterable[CellName], wait: int, now: Instant) -> Decision:
    """At each tick: ask the leaves that have not answered; place what none of them has. `wait` (microseconds): how long
    leaves that are not in the backup have to be heard of."""
    decision = NOTHING
    for row in view.find(ServerRow, Where(column="phase", op="=", value=Phase.INQUIRING), limit=MOST_AT_ONCE):
        silent = sorted(set(leaves) - set(row.told))
        if row.deadline < now:
            reason = "the cell was put back to a backup while the server was being placed"
            if silent:
                reason += f", and whether it is there {', '.join(silent)} did not say"
            decision += failed(here, row, reason, now)
        elif not silent and row.heard + wait < now:
            again = saved(replace(row, phase=Phase.PLACING, told=()), now)
            decision += Decision(
                save=(again,), wake=(here.wake(now, Intent(action="place", number=BUILD_NUMBER), row),)
            )
        else:
            decision += Decision(send=tuple(here.record(leaf, InquireServer(), row) for leaf in silent))
    return decision


def inquire(here: Here, received: Received) -> Decision:
    """Ask a leaf that knows more of a server than we do. What it reported is not taken for seen."""
    record = received.record
    ask = Record(
        id=here.new_id(),
        body=InquireServer(),
        origin=here.name,
        destination=record.origin,
        server=record.server,
        request=record.request,
    )
    return Decision(send=(ask,), notes=(f"{record.origin} is asked what it has of it",))


def held(here: Here, market: Market, view: View, received: Received, body: HeldServer, now: Instant) -> Decision:
    """A leaf's answer. Only what we once asked of this leaf ourselves, by our own signature, is believed."""
    record = received.record
    leaf, row = record.origin, view.get(ServerRow, record.server)
    if body.attempt == 0 or body.spec is None:
        return _not_there(row, leaf)
    if not here.proved(record.server, body.attempt, leaf, body.spec, body.proof):
        return _parked(received, now)
    if body.state is not None and body.state.vm_state is VmState.DELETED:
        return _ended_there(here, market, view, received, body, now)
    past = is_gone(view, record.server)
    if past is not None:
        again = DeleteServer(build_deadline=past.server.deadline)
        return Decision(send=(here.record(leaf, again, past.server, number=max(past.server.number, body.number) + 1),))
    if row is not None and row.leaf == leaf and row.attempt == body.attempt:
        return NOTHING
    if not body.granted:
        decision = NOTHING if row is not None else _made_anew(here, view, received, body, body.spec, now)
        discard = replace(record, id=here.new_id(), body=Discard(attempt=body.attempt), origin=here.name)
        return decision + Decision(send=(replace(discard, destination=leaf, number=0),))
    if row is None:
        return _made_anew(here, view, received, body, body.spec, now)
    if row.phase is not Phase.INQUIRING and body.attempt < row.attempt:
        return Decision(notes=(f"{leaf} has attempt {body.attempt}, {row.attempt} is wanted",))
    there = replace(row, leaf=leaf, attempt=body.attempt, number=max(row.number, body.number), told=())
    if row.phase is Phase.DELETING:
        delete = here.record(leaf, DeleteServer(build_deadline=row.deadline), there, number=there.number)
        return Decision(save=(saved(there, now),), send=(delete,))
    return _found(here, received, _granted(there, body, now), body, now)


def _not_there(row: ServerRow | None, leaf: CellName) -> Decision:
    if row is None or row.phase is not Phase.INQUIRING or leaf in row.told:
        return NOTHING
    return Decision(save=(replace(row, told=(*row.told, leaf)),), notes=(f"{leaf} does not have it",))


def _ended_there(
    here: Here, market: Market, view: View, received: Received, body: HeldServer, now: Instant
) -> Decision:
    """The leaf had it once. If a command came after its build, that was a delete of ours that was lost with our
    database. Otherwise the attempt was undone, and another may be made; the leaf's refusal may be lost with it, too."""
    row, leaf = view.get(ServerRow, received.record.server), received.record.origin
    if row is not None and row.phase is Phase.INQUIRING and body.number > BUILD_NUMBER:
        return gone(here, view, row, now)
    if row is not None and row.phase is Phase.GRANTED and body.number <= BUILD_NUMBER:
        undone = Refused(attempt=body.attempt, code=RefusalCode.EXPIRED, reason=UNDONE, undone=True)
        return placing.refused(here, market, view, received, undone, now)
    return _not_there(row, leaf)


def _granted(row: ServerRow, body: HeldServer, now: Instant) -> ServerRow:
    return replace(
        row,
        phase=Phase.GRANTED,
        state=body.state,
        version=body.version,
        finished=max(row.finished, body.number),
        intents=tuple(wish for wish in row.intents if wish.number > body.number),
        fault_code=0,
        fault="",
        heard=now,
    )


def _found(here: Here, received: Received, row: ServerRow, body: HeldServer, now: Instant) -> Decision:
    story = here.story(row, now, "found", f"{row.leaf} has it: attempt {body.attempt}", received)
    seen = Seen(destination=row.leaf, server=row.id, version=body.version)
    return Decision(save=(saved(row, now), story), seen=(seen,), notes=(f"found at {row.leaf}",))


def _made_anew(here: Here, view: View, received: Received, body: HeldServer, spec: BuildSpec, now: Instant) -> Decision:
    """The row of a server that was asked for after the backup."""
    record = received.record
    made = int.from_bytes(record.server[:6], "big") * (SECOND // 1000)  # its id says when
    state = body.state
    row = ServerRow(
        id=record.server,
        project=spec.project,
        user=spec.user,
        name=spec.name,
        created=made,
        updated=now,
        request=body.request,
        status="",
        vm_state="",
        attempt=body.attempt,
        number=body.number,
        finished=body.number,
        deadline=now,
        spec=replace(spec, sealed=b""),
        resize_to=state.flavor if state is not None and state.vm_state is VmState.RESIZED else None,
    )
    usage = quota.charge(quota.usage_of(view, row.project), None, row)
    if not body.granted:
        return Decision(save=(usage,)) + failed(here, row, LOST, now)
    there = _granted(replace(row, leaf=record.origin), body, now)
    return Decision(save=(usage,)) + _found(here, received, there, body, now)


def _parked(received: Received, now: Instant) -> Decision:
    record = received.record
    parked = ParkedRow(
        id=record.id,
        at=now,
        neighbour=received.neighbour,
        kind=record.kind.name,
        server=record.server,
        reason=f"{record.origin} reports a server this cell never made",
        data=codec.pack_record(record),
    )
    return Decision(save=(parked,), notes=(parked.reason,))


# --- a leaf that was put back ---


def recalled(here: Here, view: View, received: Received, body: RecallServer, now: Instant) -> Decision:
    """A leaf has lost a server, or its place in it: say what we know, and wish again what is open."""
    record = received.record
    leaf, row = record.origin, view.get(ServerRow, record.server)
    if row is None:
        past = is_gone(view, record.server)
        if past is None:
            return inquire(here, received)
        again = DeleteServer(build_deadline=past.server.deadline)
        return Decision(send=(here.record(leaf, again, past.server, number=past.server.number + 1),))
    if row.phase is Phase.FAILED and body.on_host:
        # It was built after our backup and the leaf's; its tenant has been told that it failed.
        return Decision(send=(here.record(leaf, Discard(attempt=body.attempt), row),))
    if body.on_host and row.phase is Phase.INQUIRING:
        return _adopted(here, row, received, body.attempt, now)
    if row.phase is Phase.INQUIRING or (body.attempt > row.attempt and not body.on_host):
        return inquire(here, received)
    is_other = body.attempt not in (0, row.attempt) and row.phase not in (Phase.GRANTED, Phase.DELETING)
    if row.leaf != leaf or is_other:
        return Decision(send=(here.record(leaf, Discard(attempt=body.attempt), row),) if body.attempt else ())
    return told(here, row, now)


def _adopted(here: Here, row: ServerRow, received: Received, attempt: int, now: Instant) -> Decision:
    """It was granted to this leaf after our backup and its own, so there is no proof; but it has the VM, and a second
    one must not be."""
    there = replace(row, phase=Phase.GRANTED, leaf=received.record.origin, attempt=attempt, told=(), heard=now)
    story = here.story(there, now, "found", f"{there.leaf} has its VM: attempt {attempt}", received)
    return Decision(save=(saved(there, now), story)) + told(here, there, now)


def refused(here: Here, market: Market, view: View, received: Received, body: Refused, now: Instant) -> Decision:
    """A leaf that was granted an attempt refuses a late copy of the offer if its database was put back to before it
    took it. It may have the VM, so nobody else gets the server: it is told what it was."""
    row = view.get(ServerRow, received.record.server)
    forgot = row is not None and row.phase is Phase.GRANTED and not body.undone
    if row is None or not forgot or (row.leaf, row.attempt) != (received.record.origin, body.attempt):
        return placing.refused(here, market, view, received, body, now)
    return told(here, row, now)


def told(here: Here, row: ServerRow, now: Instant) -> Decision:
    """All that the leaf of a server needs to go on with it."""
    if row.phase is Phase.DELETING:
        delete = DeleteServer(build_deadline=row.deadline)
        return Decision(send=(here.record(row.leaf, delete, row, number=row.number),))
    if row.phase is not Phase.GRANTED:
        return NOTHING
    known = RememberServer(
        attempt=row.attempt,
        spec=replace(row.spec, sealed=b""),
        proof=here.prove(row.id, row.attempt, row.leaf, row.spec),
        version=row.version,
        number=max(row.finished, BUILD_NUMBER),
        state=row.state,
    )
    send = [here.record(row.leaf, known, row)]
    if row.state is None or not row.state.launched_at:
        send.append(here.record(row.leaf, Grant(attempt=row.attempt), row, number=BUILD_NUMBER))
    again = wished_again(here, row, now)
    notes = (f"{row.leaf} is told what it was, {len(again.wake)} wishes again",)
    return again + Decision(send=tuple(send), notes=notes)


def wished_again(here: Here, row: ServerRow, now: Instant) -> Decision:
    """The first of the open wishes once more. Only it can be on its way: the others' own wakes still wait for it."""
    first = min((wish for wish in row.intents if wish.body), key=lambda wish: wish.number, default=None)
    if first is None:
        return NOTHING
    again = Intent(action=first.action, number=first.number, body=first.body)
    return Decision(wake=(here.wake(now, again, row),))
