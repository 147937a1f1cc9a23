"""Servers are built and deleted on a pool that loses connections by chance, before and after the effect of any call."""

from contextlib import contextmanager, suppress

import pytest

from cells.errors import Temporary
from tests.support.xen_hosts import FULL, House, KeptJournal
from xenapi_host import driver
from xenapi_host.simulator.faults import Fault

MOST_TRIES = 200


def until_done(work):
    """Try again, as a job does, as long as the trouble passes."""
    for _ in range(MOST_TRIES):
        with suppress(Temporary):
            work()
            return
    raise AssertionError("it never came to an end")


@contextmanager
def losing_connections(house, seed):
    """The rules under which one call in ten does."""
    faults = house.pool.engine.faults
    faults.seed = seed
    rules = [
        faults.add(Fault(method="*", when=when, drop=True, probability=0.05, times=0)) for when in ("before", "after")
    ]
    yield rules
    faults.clear()


@pytest.mark.parametrize("seed", range(12))
def test_a_server_lives_and_goes_though_one_call_in_ten_loses_its_connection(seed):
    house, journal = House(), KeptJournal()
    plan = house.plan(flavor=FULL)
    with losing_connections(house, seed) as rules:
        until_done(lambda: driver.prepare_build(house.session, plan, journal))
        until_done(lambda: driver.start_build(house.session, plan.server, plan.attempt, plan.host))
    assert sum(rule.struck for rule in rules) > 0
    assert house.vms_of(plan.server) == [plan.name]
    assert [vm["power_state"] for vm in house.servers().values()] == ["Running"]
    assert house.orphans() == []
    with losing_connections(house, seed):
        until_done(lambda: driver.destroy(house.session, plan.server))
    assert house.servers() == {} and house.disks() == {}
