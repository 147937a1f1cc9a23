"""Whatever the driver does to a pool is struck at each of its calls somewhere: here none is forgotten."""

import inspect
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from tests.support.xen_hosts import House, KeptJournal
from tests.xenserver import test_driver_guests, test_driver_moves, test_driver_resumed
from xenapi_host import driver

LOOKS = {
    "agent_version",
    "console_log",
    "console_url",
    "diagnostics",
    "disk_usage",
    "find",
    "find_volume",
    "host_snapshots",
    "look",
    "measure",
    "plugins_wrong",
    "power_states",
    "read_live",
    "volumes_of_pool",
}
"""What changes nothing."""


def _functions() -> dict[CodeType, str]:
    found = {name: getattr(driver, name) for name in driver.__all__}
    return {inspect.unwrap(act).__code__: name for name, act in found.items() if inspect.isfunction(act)}


def _called_by(work: Callable[[], object]) -> set[str]:
    """The driver's functions that this goes through."""
    names, seen = _functions(), set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code in names:
            seen.add(names[frame.f_code])

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return seen


def test_every_function_of_the_driver_is_struck_at_each_of_its_calls() -> None:
    struck: set[str] = set()
    for setup, work in test_driver_resumed.OPERATIONS.values():
        house = House()
        setup(house)
        struck |= _called_by(lambda house=house, work=work: work(house, house.connect(), KeptJournal()))  # type: ignore[misc]
    for tell in test_driver_guests.OPERATIONS.values():
        house = test_driver_guests._house()
        struck |= _called_by(lambda house=house, tell=tell: tell(house.connect(), KeptJournal()))  # type: ignore[misc]
    struck |= _called_by(test_driver_moves._moved)
    dead = test_driver_moves._dead()
    struck |= _called_by(lambda: test_driver_moves._evacuate(dead, dead.connect(), KeptJournal()))
    assert set(_functions().values()) - LOOKS - struck == set()
