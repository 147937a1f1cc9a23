"""The production shape on one machine, for `celltree lab`: a daemon process per cell, private RabbitMQ and MariaDB, a
simulated XenServer process per pool, REST at each API cell; all on loopback, all in one folder.

The folder is a tree folder, so the operator's commands work on it; beside the cells it holds lab.json (the plan) and
the servers' and processes' own folders. Any process that knows the folder can look, kill, start and end.
"""

import http.client
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from cells import certifying, codec
from cells.errors import BadInput, Permanent
from cells.house import system_clock
from cells.ids import Ids
from cells.lab import processes
from cells.lab.daemons import Daemon
from cells.lab.mariadb import MariaServer
from cells.lab.papers import PaperMill, Papers
from cells.lab.plan import HTTP_BASIC, NODES, USER, VHOSTS, LabPlan, load_plan, save_plan
from cells.lab.ports import LOOPBACK, is_free
from cells.lab.rabbitmq import Grant, RabbitNode
from cells.model import CellRecord
from cells.names import SECOND, CellName
from cells.parts import part
from cells.registering import NewCell, PoolAccess, Registrar, open_store
from cells.rows import RosterRow
from cells.topology_file import API, CellPlan, TopologyFile
from cells.tree_folder import TreeFolder

READY_SECONDS = 120.0
WRITE_ONLY = {"configure": "^$", "write": r"^celltree\.inbox$", "read": "^$"}
Say = Callable[[str], None]


class Server(Protocol):
    """A server or process of the lab."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def kill9(self) -> None: ...

    @property
    def pid(self) -> int | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSeen:
    """One part of the lab, as `celltree lab status` shows it. `what` is the word that kill and start take."""

    what: str
    kind: str
    pid: int | None
    at: str


class Lab:
    """The lab that lives in `folder`. Opening it starts nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._file = self.folder / "lab.json"
        if not self._file.exists():
            raise BadInput(f"there is no lab in {folder}; make one with celltree lab up")
        self._read: tuple[int, LabPlan] = (0, load_plan(self._file))

    @classmethod
    def create(cls, folder: Path, plan: LabPlan) -> "Lab":
        """Write a new lab's plan and its root key. Starts nothing."""
        if (folder / "lab.json").exists():
            raise BadInput(f"{folder} holds a lab already; celltree lab down --remove ends it for good")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        TreeFolder.create(folder, os.urandom)
        save_plan(plan, folder / "lab.json")
        return cls(folder)

    # --- its parts ---

    @property
    def plan(self) -> LabPlan:
        """The plan as it is now: another process may have added a cell."""
        changed = self._file.stat().st_mtime_ns
        if changed != self._read[0]:
            self._read = (changed, load_plan(self._file))
        return self._read[1]

    @property
    def topology(self) -> TopologyFile:
        return self.plan.topology

    @property
    def tree(self) -> TreeFolder:
        return TreeFolder(self.folder)

    def database(self, cell: CellName = "") -> MariaServer:
        """The MariaDB server that has a cell's schema."""
        if self.plan.databases == 1:
            return MariaServer(self.folder / "mariadb", papers=self._server_papers())
        self._must_name_a_cell("database", cell)
        return MariaServer(self.folder / f"mariadb-{self.plan.database_of(cell)}", papers=self._server_papers())

    def broker(self, cell: CellName = "") -> RabbitNode:
        """The RabbitMQ node that has a cell's inbox."""
        if self.plan.brokers == VHOSTS:
            return RabbitNode(self.folder / "rabbitmq", name="lab", papers=self._server_papers())
        self._must_name_a_cell("broker", cell)
        name = self.plan.broker_of(cell)
        return RabbitNode(self.folder / f"rabbitmq-{name}", name=name, papers=self._server_papers())

    @property
    def papers(self) -> PaperMill:
        """The lab's certificates, where its plan says tls."""
        return PaperMill(self.folder / "tls")

    def _server_papers(self) -> Papers | None:
        return self.papers.server("loopback") if self.plan.tls else None

    def _must_name_a_cell(self, kind: str, cell: CellName) -> None:
        if cell not in self.topology.names:
            raise BadInput(f"there are several here: {kind}:CELL is the one of a cell, one of {self._cells_text()}")

    def daemon(self, name: str) -> Daemon:
        """A cell's first daemon by the cell's name, the others as CELL/2 and so on."""
        cell, _, number = name.partition("/")
        words = ["run", "--config", str(self.tree.config_file(cell))]
        if number:
            port = self.plan.api_ports.get(name)
            words += ["--daemon", f"daemon-{number}", "--listen", f"{LOOPBACK}:{port}" if port else ""]
        return Daemon(self.folder / "run", ".".join(filter(None, (cell, number))), words)

    def xenserver(self, pool: str) -> Daemon:
        """The process that simulates a pool."""
        shape = next((each for cell in self.topology.leaves for each in cell.pools if each.name == pool), None)
        if shape is None:
            raise BadInput(f"there is no pool {pool!r}; there are: {', '.join(self.plan.pool_ports)}")
        words = {
            "--port": self.plan.pool_ports[pool],
            "--hosts": shape.hosts,
            "--name": pool,
            "--ram-mib": shape.ram_mib,
            "--cpus": shape.cpus,
            "--disk-gib": shape.disk_gib,
            "--sr": shape.sr,
            "--data": self.folder / "xenserver" / pool,
            "--password-file": self._password_file(pool),
        }
        arguments = ["xenserver", *(str(word) for pair in words.items() for word in pair)]
        if self.plan.tls:
            self._give_papers(self.folder / "xenserver" / pool)
            arguments.append("--https")
        return Daemon(self.folder / "run", f"xenserver-{pool}", arguments)

    def _give_papers(self, data: Path) -> None:
        """The certificate of a pool's hosts, where its process looks for one; leaves know it by its fingerprint."""
        if not (data / "certificate.pem").exists():
            papers = self.papers.server(data.name)
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
            processes.write_whole(data / "key.pem", papers.key.read_text())
            processes.write_whole(data / "certificate.pem", papers.certificate.read_text())

    def _password_file(self, pool: str) -> Path:
        """A pool's password where its process finds it: a command line is seen by all."""
        file = self.folder / "xenserver" / f"{pool}.password"
        if not file.exists():
            file.parent.mkdir(mode=0o700, exist_ok=True)
            processes.write_whole(file, self.plan.password("xenserver", pool) + "\n")
        return file

    def part(self, what: str) -> Server:
        """A part by the word of kill and start: CELL[/DAEMON], broker[:CELL], database[:CELL], xenserver:POOL."""
        kind, _, name = what.partition(":")
        if kind == "broker":
            return self.broker(name)
        if kind == "database":
            return self.database(name)
        if kind == "xenserver":
            return self.xenserver(name)
        if what not in self._daemons():
            raise BadInput(
                f"{what!r} is no part of this lab; name a cell ({self._cells_text()}), broker[:CELL], database[:CELL] "
                "or xenserver:POOL"
            )
        return self.daemon(what)

    def _daemons(self) -> list[str]:
        return [daemon for name in self.topology.names for daemon in self.plan.daemons_of(name)]

    def _brokers(self) -> dict[str, RabbitNode]:
        """The nodes, by the word of the first cell on each."""
        return {_word("broker", cell): self.broker(cell) for cell in self._firsts(self.plan.broker_of)}

    def _databases(self) -> dict[str, MariaServer]:
        return {_word("database", cell): self.database(cell) for cell in self._firsts(self.plan.database_of)}

    def _firsts(self, server_of: Callable[[CellName], str]) -> list[CellName]:
        """The first cell on each server; no name where there is one server only."""
        first: dict[str, CellName] = {}
        for cell in self.topology.names:
            server = server_of(cell)
            first.setdefault(server, cell if server else "")
        return list(first.values())

    def _pools(self) -> Iterator[str]:
        return (pool.name for cell in self.topology.leaves for pool in cell.pools)

    def _cells_text(self) -> str:
        return ", ".join(self.topology.names)

    # --- what an operator does ---

    def up(self, say: Say) -> None:
        """Start everything that does not run, register the cells that are not, and wait until every leaf's capacity
        shows at every API cell."""
        self._start_servers(say)
        known = set(self.tree.names())
        for cell in self.topology.cells:
            if cell.name not in known:
                say(f"registering {cell.name}")
                self._register(cell)
        for daemon in self._daemons():
            self.daemon(daemon).start()
        say(f"{len(self._daemons())} daemons started")
        self.wait_ready(say)

    def add(self, cell: CellPlan, say: Say) -> None:
        """Add a cell to the running lab: broker, schema, pools, registration, daemon. Nothing else restarts."""
        save_plan(self.plan.with_cell(self.folder, cell), self._file)
        planned = self.topology[cell.name]
        self._start_servers(say)
        if cell.name not in self.tree.names():
            self._register(planned)
        for daemon in self.plan.daemons_of(cell.name):
            self.daemon(daemon).start()
        say(f"{cell.name} added")

    def remove(self, name: CellName) -> None:
        """End a cell that was detached from all its parents, with its pools, and forget it."""
        if name not in self.topology.names:
            raise BadInput(f"there is no cell {name!r} in this lab; there are: {self._cells_text()}")
        cell = self.topology[name]
        certifying.remove(self.tree, name, system_clock())
        for daemon in self.plan.daemons_of(name):
            self.daemon(daemon).stop()
        for pool in cell.pools:
            self.xenserver(pool.name).stop()
        schema = _schema(name)
        self.database(name).drop_schema(schema, schema)
        if self.plan.brokers == NODES:
            self.broker(name).remove()
        else:
            self.broker(name).delete_vhost(name)
            self.broker(name).delete_user(name)
        save_plan(self.plan.without_cell(self.folder, name), self._file)

    def status(self) -> list[PartSeen]:
        """Every part, running or not."""
        seen = [
            PartSeen(what=what, kind="rabbitmq", pid=node.pid, at=f"{LOOPBACK}:{node.amqp_port}")
            for what, node in self._brokers().items()
        ]
        for what, server in self._databases().items():
            seen.append(PartSeen(what=what, kind="mariadb", pid=server.pid, at=f"{LOOPBACK}:{server.port}"))
        for pool in self._pools():
            port = self.plan.pool_ports[pool]
            pid = self.xenserver(pool).pid
            seen.append(PartSeen(what=f"xenserver:{pool}", kind="xenserver", pid=pid, at=self._pool_url(port)))
        for cell in self.topology.cells:
            for name in self.plan.daemons_of(cell.name):
                at = f"{self.plan.endpoint(name)}/v2.1" if cell.role == API else ""
                seen.append(PartSeen(what=name, kind=f"{cell.role} cell", pid=self.daemon(name).pid, at=at))
        return seen

    def log(self, what: str) -> Path:
        """The log of a cell's daemon or of a simulated pool."""
        found = self.part(what)
        if not isinstance(found, Daemon):
            raise BadInput(f"the logs of {what} are in {self.folder}; name a cell or xenserver:POOL")
        return found.log

    def kill(self, what: str) -> None:
        """SIGKILL."""
        self.part(what).kill9()

    def stop(self, what: str) -> None:
        """SIGTERM, and wait."""
        self.part(what).stop()

    def start(self, what: str) -> None:
        """Start a part again, and wait until it can be used."""
        found = self.part(what)
        found.start()
        if isinstance(found, MariaServer | RabbitNode):
            found.wait_ready(READY_SECONDS)
        elif what.startswith("xenserver:"):
            self._wait_for_pool(what.partition(":")[2])

    def down(self, *, remove: bool = False, say: Say = lambda _: None) -> None:
        """End every process, daemons first; with `remove` forget the lab and all its data. May be called again."""
        daemons = [self.daemon(name) for name in self._daemons()]
        pools = [self.xenserver(pool) for pool in self._pools()]
        for group in (daemons, pools):
            for each in group:
                each.kill9() if remove else each.ask_to_stop()
            for each in group:
                each.stop()
        say("daemons and simulators ended")
        servers: list[RabbitNode | MariaServer] = [*self._brokers().values(), *self._databases().values()]
        for server in servers:
            server.remove() if remove else server.stop()
        say("RabbitMQ and MariaDB ended")
        if remove:
            self.plan.release(self.folder)
            shutil.rmtree(self.folder, ignore_errors=True)

    # --- waiting ---

    def wait_ready(self, say: Say = lambda _: None, timeout: float = READY_SECONDS) -> None:
        """Until every leaf's capacity is fresh at every API cell, and REST answers there."""
        waiting: set[tuple[CellName, CellName]] = set()
        told = ""

        def ready() -> bool:
            nonlocal waiting, told
            for daemon in self._daemons():
                self.daemon(daemon).must_run()
            waiting = {(api.name, leaf) for api in self.topology.api_cells for leaf in self.unseen_leaves(api.name)}
            words = ", ".join(f"{leaf} at {api}" for api, leaf in sorted(waiting))
            if words and words != told:
                say(f"waiting for the capacity of {words}")
                told = words
            return not waiting and all(self._answers(daemon) for daemon in self.plan.api_ports)

        if not processes.wait_until(ready, timeout=timeout):
            missing = ", ".join(f"{leaf} at {api}" for api, leaf in sorted(waiting)) or "REST"
            raise Permanent(
                f"the lab is not ready after {timeout:.0f} s: {missing} is missing; see celltree lab status and logs"
            )
        say("every leaf's capacity shows at every API cell")

    def unseen_leaves(self, api: CellName) -> set[CellName]:
        """The leaves whose capacity is not fresh at an API cell."""
        now = system_clock()
        with open_store(self.tree.config(api)) as store, store.unit(lock=False) as unit:
            rows = {row.name: row for row in unit.all(RosterRow)}
        unseen = set()
        for cell in self.topology.leaves:
            row = rows.get(cell.name)
            if row is not None and now - row.updated <= self.plan.mute_after * SECOND:
                record: CellRecord = codec.unpack(CellRecord, row.payload)
                if record.capacity is not None and record.capacity.hosts:
                    continue
            unseen.add(cell.name)
        return unseen

    def _answers(self, daemon: str) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self.plan.api_ports[daemon], timeout=5)
        try:
            connection.request("GET", "/v2.1/")
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    # --- within ---

    def _start_servers(self, say: Say) -> None:
        servers: list[RabbitNode | MariaServer] = [*self._databases().values(), *self._brokers().values()]
        say("starting RabbitMQ, MariaDB and the simulated XenServers")
        for server in servers:
            server.start()
        for pool in self._pools():
            self.xenserver(pool).start()
        for server in servers:
            server.wait_ready(READY_SECONDS)
        for pool in self._pools():
            self._wait_for_pool(pool)
        say("RabbitMQ, MariaDB and the simulated XenServers run")

    def _wait_for_pool(self, pool: str) -> None:
        daemon, port = self.xenserver(pool), self.plan.pool_ports[pool]
        if not processes.wait_until(lambda: not daemon.running or not is_free(port), timeout=READY_SECONDS):
            raise Permanent(f"the simulated pool {pool} does not listen; its log is {daemon.log}")
        daemon.must_run()

    def _register(self, cell: CellPlan) -> None:
        plan, name = self.plan, cell.name
        schema = _schema(name)
        word = plan.password("database", name)
        database, broker = self.database(name), self.broker(name)
        papers = self.papers.client(name) if plan.tls else None
        database.create_schema(schema, schema, word, certificate_of=name if papers else "")
        own = Grant(vhost=name, user=name, password="" if papers else plan.password("broker", name))
        broker.add_grants([own])
        registrar = Registrar(
            self.tree, clock=system_clock, new_id=Ids(system_clock, os.urandom), random_bytes=os.urandom
        )
        registrar.register(
            NewCell(
                name=name,
                role=cell.role,
                database=database.url(
                    schema,
                    schema,
                    word,
                    port=self.port_for(name, f"database:{name}", database.port),
                    papers=papers,
                ),
                broker=broker.amqp_url(
                    own.vhost,
                    own.user,
                    own.password,
                    port=self.port_for(name, f"broker:{name}", broker.amqp_port),
                ),
                parents=cell.parents,
                up={parent: self.edge_url(name, parent) for parent in cell.parents},
                down={parent: self.edge_url(parent, name) for parent in cell.parents},
                pools=tuple(
                    PoolAccess(
                        name=pool.name,
                        url=self._pool_url(self._pool_port(name, pool.name)),
                        password=plan.password("xenserver", pool.name),
                        fingerprint=self.papers.server(pool.name).fingerprint if plan.tls else "",
                    )
                    for pool in cell.pools
                ),
                settings=self._settings(cell),
            )
        )

    def edge_url(self, publisher: CellName, neighbour: CellName) -> str:
        """How one cell writes to a neighbour's inbox: a user of its own that may do nothing else. With certificates a
        cell has one name at every broker, and may do there what the virtual host says."""
        user, word = f"{publisher}.to.{neighbour}", self.plan.password("edge", publisher, neighbour)
        if self.plan.tls:
            user, word = publisher, ""
        node = self.broker(neighbour)
        node.add_grants([Grant(vhost=neighbour, user=user, password=word, **WRITE_ONLY)])
        return node.amqp_url(
            neighbour, user, word, port=self.port_for(publisher, f"broker:{neighbour}", node.amqp_port)
        )

    def port_for(self, cell: CellName, what: str, port: int) -> int:
        """Where a cell finds a part of the lab that listens on this port: there. For labs with something in between."""
        return port

    def _pool_url(self, port: int) -> str:
        return f"{'https' if self.plan.tls else 'http'}://{LOOPBACK}:{port}"

    def _pool_port(self, cell: CellName, pool: str) -> int:
        return self.port_for(cell, f"xenserver:{pool}", self.plan.pool_ports[pool])

    def _settings(self, cell: CellPlan) -> dict[str, Any]:
        settings: dict[str, Any] = {"mute_after": self.plan.mute_after}
        found: dict[str, Any] = {"tick": self.plan.tick, "settings": settings}
        if self.plan.tls:
            found["amqp"] = {"tls": {name: str(path) for name, path in asdict(self.papers.client(cell.name)).items()}}
        if cell.role != API:
            settings |= {"measure_every": 10.0, "digest_every": 5.0, "clean_seconds": 10.0, "watch_wait": 5.0}
            return found
        home = self.folder / "front" / cell.name
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        front = {"images": str(home / "images"), "auth": self.plan.auth}
        if self.plan.auth == HTTP_BASIC:
            hashed = part("password_hash")(self.plan.password("rest", USER), os.urandom(16))
            processes.write_whole(home / "users", f"{USER}:{hashed}:{USER}:admin\n")
            processes.write_whole(home / "secret", self.plan.password("images", cell.name) + "\n")
            front |= {"users_file": str(home / "users"), "secret_file": str(home / "secret")}
        settings["front"] = front
        found |= {"listen": f"{LOOPBACK}:{self.plan.api_ports[cell.name]}", "posting": True}
        return found


def _schema(cell: CellName) -> str:
    return f"cell_{cell.replace('-', '_')}"


def _word(kind: str, cell: CellName) -> str:
    return f"{kind}:{cell}" if cell else kind
