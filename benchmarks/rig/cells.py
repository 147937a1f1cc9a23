"""The tree in its two shapes behind one face: `ask(cell, do=...)` has a cell carry out an order.

Embedded: every cell in this process, a SQLite file each, memory brokers. Lab: a process per cell, a virtual host each
on one private RabbitMQ node and a schema each on one private MariaDB server. All is ended, by pid, when the block ends.
"""

import json
import os
import pickle
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from api_cell.http.auth import hash_password
from benchmarks.rig.cell import Running, memory_kib
from benchmarks.rig.plan import CHAIN, CellPlan, Place, plan_tree
from cells.errors import Temporary
from cells.house import House
from cells.lab import processes
from cells.lab.mariadb import MariaServer
from cells.lab.rabbitmq import Grant, RabbitNode
from cells.names import CellName

START_SECONDS = 60.0
SHAPES = ("embedded", "lab")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a program asks of the tree. `limits`: front.limits of its API cells (default: none); `tenants`: who may log
    in there, each with the password "bench" and a project of his own; without any, nobody has to."""

    shape: Mapping[CellName, Sequence[CellName]] = field(default_factory=lambda: CHAIN)
    hosts: int = 0
    listen: bool = False
    threads: int = 8
    tick: float = 1.0
    bare: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)
    tenants: Sequence[str] = ()


class Tree(Protocol):
    """A running tree. `places` has one place more than cells: "calibration", used by no cell."""

    places: Mapping[CellName, Place]

    def ask(self, cell: CellName, **order: Any) -> Mapping[str, Any]:
        """Have a cell carry out an order; blocks until it has."""

    def cpu(self) -> Mapping[str, float]:
        """CPU seconds used so far, by process: the cells' and, in the lab, the servers'."""

    def house(self) -> House | None:
        """The house all cells are in, where there is one."""

    def pid(self, cell: CellName) -> int:
        """The process a cell runs in."""


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    """Until it holds; Temporary when that takes too long."""
    limit = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > limit:
            raise Temporary(f"{what}: not within {START_SECONDS:.0f} s")
        time.sleep(0.02)


@contextmanager
def open_tree(kind: str, wanted: Wanted) -> Iterator[Tree]:
    """The tree in this shape, its cells knowing each other and, where there are hosts, their capacity. SIGTERM ends the
    program as an interrupt does, so that what was started is ended."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="celltree-bench-") as name:
        folder = Path(name)
        opened = _embedded(folder, wanted) if kind == "embedded" else _lab(folder, wanted)
        with opened as tree:
            _wait_joined(tree, wanted)
            yield tree


def _wait_joined(tree: Tree, wanted: Wanted) -> None:
    """Until top and leaves know ways to each other and the top knows every host."""
    parents = {parent for above in wanted.shape.values() for parent in above}
    leaves = [cell for cell, above in wanted.shape.items() if above and cell not in parents]
    for top in (cell for cell, above in wanted.shape.items() if not above):
        for here, there in [(top, leaf) for leaf in leaves] + [(leaf, top) for leaf in leaves]:
            wait_for(f"{here} knows a way to {there}", partial(_reaches, tree, here, there))
        wait_for(f"{top} knows the hosts below", partial(_has_room, tree, top, wanted.hosts * len(leaves)))


def _reaches(tree: Tree, here: CellName, there: CellName) -> bool:
    return bool(tree.ask(here, do="reaches", destination=there)["yes"])


def _has_room(tree: Tree, top: CellName, hosts: int) -> bool:
    return int(tree.ask(top, do="room")["hosts"]) >= hosts


# --- embedded ---


class _Embedded:
    def __init__(self, places: Mapping[CellName, Place], plans: Mapping[CellName, CellPlan]) -> None:
        self.places = places
        self._house = House(create_tables=True)
        self._cells: dict[CellName, Running] = {}
        try:
            for name, plan in plans.items():
                self._cells[name] = Running(self._house, plan)
        except BaseException:
            self.close()
            raise

    def ask(self, cell: CellName, **order: Any) -> Mapping[str, Any]:
        return self._cells[cell].obey(order)

    def cpu(self) -> Mapping[str, float]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {"all cells": used.ru_utime + used.ru_stime}

    def house(self) -> House | None:
        return self._house

    def pid(self, cell: CellName) -> int:
        return os.getpid()

    def close(self) -> None:
        for running in self._cells.values():
            running.close()


@contextmanager
def _embedded(folder: Path, wanted: Wanted) -> Iterator[Tree]:
    names = (*wanted.shape, "calibration")
    places = {name: Place(database=f"sqlite:///{folder / name}.sqlite", broker=f"memory://{name}") for name in names}
    tree = _Embedded(places, _plans(folder, places, wanted))
    try:
        yield tree
    finally:
        tree.close()


def _plans(folder: Path, places: Mapping[CellName, Place], wanted: Wanted) -> dict[CellName, CellPlan]:
    return plan_tree(
        places,
        shape=wanted.shape,
        hosts=wanted.hosts,
        images=str(folder / "images"),
        listen=wanted.listen,
        threads=wanted.threads,
        tick=wanted.tick,
        bare=wanted.bare,
        front=_front(folder, wanted),
    )


def _front(folder: Path, wanted: Wanted) -> dict[str, object]:
    front: dict[str, object] = {"limits": dict(wanted.limits)} if wanted.limits else {}
    if wanted.tenants:
        users, secret = folder / "users", folder / "secret"
        users.write_text(
            "".join(f"{name}:{hash_password('bench', os.urandom(16))}:{name}\n" for name in wanted.tenants)
        )
        secret.write_text(secrets.token_hex(16))
        front |= {"auth": "http_basic", "users_file": str(users), "secret_file": str(secret)}
    return front


# --- the lab ---


class CellProcess:
    """One cell in a process of its own."""

    def __init__(self, plan: CellPlan, log: Path) -> None:
        self.name = plan.config.cell
        self._log = log
        with log.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.rig.cell"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        self._send(b64encode(pickle.dumps(plan)).decode())

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self) -> None:
        self._answer()

    def ask(self, **order: Any) -> Mapping[str, Any]:
        self._send(json.dumps(order))
        return self._answer()

    def close(self) -> None:
        """The end of its input ends it; what does not end is killed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _answer(self) -> Mapping[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Temporary(f"the process of {self.name} has ended; its log ends:\n{processes.log_tail(self._log)}")
        answer: Mapping[str, Any] = json.loads(line)
        return answer


class _Lab:
    def __init__(self, places: Mapping[CellName, Place], servers: Mapping[str, int | None]) -> None:
        self.places = places
        self._servers = servers
        self.cells: dict[CellName, CellProcess] = {}

    def ask(self, cell: CellName, **order: Any) -> Mapping[str, Any]:
        return self.cells[cell].ask(**order)

    def cpu(self) -> Mapping[str, float]:
        used = {name: float(self.ask(name, do="usage")["cpu"]) for name in self.cells}
        return used | {name: _cpu_of(pid) for name, pid in self._servers.items() if pid is not None}

    def house(self) -> House | None:
        return None

    def pid(self, cell: CellName) -> int:
        return self.cells[cell].pid


def _cpu_of(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / 100


@contextmanager
def _lab(folder: Path, wanted: Wanted) -> Iterator[Tree]:
    rabbit = RabbitNode(folder / "rabbitmq")
    maria = MariaServer(folder / "mariadb", options=("--innodb-buffer-pool-size=512M",))
    try:
        rabbit.start()
        maria.start()
        places = {}
        maria.wait_ready()
        rabbit.wait_ready()
        for name in (*wanted.shape, "calibration"):
            word = secrets.token_urlsafe(12)
            maria.create_schema(name, name, word)
            rabbit.add_grants([Grant(vhost=name, user=name, password=word)])
            places[name] = Place(database=maria.url(name, name, word), broker=rabbit.amqp_url(name, name, word))
        tree = _Lab(places, {"rabbitmq": rabbit.pid, "mariadb": maria.pid})
        try:
            for name, plan in _plans(folder, places, wanted).items():
                tree.cells[name] = CellProcess(plan, folder / f"{name}.log")
            for process in tree.cells.values():
                process.wait_ready()
            yield tree
        finally:
            for process in tree.cells.values():
                process.close()
    finally:
        rabbit.remove()
        maria.remove()


__all__ = ["SHAPES", "CellProcess", "Tree", "Wanted", "memory_kib", "open_tree", "wait_for"]
