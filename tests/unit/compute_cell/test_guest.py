"""What a leaf decides on questions and on what a guest is to be told, one record at a time."""

import pytest

from cells.codec import pack, unpack
from cells.messages import Answer, Ask, JobEnded, Question, SetMetadata, SetPassword
from cells.model import ImageRef
from cells.names import SECOND
from compute_cell.guest import ASKED
from compute_cell.rows import InstanceRow
from compute_cell.tasks import AskTask, GuestTask, Said
from tests.support.embedded import IMAGE, Tree, make_tree

QUESTION = bytes(range(16))


@pytest.fixture(scope="module")
def tree():
    tree = make_tree({"east": (), "leaf": ("east",)})
    yield tree
    tree.close()


@pytest.fixture
def server(tree: Tree) -> bytes:
    server = tree.build("east")
    tree.run(8)
    assert tree.server("east", server).status == "ACTIVE"
    return server


def _ask(tree: Tree, server: bytes, **more):
    deadline = tree.clock() + 10 * SECOND
    body = Ask(question=QUESTION, kind=Question.CONSOLE_LOG)
    return tree.decide("leaf", tree.record("east", "leaf", body, server, **{"deadline": deadline, **more}))


def test_owners_question_begins_a_job_beside_the_hosts_own(tree: Tree, server: bytes) -> None:
    (job,) = _ask(tree, server).do
    assert (job.kind, unpack(AskTask, job.body).kind) == (ASKED, Question.CONSOLE_LOG)
    instance = tree.instance("leaf", server)
    assert instance is not None
    assert job.lane != instance.host
    assert instance.job == bytes(16), "a question is no work of the server's own"


def test_strangers_and_late_questions_get_nothing(tree: Tree, server: bytes) -> None:
    body = Ask(question=QUESTION, kind=Question.DIAGNOSTICS)
    stranger = tree.decide("leaf", tree.record("other", "leaf", body, server, deadline=tree.clock() + SECOND))
    assert (stranger.do, stranger.send) == ((), ())
    assert _ask(tree, server, deadline=tree.clock() - 1).do == ()
    assert _ask(tree, bytes(16)).do == ()


def test_answer_goes_to_the_owner_once_and_a_failed_job_says_nothing(tree: Tree, server: bytes) -> None:
    result = pack(Said(question=QUESTION, body=b"x"))
    end = JobEnded(job=bytes(16), kind=ASKED, result=result)
    (answer,) = tree.decide("leaf", tree.record("leaf", "leaf", end, server)).send
    assert (answer.body, answer.destination) == (Answer(question=QUESTION, body=b"x"), "east")
    broken = JobEnded(job=bytes(16), kind=ASKED, error="an internal error; see the cell's log")
    assert tree.decide("leaf", tree.record("leaf", "leaf", broken, server)).send == ()


def test_commands_to_a_guest_are_numbered_like_all_others(tree: Tree, server: bytes) -> None:
    deadline = tree.clock() + 60 * SECOND
    first = tree.record("east", "leaf", SetPassword(sealed=b"box"), server, number=2, deadline=deadline)
    (job,) = tree.decide("leaf", first).do
    task = unpack(GuestTask, job.body)
    assert (task.action, task.sealed) == ("set_password", b"box")
    instance = tree.instance("leaf", server)
    assert instance is not None
    assert instance.state.task_state == "updating_password"
    second = tree.record("east", "leaf", SetMetadata(metadata={"a": "1"}), server, number=3, deadline=deadline)
    assert tree.decide("leaf", second).do == (), "it waits its turn"
    end = JobEnded(job=job.id, kind=job.kind, error="the server's guest agent does not answer")
    (next_job,) = tree.decide("leaf", tree.record("leaf", "leaf", end, server)).do
    assert unpack(GuestTask, next_job.body).metadata == {"a": "1"}
    instance = tree.instance("leaf", server)
    assert instance is not None
    assert instance.failed == (2, "the server's guest agent does not answer")
    assert instance.spec.metadata == {"a": "1"}, "what a resize makes anew has it, too"


@pytest.mark.parametrize("agent", [False, True])
def test_nothing_sealed_is_left_when_a_build_is_over(agent: bool) -> None:
    tree = make_tree({"east": (), "leaf": ("east",)})
    try:
        properties = {"xenapi_use_agent": "true"} if agent else {}
        image = ImageRef(id=IMAGE.id, name=IMAGE.name, url=IMAGE.url, size=1, properties=properties)
        server = tree.build("east", image=image)
        tree.run(8)
        instance = tree.instance("leaf", server)
        assert instance is not None
        assert instance.spec.sealed == b""
        assert [row.spec.sealed for row in tree.rows("leaf", InstanceRow)] == [b""]
        (vm,) = tree.vms("leaf")
        told = tree.guests["leaf"].network_resets
        assert told == ({vm["uuid"]: 1} if agent else {})
    finally:
        tree.close()
