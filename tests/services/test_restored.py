"""Databases put back to a backup while tenants work: the documented commands, real daemons, RabbitMQ, MariaDB and VHD
files. The simulation does the same with every fault, from many seeds."""

import random
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cells.topology_file import CellPlan, PoolPlan, TopologyFile
from tests.chaos.checker import judge
from tests.chaos.history import End, History
from tests.chaos.tenants import Door, Tenant
from tests.chaos.truth import Truth, look
from tests.support.backups import backup, put_back
from tests.support.labs import RunningLab, running_lab

TREE = TopologyFile(
    cells=(
        CellPlan(name="east", role="api"),
        CellPlan(name="dfw-1", role="compute", parents=("east",), pools=(PoolPlan(name="dfw-1"),)),
    )
)
OWNER, LEAF = "east", "dfw-1"
TENANTS = 3


class Load:
    """Tenants at work, who can be told to pause."""

    def __init__(self, lab: RunningLab, history: History) -> None:
        self._lab, self._history = lab, history
        self._image = lab.image(OWNER)
        self._round = 0
        self.door = Door([lab.plan.endpoint(OWNER)], random.Random(1))
        self.forgotten: dict[str, list[tuple[float, float]]] = {}

    @contextmanager
    def at_work(self) -> Iterator[None]:
        self._round += 1
        over = threading.Event()
        endpoints = [self._lab.plan.endpoint(OWNER)]
        threads = [
            threading.Thread(
                target=Tenant(f"r{self._round}t{number}", 1, endpoints, self._image, self._history).run, args=(over,)
            )
            for number in range(TENANTS)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def until_accepted(self, count: int) -> None:
        """Until so many more requests have been accepted."""
        enough = self._accepted() + count
        self._lab.wait(lambda: self._accepted() >= enough, f"{count} requests more are accepted")

    def _accepted(self) -> int:
        return sum(event.end is End.OK for event in self._history.events)

    def until_right(self, what: str, *, heard: bool = False) -> Truth:
        """Until nothing is under way and every promise is kept; `heard`: and no server is of a leaf not yet heard."""
        seen: list[Truth] = []

        def right() -> bool:
            seen.append(look(self._lab.lab, self.door))
            verdict = judge(
                self._history.events, seen[-1], OWNER, frozenset({LEAF}), flips=False, forgotten=self.forgotten
            )
            print(*verdict.breaches, sep="\n")  # shown when the test fails
            unheard = [fact.name for fact in seen[-1].audits[OWNER].owned if fact.status == "UNKNOWN"]
            return not verdict.breaches and not (heard and unheard)

        self._lab.wait(right, what)
        return seen[-1]


@pytest.mark.services
@pytest.mark.timeout(240)
def test_what_was_asked_since_the_backup_is_neither_lost_nor_done_twice(tmp_path: Path) -> None:
    """Backups are of moments at which nothing is under way. The leaf's comes back in the middle of the work; the API
    cell's when all that was asked since is over, because what no leaf has yet is lost with it."""
    with running_lab(TREE) as lab, closing(History(tmp_path / "history.jsonl")) as history:
        load = Load(lab, history)
        with load.at_work():
            load.until_accepted(10)
        load.until_right("all is right before the leaf's backup")
        saved = backup(lab.lab, LEAF)
        with load.at_work():
            load.until_accepted(12)
            lab.lab.stop(LEAF)
            put_back(lab.lab, LEAF, saved)
            lab.lab.start(LEAF)
            load.until_accepted(5)
        load.until_right("all is right after the leaf was put back")
        since, saved = history.now(), backup(lab.lab, OWNER)
        with load.at_work():
            load.until_accepted(12)
        before = load.until_right("all is right before the API cell is put back")
        load.forgotten[OWNER] = [(since, history.now())]
        lab.lab.stop(OWNER)
        put_back(lab.lab, OWNER, saved)
        lab.lab.start(OWNER)
        lab.lab.wait_ready()
        with load.at_work():
            load.until_accepted(5)
        after = load.until_right("all is right after the API cell was put back", heard=True)
    # What tenants had at a leaf when the API cell was put back they have, though it was asked for, or changed, since
    # its backup; and what they had deleted is not there.
    had, have = ({fact.name: fact.status for fact in truth.audits[OWNER].owned} for truth in (before, after))
    held = {name: status for name, status in had.items() if status != "ERROR"}
    assert held
    assert {name: have.get(name) for name in held} == held
    assert not [name for name in have if not name.startswith("r4") and name not in had]
