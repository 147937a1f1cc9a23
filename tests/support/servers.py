"""Private RabbitMQ nodes and MariaDB servers for tests.

One of each is shared by a whole test session, also by its parallel workers: `rabbit` and `mariadb`. A test gets a
fresh virtual host or schema of them (`new_vhost`, `new_schema`), about 10 ms each. A test that kills a server takes one
of its own (`private_rabbit`, `private_mariadb`). Everything a session starts lives in one folder, and is ended by the
session's first process when the tests are over; what a killed session left is ended by the next one.
"""

import fcntl
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from cells.lab import processes
from cells.lab.lab import Lab
from cells.lab.mariadb import MariaServer
from cells.lab.programs import MissingProgram, mariadb_programs, rabbitmq_programs
from cells.lab.rabbitmq import RabbitNode

SESSION_VARIABLE = "CELLTREE_TEST_SESSION"
SERVER_FIXTURES = frozenset({"rabbit", "mariadb", "private_rabbit", "private_mariadb", "shared_lab"})
READY_SECONDS = 120.0

NewUrl = Callable[[], str]
NewRabbit = Callable[[], RabbitNode]
NewMaria = Callable[[], MariaServer]


# --- the session's folder ---


def open_session() -> None:
    """Name this test session, for all processes it will start, and end what dead sessions left behind."""
    everything = Path(tempfile.gettempdir()) / f"celltree-tests-{os.getuid()}"
    everything.mkdir(mode=0o700, exist_ok=True)
    for old in everything.iterdir():
        mark = processes.read_mark(old / "session.pid")
        if mark is None or not processes.is_alive(mark):
            end_servers(old)
    me = processes.mark_of(os.getpid())
    assert me is not None
    folder = everything / f"{me.pid}-{me.started}"
    draft = everything.parent / f"{everything.name}-{folder.name}"
    draft.mkdir(mode=0o700, exist_ok=True)
    processes.write_whole(draft / "session.pid", json.dumps(asdict(me)))
    draft.rename(folder)
    os.environ[SESSION_VARIABLE] = str(folder)


def session_folder() -> Path:
    """Where this session's servers live; the same in each of its workers."""
    return Path(os.environ[SESSION_VARIABLE])


def end_servers(folder: Path) -> None:
    """Kill each server of a session, by pid, and remove the session's folder."""
    for file in folder.glob("lab-*/lab/lab.json"):
        Lab(file.parent).down(remove=True)
    for home in folder.iterdir() if folder.is_dir() else ():
        if home.is_dir() and home.name.startswith("rabbit"):
            RabbitNode(home).remove()
        elif home.is_dir() and home.name.startswith("mariadb"):
            MariaServer(home).remove()
    shutil.rmtree(folder, ignore_errors=True)


def leftovers(folder: Path) -> list[tuple[processes.ProcessMark, str]]:
    """Processes that this session started, however indirectly, and that still run: they inherited its variable."""
    needle = f"{SESSION_VARIABLE}={folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        mark = processes.mark_of(int(entry.name))
        if needle in environment and mark is not None and processes.is_alive(mark):
            found.append((mark, command.strip()))
    return found


# --- fixtures ---


@pytest.fixture(scope="session")
def rabbit() -> RabbitNode:
    """The session's RabbitMQ node, running. Not to be killed or stopped by a test."""
    needed(rabbitmq_programs)
    with _one_at_a_time("rabbit"):
        node = RabbitNode(session_folder() / "rabbit", name="shared")
        node.start()
        node.wait_ready(READY_SECONDS)
    return node


@pytest.fixture(scope="session")
def mariadb() -> MariaServer:
    """The session's MariaDB server, running. Not to be killed or stopped by a test."""
    needed(mariadb_programs)
    with _one_at_a_time("mariadb"):
        server = MariaServer(session_folder() / "mariadb")
        server.start()
        server.wait_ready(READY_SECONDS)
    return server


@pytest.fixture
def new_vhost(rabbit: RabbitNode) -> Iterator[NewUrl]:
    """Makes virtual hosts, each with a user that may do everything in it and nothing elsewhere; gives their URLs."""
    names: list[str] = []

    def make() -> str:
        name, password = f"t-{secrets.token_hex(5)}", secrets.token_urlsafe(9)
        names.append(name)
        rabbit.add_vhost_user(name, name, password)
        return rabbit.amqp_url(name, name, password)

    yield make
    for name in names:
        rabbit.delete_vhost(name)
        rabbit.delete_user(name)


@pytest.fixture
def new_schema(mariadb: MariaServer) -> Iterator[NewUrl]:
    """Makes empty schemas, each with a user that may do everything in it and nothing elsewhere; gives their URLs."""
    names: list[str] = []

    def make() -> str:
        name, password = f"t_{secrets.token_hex(5)}", secrets.token_urlsafe(9)
        names.append(name)
        mariadb.create_schema(name, name, password)
        return mariadb.url(name, name, password)

    yield make
    for name in names:
        mariadb.drop_schema(name, name)


@pytest.fixture
def private_rabbit() -> Iterator[NewRabbit]:
    """Starts RabbitMQ nodes, 4 s each, that only this test has, and may kill; removed at its end."""
    needed(rabbitmq_programs)
    nodes: list[RabbitNode] = []

    def make() -> RabbitNode:
        node = RabbitNode(session_folder() / f"rabbit-{secrets.token_hex(4)}", name="private")
        nodes.append(node)
        node.start()
        node.wait_ready(READY_SECONDS)
        return node

    yield make
    for node in nodes:
        node.remove()


@pytest.fixture
def private_mariadb() -> Iterator[NewMaria]:
    """Starts MariaDB servers, 1 s each, that only this test has, and may kill; removed at its end."""
    needed(mariadb_programs)
    servers: list[MariaServer] = []

    def make() -> MariaServer:
        server = MariaServer(session_folder() / f"mariadb-{secrets.token_hex(4)}")
        servers.append(server)
        server.start()
        server.wait_ready(READY_SECONDS)
        return server

    yield make
    for server in servers:
        server.remove()


def needed(find: Callable[[], object]) -> None:
    """On a laptop without the servers these tests are skipped; in CI that would hide that nothing was tested."""
    try:
        find()
    except MissingProgram as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@contextmanager
def _one_at_a_time(name: str) -> Iterator[None]:
    with (session_folder() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
