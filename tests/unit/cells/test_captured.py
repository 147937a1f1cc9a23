"""Packets that somebody has kept, bent or sent elsewhere, genuine signatures and all: each has no second effect, is
refused or parked with its reason, or is told to its origin."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cells.codec import pack_bundle, pack_record
from cells.messages import (
    BuildServer,
    DeleteServer,
    HelloUp,
    RebootServer,
    SignedCellRecord,
    StartServer,
    StopServer,
)
from cells.model import BuildSpec, CellRecord, FreeShape, Generation, HostClass
from cells.names import NEVER, SECOND
from cells.record import Hop, Packet, Record
from cells.rows import InboxRow, ParkedRow
from compute_cell.rows import InstanceRow
from tests.support.embedded import IMAGE, TINY, Tree, make_tree
from tests.support.invariants import validate_quiet

HOUR = 3600


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = make_tree({"east": (), "dfw": ("east",), "leaf": ("dfw",), "sibling": ("dfw",)})
    yield tree
    tree.close()


def a_packet(tree: Tree, origin: str, to: str, *records: Record, **changed: Any) -> Packet:
    """As it left its origin."""
    data = tuple(pack_record(record) for record in records)
    return replace(tree.house.cells[origin].identity.packet(to, 7, NEVER, data, tree.clock()), **changed)


def deliver(tree: Tree, packet: Packet, at: str, neighbour: str) -> None:
    """Into a cell's inbox, by its neighbour's broker user."""
    trail = (
        packet.trail if packet.trail[-1].cell == neighbour else (*packet.trail, Hop(cell=neighbour, at=tree.clock()))
    )
    tree.network.exchange(at).publish(pack_bundle([replace(packet, trail=trail)]), neighbour)
    tree.run(3)


def a_server(tree: Tree) -> tuple[bytes, InstanceRow]:
    server = tree.build("east", "vm")
    tree.run(10)
    (leaf,) = [leaf for leaf in ("leaf", "sibling") if tree.instance(leaf, server) is not None]
    row = tree.instance(leaf, server)
    assert row is not None and leaf == tree.server("east", server).leaf
    return server, row


def later(tree: Tree, hours: float) -> None:
    """The time passes, and what is due then is done."""
    tree.clock.advance(hours * HOUR)
    tree.run(10)


@pytest.mark.parametrize("hours", [0, 1.5, 26.5])
@pytest.mark.parametrize("ends", [False, True], ids=["lasts", "has a deadline"])
@pytest.mark.parametrize("command", [RebootServer(hard=True), StopServer()], ids=["reboot", "stop"])
def test_a_command_that_was_kept_has_no_second_effect(tree: Tree, command: Any, ends: bool, hours: float) -> None:
    """However late: while it is remembered by its mark, and when the mark is gone by its deadline or its number."""
    server, row = a_server(tree)
    leaf = tree.server("east", server).leaf
    deadline = tree.clock() + 60 * SECOND if ends else NEVER
    kept = tree.record("east", leaf, command, server, number=row.number + 1, deadline=deadline)
    packet = a_packet(tree, "east", leaf, kept)
    (first,) = tree.vms(leaf)
    deliver(tree, packet, leaf, "dfw")
    (second,) = tree.vms(leaf)
    assert (second["power_state"], second["domid"]) != (first["power_state"], first["domid"]), "it has had its effect"
    if isinstance(command, StopServer):
        start = tree.record("east", leaf, StartServer(), server, number=row.number + 2, deadline=NEVER)
        deliver(tree, a_packet(tree, "east", leaf, start), leaf, "dfw")
    later(tree, hours)
    assert (tree.row(leaf, InboxRow, kept.id) is None) == (hours > 26 or (ends and hours > 1))
    (before,) = tree.vms(leaf)
    assert before["power_state"] == "Running"
    for _ in range(2):
        deliver(tree, packet, leaf, "dfw")
    (after,) = tree.vms(leaf)
    assert (after["power_state"], after["domid"]) == (before["power_state"], before["domid"])


def test_a_build_that_was_kept_makes_no_server_after_that_was_deleted_and_forgotten(tree: Tree) -> None:
    server, row = a_server(tree)
    leaf = tree.server("east", server).leaf
    spec = BuildSpec(name="vm", project="demo", user="demo", flavor=TINY, image=IMAGE)
    build = BuildServer(attempt=1, spec=spec)
    kept = tree.record("east", leaf, build, server, number=row.number, deadline=tree.clock() + 60 * SECOND)
    packet = a_packet(tree, "east", leaf, kept)
    tree.ask("east", server, DeleteServer(build_deadline=tree.server("east", server).deadline))
    tree.run(20)
    assert tree.vms(leaf) == []
    for hours in (0, 2, 26):
        later(tree, hours)
        deliver(tree, packet, leaf, "dfw")
        tree.run(10)
        assert tree.vms(leaf) == []
    assert tree.instance(leaf, server) is None, "by then it is forgotten"
    validate_quiet(tree)


@pytest.mark.parametrize(
    ("bent", "why"),
    [
        pytest.param({"hops_left": 0}, "hop limit reached", id="no hops left"),
        pytest.param({"hops_left": -5}, "hop limit reached", id="fewer than none"),
        pytest.param({"trail": ("leaf",)}, "no way known", id="it was there already"),
        pytest.param({"trail": ("dfw", "leaf") * 5000}, "no way known", id="round and round"),
    ],
)
def test_a_packet_without_an_end_goes_no_further_and_its_origin_is_told(
    tree: Tree, bent: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    server, row = a_server(tree)
    leaf = tree.server("east", server).leaf
    stop = tree.record("east", leaf, StopServer(), server, number=row.number + 1, deadline=NEVER)
    packet = a_packet(tree, "east", leaf, stop)
    if "trail" in bent:
        cells = tuple(name.replace("leaf", leaf) for name in bent["trail"])
        bent = {"trail": (*(Hop(cell=cell, at=tree.clock()) for cell in cells), *packet.trail)}
    dropped = tree["dfw"].node._pump.counts["dropped"]
    caplog.set_level("INFO", logger="celltree")
    deliver(tree, replace(packet, **bent), "dfw", "east")
    assert tree["dfw"].node._pump.counts["dropped"] == dropped + 1
    assert why in caplog.text
    assert tree.vms(leaf)[0]["power_state"] == "Running"
    assert tree.network.exchange("dfw").depth() == 0


def test_a_leafs_command_to_its_sibling_is_parked_there(tree: Tree) -> None:
    """It has the way, by the relay above both, and no right."""
    server, row = a_server(tree)
    leaf = tree.server("east", server).leaf
    sibling = "sibling" if leaf == "leaf" else "leaf"
    for command in (StopServer(), RebootServer(hard=True), DeleteServer(build_deadline=0)):
        record = tree.record(sibling, leaf, command, server, number=row.number + 1, deadline=NEVER)
        deliver(tree, a_packet(tree, sibling, leaf, record), "dfw", sibling)
        assert f"{sibling} (compute) may not send {record.kind.name}" in tree.rows(leaf, ParkedRow)[-1].reason
    assert len(tree.rows(leaf, ParkedRow)) == 3
    assert tree.rows("dfw", ParkedRow) == ()
    after = tree.instance(leaf, server)
    assert after is not None and after.number == row.number
    assert tree.vms(leaf)[0]["power_state"] == "Running"


def claiming(tree: Tree, **claims: Any) -> SignedCellRecord:
    """What `leaf` says of itself in its next record, but for these."""
    held = tree["dfw"].role.neighbourhood.roster["leaf"].record  # type: ignore[attr-defined]
    generation = Generation(epoch=held.generation.epoch, sequence=held.generation.sequence + 1000)
    record: CellRecord = replace(held, generation=generation, at=tree.clock(), **claims)
    return tree["leaf"].identity.cell_record(record)


def a_shape(number: int, hosts: int = 1) -> HostClass:
    return HostClass(shapes=(FreeShape(ram_mib=number, vcpus=number, disk_gib=number, hosts=hosts),))


@pytest.mark.parametrize(
    "claim",
    [
        {"hosts": 10**9},
        {"classes": (a_shape(4096, hosts=10**9),)},
        {"classes": (a_shape(2**62),)},
        {"classes": (a_shape(2**63),)},
        {"classes": (a_shape(2**64 - 1, hosts=2**64 - 1),)},
        {"classes": (a_shape(4096, hosts=2**19),) * 3},
        {"total_ram_mib": 2**63},
        {"weight_offset": float("inf")},
        {"weight_offset": float("nan")},
    ],
    ids=[
        "hosts",
        "hosts of a size",
        "size",
        "size over 63 bits",
        "size over 64 bits",
        "hosts in all",
        "memory",
        "inf",
        "nan",
    ],
)
def test_a_record_that_claims_what_no_cell_has_is_refused_and_builds_go_on(
    tree: Tree, claim: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    held = tree["dfw"].role.neighbourhood.roster["leaf"].record  # type: ignore[attr-defined]
    assert held.capacity is not None
    fields = claim if "weight_offset" in claim else {"capacity": replace(held.capacity, **claim)}
    hello = Record(
        id=tree.house.new_id(), body=HelloUp(records=(claiming(tree, **fields),)), origin="leaf", destination="dfw"
    )
    caplog.set_level("INFO", logger="celltree")
    tree.network.exchange("dfw").publish(pack_bundle([a_packet(tree, "leaf", "dfw", hello)]), "leaf")
    tree.settle()
    assert "claims more than any cell has" in caplog.text
    assert tree["dfw"].role.neighbourhood.roster["leaf"].record == held  # type: ignore[attr-defined]
    tree.run(2)
    server, _ = a_server(tree)
    assert tree.server("east", server).status == "ACTIVE"
