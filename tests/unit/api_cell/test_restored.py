"""An API cell whose database was put back: what it asks, what it believes, and how it counts on."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from api_cell import restored
from api_cell.rows import OpenIntent, Phase, ServerRow, UsageRow
from api_cell.unfilled import GIVE_UP
from cells.codec import unpack
from cells.decision import Decision, Remove
from cells.messages import (
    Accepted,
    BuildServer,
    Discard,
    HeldServer,
    InquireServer,
    InstanceReport,
    Intent,
    RecallServer,
    RememberServer,
    Tick,
)
from cells.model import Generation, InstanceState, PowerState, VmState
from cells.names import SECOND
from cells.rows import ParkedRow
from tests.support.embedded import TINY, Tree, make_tree
from tests.unit.api_cell.test_walk_decisions import Server, active, other, sent

STATE = InstanceState(vm_state=VmState.ACTIVE, power_state=PowerState.RUNNING, flavor=TINY, host="h", launched_at=5)


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = make_tree({"east": (), "leaf-a": ("east",), "leaf-b": ("east",)})
    yield tree
    tree.close()


def rebuild(tree: Tree) -> None:
    with tree.stores["east"].inner.unit() as unit:
        unit.save(*restored.put_back(unit, Generation(), tree.clock()).save)


def forget(tree: Tree, server: bytes) -> None:
    """As if the backup were older than this server."""
    with tree.stores["east"].inner.unit() as unit:
        unit.save(Remove(row=ServerRow, key=(server,)), UsageRow(project="demo"))


def tick(tree: Tree) -> Decision:
    return tree.decide("east", tree.record("east", "east", Tick()))


def held(server: Server, **changes: Any) -> HeldServer:
    """What a leaf that was granted the build as it was offered says."""
    build = server.offer
    facts = {"attempt": build.attempt, "granted": True, "spec": build.spec, "proof": build.proof}
    return HeldServer(**(facts | {"version": 4, "number": 1, "state": STATE} | changes))


def offered(tree: Tree) -> Server:
    server = Server(tree)
    server.offer = sent(server.place(), BuildServer)[0]  # type: ignore[attr-defined]
    return server


def test_what_was_being_placed_is_asked_for_at_every_leaf_and_not_placed(tree: Tree) -> None:
    server = offered(tree)
    rebuild(tree)
    assert server.row.phase is Phase.INQUIRING
    assert server.tell(Intent(action="place", number=1), origin="east") == Decision()
    asked = [record.destination for record in tick(tree).send if isinstance(record.body, InquireServer)]
    assert asked == ["leaf-a", "leaf-b"]


def test_leaf_that_was_granted_it_keeps_it_and_nobody_else_gets_it(tree: Tree) -> None:
    server = offered(tree)
    leaf = server.row.leaf
    rebuild(tree)
    server.tell(held(server), origin=leaf)
    assert (server.row.phase, server.row.leaf, server.row.status) == (Phase.GRANTED, leaf, "ACTIVE")


def test_it_is_placed_again_only_when_every_leaf_has_said_no(tree: Tree) -> None:
    server = offered(tree)
    rebuild(tree)
    server.tell(HeldServer(), origin="leaf-a")
    tree.clock.advance(20)
    assert tick(tree).wake == ()
    server.tell(HeldServer(), origin="leaf-b")
    assert [wake.record.body.action for wake in tick(tree).wake] == ["place"]
    assert server.row.phase is Phase.PLACING


def test_prepared_build_that_was_not_granted_is_discarded(tree: Tree) -> None:
    server = offered(tree)
    leaf = server.row.leaf
    rebuild(tree)
    assert sent(server.tell(held(server, granted=False), origin=leaf), Discard) == [Discard(attempt=1)]


def test_leaf_that_never_answers_is_named_when_the_builds_time_is_over(tree: Tree) -> None:
    server = offered(tree)
    rebuild(tree)
    server.tell(HeldServer(), origin="leaf-a")
    tree.clock.now = server.row.deadline + SECOND
    tick(tree)
    assert server.row.phase is Phase.FAILED
    assert "leaf-b did not say" in server.row.fault


def test_vm_of_a_server_whose_build_has_failed_goes_when_its_leaf_knows_no_more_of_it(tree: Tree) -> None:
    server = offered(tree)
    leaf = server.row.leaf
    rebuild(tree)
    tree.clock.advance(3600)
    tick(tree)
    assert server.row.phase is Phase.FAILED
    found = server.tell(RecallServer(attempt=2, on_host=True), origin=leaf)
    assert sent(found, Discard) == [Discard(attempt=2)]
    assert sent(server.tell(RecallServer(attempt=2), origin=leaf), InquireServer)


def test_leaf_that_has_the_vm_keeps_it_though_both_databases_have_lost_the_grant(tree: Tree) -> None:
    server = offered(tree)
    leaf = server.row.leaf
    rebuild(tree)
    told = server.tell(RecallServer(attempt=3, on_host=True), origin=leaf)
    assert (server.row.phase, server.row.leaf, server.row.attempt) == (Phase.GRANTED, leaf, 3)
    assert [known.attempt for known in sent(told, RememberServer)] == [3]
    stray = server.tell(RecallServer(attempt=4, on_host=True), origin=other(leaf))
    assert sent(stray, Discard) == [Discard(attempt=4)]


def test_leaf_whose_backup_has_an_earlier_attempt_of_its_own_is_told_the_one_that_counts(tree: Tree) -> None:
    server = active(tree)
    with tree.stores["east"].inner.unit() as unit:
        unit.save(replace(server.row, attempt=3))
    told = server.tell(RecallServer(attempt=1))
    assert [known.attempt for known in sent(told, RememberServer)] == [3]
    assert sent(server.tell(RecallServer(attempt=1), origin=other(server.row.leaf)), Discard) == [Discard(attempt=1)]


def test_server_asked_for_since_the_backup_is_made_anew_by_our_own_proof(tree: Tree) -> None:
    server = offered(tree)
    leaf = server.row.leaf
    forget(tree, server.id)
    report = InstanceReport(attempt=1, version=4, state=STATE, number=1)
    assert sent(server.tell(report, origin=leaf), InquireServer)
    server.tell(held(server, request="req-vm"), origin=leaf)
    row = server.row
    assert (row.name, row.project, row.phase, row.leaf, row.request) == ("vm", "demo", Phase.GRANTED, leaf, "req-vm")
    assert abs(row.created - tree.clock()) < 3600 * SECOND
    usage = tree.row("east", UsageRow, "demo")
    assert usage is not None
    assert usage.servers == 1


@pytest.mark.parametrize("wrong", [{"attempt": 2}, {"proof": bytes(64)}])
def test_claim_without_our_proof_of_just_this_attempt_is_parked(tree: Tree, wrong: dict[str, Any]) -> None:
    server = offered(tree)
    leaf = server.row.leaf
    forget(tree, server.id)
    server.tell(held(server, **wrong), origin=leaf)
    assert tree.find_server("east", server.id) is None
    assert len(tree.rows("east", ParkedRow)) == 1


def test_proof_is_of_the_leaf_it_was_given_to(tree: Tree) -> None:
    server = offered(tree)
    thief = other(server.row.leaf)
    forget(tree, server.id)
    server.tell(held(server), origin=thief)
    assert tree.find_server("east", server.id) is None


def test_delete_that_was_lost_with_the_database_ends_the_server_without_an_error(tree: Tree) -> None:
    server = active(tree)
    rebuild(tree)
    server.report(9, VmState.DELETED, number=3)
    assert tree.find_server("east", server.id) is None


def wish(tree: Tree, server: Server) -> None:
    """A tenant asks for something since the database was put back: numbers begin above those of the lost delete."""
    with tree.stores["east"].inner.unit() as unit:
        unit.save(replace(server.row, number=restored.next_number(unit, server.row)))


def test_tombstone_of_a_delete_that_was_lost_ends_the_server_though_its_leaf_was_put_back_too(tree: Tree) -> None:
    """The leaf's row was from before the start, so its tombstone does not say that the server ever ran."""
    server = active(tree)
    rebuild(tree)
    wish(tree, server)
    never_ran = replace(STATE, vm_state=VmState.DELETED, launched_at=0)
    report = InstanceReport(attempt=1, version=server.row.version + 3, state=never_ran, number=1)
    server.tell(report)
    assert server.row.status == "ACTIVE"
    server.tell(replace(report, number=2))
    assert tree.find_server("east", server.id) is None


def test_tombstone_of_a_server_that_its_leaf_had_lost_before_the_delete_ends_it(tree: Tree) -> None:
    server = active(tree)
    rebuild(tree)
    gone = replace(STATE, vm_state=VmState.DELETED, launched_at=0)
    server.tell(InstanceReport(attempt=0, version=1, state=gone, number=2))
    assert tree.find_server("east", server.id) is None


def test_image_of_a_snapshot_goes_with_a_server_that_is_found_to_be_gone(tree: Tree) -> None:
    server = active(tree)
    wish = OpenIntent(number=5, action="server.snapshot", at=0, request="r", detail="an image")
    with tree.stores["east"].inner.unit() as unit:
        unit.save(replace(server.row, number=5, intents=(wish,)))
    decision = server.report(9, VmState.DELETED, number=3)
    assert [(job.kind, unpack(str, job.body)) for job in decision.do] == [(GIVE_UP, "an image")]


def test_attempt_that_its_leaf_gave_up_is_made_again_though_the_refusal_was_lost(tree: Tree) -> None:
    server = offered(tree)
    leaf = server.row.leaf
    server.tell(Accepted(attempt=1, host="h", epoch=1, sequence=1), origin=leaf)
    rebuild(tree)
    assert server.row.phase is Phase.GRANTED
    gone = replace(STATE, vm_state=VmState.DELETED, launched_at=0)
    report = InstanceReport(attempt=1, version=7, state=gone, number=1)
    assert sent(server.tell(report, origin=leaf), InquireServer)
    server.tell(held(server, granted=False, state=gone), origin=leaf)
    assert (server.row.phase, server.row.attempt, server.row.leaf) == (Phase.OFFERED, 2, other(leaf))
    assert server.tell(report, origin=leaf).seen


def test_what_was_built_and_deleted_since_the_backup_is_not_built_again(tree: Tree) -> None:
    server = offered(tree)
    leaf = server.row.leaf
    rebuild(tree)
    wish(tree, server)
    gone = replace(STATE, vm_state=VmState.DELETED)
    server.tell(held(server, granted=False, state=gone, number=1), origin=leaf)
    assert server.row.told == (leaf,)  # undone by the leaf itself: another may get it
    server.tell(held(server, granted=False, state=gone, number=2), origin=leaf)
    assert tree.find_server("east", server.id) is None


def test_numbers_of_wishes_begin_above_all_of_the_epoch_before(tree: Tree) -> None:
    server = active(tree)
    rebuild(tree)
    with tree.stores["east"].inner.unit() as unit:
        assert restored.next_number(unit, server.row) == (1 << 32) + 1
