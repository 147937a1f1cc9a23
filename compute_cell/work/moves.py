"""Servers that go elsewhere: moved while they run, brought up or made anew after their host has died."""

from cells.decision import Job
from cells.errors import Temporary
from cells.ports import Journal
from compute_cell.tasks import EvacuateTask, MoveTask, ReplaceTask, SetAsideTask, UndoReplaceTask
from compute_cell.work.tools import Kinds, Tools
from xenapi_host import driver
from xenapi_host.plan import plan_build


def move(tools: Tools, job: Job, task: MoveTask, journal: Journal) -> str:
    session = tools.session(task.pool, journal)
    if task.to_pool == task.pool:
        return driver.migrate(session, job.server, task.on, journal).vm_uuid
    target = tools.session(task.to_pool, journal)
    return driver.migrate_to_pool(session, target, job.server, task.on, journal).vm_uuid


def evacuate(tools: Tools, job: Job, task: EvacuateTask, journal: Journal) -> None:
    session = tools.session(task.pool, journal)
    driver.evacuate(session, job.server, task.dead, task.on, journal, start=task.start)


def replace(tools: Tools, job: Job, task: ReplaceTask, journal: Journal) -> None:
    try:
        driver.set_aside(tools.session(task.old_pool, journal), job.server, task.serial, dead=task.dead)
    except Temporary:
        if task.old_pool == task.pool:
            raise
        # The pool was this host, or went with it: what is left there is set aside when it answers again.
    plan = plan_build(
        task.spec, server=job.server, attempt=task.attempt, host=task.on, serial=task.serial, owner=task.owner
    )
    session, headers = tools.session(task.pool, journal), tools.headers(task.spec.sealed)
    driver.replace_lost(session, plan, journal, start=task.start, headers=headers)


def undo_replace(tools: Tools, job: Job, task: UndoReplaceTask, journal: Journal) -> None:
    driver.remove_copy(tools.session(task.pool, journal), job.server, task.serial)


def set_aside(tools: Tools, job: Job, task: SetAsideTask, journal: Journal) -> int:
    return driver.set_aside(tools.session(task.pool, journal), job.server, task.serial)


KINDS: Kinds = {
    "server.move": (MoveTask, move),
    "server.evacuate": (EvacuateTask, evacuate),
    "host.evacuate": (EvacuateTask, evacuate),
    "server.evacuate_anew": (ReplaceTask, replace),
    "host.evacuate_anew": (ReplaceTask, replace),
    "server.undo_replace": (UndoReplaceTask, undo_replace),
    "host.set_aside": (SetAsideTask, set_aside),
}
