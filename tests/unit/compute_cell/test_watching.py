"""What happens on hosts without being asked for, and what the leaf and its owner make of it."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from cells.messages import DeleteServer, EvacuateServer, LiveMigrateServer
from cells.model import PowerState
from cells.names import SECOND
from cells.rows import StoryRow
from compute_cell import hosts, watching
from compute_cell.answers import Here
from compute_cell.rows import HostRow, HostState, InstanceRow, Move, PoolRow
from compute_cell.tasks import SeenServer, Watched
from compute_cell.watching import Watch
from tests.support.embedded import Tree, make_tree
from xenapi_host.light_images import give_images
from xenapi_host.session import in_process
from xenapi_host.simulator.light import LightPool
from xenapi_host.simulator.mishaps import crash_guest, kill_host, return_host
from xenapi_host.simulator.worlds import HostShape

Make = Callable[..., Tree]


@pytest.fixture
def make() -> Iterator[Make]:
    trees = []

    def make(*, shared: bool = False, **settings: object) -> Tree:
        shape = HostShape(cpu_objects=False, sr_type="nfs" if shared else "ext")
        compute = {"watch_every": 2.0, **settings}
        trees.append(make_tree({"east": (), "leaf": ("east",)}, host=shape, compute=compute))
        return trees[-1]

    yield make
    for tree in trees:
        tree.close()


def built(tree: Tree) -> bytes:
    server = tree.build("east")
    tree.run(20)
    assert tree.server("east", server).status == "ACTIVE"
    return server


def held(tree: Tree, server: bytes) -> InstanceRow:
    found = tree.instance("leaf", server)
    assert found is not None
    return found


def host_of(tree: Tree, server: bytes) -> HostRow:
    found = tree.row("leaf", HostRow, held(tree, server).host)
    assert found is not None
    return found


def by_hand(tree: Tree, method: str, *more: object) -> None:
    """What an administrator does to the only server's VM, beside us."""
    session = tree.pools["leaf"].login()
    ref = session.call("VM.get_by_uuid", tree.vms("leaf")[0]["uuid"])
    session.call(method, ref, *more)
    session.close()


def fall(tree: Tree, host: HostRow) -> None:
    """The host stops answering, and is confirmed dead."""
    engine = tree.pools["leaf"].engine
    kill_host(engine, engine.call("host.get_by_uuid", [tree.pools["leaf"].login().ref, host.uuid]))
    tree.run(40)
    down = tree.row("leaf", HostRow, host.uuid)
    assert down is not None and down.state is HostState.DOWN
    with tree.stores["leaf"].unit() as unit:
        unit.save(replace(down, state=HostState.DEAD))


def claims_add_up(tree: Tree) -> None:
    servers = tree.rows("leaf", InstanceRow)
    for host in tree.rows("leaf", HostRow):
        taken = sum(row.state.flavor.ram_mib for row in servers if row.host == host.uuid)
        assert host.ram_mib - host.free_ram_mib == taken, host.name


def not_the_master(tree: Tree) -> bytes:
    """A server on the host that is not the pool's master, which can die."""
    master = tree.objects("leaf", "host")[0]["uuid"]
    for _ in range(2):
        server = built(tree)
        if held(tree, server).host != master:
            return server
    raise AssertionError("both servers are on the master")


def test_a_server_that_halts_by_itself_is_shown_as_shut_off_and_one_started_by_hand_as_active(make: Make) -> None:
    tree = make()
    server = built(tree)
    by_hand(tree, "VM.hard_shutdown")
    tree.run(10)
    assert tree.server("east", server).status == "SHUTOFF"
    by_hand(tree, "VM.start", False, False)
    tree.run(10)
    assert tree.server("east", server).status == "ACTIVE"
    assert [line.text for line in tree.rows("leaf", StoryRow) if line.event == "seen"] == ["is halted", "is running"]


def test_a_vanished_vm_makes_its_server_an_error_with_the_reason(make: Make) -> None:
    tree = make()
    server = built(tree)
    by_hand(tree, "VM.hard_shutdown")
    by_hand(tree, "VM.destroy")
    tree.run(10)
    row = tree.server("east", server)
    assert row.status == "ERROR"
    assert row.state is not None and row.state.fault is not None
    assert "somebody else has removed it" in row.state.fault.message


def test_nothing_is_reported_while_nothing_happens(make: Make) -> None:
    tree = make()
    server = built(tree)
    before = held(tree, server).version
    tree.run(30)
    assert held(tree, server).version == before


def test_claims_follow_a_server_that_somebody_else_has_moved(make: Make) -> None:
    tree = make(shared=True)
    server = built(tree)
    other = next(host for host in tree.rows("leaf", HostRow) if host.uuid != held(tree, server).host)
    session = tree.pools["leaf"].login()
    by_hand(tree, "VM.pool_migrate", session.call("host.get_by_uuid", other.uuid), {})
    session.close()
    tree.run(10)
    assert held(tree, server).host == other.uuid
    assert tree.server("east", server).state.host == other.name  # type: ignore[union-attr]
    claims_add_up(tree)


def test_a_vm_of_others_takes_room_from_its_host_while_it_runs(make: Make) -> None:
    tree = make()
    server = built(tree)
    by_hand(tree, "VM.hard_shutdown")
    tree.run(10)
    before = host_of(tree, server)
    session = tree.pools["leaf"].login()
    ours = session.call("VM.get_by_uuid", tree.vms("leaf")[0]["uuid"])
    copy = session.call("VM.clone", ours, "a copy of the administrator's")
    session.call("VM.start_on", copy, session.call("host.get_by_uuid", before.uuid), False, False)
    tree.run(10)
    with_it = host_of(tree, server)
    assert with_it.foreign_mib >= 512
    assert before.free_ram_mib - with_it.free_ram_mib == with_it.foreign_mib == before.ram_mib - with_it.ram_mib
    session.call("VM.hard_shutdown", copy)
    session.close()
    tree.run(10)
    assert host_of(tree, server) == before
    claims_add_up(tree)


def test_a_silent_host_is_down_in_the_story_and_its_servers_are_left_alone(make: Make) -> None:
    tree = make(shared=True, when_host_dies="evacuate")
    server = not_the_master(tree)
    host = host_of(tree, server)
    engine = tree.pools["leaf"].engine
    kill_host(engine, engine.call("host.get_by_uuid", [tree.pools["leaf"].login().ref, host.uuid]))
    tree.run(60)
    assert host_of(tree, server).state is HostState.DOWN
    assert held(tree, server).host == host.uuid
    assert ("host down", host.name) in [(line.event, line.text) for line in tree.rows("leaf", StoryRow)]


def test_servers_of_a_dead_host_are_brought_up_elsewhere_where_storage_is_shared(make: Make) -> None:
    tree = make(shared=True, when_host_dies="evacuate")
    server = not_the_master(tree)
    dead = host_of(tree, server)
    fall(tree, dead)
    tree.run(20)
    assert tree.server("east", server).status == "ACTIVE"
    assert host_of(tree, server).uuid != dead.uuid
    assert sorted(vm["power_state"] for vm in tree.vms("leaf")) == ["Running"] * len(tree.vms("leaf"))
    claims_add_up(tree)


def test_servers_of_a_dead_host_with_its_own_disks_are_errors_until_it_returns(make: Make) -> None:
    tree = make(when_host_dies="evacuate")
    server = not_the_master(tree)
    dead = host_of(tree, server)
    fall(tree, dead)
    tree.run(20)
    row = tree.server("east", server)
    assert row.status == "ERROR"
    assert row.state is not None and row.state.fault is not None and "so are its disks" in row.state.fault.message
    engine = tree.pools["leaf"].engine
    return_host(engine, engine.call("host.get_by_uuid", [tree.pools["leaf"].login().ref, dead.uuid]))
    with tree.stores["leaf"].unit() as unit:
        unit.save(replace(host_of(tree, server), state=HostState.ENABLED))
    tree.run(40)
    assert tree.server("east", server).status == "SHUTOFF"


def test_an_administrator_evacuates_where_the_policy_is_to_ask(make: Make) -> None:
    tree = make(shared=True, when_host_dies="ask")
    server = not_the_master(tree)
    tree.ask("east", server, EvacuateServer())
    tree.run(10)
    assert "is not confirmed dead" in (held(tree, server).failed or (0, ""))[1]
    fall(tree, host_of(tree, server))
    tree.run(10)
    assert tree.server("east", server).status == "ERROR"
    tree.ask("east", server, EvacuateServer())
    tree.run(20)
    assert tree.server("east", server).status == "ACTIVE"
    claims_add_up(tree)


def test_a_host_that_answers_its_pool_is_not_evacuated_though_it_was_called_dead(make: Make) -> None:
    tree = make(shared=True, when_host_dies="evacuate")
    server = not_the_master(tree)
    host = host_of(tree, server)
    with tree.stores["leaf"].unit() as unit:
        unit.save(replace(host, state=HostState.DEAD))
    tree.run(20)
    row = tree.server("east", server)
    assert row.status == "ERROR"
    assert row.state is not None and row.state.fault is not None and "still answers" in row.state.fault.message
    assert host_of(tree, server).uuid == host.uuid


def test_a_guest_that_crashes_is_seen(make: Make) -> None:
    tree = make()
    server = built(tree)
    engine = tree.pools["leaf"].engine
    ref = engine.call("VM.get_by_uuid", [tree.pools["leaf"].login().ref, tree.vms("leaf")[0]["uuid"]])
    crash_guest(engine, ref)
    tree.run(10)
    assert tree.server("east", server).status == "SHUTOFF"


def with_two_pools(tree: Tree) -> HostRow:
    """Give the leaf another pool; one of its hosts."""
    second = LightPool(hosts=2, shape=HostShape(cpu_objects=False), name="second", seed=99)
    give_images(second)
    clock = tree.clock
    tree.faces["second"] = lambda: in_process(second.login(), clock=lambda: clock() / SECOND, sleep=lambda _: None)
    tree.pools["second"] = second
    with tree.stores["leaf"].unit() as unit:
        unit.save(PoolRow(name="second", url="light:second", user="root", secret=b""))
    tree.run(40)
    return next(host for host in tree.rows("leaf", HostRow) if host.pool == "second")


def test_a_server_moves_live_into_another_pool_of_its_leaf_and_is_watched_and_deleted_there(make: Make) -> None:
    tree = make()
    server = built(tree)
    to = with_two_pools(tree)
    tree.ask("east", server, LiveMigrateServer(host=to.name))
    tree.run(20)
    assert (tree.vms("leaf"), len(tree.vms("second"))) == ([], 1)
    row = held(tree, server)
    assert (row.host, row.pool, row.moving) == (to.uuid, "second", None)
    assert tree.server("east", server).status == "ACTIVE"
    claims_add_up(tree)
    ref = tree.pools["second"].login().call("VM.get_by_uuid", tree.vms("second")[0]["uuid"])
    tree.pools["second"].login().call("VM.hard_shutdown", ref)
    tree.run(10)
    assert tree.server("east", server).status == "SHUTOFF"
    tree.ask("east", server, DeleteServer(build_deadline=0))
    tree.run(20)
    assert tree.vms("second") == []
    claims_add_up(tree)


def test_a_move_whose_outcome_is_unknown_keeps_both_claims_until_the_server_is_seen(make: Make) -> None:
    tree = make(watch_every=0.0)
    server = built(tree)
    to = with_two_pools(tree)
    row = held(tree, server)
    room = row.state.flavor
    with tree.stores["leaf"].unit() as unit:
        unit.save(replace(row, moving=Move(host=to.uuid, pool="second", name=to.name, room=room)))
        unit.save(hosts.take(to, None, room).host)
    said = Watched(
        pool="second",
        token="",
        began=tree.clock() + 1,
        whole=False,
        quiet=False,
        servers=(SeenServer(server=server, power_state=PowerState.RUNNING, host=to.uuid),),
    )
    with tree.stores["leaf"].unit() as unit:
        here = Here(name="leaf", new_id=tree.house.new_id)
        decision = watching.settle(here, unit, Watch(), said, tree.clock(), whole=False)
        unit.save(*decision.save)
    assert (held(tree, server).host, held(tree, server).pool) == (to.uuid, "second")
    claims_add_up(tree)
