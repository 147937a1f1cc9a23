"""Commands to a server that is there: power, snapshots, sizes, rescue, its guest, its volumes and shares."""

from cells.decision import Job
from cells.errors import Permanent
from cells.model import PowerState
from cells.ports import Journal
from compute_cell import guest, guest_work, host_snapshots, restored, shares, volumes
from compute_cell.tasks import (
    AskTask,
    AttachTask,
    ConfirmTask,
    DetachTask,
    GuestTask,
    HostSnapshotTask,
    Outcome,
    PowerTask,
    RemakeTask,
    ResizeTask,
    RevertTask,
    Said,
    SharesTask,
    SnapshotTask,
    UndoSnapshotTask,
    UnrescueTask,
)
from compute_cell.work.tools import Kinds, Tools, personal_of
from xenapi_host import driver
from xenapi_host.plan import plan_build, plan_rescue


def power(tools: Tools, job: Job, task: PowerTask, journal: Journal) -> None:
    session = tools.session(task.pool, journal)
    match task.action:
        case "start":
            driver.start(session, job.server, host=task.host)
        case "stop":
            driver.stop(session, job.server, clean_seconds=tools.clean_seconds)
        case "reboot" | "hard_reboot":
            hard = task.action == "hard_reboot"
            driver.reboot(session, job.server, journal, host=task.host, hard=hard, clean_seconds=tools.clean_seconds)
        case "pause":
            driver.pause(session, job.server)
        case "unpause":
            driver.unpause(session, job.server)
        case "suspend":
            driver.suspend(session, job.server)
        case "resume":
            driver.resume(session, job.server, host=task.host)
        case other:
            raise Permanent(f"no such power action: {other!r}")


def snapshot(tools: Tools, job: Job, task: SnapshotTask, journal: Journal) -> Outcome:
    session, headers = tools.session(task.pool, journal), tools.headers(task.sealed)
    if task.incremental is None:
        return Outcome(note=driver.snapshot(session, job.server, task.image, journal, headers=headers).note)
    done = driver.backup(session, job.server, task.image, task.incremental, journal, headers=headers)
    what = f"builds upon {done.parent}" if done.parent else f"is a full one: {done.reason}"
    return Outcome(note=f"backup {task.image.id} {what}")


def undo_snapshot(tools: Tools, job: Job, task: UndoSnapshotTask, journal: Journal) -> None:
    driver.undo_snapshot(tools.session(task.pool, journal), job.server)


def rebuild(tools: Tools, job: Job, task: RemakeTask, journal: Journal) -> Outcome:
    secrets = tools.secrets(task.spec.sealed)
    plan = plan_build(
        task.spec,
        server=job.server,
        attempt=task.attempt,
        host=task.on,
        serial=task.number,
        personal=personal_of(secrets),
        owner=task.owner,
    )
    session, headers = tools.session(task.pool, journal), tools.headers(task.spec.sealed)
    made = driver.rebuild(session, plan, journal, headers=headers, keep_config=task.keep_config)
    notes = [made.note]
    if task.agent and made.power_state is PowerState.RUNNING:
        notes.append(guest_work.first_boot(session, job, secrets, journal))
    elif secrets.admin_password:
        notes.append("the server is off, so its password was not set")
    return Outcome(power_state=made.power_state, note="; ".join(note for note in notes if note))


def rescue(tools: Tools, job: Job, task: RemakeTask, journal: Journal) -> Outcome:
    plan = plan_rescue(
        task.spec, server=job.server, attempt=task.attempt, host=task.on, serial=task.number, owner=task.owner
    )
    session, headers = tools.session(task.pool, journal), tools.headers(task.spec.sealed)
    driver.rescue(session, plan, journal, headers=headers, clean_seconds=tools.clean_seconds)
    if not task.agent:
        return Outcome()
    return Outcome(note=guest_work.first_boot(session, job, tools.secrets(task.spec.sealed), journal))


def unrescue(tools: Tools, job: Job, task: UnrescueTask, journal: Journal) -> None:
    driver.unrescue(tools.session(task.pool, journal), job.server, task.host)


def resize(tools: Tools, job: Job, task: ResizeTask, journal: Journal) -> Outcome:
    plan = plan_build(
        task.spec, server=job.server, attempt=task.attempt, host=task.on, serial=task.number, owner=task.owner
    )
    session = tools.session(task.pool, journal)
    made = driver.resize(session, plan, journal, clean_seconds=tools.clean_seconds)
    return Outcome(power_state=made.power_state, note=made.note)


def confirm(tools: Tools, job: Job, task: ConfirmTask, journal: Journal) -> None:
    driver.confirm_resize(tools.session(task.pool, journal), job.server)


def revert(tools: Tools, job: Job, task: RevertTask, journal: Journal) -> None:
    driver.revert_resize(tools.session(task.pool, journal), job.server)


def tell(tools: Tools, job: Job, task: GuestTask, journal: Journal) -> None:
    guest_work.tell(tools.session(task.pool, journal), job, task, tools.secrets(task.sealed))


def ask(tools: Tools, job: Job, task: AskTask, journal: Journal) -> Said:
    return guest_work.find_out(tools.unleased(task.pool), job, task)


def attach(tools: Tools, job: Job, task: AttachTask, journal: Journal) -> None:
    session = tools.session(task.pool, journal)
    where = driver.Place(device=task.device, host=task.host, shares=task.shares)
    driver.attach_volume(session, job.server, task.volume, task.project, where)


def detach(tools: Tools, job: Job, task: DetachTask, journal: Journal) -> None:
    driver.detach_volume(tools.session(task.pool, journal), job.server, task.volume)


def share(tools: Tools, job: Job, task: SharesTask, journal: Journal) -> None:
    driver.set_shares(tools.session(task.pool, journal), job.server, task.vcpus, task.disks)


def take_host_snapshot(tools: Tools, job: Job, task: HostSnapshotTask, journal: Journal) -> None:
    driver.take_host_snapshot(tools.session(task.pool, journal), job.server, task.number, task.name)


def drop_host_snapshot(tools: Tools, job: Job, task: HostSnapshotTask, journal: Journal) -> None:
    driver.drop_host_snapshot(tools.session(task.pool, journal), job.server, task.snapshot)


KINDS: Kinds = {
    "server.power": (PowerTask, power),
    "server.snapshot": (SnapshotTask, snapshot),
    "server.undo_snapshot": (UndoSnapshotTask, undo_snapshot),
    "server.rebuild": (RemakeTask, rebuild),
    "server.rescue": (RemakeTask, rescue),
    "server.unrescue": (UnrescueTask, unrescue),
    "server.undo_rescue": (UnrescueTask, unrescue),
    "server.resize": (ResizeTask, resize),
    "server.confirm_resize": (ConfirmTask, confirm),
    "server.revert_resize": (RevertTask, revert),
    "server.undo_resize": (RevertTask, revert),
    restored.UNDO: (RevertTask, revert),
    guest.TELL: (GuestTask, tell),
    guest.ASKED: (AskTask, ask),
    volumes.ATTACH: (AttachTask, attach),
    volumes.DETACH: (DetachTask, detach),
    volumes.UNDO_ATTACH: (DetachTask, detach),
    shares.SET: (SharesTask, share),
    host_snapshots.TAKE: (HostSnapshotTask, take_host_snapshot),
    host_snapshots.DROP: (HostSnapshotTask, drop_host_snapshot),
}
