"""Breaks a lab as planned, each fault in a thread of its own, and puts everything right at the end. What it did, and
what would not be done, is in nemesis.jsonl."""

import json
import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path

from cells.broker.limits import INBOX
from cells.errors import BadInput, CelltreeError, Permanent
from cells.lab.daemons import Daemon
from cells.lab.lab import WRITE_ONLY
from cells.lab.mariadb import MariaServer
from cells.lab.rabbitmq import RabbitNode
from cells.model import CellState
from tests.chaos.lab import FaultyLab
from tests.chaos.plan import Fault, Kind
from tests.support.backups import backup, put_back
from tests.support.tcp_proxy import CLEAR, SILENT, TcpProxy, Way

log = logging.getLogger("celltree.chaos")

POLICY = "chaos"
LATE = Way(latency=0.15, jitter=0.15)
SLOW = Way(rate=20_000)
FLIPS = 20_000
LOCKED = "'outbox', 'jobs', 'wakes', 'servers', 'instances', 'hosts', 'usage'"
NOTHING = {"configure": "^$", "write": "^$", "read": "^$"}
LEFT_FREE = 2**20
PATIENCE = 30.0
NORMAL_MEMORY, NORMAL_DISK = "0.4", "10MB"


class Nemesis:
    """`counts`: faults done, by kind; `kills`: processes ended by SIGKILL; `forgotten`: by cell, the times that its
    database has lost, because it was put back."""

    def __init__(self, lab: FaultyLab, file: Path, now: Callable[[], float]) -> None:
        self._lab = lab
        self._now = now
        self._lock = threading.Lock()
        self._out = file.open("w", encoding="utf-8")
        self._over = threading.Event()
        self.counts: Counter[str] = Counter()
        self.kills = 0
        self.forgotten: dict[str, list[tuple[float, float]]] = {}
        self.failed = 0

    def run(self, faults: Sequence[Fault]) -> None:
        """Do them all; returns when the last is over."""
        threads = [threading.Thread(target=self._do, args=(fault,), name=fault.kind) for fault in faults]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _do(self, fault: Fault) -> None:
        self._over.wait(max(0.0, fault.at - self._now()))
        try:
            with self._broken(fault):
                self._tell(fault, "began")
                self.counts[fault.kind] += 1
                self._over.wait(fault.lasts)
            self._tell(fault, "ended")
        except (CelltreeError, OSError) as error:
            self.failed += 1
            self._tell(fault, f"failed: {error}")

    def _tell(self, fault: Fault, what: str) -> None:
        line = {"at": self._now(), "kind": fault.kind, "target": fault.target, "what": what}
        with self._lock:
            self._out.write(json.dumps(line) + "\n")
            self._out.flush()

    def heal(self) -> None:
        """Put everything right, whatever is broken."""
        lab, shape = self._lab, self._lab.shape()
        for proxy in lab.proxies.values():
            proxy.heal()
        for daemon in (*shape.daemons, *shape.pools):
            self._signal(daemon, signal.SIGCONT)
        for server in (*shape.brokers, *shape.databases, *shape.pools):
            lab.start(server)
        for broker in shape.brokers:
            self._broker(broker).control("set_vm_memory_high_watermark", NORMAL_MEMORY)
            self._broker(broker).control("set_disk_free_limit", NORMAL_DISK)
        for cell in shape.cells:
            lab.broker(cell).delete_policy(cell, POLICY)
        for database in shape.databases:
            self._database(database).execute("SET GLOBAL read_only=0")
        for edge in shape.edges:
            _at_last(partial(self._permit, edge, WRITE_ONLY))
        for pool in shape.pools:
            _at_last(partial(self._mend_hosts, pool))
        for leaf in shape.leaves:
            _at_last(partial(lab.registrar().set_state, leaf, CellState.ENABLED))
        for edge in shape.second_parents:
            _at_last(partial(self._attach, edge))
        for daemon in shape.daemons:
            lab.start(daemon)
        self._out.close()

    # --- one fault ---

    def _broken(self, fault: Fault) -> AbstractContextManager[None]:
        lab, target = self._lab, fault.target
        match fault.kind:
            case Kind.DAEMON_KILLED | Kind.BROKER_KILLED | Kind.DATABASE_KILLED | Kind.HOSTS_KILLED:
                return self._killed((target,))
            case Kind.CELL_KILLED:
                return self._killed(lab.plan.daemons_of(target))
            case Kind.DAEMON_FROZEN | Kind.HOSTS_HANG:
                return self._frozen(target)
            case Kind.DAEMON_STOPPED | Kind.BROKER_RESTARTED:
                return self._stopped(target)
            case Kind.CONNECTIONS_CLOSED:
                return self._thrown_out(target)
            case Kind.PERMISSIONS_TAKEN:
                return self._forbidden(target)
            case Kind.CELL_DRAINED:
                return self._drained(target)
            case Kind.CELL_DETACHED:
                return self._detached(target)
            case Kind.HOST_CRASHED:
                return self._host_crashed(target)
            case Kind.STORAGE_FULL:
                return self._storage_full(target)
            case Kind.MEMORY_ALARM:
                return self._alarm(target, "set_vm_memory_high_watermark", ("absolute", "1"), NORMAL_MEMORY)
            case Kind.DISK_ALARM:
                return self._alarm(target, "set_disk_free_limit", ("1000GB",), NORMAL_DISK)
            case Kind.QUEUE_FULL:
                return self._full(target)
            case Kind.QUEUE_DELETED:
                return self._wiped(target)
            case Kind.CONNECTIONS_KILLED:
                return self._disconnected(target)
            case Kind.ROWS_LOCKED:
                return self._locked(target)
            case Kind.DATABASE_READ_ONLY:
                return self._read_only(target)
            case Kind.DATABASE_PUT_BACK:
                return self._put_back(target)
            case Kind.CUT:
                return self._cut(lab.proxies[target])
            case Kind.REFUSED:
                return self._refused(lab.proxies[target])
            case Kind.BLACK_HOLE:
                return self._weather(lab.proxies[target], SILENT, SILENT)
            case Kind.ONE_WAY:
                return self._weather(lab.proxies[target], CLEAR, SILENT)
            case Kind.LATE:
                return self._weather(lab.proxies[target], LATE, LATE)
            case Kind.SLOW:
                return self._weather(lab.proxies[target], SLOW, SLOW)
            case Kind.FLIPPED:
                return self._weather(lab.proxies[target], Way(flips=FLIPS), Way(flips=FLIPS))

    @contextmanager
    def _killed(self, parts: Sequence[str]) -> Iterator[None]:
        for part in parts:
            self._lab.kill(part)
            self.kills += 1
        try:
            yield
        finally:
            for part in parts:
                self._lab.start(part)

    @contextmanager
    def _stopped(self, daemon: str) -> Iterator[None]:
        self._lab.stop(daemon)
        try:
            yield
        finally:
            self._lab.start(daemon)

    @contextmanager
    def _frozen(self, part: str) -> Iterator[None]:
        self._signal(part, signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(part, signal.SIGCONT)

    def _signal(self, part: str, number: signal.Signals) -> None:
        found = self._lab.part(part)
        assert isinstance(found, Daemon)
        if (pid := found.pid) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    @contextmanager
    def _alarm(self, broker: str, command: str, alarmed: Sequence[str], normal: str) -> Iterator[None]:
        node = self._broker(broker)
        node.control(command, *alarmed)
        try:
            yield
        finally:
            node.control(command, normal)

    @contextmanager
    def _full(self, cell: str) -> Iterator[None]:
        node = self._lab.broker(cell)
        node.set_policy(cell, POLICY, f"^{INBOX}$", {"max-length": 0, "overflow": "reject-publish"})
        try:
            yield
        finally:
            node.delete_policy(cell, POLICY)

    @contextmanager
    def _wiped(self, cell: str) -> Iterator[None]:
        self._lab.broker(cell).delete_queue(cell, INBOX)
        yield

    @contextmanager
    def _thrown_out(self, broker: str) -> Iterator[None]:
        self._broker(broker).close_connections()
        yield

    @contextmanager
    def _forbidden(self, edge: str) -> Iterator[None]:
        """A neighbour may do nothing at the broker any more; what it has open is closed, or it would not notice."""
        publisher, _, broker = edge.partition(" ")
        cell = broker.partition(":")[2]
        self._permit(edge, NOTHING)
        try:
            self._lab.broker(cell).close_connections(f"{publisher}.to.{cell}")
            yield
        finally:
            _at_last(partial(self._permit, edge, WRITE_ONLY))

    def _permit(self, edge: str, what: Mapping[str, str]) -> None:
        publisher, _, broker = edge.partition(" ")
        cell = broker.partition(":")[2]
        self._lab.broker(cell).set_permissions(cell, f"{publisher}.to.{cell}", **what)

    @contextmanager
    def _drained(self, leaf: str) -> Iterator[None]:
        self._lab.registrar().set_state(leaf, CellState.DRAINING)
        try:
            yield
        finally:
            _at_last(partial(self._lab.registrar().set_state, leaf, CellState.ENABLED))

    @contextmanager
    def _detached(self, edge: str) -> Iterator[None]:
        child, parent = edge.split()
        self._lab.registrar().detach(child, parent)
        try:
            yield
        finally:
            _at_last(partial(self._attach, edge))

    def _attach(self, edge: str) -> None:
        """The cell is under this parent, whatever was taken away of that."""
        child, parent = edge.split()
        with suppress(BadInput):  # it is there already
            up, down = self._lab.edge_url(child, parent), self._lab.edge_url(parent, child)
            self._lab.registrar().attach(child, parent, up=up, down=down)

    @contextmanager
    def _host_crashed(self, pool: str) -> Iterator[None]:
        """One that is not the pool's master."""
        name = pool.partition(":")[2]
        hosts = self._lab.ask_simulator(name, do="show")["hosts"]
        host = next(host["uuid"] for host in hosts if not host["master"])
        self._lab.ask_simulator(name, do="crash_host", host=host)
        try:
            yield
        finally:
            self._mend_hosts(pool)

    @contextmanager
    def _storage_full(self, pool: str) -> Iterator[None]:
        name = pool.partition(":")[2]
        for storage in self._lab.ask_simulator(name, do="show")["repositories"]:
            self._lab.ask_simulator(name, do="fill_sr", sr=storage["uuid"], free=LEFT_FREE)
        try:
            yield
        finally:
            self._mend_hosts(pool)

    def _mend_hosts(self, pool: str) -> None:
        name = pool.partition(":")[2]
        there = self._lab.ask_simulator(name, do="show")
        for storage in there["repositories"]:
            self._lab.ask_simulator(name, do="fill_sr", sr=storage["uuid"], free=None)
        for host in there["hosts"]:
            if host["down"]:
                self._lab.ask_simulator(name, do="return_host", host=host["uuid"])

    @contextmanager
    def _disconnected(self, database: str) -> Iterator[None]:
        """Twice a second whoever is connected is thrown out, in the middle of whatever it does."""
        users = "SELECT DISTINCT user FROM information_schema.processlist WHERE user LIKE 'cell\\_%'"
        server = self._database(database)
        for _ in range(6):
            server.execute("".join(f"KILL HARD CONNECTION USER {user};" for user in server.execute(users).split()))
            time.sleep(0.5)
        yield

    @contextmanager
    def _locked(self, database: str) -> Iterator[None]:
        """Takes row locks of every cell there in an order of its own, and sits on them: others wait, or are the victim
        of a deadlock."""
        server = self._database(database)
        tables = server.execute(
            "SELECT CONCAT(table_schema, '.', table_name) FROM information_schema.tables WHERE table_schema LIKE "
            f"'cell\\_%' AND table_name IN ({LOCKED}) ORDER BY table_name DESC"
        ).split()
        locks = "".join(f"SELECT 1 FROM {table} FOR UPDATE; DO SLEEP(0.2);" for table in tables)
        with suppress(Permanent):  # the victim may be this one
            server.execute(f"START TRANSACTION; {locks} DO SLEEP(1); ROLLBACK;")
        yield

    @contextmanager
    def _read_only(self, database: str) -> Iterator[None]:
        server = self._database(database)
        server.execute("SET GLOBAL read_only=1")
        try:
            yield
        finally:
            server.execute("SET GLOBAL read_only=0")

    @contextmanager
    def _put_back(self, cell: str) -> Iterator[None]:
        """The backup is of now, and comes back later; what else is broken then only delays it."""
        since = self._now()
        saved = backup(self._lab, cell)
        yield
        daemons = self._lab.plan.daemons_of(cell)
        for daemon in daemons:
            self._lab.stop(daemon)
        self.forgotten.setdefault(cell, []).append((since, self._now()))
        while True:
            try:
                put_back(self._lab, cell, saved)
                break
            except CelltreeError as error:
                log.info("%s: %s", cell, error)
                time.sleep(0.5)
        for daemon in daemons:
            self._lab.start(daemon)

    @contextmanager
    def _weather(self, proxy: TcpProxy, there: Way, back: Way) -> Iterator[None]:
        proxy.set(there, back)
        try:
            yield
        finally:
            proxy.heal()

    @contextmanager
    def _refused(self, proxy: TcpProxy) -> Iterator[None]:
        proxy.refuse()
        try:
            yield
        finally:
            proxy.heal()

    @contextmanager
    def _cut(self, proxy: TcpProxy) -> Iterator[None]:
        proxy.set(Way(cut_after=20_000), Way(cut_after=20_000))
        proxy.cut()
        try:
            yield
        finally:
            proxy.heal()

    def _broker(self, word: str) -> RabbitNode:
        found = self._lab.part(word)
        assert isinstance(found, RabbitNode)
        return found

    def _database(self, word: str) -> MariaServer:
        found = self._lab.part(word)
        assert isinstance(found, MariaServer)
        return found


def _at_last(act: Callable[[], object]) -> None:
    """Done again and again: what it needs is only just starting, or broken by another fault."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            act()
        except (CelltreeError, OSError):
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
        else:
            return
