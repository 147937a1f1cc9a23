"""The slow half of what guests are told and asked: one call of the driver each. Secrets never leave the call."""

import json
import zlib
from dataclasses import asdict

from cells.decision import Job
from cells.errors import CelltreeError, Permanent, Temporary
from cells.messages import Question
from cells.model import Secrets
from cells.ports import Journal
from compute_cell.tasks import AskTask, GuestTask, Said
from xenapi_host import driver
from xenapi_host.driver import Wishes
from xenapi_host.session import Session

_MOST_ANSWERED = 160 * 1024


def tell(session: Session, job: Job, task: GuestTask, secrets: Secrets) -> None:
    """Do one command."""
    match task.action:
        case "set_password":
            driver.set_password(session, job.server, secrets.admin_password)
        case "set_metadata":
            driver.put_metadata(session, job.server, task.metadata)
        case "reset_network":
            driver.reset_network(session, job.server)
        case "inject_network":
            driver.put_network(session, job.server)
        case "rename":
            driver.rename(session, job.server, task.name)
        case other:
            raise Permanent(f"no such thing to tell a guest: {other!r}")


def first_boot(session: Session, job: Job, secrets: Secrets, journal: Journal) -> str:
    """Let the agent of a server just built do what was wished with it; what the tenant should know of that."""
    wishes = Wishes(password=secrets.admin_password, files=secrets.files)
    return driver.first_boot(session, job.server, wishes, journal)


def find_out(session: Session, job: Job, task: AskTask) -> Said:
    """Answer one question. A failure is an answer, too: nobody waits for a second try."""
    try:
        match task.kind:
            case Question.CONSOLE_LOG:
                said = driver.console_log(session, job.server)
            case Question.CONSOLE_URL:
                said = driver.console_url(session, job.server).encode()
            case Question.DIAGNOSTICS:
                said = json.dumps(asdict(driver.diagnostics(session, job.server))).encode()
            case Question.VOLUME:
                volume = driver.find_volume(session, task.about, task.project)
                said = json.dumps(volume and asdict(volume)).encode()
            case Question.HOST_SNAPSHOTS:
                said = json.dumps([asdict(each) for each in driver.host_snapshots(session, job.server)]).encode()
    except Temporary as failure:
        return Said(question=task.question, error=f"{failure}; ask again")
    except CelltreeError as failure:
        return Said(question=task.question, error=str(failure))
    body = zlib.compress(said)
    if len(body) > _MOST_ANSWERED:
        return Said(question=task.question, error="the answer is too long to be sent")
    return Said(question=task.question, body=body)
