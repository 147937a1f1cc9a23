"""A cell with two parents while one of them is dead, or while the brokers between are wiped: its traffic goes on."""

import random
import threading
import time
from collections.abc import Iterator

import pytest

from cells.broker.limits import INBOX
from cells.house import system_clock
from cells.registering import open_store
from cells.rows import EdgeRow
from tests.chaos.lab import small_tree
from tests.chaos.tenants import Door
from tests.chaos.traffic import Traffic, Waits, build, waits
from tests.support.labs import RunningLab, running_lab

LEAF = "shared-1"
SERVERS = 4
# What is promised (docs/reliability.md): traffic goes on within so many seconds.
RESUMES = 5.0


@pytest.fixture(scope="module")
def lab() -> Iterator[RunningLab]:
    with running_lab(small_tree(), brokers="2") as lab:
        yield lab


@pytest.fixture(scope="module")
def servers(lab: RunningLab) -> list[str]:
    return build(Door([lab.plan.endpoint("east")], random.Random(1)), lab.image("east"), LEAF, SERVERS)


@pytest.fixture
def two_ways(lab: RunningLab) -> None:
    """Both parents are heard at both their ends, anew."""
    since = system_clock()
    lab.wait(
        lambda: all(_heard(lab, cell, parent, since) for cell in (LEAF, "east") for parent in ("dfw", "ord")),
        "both ways between east and the leaf are open",
    )


def _heard(lab: RunningLab, cell: str, neighbour: str, since: int) -> bool:
    with open_store(lab.lab.tree.config(cell)) as store, store.unit(lock=False) as unit:
        edge = unit.get(EdgeRow, neighbour)
    return edge is not None and edge.heard > since


def traffic_while_killed(lab: RunningLab, servers: list[str], part: str) -> Waits:
    with Traffic([lab.plan.endpoint("east")], servers) as traffic:
        traffic.ended(20)
        broken = time.monotonic()
        lab.lab.kill(part)
        traffic.ended(40)
    lab.lab.start(part)
    lab.lab.wait_ready()
    return waits(traffic.actions, broken)


@pytest.mark.services
@pytest.mark.usefixtures("two_ways")
@pytest.mark.parametrize("part", ["dfw", "broker:dfw", "ord"])
def test_traffic_goes_on_by_the_other_parent_within_seconds(
    lab: RunningLab, servers: list[str], part: str, capsys: pytest.CaptureFixture[str]
):
    assert lab.plan.broker_of("dfw") != lab.plan.broker_of(LEAF) == lab.plan.broker_of("ord")
    seen = traffic_while_killed(lab, servers, part)
    with capsys.disabled():
        print(f"\n{part} killed: {seen}")
    assert seen.stuck == 0
    assert seen.resumed < RESUMES
    assert seen.longest < RESUMES + seen.before


@pytest.mark.services
@pytest.mark.usefixtures("two_ways")
def test_everything_ends_while_the_brokers_between_are_wiped_again_and_again(
    lab: RunningLab, servers: list[str], capsys: pytest.CaptureFixture[str]
):
    over = threading.Event()

    def wipe() -> None:
        while not over.wait(0.5):
            for cell in ("dfw", "ord"):
                lab.lab.broker(cell).delete_queue(cell, INBOX)

    wiping = threading.Thread(target=wipe)
    with Traffic([lab.plan.endpoint("east")], servers) as traffic:
        traffic.ended(8)
        broken = time.monotonic()
        wiping.start()
        traffic.ended(24)
        over.set()
        wiping.join()
    seen = waits(traffic.actions, broken)
    with capsys.disabled():
        print(f"\nbrokers between wiped twice a second: {seen}")
    assert seen.stuck == 0
