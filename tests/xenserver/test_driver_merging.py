"""A snapshot waits until the storage has merged what it can, looks a few times, and then says why it did not wait."""

import pytest

from cells.errors import Temporary
from tests.support.xen_hosts import SERVER, SNAPSHOT, House, KeptJournal
from xenapi_host import driver
from xenapi_host.driver.merging import LOOKS


def _layered(setting: str) -> House:
    """A server whose disk has layers that the collector, told not to, has left."""
    house = House(hosts=1)
    house.built()
    (storage,) = [ref for ref, sr in house.records("SR").items() if sr["uuid"] == house.facts().hosts[0].storage]
    house.session.call("SR.add_to_other_config", storage, setting, "false")
    (root,) = [ref for ref, vdi in house.disks().items() if vdi["VBDs"]]
    for _ in range(2):
        _write(house, root)
        house.session.call("VDI.destroy", house.session.call("VDI.snapshot", root, {}))
    _write(house, root)
    return house


def _write(house: House, disk: str) -> None:
    """A disk that holds nothing of its own makes no layer when it is branched."""
    vdi = house.records("VDI")[disk]
    storage = house.session.call("SR.get_uuid", vdi["SR"])
    house.pool.engine.storage.write(storage, vdi["uuid"], 0, b"data")


def _go_on(house: House) -> None:
    for ref in house.records("SR"):
        house.session.call("SR.remove_from_other_config", ref, "gc")


def _snapshots(house: House) -> int:
    return sum(1 for vdi in house.records("VDI").values() if vdi["is_a_snapshot"])


def test_snapshot_waits_without_a_thread_and_takes_no_second_one() -> None:
    house, journal = _layered("gc"), KeptJournal()
    for _ in range(2):
        with pytest.raises(Temporary, match="merging"):
            driver.snapshot(house.connect(), SERVER, SNAPSHOT, journal)
        assert _snapshots(house) == 1
    _go_on(house)
    assert driver.snapshot(house.connect(), SERVER, SNAPSHOT, journal).note == ""
    assert _snapshots(house) == 0


def test_snapshot_that_has_waited_long_enough_is_sent_with_the_reason() -> None:
    house, journal = _layered("gc"), KeptJournal()
    for _ in range(LOOKS):
        with pytest.raises(Temporary):
            driver.snapshot(house.connect(), SERVER, SNAPSHOT, journal)
    sent = driver.snapshot(house.connect(), SERVER, SNAPSHOT, journal)
    assert "not merged by its storage in time" in sent.note
    assert _snapshots(house) == 0


def test_snapshot_does_not_wait_for_a_storage_that_never_merges() -> None:
    sent = driver.snapshot(_layered("coalesce").session, SERVER, SNAPSHOT, KeptJournal())
    assert "is told not to" in sent.note


def test_snapshot_that_was_given_up_while_it_waited_leaves_nothing() -> None:
    house = _layered("gc")
    with pytest.raises(Temporary):
        driver.snapshot(house.connect(), SERVER, SNAPSHOT, KeptJournal())
    for _ in range(2):
        driver.undo_snapshot(house.connect(), SERVER)
        assert _snapshots(house) == 0


def test_server_can_be_deleted_while_its_snapshot_waits() -> None:
    house = _layered("gc")
    with pytest.raises(Temporary):
        driver.snapshot(house.connect(), SERVER, SNAPSHOT, KeptJournal())
    driver.destroy(house.connect(), SERVER)
    assert (house.vms_of(SERVER), house.orphans()) == ([], [])
