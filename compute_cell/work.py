"""The slow work of a compute cell: each kind of job is one call of the driver. Run in job threads; resumable.

What the driver raises goes up as it is: Temporary is tried again, Permanent and Refusal end the job with their text.
Before each call that changes something on a host the lease is looked at, so that a daemon that was frozen does one such
call too many at most.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from cells import codec
from cells.decision import Job
from cells.errors import Permanent, Refusal, Temporary
from cells.identity import Identity
from cells.model import ClassicGuest, PowerState, Secrets
from cells.ports import Journal
from compute_cell import guest, guest_work, host_snapshots, leftovers, shares, volumes
from compute_cell.pools import Pools
from compute_cell.tasks import (
    AskTask,
    AttachTask,
    ClearCacheTask,
    ConfirmTask,
    DestroyTask,
    DetachTask,
    EvacuateTask,
    FindTask,
    Found,
    GuestTask,
    HostSnapshotTask,
    Measured,
    MeasuredHost,
    MeasureTask,
    MoveTask,
    Outcome,
    PowerTask,
    PrepareTask,
    RemakeTask,
    ReplaceTask,
    ResizeTask,
    RevertTask,
    Said,
    SeenForeign,
    SeenServer,
    SetAsideTask,
    SharesTask,
    SnapshotTask,
    StartTask,
    SweepTask,
    TidyTask,
    UndoReplaceTask,
    UnrescueTask,
    Watched,
    WatchTask,
)
from xenapi_host import driver
from xenapi_host.config_drive import Personal
from xenapi_host.driver import ClassicSource
from xenapi_host.driver.refind import refind
from xenapi_host.facts import GIB, HostFacts, PoolFacts, Refound
from xenapi_host.plan import BuildPlan, plan_build, plan_rescue
from xenapi_host.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """How a host's size becomes room for servers: `reserve` is the share of memory kept back, `cpu_ratio` vCPUs are
    given out for each processor, `disk_ratio` GiB for each GiB of storage."""

    reserve: float = 0.03
    cpu_ratio: float = 4.0
    disk_ratio: float = 1.0


_ONLY_LOOKS = ("get_", "assert_")


class LeasedSession(Session):
    """A pool's session as one job may use it: `check` raises LeaseLost when the job is another daemon's now."""

    def __init__(self, inner: Session, check: Callable[[], None]) -> None:
        super().__init__(_LeasedDoor(inner, check), clock=inner.now, sleep=inner.sleep)
        self._inner = inner
        self.known = inner.known

    @contextmanager
    def exclusively(self, what: str) -> Iterator[None]:
        with self._inner.exclusively(what):
            yield


class _LeasedDoor:
    def __init__(self, inner: Session, check: Callable[[], None]) -> None:
        self._inner = inner
        self._check = check

    def call(self, method: str, params: tuple[Any, ...]) -> Any:
        if not method.rpartition(".")[2].startswith(_ONLY_LOOKS):
            with suppress(Refusal):  # to be stopped early is heeded where the driver knows what to clear away
                self._check()
        return self._inner.call(method, *params)

    def close(self) -> None:
        """The pool's session stays open: it is everybody's."""


class Work:
    """The jobs of one cell."""

    def __init__(
        self,
        *,
        pools: Pools,
        identity: Identity,
        counting: Counting,
        clean_seconds: float,
        classic: Sequence[ClassicSource] = (),
    ) -> None:
        self._pools = pools
        self._identity = identity
        self._counting = counting
        self._clean_seconds = clean_seconds
        self._classic = {source.name: source for source in classic}
        self._kinds: dict[str, tuple[type, Callable[[Job, Any, Journal], Any]]] = {
            "build.prepare": (PrepareTask, self._prepare_any),
            "build.start": (StartTask, self._start),
            "build.destroy": (DestroyTask, self._destroy),
            "server.power": (PowerTask, self._power),
            "server.snapshot": (SnapshotTask, self._snapshot),
            guest.TELL: (GuestTask, self._tell),
            guest.ASKED: (AskTask, self._ask),
            volumes.ATTACH: (AttachTask, self._attach),
            volumes.DETACH: (DetachTask, self._detach),
            volumes.UNDO_ATTACH: (DetachTask, self._detach),
            shares.SET: (SharesTask, self._share),
            host_snapshots.TAKE: (HostSnapshotTask, self._take_host_snapshot),
            host_snapshots.DROP: (HostSnapshotTask, self._drop_host_snapshot),
            "server.rebuild": (RemakeTask, self._rebuild),
            "server.rescue": (RemakeTask, self._rescue),
            "server.unrescue": (UnrescueTask, self._unrescue),
            "server.undo_rescue": (UnrescueTask, self._unrescue),
            "server.resize": (ResizeTask, self._resize),
            "server.confirm_resize": (ConfirmTask, self._confirm),
            "server.revert_resize": (RevertTask, self._revert),
            "server.undo_resize": (RevertTask, self._revert),
            "server.move": (MoveTask, self._move),
            "server.evacuate": (EvacuateTask, self._evacuate),
            "host.evacuate": (EvacuateTask, self._evacuate),
            "server.evacuate_anew": (ReplaceTask, self._replace),
            "host.evacuate_anew": (ReplaceTask, self._replace),
            "server.undo_replace": (UndoReplaceTask, self._undo_replace),
            "host.set_aside": (SetAsideTask, self._set_aside),
            "server.find": (FindTask, self._find),
            "build.discard": (DestroyTask, self._destroy),
            "pool.watch": (WatchTask, self._watch),
            "pool.clear_cache": (ClearCacheTask, self._clear_cache),
            leftovers.SWEEP: (SweepTask, self._sweep),
            leftovers.TIDY: (TidyTask, self._tidy),
            "pool.measure": (MeasureTask, self._measure),
        }

    def __call__(self, job: Job, journal: Journal) -> Any:
        if job.kind not in self._kinds:
            raise Permanent(f"a compute cell knows no job {job.kind!r}")
        shape, act = self._kinds[job.kind]
        return act(job, codec.unpack(shape, job.body), journal)

    def _prepare(self, job: Job, task: PrepareTask, journal: Journal) -> Outcome:
        secrets = self._secrets(task.spec.sealed)
        plan = plan_build(task.spec, server=job.server, attempt=task.attempt, host=task.on, personal=_personal(secrets))
        headers = self._headers(task.spec.sealed)
        session = self._session(task.pool, journal)
        return Outcome(note=driver.prepare_build(session, plan, journal, headers=headers).note)

    def _start(self, job: Job, task: StartTask, journal: Journal) -> Outcome:
        session = self._session(task.pool, journal)
        note = self._finish_classic(job, task, journal) if task.classic else ""
        driver.start_build(session, job.server, task.attempt, task.host)
        if task.agent:
            told = guest_work.first_boot(session, job, self._secrets(task.sealed), journal)
            note = "; ".join(filter(None, (note, told)))
        return Outcome(note=note)

    def _tell(self, job: Job, task: GuestTask, journal: Journal) -> None:
        guest_work.tell(self._session(task.pool, journal), job, task, self._secrets(task.sealed))

    def _ask(self, job: Job, task: AskTask, journal: Journal) -> Said:
        return guest_work.find_out(self._pools.session(task.pool), job, task)

    def _attach(self, job: Job, task: AttachTask, journal: Journal) -> None:
        session = self._session(task.pool, journal)
        where = driver.Place(device=task.device, host=task.host, shares=task.shares)
        driver.attach_volume(session, job.server, task.volume, task.project, where)

    def _detach(self, job: Job, task: DetachTask, journal: Journal) -> None:
        driver.detach_volume(self._session(task.pool, journal), job.server, task.volume)

    def _share(self, job: Job, task: SharesTask, journal: Journal) -> None:
        driver.set_shares(self._session(task.pool, journal), job.server, task.vcpus, task.disks)

    def _take_host_snapshot(self, job: Job, task: HostSnapshotTask, journal: Journal) -> None:
        driver.take_host_snapshot(self._session(task.pool, journal), job.server, task.number, task.name)

    def _drop_host_snapshot(self, job: Job, task: HostSnapshotTask, journal: Journal) -> None:
        driver.drop_host_snapshot(self._session(task.pool, journal), job.server, task.snapshot)

    def _destroy(self, job: Job, task: DestroyTask, journal: Journal) -> None:
        for pool in filter(None, (task.pool, task.also)) if task.pool else self._pools.names():
            driver.destroy(self._session(pool, journal), job.server, attempt=task.attempt or None)

    def _power(self, job: Job, task: PowerTask, journal: Journal) -> None:
        session = self._session(task.pool, journal)
        match task.action:
            case "start":
                driver.start(session, job.server, host=task.host)
            case "stop":
                driver.stop(session, job.server, clean_seconds=self._clean_seconds)
            case "reboot" | "hard_reboot":
                hard = task.action == "hard_reboot"
                driver.reboot(session, job.server, journal, hard=hard, clean_seconds=self._clean_seconds)
            case "pause":
                driver.pause(session, job.server)
            case "unpause":
                driver.unpause(session, job.server)
            case "suspend":
                driver.suspend(session, job.server)
            case "resume":
                driver.resume(session, job.server)
            case other:
                raise Permanent(f"no such power action: {other!r}")

    def _snapshot(self, job: Job, task: SnapshotTask, journal: Journal) -> Outcome:
        session, headers = self._session(task.pool, journal), self._headers(task.sealed)
        if task.incremental is None:
            return Outcome(note=driver.snapshot(session, job.server, task.image, journal, headers=headers).note)
        done = driver.backup(session, job.server, task.image, task.incremental, journal, headers=headers)
        what = f"builds upon {done.parent}" if done.parent else f"is a full one: {done.reason}"
        return Outcome(note=f"backup {task.image.id} {what}")

    def _rebuild(self, job: Job, task: RemakeTask, journal: Journal) -> Outcome:
        secrets = self._secrets(task.spec.sealed)
        plan = plan_build(
            task.spec,
            server=job.server,
            attempt=task.attempt,
            host=task.on,
            serial=task.number,
            personal=_personal(secrets),
        )
        session, headers = self._pools.session(task.pool), self._headers(task.spec.sealed)
        made = driver.rebuild(session, plan, journal, headers=headers, keep_config=task.keep_config)
        notes = [made.note]
        if task.agent and made.power_state is PowerState.RUNNING:
            notes.append(guest_work.first_boot(session, job, secrets, journal))
        elif secrets.admin_password:
            notes.append("the server is off, so its password was not set")
        return Outcome(power_state=made.power_state, note="; ".join(note for note in notes if note))

    def _rescue(self, job: Job, task: RemakeTask, journal: Journal) -> Outcome:
        plan = plan_rescue(task.spec, server=job.server, attempt=task.attempt, host=task.on, serial=task.number)
        session, headers = self._pools.session(task.pool), self._headers(task.spec.sealed)
        driver.rescue(session, plan, journal, headers=headers, clean_seconds=self._clean_seconds)
        if not task.agent:
            return Outcome()
        return Outcome(note=guest_work.first_boot(session, job, self._secrets(task.spec.sealed), journal))

    def _unrescue(self, job: Job, task: UnrescueTask, journal: Journal) -> None:
        driver.unrescue(self._pools.session(task.pool), job.server, task.host)

    def _resize(self, job: Job, task: ResizeTask, journal: Journal) -> Outcome:
        plan = plan_build(task.spec, server=job.server, attempt=task.attempt, host=task.on, serial=task.number)
        session = self._session(task.pool, journal)
        made = driver.resize(session, plan, journal, clean_seconds=self._clean_seconds)
        return Outcome(power_state=made.power_state, note=made.note)

    def _confirm(self, job: Job, task: ConfirmTask, journal: Journal) -> None:
        driver.confirm_resize(self._session(task.pool, journal), job.server)

    def _revert(self, job: Job, task: RevertTask, journal: Journal) -> None:
        driver.revert_resize(self._session(task.pool, journal), job.server)

    def _move(self, job: Job, task: MoveTask, journal: Journal) -> str:
        session = self._session(task.pool, journal)
        if task.to_pool == task.pool:
            return driver.migrate(session, job.server, task.on, journal).vm_uuid
        target = self._session(task.to_pool, journal)
        return driver.migrate_to_pool(session, target, job.server, task.on, journal).vm_uuid

    def _evacuate(self, job: Job, task: EvacuateTask, journal: Journal) -> None:
        session = self._session(task.pool, journal)
        driver.evacuate(session, job.server, task.dead, task.on, journal, start=task.start)

    def _find(self, job: Job, task: FindTask, journal: Journal) -> Refound | None:
        for pool in task.pools:
            session = self._session(pool, journal)
            seen = refind(session, job.server)
            if seen is not None and (task.ran or seen.power_state is not PowerState.HALTED):
                return seen
            if not task.ran:
                driver.destroy(session, job.server)
        return None

    def _replace(self, job: Job, task: ReplaceTask, journal: Journal) -> None:
        try:
            driver.set_aside(self._session(task.old_pool, journal), job.server, task.serial, dead=task.dead)
        except Temporary:
            if task.old_pool == task.pool:
                raise
            # The pool was this host, or went with it: what is left there is set aside when it answers again.
        plan = plan_build(task.spec, server=job.server, attempt=task.attempt, host=task.on, serial=task.serial)
        session, headers = self._session(task.pool, journal), self._headers(task.spec.sealed)
        driver.replace_lost(session, plan, journal, start=task.start, headers=headers)

    def _undo_replace(self, job: Job, task: UndoReplaceTask, journal: Journal) -> None:
        driver.remove_copy(self._session(task.pool, journal), job.server, task.serial)

    def _set_aside(self, job: Job, task: SetAsideTask, journal: Journal) -> int:
        return driver.set_aside(self._session(task.pool, journal), job.server, task.serial)

    def _watch(self, job: Job, task: WatchTask, journal: Journal) -> Watched:
        seen = driver.look(self._pools.session(task.pool), task.token, wait=task.wait)
        return Watched(
            pool=task.pool,
            token=seen.token,
            began=task.began,
            whole=task.whole,
            quiet=seen.quiet,
            servers=tuple(
                SeenServer(server=server, power_state=state.power_state, host=state.host, attempt=state.attempt)
                for server, state in seen.servers.items()
            ),
            foreign=tuple(
                SeenForeign(host=host, count=each.count, memory_mib=each.memory_mib)
                for host, each in seen.foreign.items()
            ),
        )

    def _clear_cache(self, job: Job, task: ClearCacheTask, journal: Journal) -> int:
        session = self._pools.session(task.pool)
        return driver.clear_cache(session, now=task.at, unused_for=task.unused_for)

    def _sweep(self, job: Job, task: SweepTask, journal: Journal) -> Found:
        found = driver.find_leftovers(self._session(task.pool, journal), task.age)
        return Found(removed=found.removed, servers=found.servers)

    def _tidy(self, job: Job, task: TidyTask, journal: Journal) -> tuple[str, ...]:
        return driver.tidy(self._session(task.pool, journal), job.server, task.held, task.age)

    def _measure(self, job: Job, task: MeasureTask, journal: Journal) -> Measured:
        session = self._pools.session(task.pool)
        said = measured(task.pool, driver.measure(session), self._counting)
        sources = tuple(f"classic:{name}" for name in self._classic)
        able = tuple(replace(host, traits=tuple(sorted((*host.traits, *sources)))) for host in said.hosts)
        return replace(said, hosts=able, trouble=driver.plugins_wrong(session))

    def _prepare_any(self, job: Job, task: PrepareTask, journal: Journal) -> Outcome:
        guest = task.spec.classic
        if guest is None:
            return self._prepare(job, task, journal)
        session, plan = self._session(task.pool, journal), self._plan(job, task)
        made = driver.prepare_classic(session, plan, journal, source=self._source(guest), guest=guest.name)
        return Outcome(note=made.note)

    def _finish_classic(self, job: Job, task: StartTask, journal: Journal) -> str:
        assert task.classic is not None and task.classic.spec.classic is not None
        guest, session = task.classic.spec.classic, self._session(task.pool, journal)
        _, note = driver.finish_classic(
            session,
            self._plan(job, task.classic),
            journal,
            source=self._source(guest),
            guest=guest.name,
            headers=self._headers(task.sealed),
        )
        return note

    def _plan(self, job: Job, task: PrepareTask) -> BuildPlan:
        secrets = self._secrets(task.spec.sealed)
        personal = Personal(files=secrets.files, user_data=secrets.user_data, password=secrets.admin_password)
        return plan_build(task.spec, server=job.server, attempt=task.attempt, host=task.on, personal=personal)

    def _source(self, guest: ClassicGuest) -> ClassicSource:
        if guest.source not in self._classic:
            raise Permanent(f"the leaf has no source {guest.source!r} of classic guests; add it to classic_sources")
        return self._classic[guest.source]

    def _session(self, pool: str, journal: Journal) -> Session:
        return LeasedSession(self._pools.session(pool), journal.check)

    def _headers(self, sealed: bytes) -> Mapping[str, str]:
        token = self._secrets(sealed).image_token
        return {"X-Auth-Token": token} if token else {}

    def _secrets(self, sealed: bytes) -> Secrets:
        if not sealed:
            return Secrets()
        secrets: Secrets = codec.unpack(Secrets, self._identity.unseal(sealed))
        return secrets


def _personal(secrets: Secrets) -> Personal:
    return Personal(files=secrets.files, user_data=secrets.user_data, password=secrets.admin_password)


def measured(pool: str, facts: PoolFacts, counting: Counting) -> Measured:
    """A pool's facts as placing counts them."""
    return Measured(pool=pool, hosts=tuple(_host(facts, host, counting) for host in facts.hosts))


def _host(facts: PoolFacts, host: HostFacts, counting: Counting) -> MeasuredHost:
    storage = facts.storage(host.storage)
    disk = int((storage.size_bytes if storage else 0) * counting.disk_ratio) // GIB
    return MeasuredHost(
        uuid=host.uuid,
        name=host.name,
        ready=host.usable,
        ram_mib=int(host.memory_free_mib * (1 - counting.reserve)),
        physical_mib=host.memory_total_mib,
        vcpus=int(host.cpus * counting.cpu_ratio),
        disk_gib=disk,
        sr=host.storage,
        group=storage.uuid if storage is not None and storage.shared else "",
        network=host.network,
        version=host.version,
        traits=host.traits,
        fenced=host.fenced,
    )
