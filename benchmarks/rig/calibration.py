"""What the machine does by itself, measured in the same run: a commit, a confirmed publish, a signature. Figures of two
runs can be compared only as far as these agree."""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.rig.cells import Tree
from benchmarks.rig.load import latencies
from cells.broker import open_broker
from cells.house import House, system_clock
from cells.identity import Identity, Keys, RootKey, Trust, new_key
from cells.rows import InboxRow
from cells.store.sql import SqlStore

_MESSAGE = bytes(1024)


def calibrate(tree: Tree, *, count: int = 200) -> dict[str, Any]:
    """The three, in microseconds (median), against the servers of this tree."""
    place = tree.places["calibration"]
    return {
        "commit_us": _us(_commits(place.database, count)),
        "publish_us": _us(_publishes(place.broker, tree.house(), count)),
        "sign_verify_us": signatures(count),
    }


def signatures(count: int = 200) -> float:
    """Ed25519: one packet of one record signed and verified."""
    root = RootKey(os.urandom(32))
    seed, public = new_key(os.urandom)
    certificate = root.certify("calibration", bytes(16), "api", public, system_clock())
    who = Identity(Keys(seed=seed), certificate, Trust(root.public))

    def once() -> None:
        who.trust.packet(who.packet("leaf", 1, 1, (_MESSAGE,), 1))

    return _us(_timed(once, count))


def _timed(once: Callable[[], None], count: int) -> list[float]:
    took = []
    for _ in range(count):
        began = time.perf_counter()
        once()
        took.append(time.perf_counter() - began)
    return took


def _us(seconds: list[float]) -> float:
    return round(1000 * latencies(seconds)["median_ms"], 1)


def _commits(url: str, count: int) -> list[float]:
    store = SqlStore(url)
    store.create_all()

    def once() -> None:
        with store.unit() as unit:
            unit.save(InboxRow(id=os.urandom(16), expires=system_clock()))

    try:
        return _timed(once, count)
    finally:
        store.close()


def _publishes(url: str, house: House | None, count: int) -> list[float]:
    rung = threading.Event()
    exchanges = house.exchanges if house is not None else None
    broker = open_broker(url, "calibration", rung.set, exchanges=exchanges)
    inbox = broker.inbox()
    link = broker.link("calibration", url)

    def once() -> None:
        while not link.offer(1, _MESSAGE):
            rung.wait(0.01)
            rung.clear()
        while not link.outcomes():
            rung.wait(1)
            rung.clear()
        inbox.ack([delivery.tag for delivery in inbox.poll(10)])

    try:
        once()
        return _timed(once, count)
    finally:
        broker.close()
