"""A leaf whose database was put back: what it doubts, what it refuses meanwhile, what it finds on its hosts."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cells.codec import pack
from cells.decision import Decision
from cells.messages import (
    Above,
    Agreed,
    BuildServer,
    Discard,
    Grant,
    HeldServer,
    HelloDown,
    InquireServer,
    InstanceReport,
    JobEnded,
    RecallServer,
    Refused,
    RememberServer,
    StopServer,
)
from cells.model import CellRecord, Generation, InstanceState, PowerState, VmState
from cells.rows import CounterRow, SettingRow
from compute_cell.build import RESTORING
from compute_cell.restored import FIND, UNDO
from compute_cell.rows import HostRow, InstanceRow, Phase, PoolRow
from compute_cell.tasks import SeenServer, Sought, Watched
from tests.support.embedded import SMALL, TINY, Tree, make_tree
from tests.support.invariants import validate
from tests.unit.compute_cell.test_decisions import Server, running, sent, spec
from xenapi_host.facts import Refound


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = make_tree({"east": (), "leaf": ("east",)})
    yield tree
    tree.close()


def shown_own_word(tree: Tree, epoch: int = 1, sequence: int = 10**6, name: str = "leaf") -> Decision:
    """East shows the leaf what a cell has said of itself at this generation."""
    who = tree[name].identity
    word = CellRecord(
        name=name,
        uuid=who.says.uuid,
        role=who.says.role,
        generation=Generation(epoch=epoch, sequence=sequence),
        at=tree.clock(),
    )
    hello = HelloDown(above=(Above(name="east", hops=0, api=True),), yours=who.cell_record(word))
    return tree.decide("leaf", tree.record("east", "leaf", hello))


def put_back(tree: Tree) -> Server:
    server = running(tree)
    shown_own_word(tree)
    return server


def memory_of(server: Server, **changes: Any) -> RememberServer:
    """What the owner knows of it."""
    row = server.row
    known = RememberServer(
        attempt=row.attempt, spec=spec(), proof=b"", version=row.version, number=row.number, state=row.state
    )
    return replace(known, **changes)


def found(server: Server, seen: Refound | None) -> Decision:
    job = next(job for job in server.jobs if job.id == server.row.job)
    return server.tell(JobEnded(job=job.id, kind=job.kind, result=pack(Sought(seen=seen))), origin="leaf")


def vm_of(server: Server, host: str, **changes: Any) -> Refound:
    vm = Refound(vm_uuid="vm", power_state=PowerState.RUNNING, host=host, ram_mib=TINY.ram_mib)
    return replace(vm, **changes)


def other_host(tree: Tree, server: Server) -> HostRow:
    return next(host for host in tree.rows("leaf", HostRow) if host.uuid != server.row.host)


def test_own_word_of_a_newer_generation_begins_a_new_epoch_and_every_server_is_doubted(tree: Tree) -> None:
    server = put_back(tree)
    epoch = tree.row("leaf", CounterRow, "epoch")
    assert epoch is not None
    assert epoch.value == 2
    assert server.row.stale


def test_own_word_of_an_older_generation_and_the_word_of_another_change_nothing(tree: Tree) -> None:
    server = running(tree)
    shown_own_word(tree, sequence=0)
    shown_own_word(tree, name="east")
    assert not server.row.stale


def test_no_builds_and_no_commands_until_every_owner_agrees(tree: Tree) -> None:
    server = put_back(tree)
    assert sent(Server(tree).tell(BuildServer(attempt=1, spec=spec()), number=1), Refused)[0].code == "draining"
    assert server.tell(StopServer(), number=2).do == ()
    server.tell(Agreed())
    assert tree.row("leaf", SettingRow, RESTORING) is not None, "this server is still doubted"
    server.run(server.tell(memory_of(server)))
    found(server, vm_of(server, tree.rows("leaf", HostRow)[0].uuid))
    over = server.tell(Agreed())
    assert tree.row("leaf", SettingRow, RESTORING) is None
    assert [wake.record.server for wake in over.wake] == [server.id]
    validate(tree)


def test_servers_of_an_owner_that_agrees_go_on_while_another_owner_is_silent() -> None:
    tree = make_tree({"east": (), "west": (), "leaf": ("east", "west")})
    try:
        server = put_back(tree)
        assert server.tell(StopServer(), number=2).do == ()
        server.run(server.tell(memory_of(server)))
        found(server, vm_of(server, tree.rows("leaf", HostRow)[0].uuid))
        again = server.tell(Agreed()).wake[0]
        assert server.tell(again.record.body, origin="leaf").do[0].kind == "server.power"
        assert sent(Server(tree).tell(BuildServer(attempt=1, spec=spec()), number=1), Refused)[0].code == "draining"
    finally:
        tree.close()


def test_doubted_server_is_where_its_host_says_and_its_room_is_counted_there(tree: Tree) -> None:
    server = put_back(tree)
    other = other_host(tree, server)
    server.run(server.tell(memory_of(server, version=9)))
    report = sent(found(server, vm_of(server, other.uuid, power_state=PowerState.HALTED)), InstanceReport)[0]
    assert (report.version, report.state.vm_state, report.state.host) == (10, VmState.STOPPED, other.name)
    assert server.row.host == other.uuid
    validate(tree)


def test_resize_of_which_the_leaf_knows_nothing_waits_to_be_confirmed_again(tree: Tree) -> None:
    server = put_back(tree)
    other = other_host(tree, server)
    was = server.row.host
    resized = replace(server.row.state, vm_state=VmState.RESIZED, flavor=SMALL, host=other.name)
    server.run(server.tell(memory_of(server, version=9, state=resized)))
    found(
        server,
        vm_of(server, other.uuid, ram_mib=SMALL.ram_mib, kept=PowerState.RUNNING, kept_host=was),
    )
    row = server.row
    assert (row.state.vm_state, row.state.flavor, row.host, row.old_host) == (
        VmState.RESIZED,
        SMALL,
        other.uuid,
        was,
    )
    assert row.before is not None
    assert row.before.flavor == TINY
    validate(tree)


def test_resize_that_was_left_off_half_way_is_undone_before_the_server_is_taken_as_found(tree: Tree) -> None:
    server = put_back(tree)
    was, other = server.row.host, other_host(tree, server)
    server.run(server.tell(memory_of(server, version=9)))
    half = found(server, vm_of(server, other.uuid, kept=PowerState.RUNNING, kept_host=was))
    assert [job.kind for job in half.do] == [UNDO]
    assert server.row.stale
    server.run(half)
    again = server.tell(JobEnded(job=server.row.job, kind=UNDO), origin="leaf")
    assert [job.kind for job in again.do] == [FIND]
    server.run(again)
    found(server, vm_of(server, was))
    assert (server.row.stale, server.row.host, server.row.state.vm_state) == (False, was, VmState.ACTIVE)
    validate(tree)


def a_build_under_way(tree: Tree, *, starting: bool = False) -> Server:
    """The leaf is put back while it prepares or starts a server."""
    server = Server(tree)
    server.run(server.build())
    if starting:
        server.tell(Grant(attempt=1))
        server.run(server.end())
    job = server.row.job
    assert shown_own_word(tree).stop == (job,)
    assert server.tell(JobEnded(job=job, kind="build.start"), origin="leaf") == Decision()
    return server


@pytest.mark.parametrize(("starting", "kind"), [(False, "build.prepare"), (True, "build.start")])
def test_build_under_way_goes_on_when_its_owner_says_that_it_never_ran(tree: Tree, starting: bool, kind: str) -> None:
    server = a_build_under_way(tree, starting=starting)
    going_on = server.tell(memory_of(server))
    assert [job.kind for job in going_on.do] == [kind]
    assert not server.row.stale
    validate(tree)


@pytest.mark.parametrize("starting", [False, True])
def test_build_under_way_that_has_long_since_run_is_looked_for(tree: Tree, starting: bool) -> None:
    server = a_build_under_way(tree, starting=starting)
    ran = replace(server.row.state, vm_state=VmState.ACTIVE, launched_at=tree.clock())
    looking = server.tell(memory_of(server, version=9, state=ran))
    assert [job.kind for job in looking.do] == [FIND]
    server.run(looking)
    found(server, vm_of(server, server.row.host or other_host(tree, server).uuid))
    assert (server.row.phase, server.row.state.vm_state) == (Phase.GRANTED, VmState.ACTIVE)
    validate(tree)


def test_forgotten_server_is_there_again_when_its_vm_is_found(tree: Tree) -> None:
    server = Server(tree)
    host = tree.rows("leaf", HostRow)[0]
    state = InstanceState(
        vm_state=VmState.ACTIVE, power_state=PowerState.RUNNING, flavor=TINY, host=host.name, launched_at=5
    )
    known = RememberServer(attempt=1, spec=spec(), proof=b"p", version=7, number=3, state=state)
    server.run(server.tell(known))
    assert sent(found(server, vm_of(server, host.uuid)), InstanceReport)[0].version == 8
    assert (server.row.phase, server.row.number, server.row.proof) == (Phase.GRANTED, 3, b"p")
    validate(tree)


def test_forgotten_build_of_which_nothing_is_there_is_refused_so_that_another_leaf_takes_it(tree: Tree) -> None:
    server = Server(tree)
    server.run(server.tell(RememberServer(attempt=2, spec=spec(), proof=b"", version=0, number=1)))
    assert [refused.attempt for refused in sent(found(server, None), Refused)] == [2]
    assert server.row.phase is Phase.GONE


def test_server_whose_vm_is_nowhere_is_told_to_be_gone(tree: Tree) -> None:
    server = put_back(tree)
    server.run(server.tell(memory_of(server)))
    assert sent(found(server, None), InstanceReport)[0].state.vm_state is VmState.DELETED


def test_discard_of_what_is_not_known_looks_at_the_hosts_and_leaves_no_row(tree: Tree) -> None:
    server = Server(tree)
    assert [job.kind for job in server.tell(Discard(attempt=1)).do] == ["build.discard"]
    assert tree.instance("leaf", server.id) is None


def test_owner_that_inquires_is_told_all_and_another_one_nothing(tree: Tree) -> None:
    server = running(tree)
    (held,) = [record.body for record in server.tell(InquireServer()).send]
    assert (held.attempt, held.granted, held.state) == (1, True, server.row.state)
    (nothing,) = [record.body for record in Server(tree).tell(InquireServer()).send]
    assert nothing.attempt == 0


def test_attempt_that_the_backup_does_not_know_yet_is_taken_from_the_owner(tree: Tree) -> None:
    server = put_back(tree)
    server.run(server.tell(memory_of(server, attempt=3, proof=b"p")))
    report = sent(found(server, vm_of(server, tree.rows("leaf", HostRow)[0].uuid)), InstanceReport)[0]
    assert (report.attempt, server.row.attempt, server.row.proof) == (3, 3, b"p")


def looked(tree: Tree, *seen: SeenServer) -> Decision:
    """The whole pool has been looked at."""
    [pool] = tree.rows("leaf", PoolRow)
    said = Watched(pool=pool.name, token="t", began=tree.clock(), whole=True, quiet=False, servers=seen)
    end = JobEnded(job=bytes(16), kind="pool.watch", lane=f"watch {pool.name}", result=pack(said))
    return tree.decide("leaf", tree.record("leaf", "leaf", end))


def test_leaf_that_was_put_back_says_no_only_when_its_hosts_have_been_looked_at(tree: Tree) -> None:
    shown_own_word(tree)
    forgotten, unknown = Server(tree), Server(tree)
    seen = SeenServer(server=forgotten.id, power_state=PowerState.RUNNING, host="", attempt=3)
    assert forgotten.tell(InquireServer()).send == (), "its owners have not told it everything yet"
    looked(tree, seen)
    assert forgotten.tell(InquireServer()).send == ()
    forgotten.tell(Agreed())
    assert forgotten.tell(InquireServer()).send == (), "the look was before they had"
    looked(tree, seen)
    assert sent(forgotten.tell(InquireServer()), RecallServer) == [RecallServer(attempt=3, on_host=True)]
    assert sent(unknown.tell(InquireServer()), HeldServer) == [HeldServer()]


def test_doubted_servers_are_asked_for_at_every_tick(tree: Tree) -> None:
    server = put_back(tree)
    with tree.stores["leaf"].inner.unit() as unit:
        asked = tree["leaf"].role._tick(unit, tree.clock())  # type: ignore[attr-defined]
    assert [record.server for record in asked.send if isinstance(record.body, RecallServer)] == [server.id]
    assert isinstance(tree.row("leaf", InstanceRow, server.id), InstanceRow)
