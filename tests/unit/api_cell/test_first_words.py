"""A daemon that has just started places nothing until every child has shown it what it said before."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from api_cell.rows import Phase, ServerRow
from cells.decision import Decision
from cells.messages import Accepted, BuildServer, Grant, Intent, Started
from cells.names import SECOND
from cells.record import NO_SERVER, Received
from cells.rows import EdgeRow
from routing.first_words import begun
from tests.support.embedded import Tree, make_tree
from tests.unit.api_cell.test_walk_decisions import Server, sent
from tests.unit.routing.trees import an_edge

QUESTION = b"q" * 16
MUTE = 60 * SECOND
NOW = 10_000 * SECOND


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = make_tree({"east": (), "leaf-a": ("east",), "leaf-b": ("east",)})
    yield tree
    tree.close()


def awaited(*edges: EdgeRow, later: int = 0) -> tuple[str, ...]:
    return begun(QUESTION, edges, NOW, MUTE).awaited(edges, NOW + later)


def test_children_are_awaited_until_they_answer_this_question() -> None:
    edges = [an_edge(name, heard=NOW) for name in ("a", "b", "c")]
    assert awaited(edges[0], replace(edges[1], answered=QUESTION), replace(edges[2], answered=b"o" * 16)) == ("a", "c")


def test_child_that_was_mute_before_an_ordinary_restart_is_not_awaited() -> None:
    assert awaited(an_edge("a", heard=NOW - MUTE - 1), an_edge("b", heard=NOW)) == ("b",)


def test_over_an_old_database_every_child_is_awaited_until_it_counts_as_mute() -> None:
    old = an_edge("a", heard=NOW - 3600 * SECOND)
    assert awaited(old) == ("a",)
    assert awaited(old, later=MUTE + 1) == ()


def test_neither_parents_nor_refused_edges_are_awaited() -> None:
    assert awaited(an_edge("a", parent=True, heard=NOW), an_edge("b", heard=NOW, refused="cycle: b")) == ()


def test_nothing_is_placed_before_every_child_has_answered_and_then_at_once(tree: Tree) -> None:
    tree.network.cut("east", "leaf-b")
    tree.restart("east")
    server = Server(tree)
    tree.run(3)
    assert server.row.phase is Phase.PLACING
    tree.network.heal()
    tree.run(4)
    assert server.row.status == "ACTIVE"


def test_acceptance_that_comes_too_early_is_not_taken_and_comes_again(tree: Tree) -> None:
    server = Server(tree)
    server.place()
    tree.network.cut("east", "leaf-b")
    tree.restart("east")
    decision = server.tell(Accepted(attempt=1, host="h", epoch=1, sequence=1))
    assert (decision.taken, sent(decision, Grant)) == (False, [])
    assert server.row.phase is Phase.OFFERED


def test_restart_delays_a_build_by_a_round_trip_only(tree: Tree) -> None:
    tree.restart("east")
    server = Server(tree)
    tree.run(0.5)
    assert tree.row("east", ServerRow, server.id).phase is Phase.GRANTED  # type: ignore[union-attr]


def test_daemon_beside_one_that_ticks_asks_for_itself(tree: Tree) -> None:
    tree.open("east", "b")
    second = tree["east/b"].role

    def decided(body: Any, server: bytes = NO_SERVER) -> Decision:
        with tree.stores["east"].inner.unit() as unit:
            return second.decide(unit, Received(record=tree.record("east", "east", body, server)), tree.clock())

    place = Intent(action="place", number=1)
    assert sent(decided(place, Server(tree).id), BuildServer) == []
    assert {each.destination for each in decided(Started()).send} == {"leaf-a", "leaf-b"}
    tree.run(1)
    assert len(sent(decided(place, Server(tree).id), BuildServer)) == 1
