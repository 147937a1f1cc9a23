"""What a session does when the pool, or whoever answers in its place, misbehaves."""

import socket
import threading
import xmlrpc.client
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from cells.errors import BadInput, Temporary
from xenapi_host.session import Access, Session, TaskTimedOut, XenFailure, connect, run_task

PASSWORD = "canary-password"


def ok(value: Any) -> bytes:
    return xmlrpc.client.dumps(({"Status": "Success", "Value": value},), methodresponse=True).encode()


def no(*description: str) -> bytes:
    answer = {"Status": "Failure", "ErrorDescription": list(description)}
    return xmlrpc.client.dumps((answer,), methodresponse=True).encode()


@dataclass
class Scripted:
    """A server that answers each method by a function; None closes the connection without an answer."""

    answers: dict[str, Callable[..., bytes | None]] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    url: str = ""
    logins: int = 0

    def answer(self, method: str, params: tuple[Any, ...]) -> bytes | None:
        self.seen.append(method)
        if method in self.answers:
            return self.answers[method](*params)
        if method == "session.login_with_password":
            self.logins += 1
            return ok(f"OpaqueRef:session-{self.logins}")
        return ok("")


@pytest.fixture
def serve() -> Iterator[Callable[[], Scripted]]:
    running: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start() -> Scripted:
        script = Scripted()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                pass

            def do_POST(self) -> None:
                params, method = xmlrpc.client.loads(self.rfile.read(int(self.headers["Content-Length"])))
                body = script.answer(str(method), params)
                if body is None:
                    self.close_connection = True
                    return
                self.close_connection = True
                with suppress(ConnectionError):  # who asked may have gone
                    self.send_response(200)
                    self.send_header("Content-Type", "text/xml")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                    self.close_connection = False

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        running.append((server, thread))
        script.url = f"http://127.0.0.1:{server.server_address[1]}"
        return script

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def pool(serve: Callable[[], Scripted]) -> Scripted:
    return serve()


def access(pool: Scripted, **changes: Any) -> Access:
    return Access(**{"url": pool.url, "user": "root", "password": PASSWORD, **changes})


@pytest.fixture
def session(pool: Scripted) -> Iterator[Session]:
    session = connect(access(pool))
    yield session
    session.close()


def test_lost_answer_is_not_asked_again_unless_it_was_a_question(pool: Scripted, session: Session) -> None:
    pool.answers = {"VM.create": lambda *_: None, "VM.get_all": lambda *_: None}
    with pytest.raises(Temporary):
        session.call("VM.create", {})
    assert pool.seen.count("VM.create") == 1
    with pytest.raises(Temporary):
        session.call("VM.get_all")
    assert pool.seen.count("VM.get_all") == 2


def test_expired_session_is_opened_again(pool: Scripted, session: Session) -> None:
    pool.answers["VM.get_all"] = lambda ref: ok([ref]) if ref.endswith("-2") else no("SESSION_INVALID", ref)
    assert session.call("VM.get_all") == ["OpaqueRef:session-2"]


def test_slave_sends_us_to_its_master_for_good(serve: Callable[[], Scripted]) -> None:
    slave, master = serve(), serve()
    address = master.url.removeprefix("http://")
    slave.answers["session.login_with_password"] = lambda *_: no("HOST_IS_SLAVE", address)
    session = connect(access(slave))
    session.call("VM.get_all")
    session.call("VM.get_all")
    assert slave.seen == ["session.login_with_password"]
    assert master.seen.count("VM.get_all") == 2
    session.close()


def test_master_that_changes_while_we_are_logged_in_is_followed(serve: Callable[[], Scripted]) -> None:
    old, new = serve(), serve()
    old.answers["VM.get_all"] = lambda *_: no("HOST_IS_SLAVE", new.url.removeprefix("http://"))
    new.answers["VM.get_all"] = lambda *_: ok(["here"])
    session = connect(access(old))
    assert session.call("VM.get_all") == ["here"]
    session.close()


def test_two_members_that_name_each_other_end_in_a_try_later(serve: Callable[[], Scripted]) -> None:
    one, two = serve(), serve()
    one.answers["session.login_with_password"] = lambda *_: no("HOST_IS_SLAVE", two.url.removeprefix("http://"))
    two.answers["session.login_with_password"] = lambda *_: no("HOST_IS_SLAVE", one.url.removeprefix("http://"))
    session = connect(access(one))
    with pytest.raises(Temporary, match="master"):
        session.call("VM.get_all")


def test_answer_larger_than_allowed_is_not_taken(pool: Scripted) -> None:
    pool.answers["VM.get_all"] = lambda *_: ok(["x" * 1000] * 1000)
    session = connect(access(pool, largest_answer=100_000))
    with pytest.raises(Temporary, match="larger"):
        session.call("VM.get_all")
    session.close()


@pytest.mark.parametrize(
    "body",
    [
        b"this is no XML",
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><methodResponse><params><param><value>&b;</value></param>'
        b"</params></methodResponse>",
        xmlrpc.client.dumps(({"Value": "no status"},), methodresponse=True).encode(),
        xmlrpc.client.dumps(("no struct",), methodresponse=True).encode(),
    ],
    ids=["no xml", "entities", "no status", "no struct"],
)
def test_malformed_answer_is_a_try_later(pool: Scripted, session: Session, body: bytes) -> None:
    pool.answers["VM.get_all"] = lambda *_: body
    with pytest.raises(Temporary):
        session.call("VM.get_all")


def test_wrong_password_is_told_without_it(pool: Scripted, session: Session) -> None:
    pool.answers["session.login_with_password"] = lambda *_: no("SESSION_AUTHENTICATION_FAILED", "root", "no")
    with pytest.raises(XenFailure) as refused:
        session.call("VM.get_all")
    assert refused.value.code == "SESSION_AUTHENTICATION_FAILED"
    assert PASSWORD not in repr(refused.value) + repr(session) + repr(access(pool))


def test_pool_that_takes_too_long_is_a_try_later(pool: Scripted) -> None:
    asked_enough = threading.Event()
    pool.answers["VM.create"] = lambda *_: ok(asked_enough.wait(30))
    session = connect(access(pool, read_seconds=0.2))
    with pytest.raises(Temporary, match="does not answer"):
        session.call("VM.create", {})
    asked_enough.set()
    session.close()


def test_no_more_log_ins_than_allowed_and_all_are_logged_out(pool: Scripted) -> None:
    inside = threading.Barrier(2, timeout=20)
    pool.answers["VM.get_all"] = lambda *_: ok([inside.wait()])
    session = connect(access(pool, logins=2))
    threads = [threading.Thread(target=session.call, args=("VM.get_all",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pool.logins == 2
    session.close()
    assert pool.seen.count("session.logout") == 2
    with pytest.raises(Temporary, match="closed"):
        session.call("VM.get_all")


def test_pool_that_is_down_does_no_harm_until_asked() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        session = connect(Access(url=f"http://127.0.0.1:{taken.getsockname()[1]}", user="root", password=PASSWORD))
        with pytest.raises(Temporary) as trouble:
            session.call("VM.get_all")
    assert "127.0.0.1" not in str(trouble.value)


@pytest.mark.parametrize("url", ["10.0.0.5", "ftp://10.0.0.5", "https://root:xen@10.0.0.5", "https://"])
def test_address_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(BadInput, match="url"):
        connect(Access(url=url, user="root", password=PASSWORD))


def test_task_that_does_not_end_is_cancelled_at_its_limit(pool: Scripted) -> None:
    pool.answers["task.get_record"] = lambda *_: ok({"status": "pending"})
    clock = iter(range(100))
    session = Session(connect(access(pool))._door, clock=lambda: float(next(clock)), sleep=lambda _: None)
    with pytest.raises(TaskTimedOut):
        run_task(session, "Async.VM.start", "ref", False, False, limit=5.0)
    assert "task.cancel" in pool.seen
    session.close()


def test_task_result_that_is_no_xml_is_a_try_later(pool: Scripted, session: Session) -> None:
    pool.answers["task.get_record"] = lambda *_: ok({"status": "success", "result": "<value>", "error_info": []})
    with pytest.raises(Temporary):
        run_task(session, "Async.VM.start", "ref", False, False, limit=5.0)
