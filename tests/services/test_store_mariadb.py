"""What MariaDB does to units of work when it is killed, cut off, or has two units lock each other."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import sqlalchemy as sa

from cells.errors import AmbiguousCommit, Conflict, Temporary
from cells.lab.mariadb import MariaServer
from cells.rows import WakeRow
from cells.store.sql import SqlStore
from tests.support.things import THINGS, Thing, id_of, thing

NewUrl = Callable[[], str]


@pytest.fixture
def url(new_schema: NewUrl) -> str:
    return new_schema()


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    store = SqlStore(url, THINGS)
    store.create_all()
    with store.unit() as unit:
        unit.save(thing(1), thing(2))
    yield store
    store.close()


def connections_of(mariadb: MariaServer, url: str) -> list[str]:
    user = sa.make_url(url).username
    return mariadb.execute(f"SELECT ID FROM information_schema.PROCESSLIST WHERE USER = '{user}'").split()


class Proxy:
    """Stands between a client and MariaDB. Once armed, it lets the next COMMIT through, waits until the server has
    answered it, and cuts the line instead of passing the answer on."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.armed = threading.Event()
        self._lines: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    def _run(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            self._lines += [client, server]
            cut = threading.Event()
            self._run(self._pass_on, client, server, cut, True)
            self._run(self._pass_on, server, client, cut, False)

    def _pass_on(self, source: socket.socket, target: socket.socket, cut: threading.Event, asks: bool) -> None:
        try:
            while data := source.recv(65536):
                if asks and self.armed.is_set() and b"COMMIT" in data:
                    self.armed.clear()
                    cut.set()
                elif not asks and cut.is_set():
                    break
                target.sendall(data)
        except OSError:
            pass
        for line in (source, target):
            shut(line)

    def close(self) -> None:
        shut(self._listener)
        self._listener.close()
        for line in self._lines:
            shut(line)
        for thread in self._threads:
            thread.join()
        for line in self._lines:
            line.close()


def shut(line: socket.socket) -> None:
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(mariadb: MariaServer) -> Iterator[Proxy]:
    proxy = Proxy(mariadb.port)
    yield proxy
    proxy.close()


def test_a_row_that_was_found_and_changed_by_another_since_is_not_written_over(store: SqlStore) -> None:
    with store.unit() as unit:
        unit.save(thing(1, order=1), thing(2, order=1))
    with pytest.raises(Conflict, match="has changed since it was found"), store.unit() as slow:
        slow.find(Thing)
        with store.unit() as quick:
            quick.save(thing(1, order=7))
        slow.save(thing(1, order=2), thing(2, order=2))
    with store.unit() as slow:
        slow.find(Thing)
        slow.save(thing(1, order=3))
    with store.unit(lock=False) as unit:
        assert [row.order for row in unit.find(Thing, order=("id",))] == [3, 1]


def test_one_of_two_units_that_lock_each_other_is_told_conflict(store: SqlStore, url: str) -> None:
    """Each has locked its first row before either asks for its second."""
    together = threading.Barrier(2)
    outcomes: dict[int, str] = {}

    def work(first: int, second: int) -> None:
        try:
            with store.unit() as unit:
                unit.get(Thing, id_of(first))
                together.wait()
                unit.save(thing(first, order=first * 10))
                unit.get(Thing, id_of(second))
                unit.save(thing(second, order=first * 10))
            outcomes[first] = "saved"
        except Conflict as error:
            outcomes[first] = "deadlock" if "deadlock" in str(error) else str(error)

    threads = [threading.Thread(target=work, args=pair) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes.values()) == ["deadlock", "saved"]
    winner = next(first for first, outcome in outcomes.items() if outcome == "saved")
    with store.unit() as unit:
        assert [row.order for row in unit.all(Thing)] == [winner * 10, winner * 10]


def test_connection_killed_while_idle_is_not_noticed(store: SqlStore, mariadb: MariaServer, url: str) -> None:
    for number in connections_of(mariadb, url):
        mariadb.execute(f"KILL {number}")
    with store.unit() as unit:
        unit.save(thing(3))
    with store.unit() as unit:
        assert unit.count(Thing) == 3


def test_connection_lost_between_statements_is_temporary(store: SqlStore, mariadb: MariaServer, url: str) -> None:
    with pytest.raises(Temporary) as raised, store.unit() as unit:
        unit.save(thing(3))
        unit.count(Thing)
        for number in connections_of(mariadb, url):
            mariadb.execute(f"KILL {number}")
        unit.get(Thing, id_of(1))
    assert not isinstance(raised.value, AmbiguousCommit)
    with store.unit() as unit:
        assert unit.count(Thing) == 2


def test_connection_lost_before_the_commit_arrives_is_ambiguous(
    store: SqlStore, mariadb: MariaServer, url: str
) -> None:
    with pytest.raises(AmbiguousCommit), store.unit() as unit:
        unit.save(thing(3))
        unit.count(Thing)
        for number in connections_of(mariadb, url):
            mariadb.execute(f"KILL {number}")
    with store.unit() as unit:
        assert unit.get(Thing, id_of(3)) is None


def test_answer_to_the_commit_lost_is_ambiguous_and_the_unit_is_there(store: SqlStore, url: str, proxy: Proxy) -> None:
    through = SqlStore(sa.make_url(url).set(port=proxy.port).render_as_string(hide_password=False), THINGS)
    with pytest.raises(AmbiguousCommit), through.unit() as unit:
        unit.save(thing(3))
        unit.count(Thing)
        proxy.armed.set()
    with store.unit() as unit:
        assert unit.get(Thing, id_of(3)) == thing(3)
    with through.unit() as unit:
        assert unit.get(Thing, id_of(3)) == thing(3)
    through.close()


def test_server_killed_and_back_loses_nothing_acknowledged(private_mariadb: Callable[[], MariaServer]) -> None:
    server = private_mariadb()
    server.create_schema("cell", "cell", "pw")
    store = SqlStore(server.url("cell", "cell", "pw"), THINGS)
    store.create_all()
    with store.unit() as unit:
        unit.save(thing(1))
    with pytest.raises(Temporary), store.unit() as unit:
        unit.save(thing(2))
        unit.count(Thing)
        server.kill9()
        unit.get(Thing, id_of(1))
    with pytest.raises(Temporary), store.unit() as unit:
        unit.get(Thing, id_of(1))
    with pytest.raises(Temporary):
        store.ping()
    server.start()
    server.wait_ready()
    with store.unit() as unit:
        assert unit.all(Thing) == (thing(1),)
    store.close()


def test_too_many_connections_is_temporary(private_mariadb: Callable[[], MariaServer]) -> None:
    server = private_mariadb()
    server.create_schema("cell", "cell", "pw")
    stores = [SqlStore(server.url("cell", "cell", "pw"), THINGS) for _ in range(2)]
    stores[0].create_all()
    stores[0].close()  # a limit is read when the user's first connection is made
    server.execute("ALTER USER 'cell'@'%' WITH MAX_USER_CONNECTIONS 1")
    with stores[0].unit() as unit:
        unit.count(Thing)
        with pytest.raises(Temporary), stores[1].unit() as other:
            other.count(Thing)
    for store in stores:
        store.close()


def test_wrong_password_is_temporary_and_not_told(mariadb: MariaServer, url: str) -> None:
    wrong = sa.make_url(url).set(password="open-sesame").render_as_string(hide_password=False)
    store = SqlStore(wrong, THINGS)
    with pytest.raises(Temporary, match="database URL") as raised, store.unit() as unit:
        unit.count(Thing)
    assert "open-sesame" not in str(raised.value)
    store.close()


def test_bytes_are_found_deep_inside_values_and_nothing_like_them(store: SqlStore) -> None:
    mark = b"\0\xff\x80%_'\\a"
    with store.unit() as unit:
        for at, holds in enumerate((mark, mark.upper(), mark[:-1], b"")):
            unit.save(WakeRow(id=id_of(at), shard=0, due=0, data=b"before" + holds + b"behind"))
    assert store.holding([mark]) == {"wakes": 1}
    assert store.holding([mark, b"elsewhere", b"before\0"]) == {"wakes": 3}
    assert store.holding([b"elsewhere"]) == {}
