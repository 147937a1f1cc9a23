"""What nobody uses is found and removed after its time; what somebody uses, and what is not ours, never."""

from typing import Any

import pytest

from cells.model import ImageRef, Incremental
from tests.support.xen_hosts import FULL, LINUX, OTHER_SERVER, SERVER, SNAPSHOT, House, KeptJournal
from xenapi_host import driver, tags
from xenapi_host.leftovers import Age, Held

HOUR, DAY = 3600, 86400


@pytest.fixture
def house() -> House:
    house = House(hosts=1)
    house.built(house.plan(flavor=FULL, config_drive=True))
    return house


def _age(now: int) -> Age:
    return Age(now=now, longer_than=DAY, gap=3 * HOUR)


def _look(house: House, start: int = 0, hours: int = 25) -> driver.Swept:
    """Look once an hour; what the last look found."""
    for hour in range(hours):
        found = driver.find_leftovers(house.session, _age(start + hour * HOUR))
    return found


def _tidy(house: House, held: Held, server: bytes = SERVER, now: int = 25 * HOUR) -> tuple[str, ...]:
    return driver.tidy(house.session, server, held, _age(now))


def _twin_without_disks(house: House, server: bytes = SERVER) -> str:
    """The VM that a frozen daemon makes when the server's own is long there."""
    return str(house.session.call("VM.create", dict(house.plan(server=server).vm)))


def _loose_disk(house: House, server: bytes = SERVER, **more: Any) -> str:
    """The disk that a frozen daemon makes when nobody waits for it."""
    storage = house.session.call("SR.get_by_uuid", house.facts().hosts[0].storage)
    claim = tags.claim(server, 1, 0, "swap")
    record = {
        "name_label": f"{tags.vm_name(server)} swap",
        "name_description": "",
        "SR": storage,
        "virtual_size": "1048576",
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {tags.CLAIM: claim},
        "xenstore_data": {},
        "sm_config": {},
        "tags": [],
    }
    return str(house.session.call("VDI.create", {**record, **more}))


def _image(house: House) -> str:
    return str(house.session.call("VDI.get_by_name_label", tags.image_name(LINUX.id))[0])


def test_a_pool_where_all_is_in_use_is_left_alone(house: House) -> None:
    driver.backup(house.session, SERVER, SNAPSHOT, Incremental(), KeptJournal())
    house.a_volume()
    driver.stop(house.session, SERVER)
    before = house.picture()
    assert _look(house, hours=60) == driver.Swept(removed=(), servers=())
    assert house.picture() == before


def test_clone_that_no_build_has_claimed_goes_after_its_time(house: House) -> None:
    before = house.picture()
    house.session.call("VDI.clone", _image(house), {})
    assert _look(house, hours=24).removed == ()
    assert _look(house, start=24 * HOUR, hours=1).removed == (tags.image_name(LINUX.id),)
    assert house.picture() == before


def test_copy_and_renamed_clone_of_an_image_are_an_administrators(house: House) -> None:
    storage = house.session.call("VDI.get_SR", _image(house))
    house.session.call("VDI.copy", _image(house), storage, "OpaqueRef:NULL", "OpaqueRef:NULL")
    renamed = house.session.call("VDI.clone", _image(house), {})
    house.session.call("VDI.set_name_label", renamed, "golden")
    disks = len(house.disks())
    assert _look(house, hours=60).removed == ()
    assert len(house.disks()) == disks


def test_vm_without_disks_and_loose_disk_of_a_server_that_is_here_go(house: House) -> None:
    before = house.picture()
    _twin_without_disks(house)
    _loose_disk(house)
    house.session.call(
        "VDI.snapshot", house.session.call("VDI.get_by_name_label", f"{tags.vm_name(SERVER)} root")[0], {}
    )
    assert _look(house, hours=24).servers == ()
    assert _look(house, start=24 * HOUR, hours=1).servers == (SERVER,)
    removed = _tidy(house, Held.HERE)
    assert sorted(removed) == [f"{tags.vm_name(SERVER)}{end}" for end in ("", " root", " swap")]
    assert house.picture() == before


def test_server_that_has_no_vm_with_disks_though_it_should_keeps_what_there_is(house: House) -> None:
    _loose_disk(house, OTHER_SERVER)
    assert _look(house).servers == (OTHER_SERVER,)
    assert _tidy(house, Held.HERE, OTHER_SERVER) == ()


def test_all_that_is_loose_of_a_deleted_server_goes(house: House) -> None:
    _twin_without_disks(house, OTHER_SERVER)
    _loose_disk(house, OTHER_SERVER)
    _look(house)
    assert len(_tidy(house, Held.GONE, OTHER_SERVER)) == 2
    assert house.orphans() == [] and house.vms_of(OTHER_SERVER) == []


def test_disk_of_a_server_that_nobody_knows_stays_because_somebody_may_miss_it(house: House) -> None:
    _twin_without_disks(house, OTHER_SERVER)
    _loose_disk(house, OTHER_SERVER)
    _look(house)
    assert _tidy(house, Held.UNKNOWN, OTHER_SERVER) == (tags.vm_name(OTHER_SERVER),)
    assert house.orphans() == [f"{tags.vm_name(OTHER_SERVER)} swap"]


def test_vm_with_disks_is_never_a_leftover_whatever_the_leaf_says(house: House) -> None:
    driver.stop(house.session, SERVER)
    before = house.picture()
    _look(house)
    for held in Held:
        assert _tidy(house, held) == ()
    assert house.picture() == before


def test_time_begins_anew_when_a_thing_was_used_or_nobody_looked(house: House) -> None:
    disk = _loose_disk(house)
    _look(house, hours=20)
    assert _look(house, start=30 * HOUR, hours=20).servers == (), "nobody looked for ten hours"
    vbd = house.session.call("VM.get_VBDs", house.session.call("VM.get_by_name_label", tags.vm_name(SERVER))[0])[0]
    record = house.session.call("VBD.get_record", vbd)
    attached = house.session.call("VBD.create", {**record, "VDI": disk, "userdevice": "9", "bootable": False})
    _look(house, start=50 * HOUR, hours=1)
    house.session.call("VBD.destroy", attached)
    assert _look(house, start=51 * HOUR, hours=24).servers == ()
    assert _look(house, start=75 * HOUR, hours=1).servers == (SERVER,)


def test_base_whose_disk_is_gone_is_a_leftover(house: House) -> None:
    driver.backup(house.session, SERVER, ImageRef(id="one", url=SNAPSHOT.url), Incremental(), KeptJournal())
    (base,) = [ref for ref, vdi in house.records("VDI").items() if tags.BACKUP in vdi["other_config"]]
    root = house.session.call("VDI.get_snapshot_of", base)
    for vbd in house.session.call("VDI.get_VBDs", root):
        house.session.call("VM.hard_shutdown", house.session.call("VBD.get_VM", vbd))
        house.session.call("VBD.destroy", vbd)
    house.session.call("VDI.destroy", root)
    _look(house)
    assert _tidy(house, Held.HERE) == (f"{tags.vm_name(SERVER)} root",)
