"""What an API cell decides on the words of leaves and on wishes: late, twice, of strangers, out of order."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from api_cell.mirror import STALE_WISH
from api_cell.rows import GoneServerRow, Phase, ServerRow
from cells import codec
from cells.decision import Decision
from cells.digest import BUCKETS, bucket_of, buckets, checksum
from cells.messages import (
    Accepted,
    BuildServer,
    Compare,
    DeleteServer,
    Digest,
    Discard,
    Expired,
    Grant,
    HeldServer,
    InquireServer,
    InstanceReport,
    Intent,
    RebootServer,
    RecallServer,
    RefusalCode,
    Refused,
    RememberServer,
    StartServer,
    StopServer,
)
from cells.model import Fault, InstanceState, PowerState, VmState
from cells.names import SECOND, id_text
from cells.rows import ParkedRow, StoryRow
from tests.support.embedded import TINY, Tree, make_tree


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = make_tree({"east": (), "leaf-a": ("east",), "leaf-b": ("east",)})
    yield tree
    tree.close()


class Server:
    """One server of east, its leaves spoken for by the test."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.id = tree.build("east", "vm")

    def tell(self, body: Any, origin: str = "", **more: Any) -> Decision:
        record = self.tree.record(origin or self.row.leaf or "leaf-a", "east", body, self.id, **more)
        return self.tree.decide("east", record)

    def place(self) -> Decision:
        return self.tell(Intent(action="place", number=1), origin="east")

    def accept(self, **more: Any) -> Decision:
        return self.tell(Accepted(attempt=self.row.attempt, host="h", epoch=1, sequence=1), **more)

    def refuse(self, code: RefusalCode = RefusalCode.NO_ROOM, undone: bool = False, **more: Any) -> Decision:
        return self.tell(Refused(attempt=self.row.attempt, code=code, reason="full", undone=undone), **more)

    def report(self, version: int, vm_state: VmState = VmState.ACTIVE, origin: str = "", **more: Any) -> Decision:
        state = InstanceState(
            vm_state=vm_state,
            power_state=PowerState.RUNNING,
            flavor=TINY,
            host="h",
            task_state=more.pop("task_state", ""),
            launched_at=more.pop("launched_at", 5),
        )
        attempt = more.pop("attempt", None)
        body = InstanceReport(
            attempt=self.row.attempt if attempt is None else attempt, version=version, state=state, **more
        )
        return self.tell(body, origin)

    @property
    def row(self) -> ServerRow:
        return self.tree.server("east", self.id)


def active(tree: Tree) -> Server:
    server = Server(tree)
    server.place()
    server.accept()
    server.report(3)
    assert server.row.status == "ACTIVE"
    return server


def sent(decision: Decision, kind: type) -> list[Any]:
    return [record.body for record in decision.send if isinstance(record.body, kind)]


def other(leaf: str) -> str:
    return "leaf-b" if leaf == "leaf-a" else "leaf-a"


# --- placing ---


def test_acceptance_is_granted_once(tree: Tree) -> None:
    server = Server(tree)
    assert sent(server.place(), BuildServer)
    assert sent(server.accept(), Grant) == [Grant(attempt=1)]
    assert server.accept() == Decision()
    assert server.row.phase is Phase.GRANTED


def test_refusal_goes_to_the_next_leaf_and_a_late_acceptance_is_discarded(tree: Tree) -> None:
    server = Server(tree)
    server.place()
    first = server.row.leaf
    again = server.refuse()
    assert [build.attempt for build in sent(again, BuildServer)] == [2]
    assert server.row.leaf == other(first)
    late = server.tell(Accepted(attempt=1, host="h", epoch=1, sequence=1), origin=first)
    assert sent(late, Discard) == [Discard(attempt=1)]
    assert late.send[0].destination == first


def test_refusal_after_the_grant_goes_to_the_next_leaf(tree: Tree) -> None:
    server = Server(tree)
    server.place()
    first = server.row.leaf
    server.accept()
    server.report(1, VmState.BUILDING, launched_at=0)
    server.refuse(RefusalCode.EXPIRED, undone=True)
    assert (server.row.leaf, server.row.phase, server.row.state) == (other(first), Phase.OFFERED, None)


def test_leaf_that_refuses_what_it_was_granted_without_knowing_of_it_is_told_and_nobody_else_gets_it(
    tree: Tree,
) -> None:
    server = Server(tree)
    server.place()
    first = server.row.leaf
    server.accept()
    forgot = server.refuse(RefusalCode.EXPIRED)
    assert (len(sent(forgot, RememberServer)), sent(forgot, BuildServer)) == (1, [])
    assert (server.row.leaf, server.row.phase) == (first, Phase.GRANTED)


def test_refusals_of_all_leaves_are_an_error_with_every_reason(tree: Tree) -> None:
    server = Server(tree)
    server.place()
    server.refuse()
    server.refuse()
    assert (server.row.status, server.row.fault_code) == ("ERROR", 500)
    assert "leaf-a: full" in server.row.fault and "leaf-b: full" in server.row.fault


@pytest.mark.parametrize("body", ["refused", "accepted", "report"])
def test_words_of_a_leaf_that_was_not_asked_change_nothing(tree: Tree, body: str) -> None:
    server = Server(tree)
    server.place()
    before, stranger = server.row, other(server.row.leaf)
    if body == "refused":
        server.refuse(origin=stranger)
    elif body == "accepted":
        assert sent(server.accept(origin=stranger), Discard)
    else:
        assert sent(server.report(9, origin=stranger), Discard)
    assert server.row == before


def test_undone_attempt_waits_for_its_refusal_when_the_report_comes_first(tree: Tree) -> None:
    """A preparation that failed: its leaf reports the removal, and its refusal comes by a slower way."""
    server = Server(tree)
    server.place()
    first = server.row.leaf
    reported = server.report(4, VmState.DELETED, launched_at=0)
    assert reported.seen
    assert (server.row.phase, server.row.leaf) == (Phase.OFFERED, first)
    server.refuse()
    assert (server.row.phase, server.row.leaf) == (Phase.OFFERED, other(first))


def test_explanation_kept_with_an_attempt_is_short(tree: Tree) -> None:
    server = Server(tree)
    decision = server.place()
    (story,) = [row for row in decision.save if isinstance(row, StoryRow)]
    assert story.detail is not None
    assert set(story.detail["explanation"]) == {"chosen", "draw", "kept", "refused", "left_out"}


# --- reports ---


def test_reports_out_of_order_and_twice_keep_the_newest(tree: Tree) -> None:
    server = active(tree)
    server.report(6, VmState.STOPPED)
    for version in (4, 5, 6, 3):
        decision = server.report(version, VmState.ACTIVE)
        assert [seen.version for seen in decision.seen] == [version]
        assert decision.save == ()
    assert (server.row.version, server.row.vm_state) == (6, VmState.STOPPED)


def test_updated_never_goes_back(tree: Tree) -> None:
    server = active(tree)
    before = server.row.updated
    tree.clock.advance(-30)
    server.report(9)
    assert server.row.updated >= before


def test_report_of_an_unknown_server_is_asked_about_and_parked_without_our_own_proof(tree: Tree) -> None:
    server = active(tree)
    stranger = tree.house.new_id()
    state = InstanceState(vm_state=VmState.ACTIVE, flavor=TINY)
    body = InstanceReport(attempt=1, version=1, state=state)
    decision = tree.decide("east", tree.record("leaf-a", "east", body, stranger))
    assert not decision.seen
    assert sent(decision, InquireServer)
    claim = HeldServer(attempt=1, granted=True, spec=server.row.spec, proof=bytes(64), version=1, state=state)
    tree.decide("east", tree.record("leaf-a", "east", claim, stranger))
    assert "never made" in tree.rows("east", ParkedRow)[0].reason
    assert tree.find_server("east", stranger) is None
    assert server.row.status == "ACTIVE"


def test_report_of_a_server_that_is_gone_has_it_deleted_again(tree: Tree) -> None:
    server = active(tree)
    tree.ask("east", server.id, DeleteServer(build_deadline=7))
    leaf = server.row.leaf
    server.report(5, VmState.DELETED)
    assert tree.find_server("east", server.id) is None
    body = InstanceReport(attempt=1, version=6, state=InstanceState(vm_state=VmState.ACTIVE, flavor=TINY))
    again = tree.decide("east", tree.record(leaf, "east", body, server.id))
    assert [type(record.body) for record in again.send] == [DeleteServer]


def test_server_that_its_leaf_removed_unasked_is_an_error(tree: Tree) -> None:
    server = active(tree)
    server.report(5, VmState.DELETED)
    assert server.row.status == "ERROR"
    assert "without being asked" in server.row.fault


def test_tombstone_ends_a_delete_that_overtook_its_build(tree: Tree) -> None:
    server = Server(tree)
    server.place()
    tree.ask("east", server.id, DeleteServer(build_deadline=0))
    server.report(1, VmState.DELETED, attempt=0, launched_at=0)
    assert tree.find_server("east", server.id) is None
    assert tree.row("east", GoneServerRow, server.id) is not None


def test_leaf_that_has_lost_a_server_is_told_what_it_was_and_another_one_is_not(tree: Tree) -> None:
    server = active(tree)
    assert sent(server.tell(RecallServer(), origin=other(server.row.leaf)), RememberServer) == []
    told = sent(server.tell(RecallServer()), RememberServer)
    assert [(known.attempt, known.version, known.state) for known in told] == [(1, 3, server.row.state)]


def test_leaf_that_has_lost_a_server_gets_its_open_wishes_again(tree: Tree) -> None:
    server = active(tree)
    tree.ask("east", server.id, StopServer())
    decision = server.tell(RecallServer(attempt=1))
    assert [(wake.record.body.action, wake.record.body.number) for wake in decision.wake] == [("server.stop", 2)]


def test_wish_that_its_leaf_was_given_and_does_nothing_about_is_wished_again(tree: Tree) -> None:
    server = active(tree)
    tree.ask("east", server.id, StopServer())
    digest = Digest(buckets=(0,) * BUCKETS)
    tree.clock.advance(STALE_WISH / SECOND - 1)
    assert server.tell(digest).wake == ()
    tree.clock.advance(2)
    assert [wake.record.body.number for wake in server.tell(digest).wake] == [2]
    server.report(4, task_state="powering-off")
    assert server.tell(digest).wake == ()


def test_fault_of_the_leaf_is_shown(tree: Tree) -> None:
    server = active(tree)
    state = InstanceState(
        vm_state=VmState.ERROR, flavor=TINY, launched_at=5, fault=Fault(code=500, message="no image", at=1)
    )
    server.tell(InstanceReport(attempt=1, version=9, state=state))
    assert server.row.status == "ERROR"


# --- wishes ---


def wish(tree: Tree, server: Server, command: Any) -> Decision:
    """Ask, and let the role take the wish up, as its wake does."""
    tree.ask("east", server.id, command)
    newest = server.row.intents[-1]
    return server.tell(Intent(action=newest.action, number=newest.number, body=codec.pack(command)), origin="east")


def test_later_command_waits_for_the_one_before_it(tree: Tree) -> None:
    server = active(tree)
    assert sent(wish(tree, server, StopServer()), StopServer)
    second = wish(tree, server, StartServer())
    assert second.send == ()
    assert [wake.record.body.number for wake in second.wake] == [3]
    server.report(4, VmState.STOPPED, number=2)
    third = server.tell(Intent(action="server.start", number=3, body=codec.pack(StartServer())), origin="east")
    assert [record.number for record in third.send] == [3]


def test_delete_waits_for_nothing(tree: Tree) -> None:
    server = active(tree)
    wish(tree, server, StopServer())
    assert sent(wish(tree, server, DeleteServer(build_deadline=0)), DeleteServer)


def test_expired_command_ends_the_wish_of_its_number_only(tree: Tree) -> None:
    server = active(tree)
    wish(tree, server, RebootServer())
    wish(tree, server, RebootServer())
    server.tell(
        Expired(
            id=tree.house.new_id(), kind="server.reboot", destination="leaf-a", server=server.id, body=b"", number=3
        ),
        origin="east",
    )
    assert [open_.number for open_ in server.row.intents if open_.action == "server.reboot"] == [2]


def test_command_that_failed_ends_its_wish_with_the_reason_in_the_story(tree: Tree) -> None:
    server = active(tree)
    wish(tree, server, StopServer())
    decision = server.report(4, number=2, failed=(2, "the host is on fire"))
    assert server.row.intents == ()
    assert any("on fire" in row.text for row in decision.save if isinstance(row, StoryRow))


def test_wish_for_a_server_that_failed_is_over_at_once(tree: Tree) -> None:
    server = Server(tree)
    server.place()
    server.refuse()
    server.refuse()
    assert wish(tree, server, StopServer()).send == ()
    assert server.row.intents == ()


# --- digests ---


def test_digest_asks_about_the_buckets_that_differ_only(tree: Tree) -> None:
    server = active(tree)
    state = server.row.state
    assert state is not None
    same = buckets([(server.id, checksum(server.row.version, state))])
    assert server.tell(Digest(buckets=same)).send == ()
    differs = buckets([(server.id, checksum(server.row.version + 1, state))])
    compares = sent(server.tell(Digest(buckets=differs)), Compare)
    assert [compare.bucket for compare in compares] == [bucket_of(server.id)]
    assert [each[0] for each in compares[0].servers] == [server.id]


def test_digest_of_another_shape_is_noted_and_no_more(tree: Tree) -> None:
    decision = active(tree).tell(Digest(buckets=(1, 2, 3)))
    assert decision.send == () and decision.notes


# --- hints ---


def test_hints_near_and_far_are_kept(tree: Tree) -> None:
    first = active(tree)
    leaf = first.row.leaf
    for hint, wanted in (("near", leaf), ("far", other(leaf))):
        server = Server(tree)
        with tree.stores["east"].inner.unit() as unit:
            row = server.row
            unit.save(replace(row, spec=replace(row.spec, hints={hint: id_text(first.id)})))
        server.place()
        assert server.row.leaf == wanted
