"""A VM names the API cell that owns its server; nothing is done to it, or put beside it, for another one that asks for
a server of the same id."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.support.xen_hosts import SERVER, House, KeptJournal
from xenapi_host import driver, tags
from xenapi_host.driver.refind import refind
from xenapi_host.leftovers import Age, Held
from xenapi_host.plan import BuildPlan

LONG = Age(now=10_000, longer_than=0, gap=10_000)


def plan_of(house: House, owner: str, *, host: int = 0, serial: int = 0) -> BuildPlan:
    plan = house.plan(host=host, serial=serial)
    return replace(plan, vm={**plan.vm, "other_config": {**plan.vm["other_config"], tags.OWNER: owner}})


def moved_in(house: House) -> None:
    """West's server of the same id comes from another pool."""
    from_west = House(seed=2)
    from_west.built(plan_of(from_west, "west"))
    driver.migrate_to_pool(from_west.session, house.connect(), SERVER, house.facts().hosts[1], KeptJournal())


FOR_WEST: dict[str, Callable[[House], object]] = {
    "destroy": lambda house: driver.destroy(house.session, SERVER, owner="west"),
    "destroy an attempt": lambda house: driver.destroy(house.session, SERVER, attempt=1, owner="west"),
    "find": lambda house: refind(house.session, SERVER, "west"),
    "build": lambda house: driver.prepare_build(house.session, plan_of(house, "west"), KeptJournal()),
    "make anew": lambda house: driver.replace_lost(
        house.session, plan_of(house, "west", host=1, serial=7), KeptJournal(), start=True
    ),
    "tidy": lambda house: driver.tidy(house.session, SERVER, Held.GONE, LONG, "west"),
    "move in": moved_in,
}


@pytest.mark.parametrize("what", FOR_WEST)
def test_server_of_another_owner_is_refused_and_left_alone(what: str) -> None:
    house = House()
    house.built(plan_of(house, "east"))
    before = house.picture(), house.orphans()
    with pytest.raises(driver.BelongsToAnother, match="belongs to another API cell"):
        FOR_WEST[what](house)
    assert (house.picture(), house.orphans()) == before


def test_own_server_goes_from_beside_one_of_another_owner() -> None:
    house = House()
    house.built(plan_of(house, "east"))
    wests = dict(plan_of(house, "west").vm)
    house.session.call("VM.create", wests)
    driver.destroy(house.session, SERVER, owner="east")
    assert [vm["other_config"][tags.OWNER] for vm in house.servers().values()] == ["west"]
    assert house.orphans() == []


def test_vm_that_names_no_owner_is_whosever_asks() -> None:
    house = House()
    house.built()
    assert refind(house.session, SERVER, "west") is not None
    driver.destroy(house.session, SERVER, owner="west")
    assert house.servers() == {}
