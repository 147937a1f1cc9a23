"""A clock that is put back far does not stop a cell: what was to come soon does not wait for the old time."""

from collections.abc import Iterator

import pytest

from api_cell.role import ApiRole
from cells.names import SECOND, is_due
from cells.rows import LeaseRow
from tests.support.embedded import Tree, make_tree
from tests.support.invariants import validate_quiet

HOUR = 3600


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = make_tree({"east": (), "leaf": ("east",)})
    yield tree
    tree.close()


def heard(tree: Tree) -> int:
    """The newest that east has from the leaf."""
    role: ApiRole = tree["east"].role  # type: ignore[assignment]
    return role.neighbourhood.roster["leaf"].record.generation.sequence


def test_what_comes_every_so_often_is_due_in_its_time_or_when_it_is_further_off_than_it_can_be() -> None:
    assert [is_due(at, 10, 100) for at in (99, 100, 101, 110, 111)] == [True, True, False, False, True]


def test_cells_whose_clocks_are_put_back_an_hour_go_on_at_once(tree: Tree) -> None:
    tree.clock.advance(-HOUR)
    before = heard(tree)
    server = tree.build("east")
    tree.run(4)
    assert tree.server("east", server).status == "ACTIVE"
    assert heard(tree) >= before + 3  # a tick each second
    tree.run(20)
    validate_quiet(tree)


def test_record_that_waits_to_be_sent_again_does_not_wait_for_the_old_time(tree: Tree) -> None:
    tree.network.cut("east", "leaf")
    server = tree.build("east")
    tree.run(5)
    tree.clock.advance(-HOUR)
    tree.run(0.5)
    tree.network.heal()
    tree.run(15)
    assert tree.server("east", server).status == "ACTIVE"


def test_shards_of_a_daemon_that_died_before_the_clock_was_put_back_are_taken_over(tree: Tree) -> None:
    tree.open("leaf", "b")
    tree.run(10)
    tree.crash("leaf")
    tree.clock.advance(-HOUR)
    tree.run(30)
    assert {lease.holder for lease in tree.rows("leaf", LeaseRow)} == {"b"}
    assert all(lease.expires < tree.clock.now + 60 * SECOND for lease in tree.rows("leaf", LeaseRow))
