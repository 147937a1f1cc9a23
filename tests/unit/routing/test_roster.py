"""The newest record of each cell, its age, and sums that count a leaf once."""

from cells.model import FreeShape, StorageGroup
from cells.names import SECOND
from routing.roster import Roster
from tests.unit.routing.trees import MUTE, NOW, a_capacity, a_record, an_entry


def test_the_larger_generation_is_kept_and_an_epoch_outweighs_a_sequence():
    old = an_entry(a_record("c", sequence=900))
    new = an_entry(a_record("c", epoch=2, sequence=1))
    assert Roster([new]).merge([old])["c"] is new
    assert Roster([old]).merge([new])["c"] is new


def test_nothing_new_gives_the_same_roster():
    roster = Roster([an_entry(a_record("c", sequence=2))])
    assert roster.merge([an_entry(a_record("c", sequence=1))]) is roster


def test_a_copy_that_comes_later_is_no_sign_of_life():
    record = a_record("c")
    roster = Roster([an_entry(record, NOW - MUTE)]).merge([an_entry(record, NOW)])
    assert roster.stale(NOW + 1, MUTE) == ("c",)


def test_fresh_and_stale_are_summed_apart_and_each_leaf_once():
    shape = FreeShape(ram_mib=1000, vcpus=4, disk_gib=50, hosts=3)
    roster = Roster(
        [
            an_entry(a_record("x", "b1", "b2", capacity=a_capacity(shape, servers=5)), NOW),
            an_entry(a_record("y", "b1", capacity=a_capacity(shape, servers=7)), NOW - MUTE - SECOND),
            an_entry(a_record("middle", "a"), NOW),
        ]
    )
    totals = roster.totals(["x", "y", "x", "middle", "unknown"], NOW, MUTE)
    assert (totals.fresh.leaves, totals.fresh.hosts, totals.fresh.servers, totals.fresh.free_ram_mib) == (1, 3, 5, 3000)
    assert (totals.stale.leaves, totals.stale.servers, totals.stale.free_disk_gib) == (1, 7, 150)


def test_the_disk_of_a_storage_group_is_summed_once():
    shapes = (FreeShape(ram_mib=1, vcpus=1, disk_gib=0, hosts=8, group="sr"),)
    base = a_capacity(*shapes)
    capacity = type(base)(classes=base.classes, groups=(StorageGroup(name="sr", free_gib=70, total_gib=100),), hosts=8)
    assert Roster([an_entry(a_record("x", capacity=capacity))]).totals(["x"], NOW, MUTE).fresh.free_disk_gib == 70


def test_checksums_agree_on_cells_and_epochs_whatever_the_order_and_sequence():
    one = Roster([an_entry(a_record("x", sequence=1)), an_entry(a_record("y", sequence=5))])
    two = Roster([an_entry(a_record("y", sequence=6)), an_entry(a_record("x", sequence=1))])
    names = ["x", "y"]
    assert one.checksum(names, NOW, MUTE) == two.checksum(reversed(names), NOW, MUTE) != 0
    restored = two.merge([an_entry(a_record("x", epoch=2))])
    assert restored.checksum(names, NOW, MUTE) != one.checksum(names, NOW, MUTE)
    assert one.checksum(["x"], NOW, MUTE) != one.checksum(names, NOW, MUTE)
    assert one.checksum(names, NOW + MUTE + 1, MUTE) == 0


def test_cells_with_servers_are_found_by_their_last_words():
    roster = Roster([an_entry(a_record("x", capacity=a_capacity(servers=1))), an_entry(a_record("y"))])
    assert roster.holding_servers(["x", "y", "z"]) == ("x",)
    assert list(roster.without(["x"])) == ["y"]
