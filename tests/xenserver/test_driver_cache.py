"""The image cache ages out: what no server uses goes after its time, what one uses stays."""

import pytest

from tests.support.xen_hosts import LINUX, OTHER_SERVER, RESCUE_IMAGE, SERVER, House, KeptJournal
from xenapi_host import driver, tags

DAY = 86400


@pytest.fixture
def house() -> House:
    return House()


def _cached(house: House) -> list[str]:
    names = [vdi["name_label"] for vdi in house.records("VDI").values() if vdi["managed"]]
    return sorted(name for name in names if name.startswith("celltree image"))


def _clear(house: House, day: int) -> int:
    return driver.clear_cache(house.session, now=day * DAY, unused_for=7 * DAY)


def test_image_goes_when_it_was_unused_for_its_time(house: House) -> None:
    house.built()
    assert _clear(house, 1) == 0
    driver.destroy(house.session, SERVER)
    house.session.call("SR.scan", next(iter(house.records("SR"))))
    assert [_clear(house, day) for day in (10, 16, 17)] == [0, 0, 1]
    assert _cached(house) == []
    house.built()
    assert _cached(house) == [tags.image_name(LINUX.id)]


def test_image_that_a_server_uses_stays(house: House) -> None:
    house.built()
    house.built(house.plan(server=OTHER_SERVER, image=RESCUE_IMAGE))
    driver.destroy(house.session, OTHER_SERVER)
    assert [_clear(house, day) for day in (1, 30)] == [0, 1]
    assert _cached(house) == [tags.image_name(LINUX.id)]


def test_time_begins_anew_when_an_image_is_used_again(house: House) -> None:
    house.built()
    driver.destroy(house.session, SERVER)
    _clear(house, 1)
    house.built()
    _clear(house, 5)
    driver.destroy(house.session, SERVER)
    assert [_clear(house, day) for day in (8, 14, 15)] == [0, 0, 1]


def test_administrators_copy_of_an_image_is_not_ours(house: House) -> None:
    driver.prepare_build(house.session, house.plan(), KeptJournal())
    driver.destroy(house.session, SERVER)
    image = house.session.call("VDI.get_by_name_label", tags.image_name(LINUX.id))[0]
    copy = house.session.call(
        "VDI.copy", image, house.session.call("VDI.get_SR", image), "OpaqueRef:NULL", "OpaqueRef:NULL"
    )
    house.session.call("VDI.set_name_label", copy, tags.image_name(LINUX.id))
    assert [_clear(house, day) for day in (1, 9)] == [0, 1]
    assert house.session.call("VDI.get_by_name_label", tags.image_name(LINUX.id)) == [copy]
