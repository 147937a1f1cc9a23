"""What an owner tells or asks of a guest. Commands are numbered like all others; questions are not: who asks waits, so
they are answered beside whatever goes on, once, or not at all. Pure.

    Ask -> job server.ask -> Answer
"""

from dataclasses import replace

from cells.codec import pack, unpack
from cells.decision import NOTHING, Decision, Job
from cells.messages import Answer, Ask, InjectNetwork, JobEnded, RenameServer, ResetNetwork, SetMetadata, SetPassword
from cells.names import Instant
from cells.ports import View
from cells.record import Received
from compute_cell.answers import Here
from compute_cell.command import Begun, Done
from compute_cell.rows import InstanceRow, Phase
from compute_cell.tasks import AskTask, GuestTask, Said

ASKED = "server.ask"
TELL = "server.guest"
_LANE = "ask "
_NOT_HERE = "the server has no host now"


def begin_password(here: Here, view: View, instance: InstanceRow, body: SetPassword, request: str) -> Begun:
    task = GuestTask(pool=instance.pool, action="set_password", sealed=body.sealed)
    return _begin(here, instance, task, request, "updating_password")


def begin_metadata(here: Here, view: View, instance: InstanceRow, body: SetMetadata, request: str) -> Begun:
    """The VM that a later resize or rebuild makes is to have it, too."""
    after = replace(instance, spec=replace(instance.spec, metadata=body.metadata))
    task = GuestTask(pool=instance.pool, action="set_metadata", metadata=body.metadata)
    return _begin(here, after, task, request)


def begin_rename(here: Here, view: View, instance: InstanceRow, body: RenameServer, request: str) -> Begun:
    """The VM that a later resize or rebuild makes is to have it, too."""
    after = replace(instance, spec=replace(instance.spec, name=body.name))
    return _begin(here, after, GuestTask(pool=instance.pool, action="rename", name=body.name), request)


def begin_reset_network(here: Here, view: View, instance: InstanceRow, body: ResetNetwork, request: str) -> Begun:
    return _begin(here, instance, GuestTask(pool=instance.pool, action="reset_network"), request)


def begin_inject_network(here: Here, view: View, instance: InstanceRow, body: InjectNetwork, request: str) -> Begun:
    return _begin(here, instance, GuestTask(pool=instance.pool, action="inject_network"), request)


def _begin(here: Here, instance: InstanceRow, task: GuestTask, request: str, task_state: str = "") -> Begun:
    return Begun(job=here.job(TELL, instance, task, request), task_state=task_state, instance=instance)


def told(view: View, instance: InstanceRow, now: Instant) -> Done:
    """The guest knows; the server is what it was."""
    return instance, ()


# --- questions ---


def asked(here: Here, view: View, received: Received, body: Ask, now: Instant) -> Decision:
    """Begin to find out. Only the owner is answered."""
    record = received.record
    instance = view.get(InstanceRow, record.server)
    if instance is None or instance.owner != record.origin or record.deadline < now:
        return NOTHING
    if not instance.host or instance.phase is not Phase.GRANTED:
        answer = Answer(question=body.question, error=_NOT_HERE)
        return Decision(send=(here.record(record.origin, answer, record, deadline=record.deadline),))
    job = Job(
        id=here.new_id(),
        kind=ASKED,
        server=instance.id,
        lane=_LANE + instance.host,  # beside the host's own work: who asks does not wait for a snapshot to go up
        body=pack(_ask_task(instance, body)),
        request=record.request,
    )
    return Decision(do=(job,), notes=(f"asked: {body.kind.value}",))


def _ask_task(instance: InstanceRow, body: Ask) -> AskTask:
    return AskTask(
        pool=instance.pool,
        question=body.question,
        kind=body.kind,
        about=body.about,
        project=instance.spec.project,
    )


def answered(here: Here, view: View, server: bytes, end: JobEnded, now: Instant) -> Decision:
    """Pass the answer on to the owner; if the job itself came to nothing, the owner's wait ends by itself."""
    instance = view.get(InstanceRow, server)
    if instance is None or end.error:
        return Decision(notes=(end.error,)) if end.error else NOTHING
    said: Said = unpack(Said, end.result)
    answer = Answer(question=said.question, body=said.body, error=said.error)
    return Decision(send=(here.record(instance.owner, answer, instance),), notes=("answered",))
