"""The role of a compute cell: what it decides on each kind of record, and its slow work.

A cell without hosts is the same role with empty tables: it relays (the node does that) and passes cell records on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cells import codec
from cells.audit import Audit
from cells.config import fill
from cells.decision import NOTHING, Decision, Job
from cells.errors import Permanent
from cells.house import Parts
from cells.identity import Identity
from cells.messages import (
    Ack,
    Agreed,
    Ask,
    AttachVolume,
    BuildServer,
    Compare,
    ConfirmResize,
    DeleteServer,
    DestroyDue,
    DetachVolume,
    Discard,
    DropHostSnapshot,
    EvacuateServer,
    Expired,
    Forget,
    GoOn,
    Grant,
    GrantDue,
    HelloDown,
    HelloUp,
    InjectNetwork,
    InquireServer,
    JobEnded,
    LiveMigrateServer,
    MigrateServer,
    PauseServer,
    RebootServer,
    RebuildServer,
    RememberServer,
    RenameServer,
    ReportsDue,
    RescueServer,
    ResetNetwork,
    ResizeServer,
    ResumeServer,
    RevertResize,
    SetMetadata,
    SetPassword,
    SetShares,
    SignedCellRecord,
    SnapshotServer,
    Started,
    StartServer,
    StopServer,
    SuspendServer,
    TakeHostSnapshot,
    Tick,
    UnpauseServer,
    UnrescueServer,
)
from cells.model import CellRecord, CellState, Generation
from cells.names import SECOND, CellName, Instant, is_due
from cells.ports import Journal, NewId, Store, View, Where
from cells.record import NO_SERVER, Received
from cells.rows import MACHINERY, CounterRow, SettingRow
from compute_cell import (
    audit,
    build,
    commands,
    evacuation,
    guest,
    hosts,
    inventory,
    leftovers,
    lost_copies,
    reports,
    restored,
    watching,
)
from compute_cell.answers import Here
from compute_cell.caches import Clearing
from compute_cell.evacuation import Lost, Policy
from compute_cell.leftovers import Sweeping
from compute_cell.pools import Pools
from compute_cell.rows import ROWS, GroupRow, HostRow, InstanceRow, Phase, PoolRow
from compute_cell.tasks import Measured, MeasureTask, Watched, WatchTask
from compute_cell.watching import Watch
from compute_cell.work import Counting, Tools, Work
from routing import first_words
from routing.neighbourhood import Neighbourhood
from xenapi_host.driver import ClassicSource
from xenapi_host.session import Session

_POOL_LANE = "pool "
_WATCH_LANE = "watch "
_WATCH_LOST = 120.0
# What neither looks at rows of servers nor does anything to hosts.
_AT_ONCE = (Ack, Ask, Expired, HelloDown, HelloUp, JobEnded, Started, Tick)
Act = Callable[[View, Received, Any, Instant], Decision]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeSettings:
    """How a compute cell decides. All times in seconds. `mute_after`: a neighbour not heard for so long counts as dead.
    `measure_every`: how often each pool is asked for its hosts. `digest_every`: how often owners are sent a digest.
    `images_kept`: how long a cached image stays that no server uses; 0 keeps all.
    `clean_seconds`: how long a guest is given to shut itself down. `watch_wait`: how long a pool is asked to wait for
    events, `watch_every` the time between looks where nothing waits (light hosts); 0 watches nothing.
    `leftovers_kept`: how long something of ours stays on a host that nobody uses; 0 keeps all.
    `watch_all_every`: how often every server is compared with its VM. `when_host_dies`: leave, ask or evacuate;
    `when_disks_are_lost`: error or rebuild.
    `classic_sources`: how guests of classic Xen hosts are reached."""

    mute_after: float = 60.0
    measure_every: float = 60.0
    digest_every: float = 60.0
    clean_seconds: float = 60.0
    watch_every: float = 10.0
    watch_wait: float = 20.0
    watch_all_every: float = 600.0
    when_host_dies: str = Policy.ASK
    when_disks_are_lost: str = Lost.ERROR
    images_kept: float = 7 * 86400.0
    leftovers_kept: float = 86400.0
    counting: Counting = field(default_factory=Counting)
    classic_sources: tuple[ClassicSource, ...] = ()


_ENDS: dict[str, Callable[[Here, View, InstanceRow, JobEnded, Instant], Decision]] = {
    "build.prepare": build.prepared,
    "build.start": build.started,
    "build.destroy": build.destroyed,
    evacuation.OF_HOST: commands.evacuated,
    f"{evacuation.OF_HOST}_anew": commands.evacuated,
    restored.FIND: restored.found,
    restored.UNDO: restored.undone,
}


class ComputeRole:
    """Decides for a compute cell. Its memory can be made again from rows at any time."""

    name = "compute"
    rows: tuple[type, ...] = (*MACHINERY, *ROWS)
    of_server: tuple[type, ...] = (InstanceRow,)

    def __init__(
        self,
        *,
        identity: Identity,
        store: Store,
        new_id: NewId,
        settings: ComputeSettings,
        faces: Mapping[str, Callable[[], Session]] | None = None,
    ) -> None:
        self.neighbourhood = Neighbourhood(
            identity.name,
            api=False,
            mute_after=int(settings.mute_after * SECOND),
            verify=identity.trust.cell_record,
        )
        self.pools = Pools(store=store, identity=identity, faces=faces)
        self._identity = identity
        self._settings = settings
        self._sweeping = Sweeping(kept_for=settings.leftovers_kept)
        self._here = Here(name=identity.name, new_id=new_id, remember=self._sweeping.remember)
        self._work = Work(
            Tools(
                pools=self.pools,
                identity=identity,
                counting=settings.counting,
                clean_seconds=settings.clean_seconds,
                classic={source.name: source for source in settings.classic_sources},
            )
        )
        self._next_digest: Instant = 0
        self._clearing = Clearing()
        self._unseen = reports.Unseen()
        self._watches: dict[str, Watch] = {}
        self._first_words: first_words.FirstWords | None = None
        self._policies = evacuation.policies(settings.when_host_dies, settings.when_disks_are_lost)
        here = self._here

        def take(view: View, received: Received, body: Any, now: Instant) -> Decision:
            return commands.take(here, view, received, now)

        self._acts: dict[type, Act] = {
            BuildServer: lambda view, received, body, now: build.accept(here, view, received, body, now),
            Grant: lambda view, received, body, now: build.grant(here, view, received, body, now),
            Discard: lambda view, received, body, now: build.discard(here, view, received, body, now),
            GrantDue: lambda view, received, body, now: build.grant_due(here, view, received, body, now),
            DeleteServer: lambda view, received, body, now: build.delete(here, view, received, body, now),
            DestroyDue: lambda view, received, body, now: build.destroy_due(here, view, received, now),
            Forget: lambda view, received, body, now: build.forget(here, view, received, body, now),
            StartServer: take,
            StopServer: take,
            RebootServer: take,
            PauseServer: take,
            UnpauseServer: take,
            SuspendServer: take,
            ResumeServer: take,
            SnapshotServer: take,
            SetPassword: take,
            SetMetadata: take,
            RenameServer: take,
            SetShares: take,
            AttachVolume: take,
            DetachVolume: take,
            TakeHostSnapshot: take,
            DropHostSnapshot: take,
            ResetNetwork: take,
            InjectNetwork: take,
            Ask: lambda view, received, body, now: guest.asked(here, view, received, body, now),
            RebuildServer: take,
            RescueServer: take,
            UnrescueServer: take,
            ResizeServer: take,
            MigrateServer: take,
            LiveMigrateServer: take,
            EvacuateServer: take,
            ConfirmResize: take,
            RevertResize: take,
            Ack: lambda view, received, body, now: reports.seen(view, body, received.record.origin),
            Compare: lambda view, received, body, now: reports.compare(here, view, received, body, now),
            RememberServer: lambda view, received, body, now: restored.remember(here, view, received, body, now),
            InquireServer: lambda view, received, body, now: restored.held(
                here, view, received, self._forgotten(view), now
            ),
            Agreed: lambda view, received, body, now: self._agreed(view, received, now),
            GoOn: lambda view, received, body, now: restored.go_on(here, view, received, now),
            HelloUp: lambda view, received, body, now: self._hello(view, received, body, now),
            HelloDown: lambda view, received, body, now: self._hello(view, received, body, now),
            ReportsDue: lambda view, received, body, now: self._unseen.again(here, view, now),
            Tick: lambda view, received, body, now: self._tick(view, now),
            Started: lambda view, received, body, now: self._started(view, now),
            JobEnded: lambda view, received, body, now: self._ended(view, received, body, now),
            Expired: lambda view, received, body, now: NOTHING,
        }

    @classmethod
    def make(cls, parts: Parts) -> "ComputeRole":
        """`extras` may have "faces": light hosts of this process, by the name in a pool's light: URL."""
        return cls(
            identity=parts.identity,
            store=parts.store,
            new_id=parts.new_id,
            settings=fill(ComputeSettings, parts.settings, "settings"),
            faces=parts.extras.get("faces"),
        )

    def load(self, view: View, now: Instant) -> None:
        self.neighbourhood.load(view, now)
        if self._first_words is None:
            edges, mute_after = self.neighbourhood.topology.edges, self.neighbourhood.mute_after
            self._first_words = first_words.begun(self._here.new_id(), edges, now, mute_after, of_parents=True)

    def decide(self, view: View, received: Received, now: Instant) -> Decision:
        body = received.record.body
        act = self._acts.get(type(body))
        if act is None:
            raise Permanent(f"a compute cell has no use for {received.record.kind.name}")
        if not isinstance(body, _AT_ONCE) and (awaited := self._awaited(view, now)):
            return first_words.waits(received, awaited, self._here.new_id(), now)
        return self._unseen.after(self._here, act(view, received, body, now), now)

    def is_sure(self, view: View, now: Instant) -> bool:
        return not self._awaited(view, now)

    def next_hops(self, destination: CellName, now: Instant) -> tuple[CellName, ...]:
        return self.neighbourhood.topology.next_hops(destination, now)

    def audit(self, view: View) -> Audit:
        return audit.audit(self._here.name, view)

    def work(self, job: Job, journal: Journal) -> Any:
        return self._work(job, journal)

    def close(self) -> None:
        self.pools.close()

    # --- inside ---

    def _ended(self, view: View, received: Received, end: JobEnded, now: Instant) -> Decision:
        if end.kind == "pool.measure":
            return self._measured(view, end, now)
        if end.kind == "pool.watch":
            return self._watched(view, end, now)
        if end.kind == leftovers.SWEEP:
            return self._sweeping.found(self._here, view, end, now)
        if end.kind == lost_copies.SET_ASIDE:
            return lost_copies.over(received.record.server, end)
        if end.kind == guest.ASKED:
            return guest.answered(self._here, view, received.record.server, end, now)
        instance = view.get(InstanceRow, received.record.server)
        if end.kind == leftovers.TIDY:
            return leftovers.tidied(self._here, view, instance, end, now)
        if instance is None or instance.job != end.job:
            return NOTHING
        ended = _ENDS.get(end.kind, commands.ended)
        return ended(self._here, view, instance, end, now)

    def _measured(self, view: View, end: JobEnded, now: Instant) -> Decision:
        if end.error:
            pool = end.lane.removeprefix(_POOL_LANE)
            down = inventory.unreachable(view, pool, end.error)
            told = watching.told_of_hosts(self._here, view, down, now)
            return Decision(save=down, notes=(f"pool {pool}: {end.error}",)) + told
        said: Measured = codec.unpack(Measured, end.result)
        rows = inventory.measured(view, said, now)
        return Decision(save=rows) + watching.told_of_hosts(self._here, view, rows, now)

    def _watched(self, view: View, end: JobEnded, now: Instant) -> Decision:
        pool = end.lane.removeprefix(_WATCH_LANE)
        watch = self._watches.setdefault(pool, Watch())
        if end.error:
            watch.token, watch.due = "", now + int(self._settings.watch_every * SECOND)
            return Decision(notes=(f"watching pool {pool}: {end.error}",))
        said: Watched = codec.unpack(Watched, end.result)
        watch.token = said.token
        watch.due = now if _waits(view, pool) else now + int(self._settings.watch_every * SECOND)
        decision = NOTHING if said.quiet else watching.settle(self._here, view, watch, said, now, whole=said.whole)
        if said.whole and build.restoring(view) is None:
            decision += restored.unclaimed(self._here, view, said, self.neighbourhood.topology.api_cells())
        return decision

    def _forgotten(self, view: View) -> Mapping[bytes, int] | None:
        """Attempts, by server, of what is on the hosts and may be in no row. None: not all of them have been looked at.
        Only what was put back to a backup can have forgotten anything."""
        if _generation(view).epoch == 1:
            return {}
        looks = [self._watches.get(pool.name) for pool in view.all(PoolRow)]
        if build.restoring(view) is not None or any(look is None or not look.token for look in looks):
            return None
        return {seen.server: seen.attempt for look in looks if look is not None for seen in look.seen.values()}

    def _agreed(self, view: View, received: Received, now: Instant) -> Decision:
        self._watches.clear()  # the next look is at everything, and at what belongs to nobody
        return restored.agreed(self._here, view, received.record.origin, now)

    def _hello(self, view: View, received: Received, hello: HelloUp | HelloDown, now: Instant) -> Decision:
        decision = self.neighbourhood.decide(view, received, now)
        said = self.neighbourhood.said_before(hello)
        if said is not None and said > _generation(view):
            decision += restored.put_back(view, said, self.neighbourhood.topology.api_cells(), now)
        return decision + self.neighbourhood.answer(received.record.origin, hello, now, self._here.new_id)

    def _awaited(self, view: View, now: Instant) -> tuple[CellName, ...]:
        """The parents that have not shown yet what this cell said before its daemon started."""
        return self._first_words.still(view, now) if self._first_words is not None else ()

    def _started(self, view: View, now: Instant) -> Decision:
        first = self._first_words
        if first is None or not first.still(view, now):
            return NOTHING
        own, _ = self._own_record(view, now, more=0)
        return self.neighbourhood.ask(own, first.question, now, self._here.new_id)

    def _tick(self, view: View, now: Instant) -> Decision:
        own, counter = self._own_record(view, now)
        decision = Decision(save=(counter,)) + self.neighbourhood.hellos(own, now, self._here.new_id)
        if self._awaited(view, now):
            return decision
        decision += self._clearing.look(self._here, view, self._settings.images_kept, now)
        decision += self._sweeping.look(self._here, view, now)
        decision += self._unseen.again(self._here, view, now) + self._measure(view, now) + self._watch(view, now)
        owners = self.neighbourhood.topology.api_cells()
        decision += restored.asking(self._here, view, owners, now)
        decision += evacuation.look(self._here, view, self._policies, now)
        decision += lost_copies.look(self._here, view, now)
        every = int(self._settings.digest_every * SECOND)
        if is_due(self._next_digest, every, now):
            self._next_digest = now + every
            decision += reports.digests(self._here, view, owners if view.all(PoolRow) else ())
        return decision

    def _own_record(self, view: View, now: Instant, more: int = 1) -> tuple[SignedCellRecord, CounterRow]:
        epoch = view.get(CounterRow, build.EPOCH) or CounterRow(name=build.EPOCH, value=1)
        sequence = view.get(CounterRow, build.GENERATION) or CounterRow(name=build.GENERATION, value=0)
        sequence = replace(sequence, value=sequence.value + more)
        rows = view.all(HostRow)
        settings = {row.name: row.value for row in view.all(SettingRow)}
        servers = view.count(InstanceRow, Where(column="phase", op="!=", value=Phase.GONE))
        record = CellRecord(
            name=self._here.name,
            uuid=self._identity.says.uuid,
            role=self.name,
            generation=Generation(epoch=epoch.value, sequence=sequence.value),
            at=now,
            parents=self.neighbourhood.topology.parents_heard(now),
            state=_state(settings),
            capacity=hosts.capacity(rows, view.all(GroupRow), servers) if rows else None,
            weight_offset=float(settings.get("weight_offset", "0")),
            projects=tuple(name for name in settings.get("projects", "").split(",") if name),
        )
        return self._identity.cell_record(record), sequence

    def _watch(self, view: View, now: Instant) -> Decision:
        every = int(self._settings.watch_every * SECOND)
        decision = NOTHING
        for pool in view.all(PoolRow) if every else ():
            watch = self._watches.setdefault(pool.name, Watch())
            wait = self._settings.watch_wait if _waits(view, pool.name) else 0.0
            longest = every + int((wait + _WATCH_LOST) * SECOND)
            if not is_due(watch.due, longest, now):
                continue
            all_every = int(self._settings.watch_all_every * SECOND)
            whole = is_due(watch.full, all_every, now)
            if whole:
                watch.full = now + all_every
            task = WatchTask(
                pool=pool.name,
                token="" if whole or watch.again else watch.token,
                wait=wait,
                began=now,
                whole=whole,
            )
            watch.due = now + longest  # should its end never come
            job = Job(
                id=self._here.new_id(),
                kind="pool.watch",
                server=NO_SERVER,
                lane=_WATCH_LANE + pool.name,
                body=codec.pack(task),
            )
            decision += Decision(do=(job,))
        return decision

    def _measure(self, view: View, now: Instant) -> Decision:
        every = int(self._settings.measure_every * SECOND)
        due = [pool for pool in view.all(PoolRow) if is_due(pool.asked + every, every, now)]
        return Decision(
            save=tuple(replace(pool, asked=now) for pool in due),
            do=tuple(
                Job(
                    id=self._here.new_id(),
                    kind="pool.measure",
                    server=NO_SERVER,
                    lane=_POOL_LANE + pool.name,
                    body=codec.pack(MeasureTask(pool=pool.name)),
                )
                for pool in due
            ),
        )


def _waits(view: View, pool: str) -> bool:
    """Whether a pool is asked to wait for events. Light hosts live in a clock that may not move by itself."""
    row = view.get(PoolRow, pool)
    return row is not None and not row.url.startswith("light:")


def _generation(view: View) -> Generation:
    epoch, sequence = view.get(CounterRow, build.EPOCH), view.get(CounterRow, build.GENERATION)
    return Generation(epoch=epoch.value if epoch else 1, sequence=sequence.value if sequence else 0)


def _state(settings: Mapping[str, str]) -> CellState:
    asked = CellState(settings.get(build.STATE, CellState.ENABLED))
    return CellState.DRAINING if asked is CellState.ENABLED and build.RESTORING in settings else asked
