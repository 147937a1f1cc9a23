"""Waiting for the token with which leaves reach the operator's Glance: a Keystone that is away is waited for, one that
refuses our user ends what would wait in vain."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from api_cell.http.service_user import REFUSAL_COUNTS
from api_cell.rows import Phase, ServerRow
from cells.messages import RebuildServer, SnapshotServer
from cells.model import VmState
from cells.rows import StoryRow
from tests.support.embedded import IMAGE, Tree, make_tree

# keystonemiddleware stands on WebOb, which imports cgi until Python has it no more.
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore:'cgi' is deprecated:DeprecationWarning")]

MOST_SECONDS = 20.0
REFUSED = "The image service cannot be used: Keystone does not let this region's own user in."


@dataclass
class StandInKeystone:
    """Answers each login as the test says: with a status, or with a page that is not Keystone's."""

    status: int = 201
    page: bytes = b""
    logins: int = 0
    url: str = ""
    server: ThreadingHTTPServer | None = field(default=None, repr=False)

    def answer(self) -> tuple[int, bytes]:
        self.logins += 1
        if self.page or self.status >= 300:
            return self.status, self.page or json.dumps({"error": {"code": self.status, "message": "no"}}).encode()
        now = datetime.now(UTC)
        token = {
            "methods": ["password"],
            "user": {"id": "u", "name": "celltree", "domain": {"id": "default", "name": "Default"}},
            "issued_at": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "expires_at": (now + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        return 201, json.dumps({"token": token}).encode()


@contextmanager
def a_stand_in(port: int = 0) -> Iterator[StandInKeystone]:
    keystone = StandInKeystone()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, body = keystone.answer()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Subject-Token", "a-token")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    keystone.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    keystone.url = f"http://127.0.0.1:{keystone.server.server_port}/v3"
    thread = threading.Thread(target=keystone.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield keystone
    keystone.server.shutdown()
    thread.join()
    keystone.server.server_close()


@pytest.fixture
def keystone() -> Iterator[StandInKeystone]:
    with a_stand_in() as keystone:
        yield keystone


def a_tree(folder: Path, url: str) -> Tree:
    (folder / "password").write_text("a-password")
    ours = {"url": url, "password_file": str(folder / "password")}
    front = {"auth": "keystone", "keystone": ours, "glance": {"url": "http://127.0.0.1:9"}}
    return make_tree({"east": (), "leaf": ("east",)}, api={"front": front})


@pytest.fixture
def tree(keystone: StandInKeystone, tmp_path: Path) -> Iterator[Tree]:
    tree = a_tree(tmp_path, keystone.url)
    yield tree
    tree.close()


def until(tree: Tree, what: Callable[[], bool]) -> None:
    """Let the tree's time pass, and a little of ours, in which a login may end."""
    end = time.monotonic() + MOST_SECONDS
    while not what():
        assert time.monotonic() < end
        tree.run(0.5)
        time.sleep(0.02)


def said(tree: Tree, server: bytes) -> list[str]:
    return [row.text for row in tree.rows("east", StoryRow) if row.server == server]


def active(tree: Tree, server: bytes) -> Callable[[], bool]:
    return lambda: tree.server("east", server).vm_state == VmState.ACTIVE


def test_a_build_waits_for_its_token_and_goes_on(tree: Tree, keystone: StandInKeystone) -> None:
    server = tree.build("east", "vm")
    until(tree, active(tree, server))
    assert keystone.logins == 1
    until(tree, active(tree, tree.build("east", "next")))
    assert keystone.logins == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_build_ends_soon_with_a_fault_where_keystone_refuses_our_user(
    tree: Tree, keystone: StandInKeystone, status: int
) -> None:
    keystone.status = status
    server = tree.build("east", "vm")
    began = tree.clock()
    until(tree, lambda: tree.server("east", server).phase is Phase.FAILED)
    row = tree.server("east", server)
    assert (row.status, row.fault_code) == ("ERROR", 500)
    assert row.fault.startswith(REFUSED)
    assert keystone.url not in row.fault and "celltree" not in row.fault
    assert row.fault_at < row.deadline
    assert tree.clock() - began < row.deadline - began


def test_a_build_ends_soon_where_the_url_is_not_keystones(tree: Tree, keystone: StandInKeystone) -> None:
    keystone.status, keystone.page = 200, b"<html>It works!</html>"
    server = tree.build("east", "vm")
    until(tree, lambda: tree.server("east", server).phase is Phase.FAILED)
    assert tree.server("east", server).fault.startswith(REFUSED)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_build_waits_while_keystone_has_trouble(tree: Tree, keystone: StandInKeystone, status: int) -> None:
    keystone.status = status
    server = tree.build("east", "vm")
    until(tree, lambda: keystone.logins >= 3)
    row = tree.server("east", server)
    assert (row.phase, row.status, row.fault) == (Phase.PLACING, "BUILD", "")
    keystone.status = 201
    until(tree, active(tree, server))


def test_a_build_waits_while_keystone_is_down(tmp_path: Path) -> None:
    with a_stand_in() as gone:
        port = int(gone.url.rpartition(":")[2].removesuffix("/v3"))
    tree = a_tree(tmp_path, gone.url)
    server = tree.build("east", "vm")
    for _ in range(10):
        tree.run(1)
        time.sleep(0.05)
    assert tree.server("east", server).phase is Phase.PLACING
    with a_stand_in(port):
        until(tree, active(tree, server))
    tree.close()


def test_builds_work_again_when_keystone_lets_us_in_again(tree: Tree, keystone: StandInKeystone) -> None:
    keystone.status = 401
    server = tree.build("east", "vm")
    until(tree, lambda: tree.server("east", server).phase is Phase.FAILED)
    keystone.status = 201
    time.sleep(REFUSAL_COUNTS)
    # What was said against us a while ago ends nothing that is asked now.
    until(tree, active(tree, tree.build("east", "next")))


@pytest.mark.parametrize(
    "command", [SnapshotServer(image=IMAGE), RebuildServer(image=IMAGE, name="vm")], ids=["snapshot", "rebuild"]
)
def test_what_needs_an_image_ends_or_waits_as_a_build_does(tree: Tree, keystone: StandInKeystone, command: Any) -> None:
    server = tree.build("east", "vm")
    until(tree, active(tree, server))
    front: Any = tree["east"].role.front  # type: ignore[attr-defined]
    front._service_user.forget()
    keystone.status = 503
    before = keystone.logins
    tree.ask("east", server, command)
    until(tree, lambda: keystone.logins >= before + 2)
    assert wishes(tree.server("east", server)) == 1
    keystone.status = 403
    until(tree, lambda: wishes(tree.server("east", server)) == 0)
    assert any(REFUSED in text for text in said(tree, server))
    assert tree.server("east", server).vm_state == VmState.ACTIVE
    tree.run(1)
    assert tree.server("east", server).status == "ACTIVE"


def wishes(row: ServerRow) -> int:
    return len(row.intents)
