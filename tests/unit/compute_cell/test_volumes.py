"""What a leaf decides on volumes and shares: in order, once, and half attached is not attached."""

from collections.abc import Iterator
from typing import Any

import pytest

from cells.codec import pack, unpack
from cells.decision import Decision
from cells.messages import AttachVolume, DetachVolume, JobEnded, ResizeServer, SetShares
from cells.model import Volume
from cells.names import SECOND
from compute_cell import shares, volumes
from compute_cell.rows import InstanceRow
from compute_cell.tasks import AttachTask, DetachTask, SharesTask
from tests.support.embedded import SMALL, Tree, make_tree

VOLUME = "6f1c1e3e-0000-4000-8000-00000000abcd"
OTHER = "6f1c1e3e-0000-4000-8000-00000000ffff"


class Leaf:
    """A leaf with one server that is ACTIVE, told things directly."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.server = tree.build("east")
        tree.run(8)
        self.number = 1

    def tell(self, body: Any) -> Decision:
        self.number += 1
        deadline = self.tree.clock() + 60 * SECOND
        record = self.tree.record("east", "leaf", body, self.server, number=self.number, deadline=deadline)
        return self.tree.decide("leaf", record)

    def end(self, decision: Decision, error: str = "", *, permanent: bool = True) -> Decision:
        (job,) = decision.do
        end = JobEnded(job=job.id, kind=job.kind, result=pack(None), error=error, permanent=permanent)
        return self.tree.decide("leaf", self.tree.record("leaf", "leaf", end, self.server))

    @property
    def row(self) -> InstanceRow:
        row = self.tree.instance("leaf", self.server)
        assert row is not None
        return row


@pytest.fixture
def leaf() -> Iterator[Leaf]:
    tree = make_tree({"east": (), "leaf": ("east",)})
    yield Leaf(tree)
    tree.close()


def test_attached_volume_is_part_of_the_state_until_it_is_detached(leaf: Leaf) -> None:
    begun = leaf.tell(AttachVolume(volume=VOLUME, device=8))
    task = unpack(AttachTask, begun.do[0].body)
    assert (task.volume, task.project, task.device, task.host) == (VOLUME, leaf.row.spec.project, 8, leaf.row.host)
    assert leaf.row.state.volumes == (), "not before the host has done it"
    leaf.end(begun)
    assert leaf.row.state.volumes == (Volume(id=VOLUME, device=8),)
    leaf.end(leaf.tell(DetachVolume(volume=VOLUME)))
    assert leaf.row.state.volumes == ()


@pytest.mark.parametrize(("volume", "device"), [(VOLUME, 9), (OTHER, 8)], ids=["the same", "the same place"])
def test_second_of_a_kind_is_refused_and_nothing_is_begun(leaf: Leaf, volume: str, device: int) -> None:
    leaf.end(leaf.tell(AttachVolume(volume=VOLUME, device=8)))
    refused = leaf.tell(AttachVolume(volume=volume, device=device))
    assert refused.do == ()
    assert leaf.row.failed is not None
    assert "attached" in leaf.row.failed[1]
    assert leaf.row.state.volumes == (Volume(id=VOLUME, device=8),)


def test_attaching_that_was_given_up_is_undone_before_it_is_over(leaf: Leaf) -> None:
    undo = leaf.end(leaf.tell(AttachVolume(volume=VOLUME, device=8)), "no answer", permanent=False)
    assert (undo.do[0].kind, unpack(DetachTask, undo.do[0].body).volume) == (volumes.UNDO_ATTACH, VOLUME)
    assert leaf.row.number < leaf.number, "not over yet"
    leaf.end(undo)
    assert (leaf.row.number, leaf.row.state.volumes) == (leaf.number, ())
    assert leaf.row.failed == (leaf.number, "the host could not attach the volume in time; it is not attached")


def test_attaching_that_the_host_refused_is_over_with_its_reason(leaf: Leaf) -> None:
    over = leaf.end(leaf.tell(AttachVolume(volume=VOLUME, device=8)), "it is in use")
    assert (over.do, leaf.row.failed, leaf.row.state.volumes) == ((), (leaf.number, "it is in use"), ())


@pytest.mark.parametrize("body", [AttachVolume(volume=OTHER, device=9), DetachVolume(volume=VOLUME)])
def test_no_volume_comes_or_goes_while_a_resize_waits(leaf: Leaf, body: Any) -> None:
    leaf.end(leaf.tell(AttachVolume(volume=VOLUME, device=8)))
    leaf.end(leaf.tell(ResizeServer(flavor=SMALL)))
    assert leaf.tell(body).do == ()
    assert leaf.row.failed == (leaf.number, "a resize is not confirmed or reverted yet")
    assert leaf.row.state.volumes == (Volume(id=VOLUME, device=8),)


def test_shares_become_part_of_the_flavor_when_the_host_has_them(leaf: Leaf) -> None:
    begun = leaf.tell(SetShares(shares={"quota:vcpu_weight": "64", "hw:cpu_cores": "9"}))
    task = unpack(SharesTask, begun.do[0].body)
    assert (begun.do[0].kind, task.vcpus, task.disks) == (shares.SET, {"weight": "64", "cap": "0"}, {})
    assert leaf.row.state.flavor.extra_specs == {}
    leaf.end(begun)
    assert leaf.row.state.flavor.extra_specs == leaf.row.spec.flavor.extra_specs == {"quota:vcpu_weight": "64"}
    leaf.end(leaf.tell(SetShares(shares={})))
    assert leaf.row.state.flavor.extra_specs == {}


def test_shares_that_make_no_sense_are_refused(leaf: Leaf) -> None:
    assert leaf.tell(SetShares(shares={"quota:vcpu_cap": "1000"})).do == ()
    assert leaf.row.failed is not None
    assert "quota:vcpu_cap" in leaf.row.failed[1]
