"""Traffic that must go on: for a cell with two parents while one of them is dead or the brokers between are wiped, and
for everybody while every daemon of the tree is stopped and started in turn."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from cells.broker.limits import INBOX
from cells.house import system_clock
from cells.registering import open_store
from cells.rows import EdgeRow
from tests.chaos.checker import judge
from tests.chaos.history import End, History
from tests.chaos.lab import FaultyLab, small_tree
from tests.chaos.tenants import Door, Tenant
from tests.chaos.traffic import Traffic, Waits, build, waits
from tests.chaos.truth import look
from tests.support.labs import RunningLab, running_lab
from tests.support.tcp_proxy import SILENT

API = "east"
LEAF = "shared-1"
TENANTS = 4
SERVERS = 4
# Promised on top of what an action takes when nothing is broken, which is long on a busy machine. The figures, which
# the test prints, are in docs/reliability.md.
RESUMES = 5.0


@pytest.fixture(scope="module")
def lab() -> Iterator[RunningLab]:
    with running_lab(small_tree(), brokers="2", daemons=2, kind=FaultyLab) as lab:
        yield lab


@pytest.fixture(scope="module")
def servers(lab: RunningLab) -> list[str]:
    return build(Door([lab.plan.endpoint(API)], random.Random(1)), lab.image(API), LEAF, SERVERS)


@pytest.fixture
def two_ways(lab: RunningLab) -> None:
    """Both parents are heard at both their ends, anew."""
    since = system_clock()
    lab.wait(
        lambda: all(_heard(lab, cell, parent, since) for cell in (LEAF, API) for parent in ("dfw", "ord")),
        "both ways between east and the leaf are open",
    )


def _heard(lab: RunningLab, cell: str, neighbour: str, since: int) -> bool:
    with open_store(lab.lab.tree.config(cell)) as store, store.unit(lock=False) as unit:
        edge = unit.get(EdgeRow, neighbour)
    return edge is not None and edge.heard > since


@contextmanager
def killed(lab: RunningLab, part: str) -> Iterator[None]:
    """A broker, or all daemons of a cell."""
    parts = lab.plan.daemons_of(part) if part in lab.plan.topology.names else (part,)
    for each in parts:
        lab.lab.kill(each)
    try:
        yield
    finally:
        for each in parts:
            lab.lab.start(each)


@contextmanager
def swallowed(lab: RunningLab, cell: str) -> Iterator[None]:
    """Whatever goes to or from the cell, or its broker, is never heard of again; connections stay."""
    assert isinstance(lab.lab, FaultyLab)
    proxies = [proxy for link, proxy in lab.lab.proxies.items() if cell in link.replace(":", " ").split()]
    for proxy in proxies:
        proxy.set(SILENT, SILENT)
    try:
        yield
    finally:
        for proxy in proxies:
            proxy.heal()


def traffic_while(lab: RunningLab, servers: list[str], fault: AbstractContextManager[None]) -> Waits:
    with ExitStack() as all_over, Traffic([lab.plan.endpoint(API)], servers) as traffic:
        traffic.ended(20)
        broken = time.monotonic()
        all_over.enter_context(fault)
        traffic.ended(40)
    lab.lab.wait_ready()
    return waits(traffic.actions, broken)


@pytest.mark.services
@pytest.mark.usefixtures("two_ways")
def test_a_rolling_restart_of_all_daemons_fails_no_request_and_loses_nothing(
    lab: RunningLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A client passes over a door that is closed, as a load balancer does."""
    endpoints = [lab.plan.endpoint(daemon) for daemon in lab.plan.daemons_of(API)]
    history, over, image = History(tmp_path / "history.jsonl"), threading.Event(), lab.image(API)
    tenants = [Tenant(f"t{number}", 1, endpoints, image, history) for number in range(TENANTS)]
    threads = [threading.Thread(target=tenant.run, args=(over,)) for tenant in tenants]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    restarted = [daemon for cell in lab.plan.topology.names for daemon in lab.plan.daemons_of(cell)]
    for daemon in restarted:
        lab.lab.stop(daemon)
        lab.lab.start(daemon)
        lab.wait(lambda daemon=daemon: _runs(lab.lab.log(daemon)), f"{daemon} runs again")
    over.set()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    history.close()
    door, leaves = Door(endpoints, random.Random(1)), frozenset(cell.name for cell in lab.plan.topology.leaves)
    lab.wait(
        lambda: not judge(history.events, look(lab.lab, door), API, leaves, flips=False).breaches,
        "everything asked during the restarts has ended as it should",
    )
    ends = [event for event in history.events if event.end is not End.INVOKE]
    # A refusal by the state of a server is an answer; an error of the service, or none, is not.
    failed = [event for event in ends if event.end is End.INFO or (event.end is End.FAIL and event.detail[:1] != "4")]
    with capsys.disabled():
        print(f"\n{len(restarted)} daemons restarted in {took:.0f} s: {len(ends)} requests, {len(failed)} failed")
    assert len(ends) > 50
    assert not failed


def _runs(log: Path) -> bool:
    """Whether a daemon has come up since it last ended."""
    return "running as daemon" in log.read_text(errors="replace").rpartition(": ended")[2]


@pytest.mark.services
@pytest.mark.usefixtures("two_ways")
@pytest.mark.parametrize(
    ("fault", "part"), [(killed, "dfw"), (killed, "broker:dfw"), (killed, "ord"), (swallowed, "dfw")]
)
def test_traffic_goes_on_by_the_other_parent(
    lab: RunningLab,
    servers: list[str],
    fault: Callable[[RunningLab, str], AbstractContextManager[None]],
    part: str,
    capsys: pytest.CaptureFixture[str],
):
    assert lab.plan.broker_of("dfw") != lab.plan.broker_of(LEAF) == lab.plan.broker_of("ord")
    seen = traffic_while(lab, servers, fault(lab, part))
    with capsys.disabled():
        print(f"\n{part} {fault.__name__}: {seen}")
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
    with Traffic([lab.plan.endpoint(API)], servers) as traffic:
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
