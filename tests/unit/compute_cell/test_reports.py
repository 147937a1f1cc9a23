"""Reports that their owners have not seen go again, of every owner, whatever waits for another."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cells.messages import ReportsDue
from cells.names import SECOND
from compute_cell.reports import MOST_AT_ONCE
from compute_cell.rows import InstanceRow
from tests.support.embedded import Tree, make_tree


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = make_tree({"east": (), "north": (), "west": (), "leaf": ("east", "north", "west")})
    yield tree
    tree.close()


def unseen(tree: Tree, **counts: int) -> None:
    """So many servers of each owner that it has not seen; the later an owner is named, the younger they are, and
    all are due."""
    server = tree.build("west", "vm")
    tree.run(10)
    known = tree.instance("leaf", server)
    assert known is not None and not known.unseen
    last = tree.clock() - SECOND
    rows: list[InstanceRow] = []
    for back, (owner, count) in enumerate(reversed(counts.items())):
        for at in range(count):
            id = f"{owner}{at}".encode().rjust(16)
            rows.append(replace(known, id=id, owner=owner, unseen=True, updated=last - back * SECOND))
    with tree.stores["leaf"].inner.unit() as unit:
        unit.save(*rows)


def again(tree: Tree) -> Counter[str]:
    """How many reports go again to whom."""
    decision = tree.decide("leaf", tree.record("leaf", "leaf", ReportsDue()))
    return Counter(record.destination for record in decision.send)


def test_an_owner_that_sees_nothing_holds_up_no_other_one(tree: Tree) -> None:
    unseen(tree, east=MOST_AT_ONCE + 1, west=1)
    assert again(tree)["west"] == 1


def test_each_owner_has_the_same_number_of_reports_at_once(tree: Tree) -> None:
    unseen(tree, west=2 * MOST_AT_ONCE, north=MOST_AT_ONCE - 1, east=3)
    assert again(tree) == {"west": MOST_AT_ONCE, "north": MOST_AT_ONCE - 1, "east": 3}


def test_an_owner_whose_reports_do_not_fit_beside_anothers_is_not_cut_short(tree: Tree) -> None:
    unseen(tree, west=MOST_AT_ONCE, north=2, east=MOST_AT_ONCE - 1)
    assert again(tree) == {"west": MOST_AT_ONCE, "north": 2, "east": MOST_AT_ONCE - 1}
