"""What a leaf decides, record by record: late, early, twice, out of order, from the wrong cell."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from cells.codec import pack
from cells.decision import Decision, Job
from cells.digest import bucket_of
from cells.messages import (
    Accepted,
    Ack,
    BuildServer,
    Compare,
    ConfirmResize,
    DeleteServer,
    DestroyDue,
    Discard,
    Forget,
    GoOn,
    Grant,
    GrantDue,
    InstanceReport,
    JobEnded,
    RebootServer,
    RecallServer,
    Refused,
    RenameServer,
    ResizeServer,
    StartServer,
    StopServer,
)
from cells.model import BuildSpec, VmState
from cells.names import SECOND
from cells.rows import SettingRow
from compute_cell.rows import HostRow, InstanceRow, Phase
from tests.support.embedded import IMAGE, SMALL, TINY, Tree, make_tree
from tests.support.invariants import validate


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = make_tree({"east": (), "west": (), "leaf": ("east", "west")})
    yield tree
    tree.close()


def spec(**changes: Any) -> BuildSpec:
    return replace(BuildSpec(name="vm", project="demo", user="demo", flavor=TINY, image=IMAGE), **changes)


class Server:
    """One server at the leaf, talked to directly."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.id = tree.house.new_id()

    def tell(self, body: Any, origin: str = "east", **more: Any) -> Decision:
        return self.tree.decide("leaf", self.tree.record(origin, "leaf", body, self.id, **more))

    def build(self, attempt: int = 1, **more: Any) -> Decision:
        return self.tell(BuildServer(attempt=attempt, spec=spec(**more)), number=1)

    def end(self, error: str = "", permanent: bool = True) -> Decision:
        """The job under way ends so."""
        job = next(job for job in self.jobs if job.id == self.row.job)
        return self.tell(
            JobEnded(job=job.id, kind=job.kind, result=pack(None), error=error, permanent=permanent), origin="leaf"
        )

    @property
    def row(self) -> InstanceRow:
        row = self.tree.instance("leaf", self.id)
        assert row is not None
        return row

    def run(self, decision: Decision) -> Decision:
        self.jobs = decision.do
        return decision


def sent(decision: Decision, kind: type) -> list[Any]:
    return [record.body for record in decision.send if isinstance(record.body, kind)]


def running(tree: Tree) -> Server:
    """A server that is ACTIVE at the leaf."""
    server = Server(tree)
    server.run(server.build())
    server.tell(Grant(attempt=1))
    server.run(server.end())
    server.end()
    assert server.row.state.vm_state is VmState.ACTIVE
    return server


def free(tree: Tree) -> int:
    return sum(host.free_ram_mib for host in tree.rows("leaf", HostRow))


# --- builds and grants ---


def test_build_is_accepted_once_and_a_copy_replays_the_state(tree: Tree) -> None:
    server = Server(tree)
    first = server.build()
    assert [accepted.attempt for accepted in sent(first, Accepted)] == [1]
    again = server.build()
    assert (sent(again, Accepted), again.do, again.save) == ([], (), ())
    assert len(sent(again, InstanceReport)) == 1
    validate(tree)


def test_build_after_its_deadline_is_refused(tree: Tree) -> None:
    server = Server(tree)
    decision = server.tell(BuildServer(attempt=1, spec=spec()), number=1, deadline=tree.clock() - 1)
    assert sent(decision, Refused)[0].code == "expired"
    assert tree.instance("leaf", server.id) is None


def test_draining_leaf_refuses_builds(tree: Tree) -> None:
    tree.set("leaf", "state", "draining")
    assert sent(Server(tree).build(), Refused)[0].code == "draining"


def test_second_attempt_at_the_same_leaf_is_refused_while_the_first_is_there(tree: Tree) -> None:
    server = Server(tree)
    server.build()
    assert sent(server.build(attempt=2), Refused)[0].attempt == 2
    assert server.row.attempt == 1


def test_vm_is_not_started_before_the_grant(tree: Tree) -> None:
    server = Server(tree)
    server.run(server.build())
    prepared = server.end()
    assert prepared.do == ()
    assert server.row.phase is Phase.PREPARED
    assert [job.kind for job in server.tell(Grant(attempt=1)).do] == ["build.start"]


def test_grant_before_the_preparation_is_over_starts_at_its_end(tree: Tree) -> None:
    server = Server(tree)
    server.run(server.build())
    assert server.tell(Grant(attempt=1)).do == ()
    assert [job.kind for job in server.end().do] == ["build.start"]


def test_second_grant_starts_nothing(tree: Tree) -> None:
    server = Server(tree)
    server.run(server.build())
    server.tell(Grant(attempt=1))
    server.run(server.end())
    assert server.tell(Grant(attempt=1)).do == ()


@pytest.mark.parametrize(("origin", "attempt"), [("west", 1), ("east", 2)])
def test_grant_of_a_stranger_or_another_attempt_starts_nothing(tree: Tree, origin: str, attempt: int) -> None:
    server = Server(tree)
    server.run(server.build())
    server.end()
    assert server.tell(Grant(attempt=attempt), origin=origin).do == ()
    assert server.row.phase is Phase.PREPARED


def test_grant_after_the_lease_starts_nothing_and_the_owner_was_told(tree: Tree) -> None:
    server = Server(tree)
    before = free(tree)
    server.run(server.build())
    server.end()
    late = server.run(server.tell(GrantDue(attempt=1), origin="leaf"))
    assert [refused.code for refused in sent(late, Refused)] == ["expired"]
    assert server.tell(Grant(attempt=1)).do == ()
    server.end()
    assert server.row.phase is Phase.GONE
    assert free(tree) == before


def test_lease_that_passes_after_the_grant_changes_nothing(tree: Tree) -> None:
    server = running(tree)
    assert server.tell(GrantDue(attempt=1), origin="leaf") == Decision()


def test_grant_for_a_server_that_is_not_known_asks_the_owner_for_it(tree: Tree) -> None:
    assert sent(Server(tree).tell(Grant(attempt=1)), RecallServer)


def test_discard_undoes_a_prepared_build_but_never_a_granted_one(tree: Tree) -> None:
    server = Server(tree)
    server.run(server.build())
    server.end()
    assert [job.kind for job in server.tell(Discard(attempt=1)).do] == ["build.destroy"]
    granted = running(tree)
    assert granted.tell(Discard(attempt=1)) == Decision()


def test_preparation_that_fails_before_the_grant_is_a_refusal(tree: Tree) -> None:
    server = Server(tree)
    before = free(tree)
    server.run(server.build())
    failed = server.run(server.end(error="no image"))
    assert [refused.reason for refused in sent(failed, Refused)] == ["no image"]
    server.end()
    assert free(tree) == before


def test_preparation_that_fails_after_the_grant_is_an_error_without_anything_left(tree: Tree) -> None:
    server = Server(tree)
    before = free(tree)
    server.run(server.build())
    server.tell(Grant(attempt=1))
    failed = server.run(server.end(error="no image"))
    assert sent(failed, Refused) == []
    assert server.row.state.vm_state is VmState.ERROR
    assert server.row.state.fault is not None and server.row.state.fault.message == "no image"
    server.end()
    assert free(tree) == before
    over = server.tell(StartServer(), number=2)
    assert over.do == ()
    assert server.row.failed == (2, "the server was never built")


def test_failed_removal_is_tried_again_until_it_succeeds(tree: Tree) -> None:
    server = Server(tree)
    before = free(tree)
    server.run(server.build())
    server.run(server.tell(Discard(attempt=1)))
    server.jobs = (*server.jobs, *_jobs_of(server))
    server.run(server.end())
    failed = server.end(error="the pool does not answer", permanent=False)
    assert [wake.record.body for wake in failed.wake] == [DestroyDue()]
    again = server.run(server.tell(DestroyDue(), origin="leaf"))
    assert [job.kind for job in again.do] == ["build.destroy"]
    server.end()
    assert free(tree) == before


def _jobs_of(server: Server) -> tuple[Any, ...]:
    row = server.row
    return (Job(id=row.job, kind="build.prepare", server=row.id, lane=row.host, body=b""),)


def test_removal_that_is_due_never_touches_a_running_server(tree: Tree) -> None:
    assert running(tree).tell(DestroyDue(), origin="leaf") == Decision()


def test_secret_for_the_image_is_forgotten_when_it_has_served(tree: Tree) -> None:
    server = Server(tree)
    server.run(server.build(sealed=b"secret"))
    server.end()
    assert server.row.spec.sealed == b""


@pytest.mark.parametrize("error", ["", "the image is no image"], ids=["active", "failed"])
def test_command_that_comes_while_the_build_goes_on_is_done_when_it_is_over(tree: Tree, error: str) -> None:
    server = Server(tree)
    server.run(server.build())
    server.tell(Grant(attempt=1))
    server.run(server.end())
    assert server.tell(RenameServer(name="new"), number=2).do == ()
    over = server.run(server.end(error))
    if error:
        over = server.end()  # what there was of it is removed
    (wake,) = [wake for wake in over.wake if isinstance(wake.record.body, GoOn)]
    begun = tree.decide("leaf", wake.record)
    assert [job.kind for job in begun.do] == ([] if error else ["server.guest"])
    assert server.row.number == (2 if error else 1)
    assert server.row.failed == ((2, "the server was never built") if error else None)


# --- deletes ---


def test_delete_overtakes_the_commands_that_wait(tree: Tree) -> None:
    server = running(tree)
    server.run(server.tell(StopServer(), number=2))
    server.tell(StartServer(), number=3)
    decision = server.tell(DeleteServer(build_deadline=0), number=4)
    assert decision.stop == (server.row.job,)
    assert (server.row.queue, server.row.command) == ((), None)
    ended = server.run(server.end())
    assert [job.kind for job in ended.do] == ["build.destroy"]
    server.end()
    assert server.row.phase is Phase.GONE


def test_delete_of_an_unknown_server_leaves_a_tombstone_that_refuses_the_late_build(tree: Tree) -> None:
    server = Server(tree)
    deadline = tree.clock() + 600 * SECOND
    looks = server.run(server.tell(DeleteServer(build_deadline=deadline), number=2))
    assert [job.kind for job in looks.do] == ["build.destroy"]  # what we forgot may be on a host
    decision = server.end()
    assert sent(decision, InstanceReport)[0].state.vm_state is VmState.DELETED
    assert server.row.phase is Phase.GONE
    assert max(wake.due for wake in decision.wake) >= deadline
    assert sent(server.build(), Refused)[0].code == "deleted"
    validate(tree)


def test_tombstone_goes_only_after_its_owner_has_seen_it(tree: Tree) -> None:
    server = Server(tree)
    server.run(server.tell(DeleteServer(build_deadline=0), number=2))
    server.end()
    assert server.tell(Forget(), origin="leaf").wake
    version = server.row.version
    server.tell(Ack(seen=((server.id, version),)))
    server.tell(Forget(), origin="leaf")
    assert tree.instance("leaf", server.id) is None


def test_delete_twice_reports_again_and_destroys_once(tree: Tree) -> None:
    server = running(tree)
    server.run(server.tell(DeleteServer(build_deadline=0), number=2))
    assert server.tell(DeleteServer(build_deadline=0), number=3).do == ()
    server.end()
    again = server.tell(DeleteServer(build_deadline=0), number=4)
    assert again.do == ()
    assert sent(again, InstanceReport)[0].state.vm_state is VmState.DELETED


def test_delete_by_a_cell_that_is_not_the_owner_does_nothing(tree: Tree) -> None:
    server = running(tree)
    before = server.row
    server.tell(DeleteServer(build_deadline=0), origin="west", number=9)
    server.tell(StopServer(), origin="west", number=9)
    assert server.row == before


# --- commands ---


def test_command_comes_twice_under_new_ids_and_runs_once(tree: Tree) -> None:
    server = running(tree)
    assert server.run(server.tell(RebootServer(hard=True), number=2)).do
    assert server.tell(RebootServer(hard=True), number=2).do == ()
    server.end()
    assert server.tell(RebootServer(hard=True), number=2).do == ()
    assert server.row.number == 2


def test_commands_that_wait_run_in_the_order_of_their_numbers(tree: Tree) -> None:
    server = running(tree)
    server.run(server.tell(StopServer(), number=2))
    server.tell(StopServer(), number=4)
    server.tell(StartServer(), number=3)
    assert [queued.number for queued in server.row.queue] == [3, 4]
    server.run(server.end())
    assert server.row.command is not None and server.row.command.number == 3


def test_command_that_waited_past_its_deadline_is_over_with_the_reason(tree: Tree) -> None:
    server = running(tree)
    server.run(server.tell(StopServer(), number=2))
    server.tell(StartServer(), number=3, deadline=tree.clock() + SECOND)
    tree.clock.advance(2)
    server.end()
    assert server.row.failed is not None and server.row.failed[0] == 3
    assert "deadline" in server.row.failed[1]


def test_command_to_a_server_that_is_not_known_asks_the_owner_for_it(tree: Tree) -> None:
    assert sent(Server(tree).tell(StopServer(), number=2), RecallServer)


def test_end_of_a_job_that_is_not_the_current_one_changes_nothing(tree: Tree) -> None:
    server = running(tree)
    before = server.row
    stray = JobEnded(job=tree.house.new_id(), kind="server.power", result=pack(None))
    assert server.tell(stray, origin="leaf") == Decision()
    assert server.row == before


# --- resize ---


def test_resize_that_the_host_gave_up_is_undone_before_it_is_over(tree: Tree) -> None:
    server = running(tree)
    before = free(tree)
    server.run(server.tell(ResizeServer(flavor=SMALL), number=2))
    gave_up = server.run(server.end(error="the host does not answer", permanent=False))
    assert [job.kind for job in gave_up.do] == ["server.undo_resize"]
    assert server.row.before is not None
    server.end()
    assert server.row.failed is not None and "as it was" in server.row.failed[1]
    assert (server.row.state.flavor, server.row.state.vm_state) == (TINY, VmState.ACTIVE)
    assert free(tree) == before
    validate(tree)


def test_server_whose_resize_waits_stays_so_whatever_power_is_asked_of_it(tree: Tree) -> None:
    server = running(tree)
    server.run(server.tell(ResizeServer(flavor=SMALL), number=2))
    server.end()
    refused = server.tell(RebootServer(hard=True), number=3)
    assert (refused.do, server.row.state.vm_state) == ((), VmState.RESIZED)
    assert server.row.failed == (3, "a resize is not confirmed or reverted yet")


def test_undoing_a_resize_goes_on_for_as_long_as_the_host_does_not_answer(tree: Tree) -> None:
    server = running(tree)
    server.run(server.tell(ResizeServer(flavor=SMALL), number=2))
    server.run(server.end(error="the host does not answer", permanent=False))
    again = server.run(server.end(error="the host does not answer", permanent=False))
    assert [job.kind for job in again.do] == ["server.undo_resize"]


def test_undo_that_the_host_refuses_leaves_an_error_for_people_and_keeps_both_claims(tree: Tree) -> None:
    server = running(tree)
    server.run(server.tell(ResizeServer(flavor=SMALL), number=2))
    server.run(server.end(error="the host does not answer", permanent=False))
    held = free(tree)
    server.end(error="the operation is blocked on the host")
    assert server.row.state.vm_state is VmState.ERROR
    assert server.row.state.fault is not None
    assert free(tree) == held
    validate(tree)


def test_resize_refused_by_the_host_gives_the_new_claim_back(tree: Tree) -> None:
    server = running(tree)
    before = free(tree)
    server.run(server.tell(ResizeServer(flavor=SMALL), number=2))
    assert free(tree) < before
    server.end(error="storage is full")
    assert server.row.failed == (2, "storage is full")
    assert free(tree) == before


def test_confirm_without_a_resize_is_refused_with_the_reason(tree: Tree) -> None:
    server = running(tree)
    server.tell(ConfirmResize(), number=2)
    assert server.row.failed is not None and server.row.failed[0] == 2


# --- hosts ---


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"zone": "b"}, "zone is not b"),
        ({"flavor": replace(TINY, extra_specs={"trait:CUSTOM_GPU": "required"})}, "lacks trait CUSTOM_GPU"),
        ({"image": replace(IMAGE, properties={"hypervisor_version_requires": ">99"})}, "hypervisor version"),
        ({"flavor": replace(TINY, extra_specs={"trait:X": "maybe"})}, "a trait is 'required' or 'forbidden'"),
    ],
)
def test_leaf_judges_hosts_as_placing_does(tree: Tree, changes: dict[str, Any], reason: str) -> None:
    refused = sent(Server(tree).build(**changes), Refused)
    assert len(refused) == 1
    assert reason in refused[0].reason


def test_leaf_refuses_when_ram_is_gone(tree: Tree) -> None:
    large = replace(TINY, name="m1.huge", ram_mib=10 * 1024)
    kinds = [sorted(type(record.body).__name__ for record in Server(tree).build(flavor=large).send) for _ in range(3)]
    assert kinds == [["Accepted", "InstanceReport"], ["Accepted", "InstanceReport"], ["Refused"]]
    validate(tree)


# --- what owners are told ---


def test_seen_of_an_older_version_leaves_the_newer_one_to_be_reported(tree: Tree) -> None:
    server = running(tree)
    server.tell(Ack(seen=((server.id, server.row.version - 1),)))
    assert server.row.unseen
    server.tell(Ack(seen=((server.id, server.row.version),)), origin="west")
    assert server.row.unseen
    server.tell(Ack(seen=((server.id, server.row.version),)))
    assert not server.row.unseen


def test_compare_raises_what_differs(tree: Tree) -> None:
    server = running(tree)
    version = server.row.version
    theirs = ((server.id, version, 1),)
    decision = tree.decide("leaf", tree.record("east", "leaf", Compare(bucket=bucket_of(server.id), servers=theirs)))
    assert [report.version for report in sent(decision, InstanceReport)] == [version + 1]


def test_resize_after_one_that_failed_counts_with_the_room_that_came_back(tree: Tree) -> None:
    server = running(tree)
    free_before = free(tree)
    server.run(server.tell(ResizeServer(flavor=SMALL), number=2))
    server.tell(ResizeServer(flavor=SMALL), number=3)
    over = server.end(error="the host has no such disk")
    validate(tree)
    assert free(tree) == free_before
    assert [wake.record.body for wake in over.wake] == [GoOn()]
    server.run(server.tell(GoOn(), origin="leaf"))
    assert server.row.command is not None
    validate(tree)


def prepared(tree: Tree) -> Server:
    """A server that waits for its grant."""
    server = Server(tree)
    server.run(server.build())
    server.end()
    assert server.row.phase is Phase.PREPARED
    return server


@pytest.mark.parametrize("make", [running, prepared])
def test_compare_with_an_owner_that_is_ahead_doubts_our_own_row(tree: Tree, make: Callable[[Tree], Server]) -> None:
    server = make(tree)
    theirs = ((server.id, server.row.version + 40, 1),)
    decision = tree.decide("leaf", tree.record("east", "leaf", Compare(bucket=bucket_of(server.id), servers=theirs)))
    assert sent(decision, RecallServer) == [RecallServer(attempt=1)]
    assert server.row.stale


def test_setting_rows_are_read_at_each_decision(tree: Tree) -> None:
    tree.set("leaf", "state", "draining")
    assert sent(Server(tree).build(), Refused)
    with tree.stores["leaf"].inner.unit() as unit:
        unit.save(SettingRow(name="state", value="enabled"))
    assert sent(Server(tree).build(), Accepted)
