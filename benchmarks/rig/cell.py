"""One cell and the orders it takes from whoever measures. In the embedded shape many live in one process; in the lab
each is a process of its own (`python -m benchmarks.rig.cell`), with orders and answers as lines of JSON.
"""

import io
import json
import os
import pickle
import resource
import sys
import threading
from base64 import b64decode
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.rig.plan import CellPlan
from cells import collector
from cells.daemon import set_up_logging
from cells.house import Cell, House, save_edge
from cells.rows import RosterRow

if TYPE_CHECKING:
    from benchmarks.rig.load import Loaded

_ROWS_AT_ONCE = 1000


def memory_kib() -> dict[str, int]:
    """What this process holds: resident, and its share of what it has in common with others."""
    found = {}
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        if name in ("Rss", "Pss"):
            found[f"{name.lower()}_kib"] = int(rest.split()[0])
    return found


def cpu_seconds() -> float:
    """What this process has used so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Running:
    """A cell of a house, with its loop in a thread."""

    def __init__(self, house: House, plan: CellPlan) -> None:
        self._house = house
        self.cell: Cell = house.open(plan.config, faces=_faces(plan))
        with self.cell.store.unit() as unit:
            for edge in plan.edges:
                save_edge(
                    unit, self.cell.identity, edge.uuid, edge.neighbour, edge.parent, edge.url, house.random_bytes
                )
            if plan.hosts:
                from compute_cell.rows import PoolRow

                unit.save(PoolRow(name="light", url="light:light", user="root", secret=b""))
        self._load = None if plan.bare else _loaded(house, self.cell)
        self._thread = threading.Thread(target=self.cell.node.run, name=f"cell-{self.cell.name}")
        self._thread.start()

    def obey(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        """Carry out one order; `do` names it."""
        words = dict(order)
        answer: Mapping[str, Any] = getattr(self, f"do_{words.pop('do')}")(**words)
        return answer

    def do_usage(self) -> Mapping[str, Any]:
        """CPU and memory of this process, what the loop has counted, commits."""
        stats = self.cell.store.stats()
        return {
            "cpu": cpu_seconds(),
            **memory_kib(),
            "commits": stats.commits,
            "commit_seconds": stats.commit_seconds,
            "counts": dict(self.cell.node.counts),
        }

    def do_front(self) -> Mapping[str, Any]:
        """Where REST is served."""
        return {"port": self.cell.front.port if self.cell.front is not None else 0}

    def do_reaches(self, destination: str) -> Mapping[str, Any]:
        """Whether a way to this cell is known here."""
        return {"yes": bool(self.cell.role.next_hops(destination, self._house.clock()))}

    def do_room(self) -> Mapping[str, Any]:
        """How many hosts are known of in the cells below."""
        from cells import codec
        from cells.model import CellRecord

        with self.cell.store.unit(lock=False) as unit:
            records = [codec.unpack(CellRecord, row.payload) for row in unit.all(RosterRow)]
        return {"hosts": sum(record.capacity.hosts for record in records if record.capacity is not None)}

    def do_servers(self, count: int, leaf: str = "", owner: str = "") -> Mapping[str, Any]:
        """Fill in servers: as the API cell has them (`leaf`) or as their leaf does (`owner`)."""
        from benchmarks.rig.load import instance_rows, server_rows

        now = self._house.clock()
        for first in range(0, count, _ROWS_AT_ONCE):
            last = min(count, first + _ROWS_AT_ONCE)
            rows: list[Any] = list(
                server_rows(first, last, leaf, now) if leaf else instance_rows(first, last, owner, now)
            )
            with self.cell.store.unit() as unit:
                unit.insert(*rows)
        return {}

    def do_commands(self, leaf: str, in_flight: int, seconds: float, servers: int) -> Mapping[str, Any]:
        """Commands to a leaf."""
        from benchmarks.rig.load import CommandLoad

        return CommandLoad(self._loaded, leaf, in_flight, seconds, servers).run()

    def do_updates(self, in_flight: int, seconds: float, servers: int) -> Mapping[str, Any]:
        """Updates of the instances here."""
        from benchmarks.rig.load import UpdateLoad

        return UpdateLoad(self._loaded, in_flight, seconds, servers).run()

    def do_image(self) -> Mapping[str, Any]:
        """An image that may be built from; light hosts never fetch it."""
        from benchmarks.rig.load import FLAVOR

        role: Any = self.cell.role
        images = role.front.images
        image = images.create(name="bench", owner="local", disk_format="vhd", container_format="ovf")
        images.fill(image, io.BytesIO(b"light"))
        return {"image": image, "flavor": FLAVOR.id}

    def do_count(self, status: str) -> Mapping[str, Any]:
        """How many servers of the API cell show this status."""
        from api_cell.rows import ServerRow
        from cells.ports import Where

        with self.cell.store.unit(lock=False) as unit:
            return {"count": unit.count(ServerRow, Where(column="status", op="=", value=status))}

    def do_waits(self, since: int) -> Mapping[str, Any]:
        """What became of the builds asked for since: seconds from the wish to the VM's start."""
        from api_cell.rows import ServerRow
        from cells.ports import Where

        with self.cell.store.unit(lock=False) as unit:
            rows = unit.find(ServerRow, Where(column="created", op=">=", value=since))
        done = sorted(
            (row.state.launched_at - row.created) / 1_000_000 for row in rows if row.state and row.state.launched_at
        )
        return {
            "active": len(done),
            "unfinished": sum(row.status not in ("ACTIVE", "ERROR") for row in rows),
            "median": done[len(done) // 2] if done else 0.0,
            "longest": done[-1] if done else 0.0,
        }

    @property
    def _loaded(self) -> "Loaded":
        assert self._load is not None
        return self._load

    def close(self) -> None:
        if self.cell.front is not None:
            self.cell.front.stop()
        self.cell.node.stop()
        self._thread.join(30)
        self.cell.let_go()


def _loaded(house: House, cell: Cell) -> "Loaded":
    # Loads know both roles: a cell whose memory is measured must not import them.
    from benchmarks.rig.load import Loaded

    return Loaded(house, cell)


def _faces(plan: CellPlan) -> Mapping[str, Callable[[], Any]]:
    if not plan.hosts:
        return {}
    # Only the leaf pays for the simulator.
    from xenapi_host.facts import GIB
    from xenapi_host.light_images import give_images
    from xenapi_host.session import in_process
    from xenapi_host.simulator.light import LightPool
    from xenapi_host.simulator.worlds import HostShape

    shape = HostShape(ram_mib=1024 * 1024, cpus=64, cpu_objects=False)
    pool = LightPool(hosts=plan.hosts, shape=shape, name="light")
    give_images(pool, virtual_size=GIB)
    return {"light": partial(lambda: in_process(pool.login()))}


def main() -> None:
    """A cell's process: its plan is the first line of the input, orders are the next; the end of the input ends it."""
    plan: CellPlan = pickle.loads(b64decode(sys.stdin.readline()))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else prints must not come between
    set_up_logging()
    running = Running(House(create_tables=True), plan)
    collector.calm()
    print(json.dumps({"ready": os.getpid()}), file=answers)
    try:
        for line in sys.stdin:
            print(json.dumps(running.obey(json.loads(line))), file=answers)
    finally:
        running.close()


if __name__ == "__main__":
    main()
