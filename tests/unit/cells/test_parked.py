"""Parked messages: only what was believed when it came may be decided again, and only once."""

import pytest

from cells import codec
from cells.errors import Permanent
from cells.messages import Intent
from cells.names import SECOND
from cells.parked import drop, record_of, replay, why_not_replay
from cells.ports import Where
from cells.record import Record
from cells.rows import InboxRow, ParkedRow, WakeRow
from tests.support.embedded import make_tree

SERVER = bytes(15) + b"\7"


def a_record(tree, cell):
    # No compute cell can decide on an API cell's own wish.
    return Record(
        id=tree.house.new_id(), body=Intent(action="place", number=1), origin=cell, destination=cell, server=SERVER
    )


def parked(tree, cell):
    with tree[cell].store.unit(lock=False) as unit:
        return unit.all(ParkedRow)


@pytest.fixture
def tree():
    tree = make_tree({"east": (), "leaf": ("east",)}, hosts=1)
    yield tree
    tree.close()


@pytest.fixture
def row(tree):
    """A record that the leaf believed, could not decide on, and parked."""
    record = a_record(tree, "leaf")
    with tree["leaf"].store.unit() as unit:
        unit.save(WakeRow(id=record.id, shard=7, due=tree.clock(), server=SERVER, data=codec.pack_record(record)))
    tree["leaf"].node.poke()
    tree.settle()
    (found,) = parked(tree, "leaf")
    return found


def test_a_record_that_could_not_be_decided_on_may_be_tried_again(tree, row):
    assert why_not_replay(row) == ""
    assert record_of(row).body.action == "place"
    with tree["leaf"].store.unit() as unit:
        replay(unit, row, tree.clock())
    assert parked(tree, "leaf") == ()
    tree["leaf"].node.poke()
    tree.settle()
    (again,) = parked(tree, "leaf")
    assert (again.id, again.reason) == (row.id, row.reason)
    with tree["leaf"].store.unit(lock=False) as unit:
        assert unit.find(WakeRow, Where(column="id", op="=", value=row.id)) == ()


def test_a_late_copy_of_a_replayed_record_does_nothing(tree, row):
    with tree["leaf"].store.unit() as unit:
        replay(unit, row, tree.clock())
    with tree["leaf"].store.unit(lock=False) as unit:
        assert unit.get(InboxRow, row.id).expires > tree.clock() + 24 * 3600 * SECOND


@pytest.mark.parametrize(
    "reason", ["packet of 'east' is not signed by it", "east (api) may not send x (up) to leaf", "not a bundle"]
)
def test_what_was_refused_at_the_door_is_never_believed_afterwards(tree, row, reason):
    stranger = ParkedRow(
        id=row.id, at=row.at, neighbour="east", kind=row.kind, server=row.server, reason=reason, data=row.data
    )
    with pytest.raises(Permanent, match="refused at the door"), tree["leaf"].store.unit() as unit:
        replay(unit, stranger, tree.clock())
    assert parked(tree, "leaf") == (row,)


def test_bytes_that_are_no_record_can_only_be_dropped(tree, row):
    garbage = ParkedRow(
        id=row.id, at=1, neighbour="", kind="", server=bytes(16), reason="could not be decided on", data=b"\xc1"
    )
    assert why_not_replay(garbage) == "its bytes are no record"
    with tree["leaf"].store.unit() as unit:
        drop(unit, garbage)
    assert parked(tree, "leaf") == ()
