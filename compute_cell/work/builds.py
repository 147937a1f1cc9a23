"""Builds: prepared, started, taken away, found again after a backup was put back. Classic guests are builds, too."""

from cells.decision import Job
from cells.model import PowerState
from cells.ports import Journal
from compute_cell import guest_work
from compute_cell.tasks import DestroyTask, FindTask, Outcome, PrepareTask, Sought, StartTask
from compute_cell.work.tools import Kinds, Tools, personal_of
from xenapi_host import driver
from xenapi_host.driver.refind import refind
from xenapi_host.facts import Refound
from xenapi_host.plan import BuildPlan, plan_build


def prepare(tools: Tools, job: Job, task: PrepareTask, journal: Journal) -> Outcome:
    plan, session = _plan(tools, job, task), tools.session(task.pool, journal)
    if guest := task.spec.classic:
        made = driver.prepare_classic(session, plan, journal, source=tools.source(guest), guest=guest.name)
    else:
        made = driver.prepare_build(session, plan, journal, headers=tools.headers(task.spec.sealed))
    return Outcome(note=made.note)


def start(tools: Tools, job: Job, task: StartTask, journal: Journal) -> Outcome:
    session = tools.session(task.pool, journal)
    note = _finish_classic(tools, job, task, journal) if task.classic else ""
    driver.start_build(session, job.server, task.attempt, task.host)
    if task.agent:
        told = guest_work.first_boot(session, job, tools.secrets(task.sealed), journal)
        note = "; ".join(filter(None, (note, told)))
    return Outcome(note=note)


def _finish_classic(tools: Tools, job: Job, task: StartTask, journal: Journal) -> str:
    assert task.classic is not None and task.classic.spec.classic is not None
    guest, session = task.classic.spec.classic, tools.session(task.pool, journal)
    _, note = driver.finish_classic(
        session,
        _plan(tools, job, task.classic),
        journal,
        source=tools.source(guest),
        guest=guest.name,
        headers=tools.headers(task.sealed),
    )
    return note


def destroy(tools: Tools, job: Job, task: DestroyTask, journal: Journal) -> Sought:
    others = False
    for pool in filter(None, (task.pool, task.also)) if task.pool else tools.pools.names():
        session = tools.session(pool, journal)
        try:
            driver.destroy(session, job.server, attempt=task.attempt or None, owner=task.owner)
        except driver.BelongsToAnother:
            others = True
    return Sought(others=others)


def find(tools: Tools, job: Job, task: FindTask, journal: Journal) -> Sought:
    try:
        return Sought(seen=_found(tools, job, task, journal))
    except driver.BelongsToAnother:
        return Sought(others=True)


def _found(tools: Tools, job: Job, task: FindTask, journal: Journal) -> Refound | None:
    for pool in task.pools:
        session = tools.session(pool, journal)
        seen = refind(session, job.server, task.owner)
        if seen is not None and (task.ran or seen.power_state is not PowerState.HALTED):
            return seen
        if not task.ran:
            driver.destroy(session, job.server, owner=task.owner)
    return None


def _plan(tools: Tools, job: Job, task: PrepareTask) -> BuildPlan:
    personal = personal_of(tools.secrets(task.spec.sealed))
    return plan_build(
        task.spec, server=job.server, attempt=task.attempt, host=task.on, personal=personal, owner=task.owner
    )


KINDS: Kinds = {
    "build.prepare": (PrepareTask, prepare),
    "build.start": (StartTask, start),
    "build.destroy": (DestroyTask, destroy),
    "build.discard": (DestroyTask, destroy),
    "server.find": (FindTask, find),
}
