"""What a leaf looks after on its pools by itself: hosts measured, power watched, caches and leftovers cleared."""

from dataclasses import replace

from cells.decision import Job
from cells.ports import Journal
from compute_cell import leftovers
from compute_cell.tasks import (
    ClearCacheTask,
    Found,
    Measured,
    MeasuredHost,
    MeasureTask,
    SeenForeign,
    SeenServer,
    SweepTask,
    TidyTask,
    Watched,
    WatchTask,
)
from compute_cell.work.tools import Counting, Kinds, Tools
from xenapi_host import driver
from xenapi_host.facts import GIB, HostFacts, PoolFacts
from xenapi_host.session import Session

SLICE = 1.5
"""For how long (seconds) a pool is asked to wait for events at a time: a daemon that is to end waits for the answer."""


def watch(tools: Tools, job: Job, task: WatchTask, journal: Journal) -> Watched:
    seen = wait_and_look(tools.unleased(task.pool), task, journal)
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
            SeenForeign(host=host, count=each.count, memory_mib=each.memory_mib) for host, each in seen.foreign.items()
        ),
    )


def wait_and_look(session: Session, task: WatchTask, journal: Journal) -> driver.Looked:
    """The pool's VMs, when something has happened to one or the time is over."""
    token, left = task.token, task.wait
    while True:
        journal.check()
        seen = driver.look(session, token, wait=min(left, SLICE))
        left -= SLICE
        if not seen.quiet or left <= 0:
            return seen
        token = seen.token


def clear_cache(tools: Tools, job: Job, task: ClearCacheTask, journal: Journal) -> int:
    session = tools.unleased(task.pool)
    return driver.clear_cache(session, now=task.at, unused_for=task.unused_for)


def sweep(tools: Tools, job: Job, task: SweepTask, journal: Journal) -> Found:
    found = driver.find_leftovers(tools.session(task.pool, journal), task.age)
    return Found(removed=found.removed, servers=found.servers)


def tidy(tools: Tools, job: Job, task: TidyTask, journal: Journal) -> tuple[str, ...]:
    return driver.tidy(tools.session(task.pool, journal), job.server, task.held, task.age, task.owner or "")


def measure(tools: Tools, job: Job, task: MeasureTask, journal: Journal) -> Measured:
    session = tools.unleased(task.pool)
    said = measured(task.pool, driver.measure(session), tools.counting)
    sources = tuple(f"classic:{name}" for name in tools.classic)
    able = tuple(replace(host, traits=tuple(sorted((*host.traits, *sources)))) for host in said.hosts)
    return replace(said, hosts=able, trouble=driver.plugins_wrong(session))


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


KINDS: Kinds = {
    "pool.watch": (WatchTask, watch),
    "pool.clear_cache": (ClearCacheTask, clear_cache),
    leftovers.SWEEP: (SweepTask, sweep),
    leftovers.TIDY: (TidyTask, tidy),
    "pool.measure": (MeasureTask, measure),
}
