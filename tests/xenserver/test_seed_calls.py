"""The XenAPI calls that the project set out with: each is made by some operation of the driver."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache

import pytest

from cells.errors import Temporary
from cells.ports import Journal
from tests.support.xen_hosts import SERVER, FaultyDoor, House, KeptJournal
from tests.xenserver.test_driver_resumed import OPERATIONS
from xenapi_host import driver
from xenapi_host.session import InProcess, Session
from xenapi_host.simulator.light import LightPool
from xenapi_host.simulator.worlds import HostShape

SEED = (
    "VM.start",
    "VM.start_on",
    "VM.destroy",
    "VM.clean_reboot",
    "VM.hard_reboot",
    "VM.clean_shutdown",
    "VM.hard_shutdown",
    "VM.pause",
    "VM.unpause",
    "VM.suspend",
    "VM.resume",
    "VM.snapshot",
    "VM.add_to_VCPUs_params",
    "VM.get_VBDs",
    "VM.get_record",
    "VM.get_by_uuid",
    "VM.get_by_name_label",
    "VM.set_name_label",
    "VM.add_to_xenstore_data",
    "VM.remove_from_xenstore_data",
    "VM.assert_can_migrate",
    "VM.migrate_send",
    "VM.pool_migrate",
)

Work = Callable[[House, Session, Journal], object]


def _metadata(house: House, session: Session, journal: Journal) -> None:
    for items in ({"a": "1"}, {"b": "2"}):
        driver.put_metadata(session, SERVER, items)


def _move(house: House, session: Session, journal: Journal) -> object:
    return driver.migrate(session, SERVER, house.facts().hosts[1], journal)


MORE: dict[str, tuple[HostShape, Work]] = {
    "metadata of a running server": (HostShape(cpu_objects=False), _metadata),
    "start anywhere": (HostShape(cpu_objects=False), lambda house, session, journal: driver.start(session, SERVER)),
    "move on shared storage": (HostShape(cpu_objects=False, sr_type="nfs"), _move),
}


@cache
def _made() -> frozenset[str]:
    """Every method that the driver's operations call on light hosts, without the `Async.` of tasks."""
    seen: set[str] = set()

    def run(setup: Callable[[House], None], work: Work, shape: HostShape | None = None) -> None:
        house = House(shape=shape)
        setup(house)
        door = FaultyDoor(door=InProcess(face=LightPool(hosts=1).login()))
        with suppress(Temporary):  # whether it succeeds is looked at elsewhere
            work(house, house.connect(door), KeptJournal())
        seen.update(method.removeprefix("Async.") for method in door.seen)

    for setup, work in OPERATIONS.values():
        run(setup, work)
    for shape, work in MORE.values():
        run(OPERATIONS["stop"][0], work, shape)
    return frozenset(seen)


@pytest.mark.parametrize("method", SEED)
def test_call_is_made_by_an_operation(method: str) -> None:
    assert method in _made()
