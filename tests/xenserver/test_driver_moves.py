"""Moves into another pool and away from a dead host, struck before and after each of their XenAPI calls."""

from collections.abc import Callable
from contextlib import suppress

import pytest

from cells.errors import Permanent, Temporary
from tests.support.xen_hosts import FULL, SERVER, FaultyDoor, House, KeptJournal, Killed, answer_lost
from xenapi_host import driver
from xenapi_host.session import InProcess, Session
from xenapi_host.simulator.mishaps import kill_host
from xenapi_host.simulator.worlds import HostShape

SHARED = HostShape(cpu_objects=False, sr_type="nfs")


def _door() -> FaultyDoor:
    return FaultyDoor(door=InProcess(face=House(hosts=1).pool.login()))


class TwoPools:
    """A server with every kind of disk in one pool, and another pool to move it to."""

    def __init__(self) -> None:
        self.home, self.away = House(), House(seed=2)
        self.home.built(self.home.plan(flavor=FULL, config_drive=True))

    def move(self, session: Session, journal: KeptJournal) -> None:
        to = self.away.facts().hosts[1]
        driver.migrate_to_pool(session, self.away.connect(), SERVER, to, journal)

    def picture(self) -> object:
        return self.home.picture(), self.away.picture()


def _moved() -> tuple[list[str], object]:
    pools, door = TwoPools(), _door()
    pools.move(pools.home.connect(door), KeptJournal())
    return list(door.seen), pools.picture()


def test_a_server_moves_into_another_pool_with_its_disks_claims_and_address() -> None:
    pools = TwoPools()
    before = pools.home.picture()
    storage, there = pools.home.facts().hosts[0].storage, pools.away.facts().hosts[1].storage
    pools.move(pools.home.connect(), KeptJournal())
    assert repr(pools.away.picture()) == repr(before).replace(storage, there)
    assert pools.home.picture() == {"vms": [], "disks": [], "interfaces": 0, "attachments": 0}
    driver.destroy(pools.away.connect(), SERVER)
    assert pools.away.disks() == {}


@pytest.mark.parametrize("error", [Killed, answer_lost], ids=["killed", "answer lost"])
def test_a_move_into_another_pool_struck_at_any_call_comes_to_the_same_end(error: Callable[[], BaseException]) -> None:
    calls, wanted = _moved()
    assert "Async.VM.migrate_send" in calls
    for at in range(len(calls)):
        for after in (False, True):
            pools, door, journal = TwoPools(), _door(), KeptJournal()
            door.at, door.after, door.error = at, after, error
            with suppress(Killed, Temporary):
                pools.move(pools.home.connect(door), journal)
            pools.move(pools.home.connect(), journal)
            where = f"struck {'after' if after else 'before'} call {at}, {calls[at]}"
            assert pools.picture() == wanted, where
            assert pools.home.orphans() == pools.away.orphans() == [], where


def _dead() -> House:
    """A server on a host that has died; its disk is on shared storage."""
    house = House(shape=SHARED)
    house.built(house.plan(host=1))
    kill_host(house.pool.engine, house.session.call("host.get_by_uuid", house.facts().hosts[1].uuid))
    return house


def _evacuate(house: House, session: Session, journal: KeptJournal) -> object:
    here, dead = house.facts().hosts
    return driver.evacuate(session, SERVER, dead.uuid, here, journal, start=True)


@pytest.mark.parametrize("error", [Killed, answer_lost], ids=["killed", "answer lost"])
def test_an_evacuation_struck_at_any_call_comes_to_the_same_end(error: Callable[[], BaseException]) -> None:
    house, door = _dead(), _door()
    _evacuate(house, house.connect(door), KeptJournal())
    calls, wanted = list(door.seen), house.picture()
    for at in range(len(calls)):
        for after in (False, True):
            house, door, journal = _dead(), _door(), KeptJournal()
            door.at, door.after, door.error = at, after, error
            with suppress(Killed, Temporary):
                _evacuate(house, house.connect(door), journal)
            _evacuate(house, house.connect(), journal)
            assert house.picture() == wanted, calls[at]
            state = driver.find(house.session, SERVER)
            assert state is not None and state.host == house.facts().hosts[0].uuid


def test_nothing_is_taken_from_a_host_that_its_pool_still_hears() -> None:
    house = House(shape=SHARED)
    house.built(house.plan(host=1))
    before = house.picture()
    with pytest.raises(Permanent, match="still answers"):
        _evacuate(house, house.connect(), KeptJournal())
    assert house.picture() == before


def test_a_look_waits_for_nothing_after_its_token_was_lost_and_sees_all() -> None:
    house = House()
    house.built()
    first = driver.look(house.session)
    assert driver.look(house.session, first.token).quiet
    driver.stop(house.session, SERVER)
    again = driver.look(house.session, first.token)
    assert (again.quiet, again.servers[SERVER].power_state) == (False, "Halted")
    lost = driver.look(house.session, "no token")
    assert lost.servers == again.servers


@pytest.mark.parametrize("number", [0, 1])
def test_what_was_off_or_suspended_runs_again_on_the_host_it_is_given(number: int) -> None:
    house = House(shape=SHARED)
    house.built()
    session, host = house.session, house.facts().hosts[number].uuid
    driver.stop(session, SERVER, clean_seconds=0)
    driver.reboot(session, SERVER, KeptJournal(), host=host)
    assert _host_of(session) == host
    driver.suspend(session, SERVER)
    driver.resume(session, SERVER, host=house.facts().hosts[1 - number].uuid)
    assert _host_of(session) == house.facts().hosts[1 - number].uuid
    driver.suspend(session, SERVER)
    driver.start(session, SERVER, host=host)
    assert _host_of(session) == host


def _host_of(session: Session) -> str:
    found = driver.find(session, SERVER)
    assert found is not None
    return found.host
