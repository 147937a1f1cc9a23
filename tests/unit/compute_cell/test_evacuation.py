"""Servers of dead hosts, by the policy of the cell or of their pool: moved with their disks, made anew, or left."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cells.errors import BadInput, Temporary
from cells.messages import DeleteServer, EvacuateServer
from cells.rows import StoryRow
from compute_cell import inventory
from compute_cell.evacuation import Lost, Policies, Policy, policies
from compute_cell.rows import HostRow, HostState, LostCopyRow, PoolRow
from compute_cell.tasks import MeasuredHost
from tests.support.embedded import Tree
from tests.unit.compute_cell.test_watching import (  # noqa: F401  pytest finds fixtures by import
    claims_add_up,
    held,
    host_of,
    make,
    not_the_master,
    with_two_pools,
)
from xenapi_host import tags
from xenapi_host.driver.images import PLUGIN
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.mishaps import kill_host, return_host

Make = Callable[..., Tree]


def fall(tree: Tree, host: HostRow) -> None:
    """The host stops answering, and is confirmed dead."""
    engine = tree.pools["leaf"].engine
    kill_host(engine, engine.call("host.get_by_uuid", [tree.pools["leaf"].login().ref, host.uuid]))
    tree.run(4)
    down = tree.row("leaf", HostRow, host.uuid)
    assert down is not None and down.state is HostState.DOWN
    with tree.stores["leaf"].unit() as unit:
        unit.save(replace(down, state=HostState.DEAD))


def come_back(tree: Tree, uuid: str) -> None:
    """The host answers again, and an administrator says so."""
    engine = tree.pools["leaf"].engine
    return_host(engine, engine.call("host.get_by_uuid", [tree.pools["leaf"].login().ref, uuid]))
    with tree.stores["leaf"].unit() as unit:
        host = unit.get(HostRow, uuid)
        assert host is not None
        unit.save(replace(host, state=HostState.ENABLED))
    tree.run(6)


def own(tree: Tree, **policy: str) -> None:
    """Give the leaf's pool a policy of its own."""
    with tree.stores["leaf"].unit() as unit:
        pool = unit.get(PoolRow, "leaf")
        assert pool is not None
        unit.save(replace(pool, **policy))


def names(tree: Tree) -> list[tuple[str, str]]:
    return sorted((vm["name_label"], vm["power_state"]) for vm in tree.vms("leaf"))


def test_server_whose_disks_are_lost_is_made_anew_and_its_remains_are_set_aside(make: Make) -> None:  # noqa: F811
    tree = make(measure_every=2.0, when_host_dies="evacuate", when_disks_are_lost="rebuild")
    server = not_the_master(tree)
    dead = host_of(tree, server)
    others = len(tree.vms("leaf")) - 1
    fall(tree, dead)
    tree.run(6)
    row = tree.server("east", server)
    assert row.status == "ACTIVE" and row.state is not None
    assert row.state.note == f"made anew from its image on {row.state.host}: its disks were lost with {dead.name}"
    assert host_of(tree, server).uuid != dead.uuid
    name = tags.vm_name(server)
    assert [vm for vm in names(tree) if vm[0].startswith(name)] == [(name, "Running"), (f"{name}-lost", "Halted")]
    assert len(tree.vms("leaf")) == others + 2
    claims_add_up(tree)
    told = [(line.event, line.text) for line in tree.rows("leaf", StoryRow)]
    assert ("evacuating", f"made anew from its image on {row.state.host}, from {dead.name}") in told

    come_back(tree, dead.uuid)
    assert not tree.rows("leaf", LostCopyRow)
    assert tree.server("east", server).status == "ACTIVE"
    assert [vm for vm in names(tree) if vm[0].startswith(name)] == [(name, "Running"), (f"{name}-lost", "Halted")]


def test_remains_of_a_server_are_removed_with_their_disks_after_their_time(make: Make) -> None:  # noqa: F811
    tree = make(measure_every=2.0, when_host_dies="evacuate", when_disks_are_lost="rebuild", leftovers_kept=4.0)
    server = not_the_master(tree)
    dead = host_of(tree, server)
    disks = len(tree.objects("leaf", "VDI"))
    fall(tree, dead)
    tree.run(6)
    come_back(tree, dead.uuid)
    tree.run(8)
    name = tags.vm_name(server)
    assert [vm for vm in names(tree) if vm[0].startswith(name)] == [(name, "Running")]
    held_disks = [vdi for vdi in tree.objects("leaf", "VDI") if tags.CLAIM in vdi["other_config"] and not vdi["VBDs"]]
    assert held_disks == [] and len(tree.objects("leaf", "VDI")) <= disks + 1


def test_pool_of_one_host_is_replaced_by_another_pool_and_nothing_runs_twice_when_it_returns(make: Make) -> None:  # noqa: F811
    tree = make(measure_every=2.0, when_host_dies="evacuate", when_disks_are_lost="rebuild")
    server = not_the_master(tree)
    dead = host_of(tree, server)
    with_two_pools(tree)
    silent = tree.faces["leaf"]

    def refuse() -> object:
        raise Temporary("the pool does not answer (test)")

    tree.faces["leaf"] = refuse  # type: ignore[assignment]
    _forget_session(tree)
    tree.run(40, step=2.0)
    with tree.stores["leaf"].unit() as unit:
        host = host_of(tree, server)
        assert host.state is HostState.DOWN
        unit.save(replace(host, state=HostState.DEAD))
    tree.run(12)
    assert held(tree, server).pool == "second"
    assert tree.server("east", server).status == "ACTIVE"
    tree.faces["leaf"] = silent
    _forget_session(tree)
    come_back(tree, dead.uuid)
    tree.run(40, step=2.0)
    assert not tree.rows("leaf", LostCopyRow)
    name = tags.vm_name(server)
    assert (f"{name}-lost", "Halted") in names(tree) and (name, "Running") not in names(tree)
    assert [vm["power_state"] for vm in tree.vms("second") if vm["name_label"] == name] == ["Running"]


def _forget_session(tree: Tree) -> None:
    tree.house.cells["leaf"].role.pools.close()  # type: ignore[attr-defined]


def test_no_room_elsewhere_is_the_reason_and_it_is_tried_again(make: Make) -> None:  # noqa: F811
    tree = make(measure_every=2.0, when_host_dies="evacuate", when_disks_are_lost="rebuild")
    server = not_the_master(tree)
    dead = host_of(tree, server)
    other = next(host for host in tree.rows("leaf", HostRow) if host.uuid != dead.uuid)
    with tree.stores["leaf"].unit() as unit:
        unit.save(replace(other, state=HostState.DISABLED))
    fall(tree, dead)
    tree.run(4)
    row = tree.server("east", server)
    assert row.status == "ERROR"
    assert row.state is not None and row.state.fault is not None and "1 disabled" in row.state.fault.message
    with tree.stores["leaf"].unit() as unit:
        now = unit.get(HostRow, other.uuid)
        assert now is not None
        unit.save(replace(now, state=HostState.ENABLED))
    tree.run(75, step=3.0)
    assert tree.server("east", server).status == "ACTIVE"


def test_image_that_cannot_be_fetched_leaves_nothing_and_says_why(make: Make) -> None:  # noqa: F811
    tree = make(measure_every=2.0, when_host_dies="evacuate", when_disks_are_lost="rebuild")
    server = not_the_master(tree)
    dead = host_of(tree, server)
    _refuse_images(tree)
    before = len(tree.vms("leaf"))
    fall(tree, dead)
    tree.run(6)
    row = tree.server("east", server)
    assert row.status == "ERROR"
    assert row.state is not None and row.state.fault is not None
    assert "status 401" in row.state.fault.message
    assert len(tree.vms("leaf")) == before
    claims_add_up(tree)


def _refuse_images(tree: Tree) -> None:
    """No image can be had any more, and none is cached on the other host."""

    def refuse(call: object, host: object, args: object) -> str:
        text = "Glance refused the download with status 401"
        raise Failure("XENAPI_PLUGIN_FAILURE", "download", "PermanentError", text)

    pool = tree.pools["leaf"]
    pool.twin(PLUGIN, "download", refuse)
    session = pool.login()
    for ref, vdi in session.call("VDI.get_all_records").items():
        if vdi["name_label"].startswith("celltree image") and not vdi["VBDs"]:
            session.call("VDI.set_name_label", ref, "gone")
            session.call("VDI.destroy", ref)
    session.close()


def test_administrator_evacuates_a_server_whose_disks_are_lost_and_gets_it_anew(make: Make) -> None:  # noqa: F811
    tree = make(measure_every=2.0, when_host_dies="ask")
    server = not_the_master(tree)
    dead = host_of(tree, server)
    fall(tree, dead)
    tree.run(4)
    assert tree.server("east", server).status == "ERROR"
    tree.ask("east", server, EvacuateServer())
    tree.run(6)
    assert tree.server("east", server).status == "ACTIVE"
    assert host_of(tree, server).uuid != dead.uuid
    tree.ask("east", server, DeleteServer(build_deadline=0))
    tree.run(6)
    assert tree.find_server("east", server) is None
    assert (f"{tags.vm_name(server)}-lost", "Halted") in names(tree)


def test_pool_has_a_policy_of_its_own(make: Make) -> None:  # noqa: F811
    tree = make(shared=True, measure_every=2.0, when_host_dies="ask")
    own(tree, when_host_dies="evacuate")
    server = not_the_master(tree)
    dead = host_of(tree, server)
    fall(tree, dead)
    tree.run(6)
    assert tree.server("east", server).status == "ACTIVE"
    assert host_of(tree, server).uuid != dead.uuid


def test_pools_word_goes_before_the_cells_and_unknown_words_are_refused() -> None:
    cell = policies("ask", "error")
    assert cell.of(None) == cell
    pool = PoolRow(name="p", url="https://p", user="u", secret=b"", when_host_dies="evacuate")
    assert cell.of(pool) == Policies(when_host_dies=Policy.EVACUATE, when_disks_are_lost=Lost.ERROR)
    with pytest.raises(BadInput, match="when_disks_are_lost: 'maybe' is not known; choose one of error, rebuild"):
        policies("ask", "maybe")


def test_host_that_its_pools_high_availability_has_fenced_needs_nobodys_word(make: Make) -> None:  # noqa: F811
    tree = make(shared=True, measure_every=2.0, when_host_dies="evacuate")
    server = not_the_master(tree)
    dead = host_of(tree, server)
    engine = tree.pools["leaf"].engine
    for pool in engine.db.all("pool"):
        engine.db.set(pool, "ha_enabled", True)
    kill_host(engine, engine.call("host.get_by_uuid", [tree.pools["leaf"].login().ref, dead.uuid]))
    tree.run(8)
    now = tree.row("leaf", HostRow, dead.uuid)
    assert now is not None and (now.state, now.fenced_from) == (HostState.DEAD, HostState.ENABLED)
    assert tree.server("east", server).status == "ACTIVE"
    assert host_of(tree, server).uuid != dead.uuid
    assert ("host fenced by its pool", dead.name) in [(line.event, line.text) for line in tree.rows("leaf", StoryRow)]
    return_host(engine, engine.call("host.get_by_uuid", [tree.pools["leaf"].login().ref, dead.uuid]))
    tree.run(8)
    now = tree.row("leaf", HostRow, dead.uuid)
    assert now is not None and (now.state, now.fenced_from) == (HostState.ENABLED, "")
    claims_add_up(tree)


@pytest.mark.parametrize(
    ("state", "was", "fenced", "ready", "then"),
    [
        (HostState.ENABLED, "", True, False, (HostState.DEAD, "enabled")),
        (HostState.DOWN, "", True, False, (HostState.DEAD, "enabled")),
        (HostState.DISABLED, "", True, False, (HostState.DEAD, "disabled")),
        (HostState.DEAD, "disabled", False, True, (HostState.DISABLED, "")),
        (HostState.DEAD, "enabled", False, False, (HostState.DEAD, "enabled")),
        (HostState.DEAD, "", False, True, (HostState.DEAD, "")),
        (HostState.DOWN, "", False, True, (HostState.ENABLED, "")),
        (HostState.DISABLED, "", False, False, (HostState.DISABLED, "")),
    ],
)
def test_only_what_the_pool_has_fenced_returns_by_itself(
    state: HostState, was: str, fenced: bool, ready: bool, then: tuple[HostState, str]
) -> None:
    numbers: dict[str, Any] = dict.fromkeys(("ram_mib", "physical_mib", "vcpus", "disk_gib"), 0)
    free: dict[str, Any] = dict.fromkeys(("free_ram_mib", "free_vcpus", "free_disk_gib"), 0)
    before = HostRow(uuid="h", pool="p", name="h", state=state, sr="s", network="n", fenced_from=was, **numbers, **free)
    said = MeasuredHost(
        uuid="h", name="h", ready=ready, sr="s", group="", network="n", version="", traits=(), fenced=fenced, **numbers
    )
    after = inventory.state_of(said, before)
    assert after == then
