"""The role of an API cell: what it decides on each kind of record, and its slow work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from api_cell import audit, backups, mirror, placing, restored, unfilled, wishes
from api_cell.front import Front, FrontSettings
from api_cell.here import Here, saved
from api_cell.images import Images
from api_cell.placing import Market
from api_cell.rows import ROWS, GoneServerRow, Phase, QuestionRow, RequestRow, ServerRow
from cells import codec
from cells.audit import Audit
from cells.config import fill
from cells.decision import NOTHING, Decision, Job, Remove
from cells.errors import BadInput, Permanent
from cells.house import Parts
from cells.identity import Identity, seal
from cells.messages import (
    Accepted,
    Ack,
    Answer,
    AttemptDue,
    Digest,
    Expired,
    HeldServer,
    HelloDown,
    HelloUp,
    InstanceReport,
    Intent,
    JobEnded,
    RecallServer,
    Refused,
    SignedCellRecord,
    Started,
    Tick,
)
from cells.model import BuildSpec, CellRecord, Generation, Secrets
from cells.names import SECOND, CellName, Id, Instant, is_due
from cells.ports import Journal, NewId, View, Where
from cells.record import Received
from cells.rows import MACHINERY, CounterRow, key_of
from routing import first_words
from routing.neighbourhood import Neighbourhood
from routing.reservations import Reservations
from routing.weights import PlacementSettings

if TYPE_CHECKING:
    from api_cell.http.serve import Served

MOST_AT_ONCE = 200
LET_GO_EVERY = 60 * SECOND
REQUESTS_KEPT = 24 * 3600 * SECOND
GONE_KEPT = 30 * 24 * 3600 * SECOND

IMAGE_WORK: Mapping[str, tuple[type, Callable[[Images, Any], None]]] = {
    backups.ROTATE: (backups.Rotation, backups.rotate),
    unfilled.GIVE_UP: (str, unfilled.give_up),
    unfilled.SWEEP: (int, unfilled.sweep),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """How an API cell decides. `mute_after` (seconds): a leaf not heard for so long shows as UNKNOWN and gets no
    builds; several ticks for each level of the tree. `attempt_time`: how long a leaf has to answer an offer."""

    mute_after: float = 60.0
    attempt_time: int = 60
    command_time: int = 3600
    placement: PlacementSettings | None = None
    front: FrontSettings = field(default_factory=FrontSettings)


class ApiRole:
    """Decides for an API cell. Its memory (tree, reservations) can be made again from rows at any time."""

    name = "api"
    rows: tuple[type, ...] = (*MACHINERY, *ROWS)
    of_server: tuple[type, ...] = (ServerRow,)

    def __init__(
        self,
        *,
        identity: Identity,
        new_id: NewId,
        draw: Callable[[], float],
        settings: ApiSettings,
        front: Front | None = None,
    ) -> None:
        mute_after = int(settings.mute_after * SECOND)
        self.neighbourhood = Neighbourhood(
            identity.name, api=True, mute_after=mute_after, verify=identity.trust.cell_record
        )
        self._here = Here(
            name=identity.name,
            new_id=new_id,
            draw=draw,
            attempt_time=settings.attempt_time,
            command_time=settings.command_time,
            prove=lambda server, attempt, leaf, spec: identity.prove(_asked(server, attempt, leaf, spec)),
            proved=lambda server, attempt, leaf, spec, proof: identity.proved(
                _asked(server, attempt, leaf, spec), proof
            ),
            sealed=self._sealed,
            personal=self._personal,
            lends_images=front.lends_images if front is not None else lambda: True,
            images_refused=front.images_refused if front is not None else lambda: "",
        )
        self._identity = identity
        # How long a leaf may be silent is one setting of the cell, whatever else is said about placement.
        self._placement = replace(settings.placement or PlacementSettings(), mute_after=mute_after)
        self._mute_after = mute_after
        self._reservations = Reservations()
        self.front = front
        self._first_words: first_words.FirstWords | None = None
        self._silent: set[CellName] | None = None
        self._next_let_go: Instant = 0
        self._next_sweep: Instant = 0
        self._decide: dict[type, Callable[[View, Received, Any, Instant], Decision]] = {
            Intent: lambda view, received, body, now: wishes.take(
                self._here, self._market(), view, received, body, now
            ),
            Accepted: lambda view, received, body, now: placing.accepted(
                self._here, self._market(), view, received, body, now
            ),
            Refused: lambda view, received, body, now: restored.refused(
                self._here, self._market(), view, received, body, now
            ),
            AttemptDue: lambda view, received, body, now: placing.attempt_due(
                self._here, self._market(), view, received, body, now
            ),
            Expired: lambda view, received, body, now: wishes.expired(
                self._here, self._market(), view, received, body, now
            ),
            InstanceReport: lambda view, received, body, now: mirror.report(self._here, view, received, body, now),
            Answer: lambda view, received, body, now: mirror.answered(view, received, body),
            HeldServer: lambda view, received, body, now: restored.held(
                self._here, self._market(), view, received, body, now
            ),
            RecallServer: lambda view, received, body, now: restored.recalled(self._here, view, received, body, now),
            Digest: lambda view, received, body, now: mirror.digest(self._here, view, received, body, now),
            HelloUp: lambda view, received, body, now: self._hello(view, received, body, now),
            HelloDown: lambda view, received, body, now: self._hello(view, received, body, now),
            Tick: lambda view, received, body, now: self._tick(view, body, now),
            Started: lambda view, received, body, now: self._started(view, now),
            JobEnded: lambda view, received, body, now: NOTHING,
            Ack: lambda view, received, body, now: NOTHING,
        }

    @classmethod
    def make(cls, parts: Parts) -> "ApiRole":
        settings = fill(ApiSettings, parts.settings, "settings")
        return cls(
            identity=parts.identity,
            new_id=parts.new_id,
            draw=lambda: int.from_bytes(parts.random_bytes(7), "big") / (1 << 56),
            settings=settings,
            front=Front(settings.front, parts),
        )

    def load(self, view: View, now: Instant) -> None:
        self.neighbourhood.load(view, now)
        self._reached()
        if self._first_words is None:
            edges = self.neighbourhood.topology.edges
            self._first_words = first_words.begun(self._here.new_id(), edges, now, self._mute_after)
        if self._silent is None:
            self._next_sweep = now + unfilled.SWEEP_EVERY
            self._silent = set(self.neighbourhood.roster)
            for row in view.find(ServerRow, Where(column="phase", op="=", value=Phase.OFFERED)):
                self._reservations.reserve(placing.reservation_of(self._here, row))

    def decide(self, view: View, received: Received, now: Instant) -> Decision:
        body = received.record.body
        decide = self._decide.get(type(body))
        if decide is None:
            raise Permanent(f"an API cell has no use for {received.record.kind.name}")
        if _may_place(body) and (awaited := self._awaited(view, now)):
            return first_words.waits(received, awaited, self._here.new_id(), now)
        return decide(view, received, body, now)

    def is_sure(self, view: View, now: Instant) -> bool:
        return not self._awaited(view, now)

    def next_hops(self, destination: CellName, now: Instant) -> tuple[CellName, ...]:
        return self.neighbourhood.topology.next_hops(destination, now)

    def audit(self, view: View) -> Audit:
        return audit.audit(self._here.name, self.neighbourhood.roster, view)

    def work(self, job: Job, journal: Journal) -> Any:
        images = self.front.images if self.front is not None else None
        if job.kind not in IMAGE_WORK or images is None:
            raise Permanent(f"an API cell knows no job {job.kind!r}")
        of_what, do = IMAGE_WORK[job.kind]
        do(images, codec.unpack(of_what, job.body))

    def close(self) -> None:
        """Nothing is open: the front door is the house's."""

    def open_front(self, poke: Callable[[], None], listen: str) -> "Served":
        """Serve REST at host:port in this process."""
        if self.front is None:
            raise BadInput("this cell was made without a front door")
        return self.front.open(poke, listen)

    def posting(self, poke: Callable[[], None]) -> Mapping[str, Callable[..., Any]]:
        """What programs beside this cell may ask for over its broker, by name."""
        if self.front is None:
            raise BadInput("this cell was made without a front door")
        return self.front.posting(poke)

    # --- inside ---

    def _sealed(self, leaf: CellName, image: str, write: bool) -> bytes:
        """The token for an image's bytes, so that only this leaf can read it; empty where none is needed."""
        if self.front is None:
            return b""
        token = self.front.write_token(image) if write else self.front.read_token(image)
        return self._seal(leaf, Secrets(image_token=token))

    def _personal(self, leaf: CellName, image: str, kept: bytes) -> bytes:
        """A tenant's secrets, kept sealed for ourselves, and the token for reading an image if one is named."""
        secrets: Secrets = codec.unpack(Secrets, self._identity.kept(kept)) if kept else Secrets()
        token = self.front.read_token(image) if self.front is not None and image else ""
        return self._seal(leaf, replace(secrets, image_token=token))

    def _seal(self, leaf: CellName, secrets: Secrets) -> bytes:
        entry = self.neighbourhood.roster.get(leaf)
        if entry is None or secrets == Secrets():
            return b""
        return seal(codec.pack(secrets), self._identity.trust.certificate(entry.signed.certificate).key)

    def _market(self) -> Market:
        return Market(
            roster=self.neighbourhood.roster,
            candidates=self.neighbourhood.candidates,
            reservations=self._reservations,
            settings=self._placement,
        )

    def _hello(self, view: View, received: Received, hello: HelloUp | HelloDown, now: Instant) -> Decision:
        decision = self.neighbourhood.decide(view, received, now)
        self._reached()
        said = self.neighbourhood.said_before(hello)
        sequence = view.get(CounterRow, restored.GENERATION)
        own = Generation(epoch=restored.epoch_of(view), sequence=sequence.value if sequence else 0)
        if said is not None and said > own:
            decision += restored.put_back(view, said, now)
        return decision + self.neighbourhood.answer(received.record.origin, hello, now, self._here.new_id)

    def _awaited(self, view: View, now: Instant) -> tuple[CellName, ...]:
        """The children that have not shown yet what this cell said before its daemon started."""
        return self._first_words.still(view, now) if self._first_words is not None else ()

    def _started(self, view: View, now: Instant) -> Decision:
        first = self._first_words
        if first is None or not first.still(view, now):
            return NOTHING
        own, _ = self._own_record(view, now, more=0)
        return self.neighbourhood.ask(own, first.question, now, self._here.new_id)

    def _reached(self) -> None:
        for leaf in self._reservations.leaves:
            entry = self.neighbourhood.roster.get(leaf)
            if entry is not None:
                self._reservations.reached(leaf, entry.record.generation)

    def _tick(self, view: View, tick: Tick, now: Instant) -> Decision:
        self._reservations.expire(now)
        if tick.taken_over:
            self._silent = set(self.neighbourhood.roster)
        own, sequence = self._own_record(view, now)
        decision = Decision(save=(sequence,)) + self.neighbourhood.hellos(own, now, self._here.new_id)
        leaves = self.neighbourhood.topology.leaves()
        decision += restored.asking(self._here, view, leaves, self._mute_after, now)
        return decision + self._show_silence(view, now) + self._let_go(view, now) + self._sweep(now)

    def _own_record(self, view: View, now: Instant, more: int = 1) -> tuple[SignedCellRecord, CounterRow]:
        before = view.get(CounterRow, restored.GENERATION)
        sequence = CounterRow(name=restored.GENERATION, value=before.value + more if before else more)
        record = CellRecord(
            name=self._here.name,
            uuid=self._identity.says.uuid,
            role=self.name,
            generation=Generation(epoch=restored.epoch_of(view), sequence=sequence.value),
            at=now,
        )
        return self._identity.cell_record(record), sequence

    def _let_go(self, view: View, now: Instant) -> Decision:
        """Deleted servers and clients' request ids have a time after which nobody asks for them."""
        if not is_due(self._next_let_go, LET_GO_EVERY, now):
            return NOTHING
        self._next_let_go = now + LET_GO_EVERY
        gone = view.find(GoneServerRow, Where(column="updated", op="<", value=now - GONE_KEPT), limit=MOST_AT_ONCE)
        asked = view.find(RequestRow, Where(column="at", op="<", value=now - REQUESTS_KEPT), limit=MOST_AT_ONCE)
        lost = view.find(QuestionRow, Where(column="at", op="<", value=now - LET_GO_EVERY), limit=MOST_AT_ONCE)
        return Decision(save=tuple(Remove(row=type(row), key=key_of(row)) for row in (*gone, *asked, *lost)))

    def _sweep(self, now: Instant) -> Decision:
        if not is_due(self._next_sweep, unfilled.SWEEP_EVERY, now):
            return NOTHING
        self._next_sweep = now + unfilled.SWEEP_EVERY
        return unfilled.looked_for(self._here, now)

    def _show_silence(self, view: View, now: Instant) -> Decision:
        """Servers of a leaf that is not heard show UNKNOWN; when it is heard again, what it last said."""
        roster = self.neighbourhood.roster
        stale = set(roster.stale(now, self._mute_after))
        changed: list[ServerRow] = []
        silent = self._silent or set()
        for leaf in sorted(silent | stale):
            is_silent = leaf in stale
            rows = view.find(
                ServerRow,
                Where(column="leaf", op="=", value=leaf),
                Where(column="status", op="!=" if is_silent else "=", value="UNKNOWN"),
                Where(column="phase", op="=", value=Phase.GRANTED),
                limit=MOST_AT_ONCE,
            )
            changed += [saved(row, now, silent=is_silent) for row in rows]
            if not is_silent and not rows:  # not sooner: what is changed now may yet be rolled back
                silent.discard(leaf)
        self._silent = silent | stale
        return Decision(save=tuple(changed))


def _may_place(body: Any) -> bool:
    """Whether a record may place a server or grant one."""
    return isinstance(body, Accepted | Refused | AttemptDue) or (isinstance(body, Intent) and body.action == "place")


def _asked(server: Id, attempt: int, leaf: CellName, spec: BuildSpec) -> bytes:
    return codec.pack((server, attempt, leaf, spec.project, spec.user))
