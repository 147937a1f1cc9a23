"""A lab driven from Python: real daemons, RabbitMQ, MariaDB and simulated XenServers, as `celltree lab up` makes them.

    with running_lab(folder) as lab:
        server = lab.build("east")
        lab.wait_status("east", server, "ACTIVE")
        lab.lab.kill("dfw")              # cells.lab.lab.Lab: kill, stop, start, add, status

A test that uses the fixture `shared_lab` (one lab for a test module) puts right what it breaks.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cells.cli.rest import Rest, RestFailed
from cells.errors import CelltreeError
from cells.lab.lab import Lab
from cells.lab.plan import LabPlan, make_plan
from cells.lab.programs import mariadb_programs, rabbitmq_programs
from cells.names import id_from_text
from cells.ports import Where
from cells.registering import open_store
from cells.rows import StoryRow
from cells.topology_file import TopologyFile, default
from compute_cell.rows import InstanceRow, Phase
from tests.support.servers import needed, session_folder
from xenapi_host.image_maker import make_image

T = TypeVar("T")
PATIENCE = 90.0
MIB = 1024**2
GONE = "GONE"


class RunningLab:
    """What a test does to a lab, and sees of it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._images: dict[str, str] = {}

    @property
    def plan(self) -> LabPlan:
        return self.lab.plan

    def rest(self, api: str) -> Rest:
        """A client of an API cell's REST (auth none)."""
        return Rest(self.plan.endpoint(api))

    def celltree(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run the command on this lab's tree, as an operator would."""
        tree = () if words[0] == "lab" else ("--tree", str(self.lab.folder))
        name = ("--name", str(self.lab.folder)) if words[0] == "lab" else ()
        command = [sys.executable, "-m", "cells.cli", *words, *tree, *name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if check and done.returncode:
            pytest.fail(f"celltree {' '.join(words)} gives {done.returncode}: {done.stderr}")
        return done

    # --- servers ---

    def image(self, api: str) -> str:
        """A small real image registered with an API cell; made once."""
        if api not in self._images:
            folder = self.lab.folder / "test-image"
            archive = folder / "image.tar.gz"
            if not archive.exists():
                (folder / "guest" / "etc").mkdir(parents=True, exist_ok=True)
                (folder / "guest" / "etc" / "hostname").write_text("celltree\n")
                make_image(folder / "guest", archive, size=16 * MIB)
            record = {"name": "test", "disk_format": "vhd", "container_format": "ovf", "visibility": "public"}
            made = self.rest(api).image("POST", "/images", record)["id"]
            self.rest(api).upload(made, archive)
            self._images[api] = made
        return self._images[api]

    def build(self, api: str, name: str = "vm", *, flavor: str = "1", hints: Mapping[str, str] | None = None) -> str:
        """Ask an API cell for a server; its id, at once."""
        wanted = {"name": name, "imageRef": self.image(api), "flavorRef": flavor, "networks": "none"}
        body: dict[str, Any] = {"server": wanted}
        if hints:
            body["os:scheduler_hints"] = dict(hints)
        server: str = self.rest(api).compute("POST", "/servers", body)["server"]["id"]
        return server

    def act(self, api: str, server: str, action: str, detail: Any = None) -> None:
        self.rest(api).compute("POST", f"/servers/{server}/action", {action: detail})

    def delete(self, api: str, server: str) -> None:
        self.rest(api).compute("DELETE", f"/servers/{server}")

    def show(self, api: str, server: str) -> dict[str, Any]:
        """The server as its owner shows it; status GONE when there is none (any more)."""
        try:
            found: dict[str, Any] = self.rest(api).compute("GET", f"/servers/{server}")["server"]
        except RestFailed as error:
            if error.code != 404:
                raise
            return {"status": GONE}
        return found

    def wait_status(self, api: str, server: str, *statuses: str, seconds: float = PATIENCE) -> dict[str, Any]:
        """Until the server has one of these statuses; the server then."""

        def look() -> dict[str, Any] | None:
            try:
                seen = self.show(api, server)
            except CelltreeError:
                return None  # The API cell itself is down, or its database.
            return seen if seen["status"] in statuses else None

        return self.wait(look, f"server {server} at {api} in {' or '.join(statuses)}", seconds)

    # --- cells ---

    def leaf_of(self, server: str) -> str:
        """The leaf that holds the server."""
        for cell in self.plan.topology.leaves:
            row = self.instance(cell.name, server)
            if row is not None and row.phase is not Phase.GONE:
                return cell.name
        raise AssertionError(f"no leaf holds {server}")

    def instance(self, leaf: str, server: str) -> InstanceRow | None:
        """The leaf's truth."""
        with open_store(self.lab.tree.config(leaf), whole=True) as store, store.unit(lock=False) as unit:
            return unit.get(InstanceRow, id_from_text(server))

    def story(self, api: str, server: str) -> list[StoryRow]:
        """Every line of a server's story at its owner, in order."""
        with open_store(self.lab.tree.config(api)) as store, store.unit(lock=False) as unit:
            where = Where(column="server", op="=", value=id_from_text(server))
            return list(unit.find(StoryRow, where, order=("id",)))

    def wait(self, look: Callable[[], T | None], what: str, seconds: float = PATIENCE) -> T:
        """Look until there is something; the test fails when that takes too long."""
        end = time.monotonic() + seconds
        while True:
            seen = look()
            if seen:
                return seen
            if time.monotonic() > end:
                pytest.fail(f"{what}: not within {seconds:.0f} s\n{self._logs()}")
            time.sleep(0.1)

    def _logs(self) -> str:
        parts = []
        for log in sorted((self.lab.folder / "run").glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-8:]
            parts.append(f"--- {log.name}\n" + "\n".join(lines))
        return "\n".join(parts)


@contextmanager
def running_lab(
    topology: TopologyFile | None = None,
    *,
    brokers: str = "vhosts",
    databases: int = 1,
    daemons: int = 1,
    auth: str = "none",
    tls: bool = False,
    kind: type[Lab] = Lab,
) -> Iterator[RunningLab]:
    """A lab of its own for as long as the block lasts; nothing of it is left afterwards."""
    needed(rabbitmq_programs)
    needed(mariadb_programs)
    with tempfile.TemporaryDirectory(prefix="lab-", dir=session_folder(), ignore_cleanup_errors=True) as name:
        folder = Path(name) / "lab"
        folder.mkdir(mode=0o700)
        shape = topology or default()
        plan = make_plan(
            shape, folder, brokers=brokers, databases=databases, daemons=daemons, auth=auth, tls=tls, port=0
        )
        lab = kind.create(folder, plan)
        try:
            lab.up(lambda _: None)
            yield RunningLab(lab)
        finally:
            lab.down(remove=True)


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[RunningLab]:
    """The default tree, running, for a test module."""
    with running_lab() as lab:
        yield lab
