"""The collector works behind the clients' backs, by SM's rules, and stops where an administrator says so."""

import pytest

from tests.xenserver.simulated import MIB, a_disk, failure_of
from tests.xenserver.test_simulator_disks import house
from xenapi_host import vhd

__all__ = ["house"]


def _lone_leaf(house):
    """A disk whose only snapshot is destroyed: its base copy could be merged with it."""
    disk = house.api.VDI.create(a_disk(house.sr, size=4 * MIB))
    house.write(disk, 0, b"low")
    snapshot = house.api.VDI.snapshot(disk)
    house.write(disk, 2 * MIB, b"high")
    return disk, snapshot


@pytest.mark.parametrize("switch", ["gc", "coalesce", "leaf-coalesce"])
def test_a_repository_told_so_keeps_its_lone_leaf_until_told_otherwise(house, switch):
    disk, snapshot = _lone_leaf(house)
    house.api.SR.add_to_other_config(house.sr, switch, "false")
    house.api.VDI.destroy(snapshot)
    house.settle()
    assert len(house.names()) == 2
    house.api.SR.remove_from_other_config(house.sr, switch)
    house.settle()
    assert house.names() == house.known() == {house.api.VDI.get_uuid(disk)}
    assert house.read(disk)[: 2 * MIB + 4].strip(b"\0") == b"low" + bytes(2 * MIB - 3) + b"high"


def test_a_disk_told_so_keeps_its_base_copy_while_others_are_merged(house):
    disk, snapshot = _lone_leaf(house)
    other, others_snapshot = _lone_leaf(house)
    house.api.VDI.add_to_other_config(disk, "leaf-coalesce", "false")
    for taken in (snapshot, others_snapshot):
        house.api.VDI.destroy(taken)
    house.settle()
    assert len(vhd.chain(house.path(disk))) == 2
    assert len(vhd.chain(house.path(other))) == 1


def test_inner_layers_are_merged_even_where_leaves_may_not_be(house):
    disk = house.api.VDI.create(a_disk(house.sr, size=4 * MIB))
    house.api.SR.add_to_other_config(house.sr, "leaf-coalesce", "false")
    taken = []
    for step in range(3):
        house.write(disk, step * MIB, bytes([step + 1]) * 512)
        taken.append(house.api.VDI.snapshot(disk))
    before = house.read(disk)
    assert len(vhd.chain(house.path(disk))) == 4
    for snapshot in taken:
        house.api.VDI.destroy(snapshot)
    house.settle()
    assert len(vhd.chain(house.path(disk))) == 2
    assert house.read(disk) == before
    assert house.api.VDI.get_sm_config(disk)["vhd-parent"] == vhd.chain(house.path(disk))[1].stem


def test_a_chain_of_thirty_takes_no_further_snapshot_until_it_has_been_merged(house):
    disk = house.api.VDI.create(a_disk(house.sr, size=2 * MIB))
    taken = []
    for step in range(29):
        house.write(disk, 0, bytes([step + 1]))
        taken.append(house.api.VDI.snapshot(disk))
    house.write(disk, 0, b"last")
    assert failure_of(house.api.VDI.snapshot, disk)[0] == "SR_BACKEND_FAILURE_109"
    assert house.read(disk)[:4] == b"last"
    for snapshot in taken:
        house.api.VDI.destroy(snapshot)
    house.settle()
    house.api.VDI.snapshot(disk)
    vhd.check_chain(house.path(disk))


def test_a_damaged_layer_is_left_out_and_the_rest_is_merged(house):
    disk, snapshot = _lone_leaf(house)
    other, others_snapshot = _lone_leaf(house)
    house.api.SR.add_to_other_config(house.sr, "gc", "false")
    for taken in (snapshot, others_snapshot):
        house.api.VDI.destroy(taken)
    base = vhd.chain(house.path(disk))[1]
    with base.open("r+b") as file:  # the header's cookie: no longer a dynamic disk, still a footer
        file.seek(512)
        file.write(b"garbage!")
    house.api.SR.remove_from_other_config(house.sr, "gc")
    house.settle()
    assert base.exists()
    assert len(vhd.chain(house.path(other))) == 1
