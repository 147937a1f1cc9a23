"""What a cell cannot use is parked with its reason and does no harm: not to the cell, not to what came with it."""

from collections.abc import Iterator
from dataclasses import MISSING, fields, replace
from enum import Enum
from typing import Any, get_origin, get_type_hints

import msgspec
import pytest

from cells import callers, codec, intake
from cells.codec import pack_bundle, pack_record
from cells.decision import Remove
from cells.identity import Identity
from cells.messages import (
    REGISTRY,
    BuildServer,
    Compare,
    DeleteServer,
    Direction,
    Grant,
    HelloUp,
    StopServer,
    Tick,
)
from cells.model import BuildSpec, Flavor, ImageRef
from cells.names import NEVER, SECOND
from cells.record import MAX_BUNDLE, Hop, Record
from cells.rows import EdgeRow, OutboxRow, ParkedRow
from compute_cell.rows import InstanceRow
from tests.support.embedded import IMAGE, TINY, Tree, make_tree
from tests.support.invariants import validate_quiet


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = make_tree({"east": (), "west": (), "leaf": ("east", "west")})
    yield tree
    tree.close()


def send(tree: Tree, sender: str, to: str, *records: bytes, through: str = "", user: str = "", **changed: Any) -> None:
    """Put a bundle of one packet of `sender` into a cell's inbox, as its neighbour `through` would, or itself."""
    who: Identity = tree.house.cells[sender].identity
    packet = replace(who.packet(to, 7, NEVER, records, tree.clock()), **changed)
    if through:
        packet = replace(packet, trail=(*packet.trail, Hop(cell=through, at=tree.clock())))
    tree.network.exchange(to).publish(pack_bundle([packet]), user or through or sender)
    tree.settle()


def record(tree: Tree, body: Any, *, origin: str = "east", to: str = "leaf", **more: Any) -> Record:
    return Record(id=tree.house.new_id(), body=body, origin=origin, destination=to, **more)


def parked(tree: Tree, cell: str) -> list[ParkedRow]:
    return list(tree.rows(cell, ParkedRow))


def outbox(tree: Tree, cell: str, *records: Record) -> None:
    """The cell's outbox holds these until they are acknowledged."""
    with tree.stores[cell].inner.unit() as unit:
        for each in records:
            unit.save(
                OutboxRow(
                    id=each.id,
                    shard=0,
                    destination=each.destination,
                    next_try=NEVER,
                    attempts=0,
                    deadline=NEVER,
                    data=pack_record(each),
                )
            )


def unacknowledged(tree: Tree, cell: str) -> list[bytes]:
    return [row.id for row in tree.rows(cell, OutboxRow)]


def test_garbage_is_parked_and_does_not_come_again(tree: Tree) -> None:
    exchange = tree.network.exchange("leaf")
    exchange.publish(b"\xc1 no bundle at all", "east")
    tree.settle()
    (row,) = parked(tree, "leaf")
    assert row.reason.startswith("not a bundle")
    tree.restart("leaf")
    tree.run(2)
    assert exchange.depth() == 0
    assert len(parked(tree, "leaf")) == 1


def test_oversized_bundle_is_parked_cut_to_the_limit(tree: Tree) -> None:
    tree.network.exchange("leaf").publish(b"x" * (MAX_BUNDLE + 1000), "east")
    tree.settle()
    (row,) = parked(tree, "leaf")
    assert "over the limit" in row.reason
    assert len(row.data) == MAX_BUNDLE


def test_bundle_of_another_wire_version_says_so(tree: Tree) -> None:
    tree.network.exchange("leaf").publish(msgspec.msgpack.encode((99, [])), "east")
    tree.settle()
    assert "wire version 99" in parked(tree, "leaf")[0].reason


def test_changed_record_is_parked_and_not_acknowledged(tree: Tree) -> None:
    """Or a relay could end a true record's journey with a forged copy of it."""
    build = record(tree, BuildServer(attempt=1, spec=spec()), server=tree.house.new_id(), number=1)
    forged = replace(build, body=BuildServer(attempt=1, spec=replace(spec(), name="forged")))
    genuine = tree["east"].identity.packet("leaf", 7, NEVER, (pack_record(build),), tree.clock())
    outbox(tree, "east", build)
    bundle = pack_bundle([replace(genuine, records=(pack_record(forged),))])
    tree.network.exchange("leaf").publish(bundle, "east")
    tree.run(1)
    (row,) = parked(tree, "leaf")
    assert "not signed by it" in row.reason
    assert row.id != build.id
    assert tree.row("east", OutboxRow, build.id) is not None
    tree.network.exchange("leaf").publish(pack_bundle([genuine]), "east")
    tree.run(1)
    assert tree.row("east", OutboxRow, build.id) is None
    assert tree.row("leaf", InstanceRow, build.server).spec.name == "vm"


def test_packet_under_another_cells_certificate_is_parked(tree: Tree) -> None:
    build = record(tree, BuildServer(attempt=1, spec=spec()), server=tree.house.new_id())
    send(tree, "west", "leaf", pack_record(build), certificate=tree["east"].identity.certificate)
    assert "comes with the certificate of" in parked(tree, "leaf")[0].reason
    assert tree.row("leaf", InstanceRow, build.server) is None


def test_packet_brought_by_another_user_than_its_neighbours_is_parked_and_not_acknowledged(tree: Tree) -> None:
    """The broker has checked the user; the trail is only what somebody wrote."""
    build = record(tree, BuildServer(attempt=1, spec=spec()), server=tree.house.new_id(), number=1)
    outbox(tree, "east", build)
    for user in ("west", "nobody"):
        send(tree, "east", "leaf", pack_record(build), user=user)
    assert {row.neighbour for row in parked(tree, "leaf")} == {"west", "nobody"}
    assert all("who is not this neighbour of ours" in row.reason for row in parked(tree, "leaf"))
    assert tree.row("leaf", InstanceRow, build.server) is None
    assert unacknowledged(tree, "east") == [build.id]


def test_packet_for_another_cell_brought_by_a_stranger_goes_no_further(tree: Tree) -> None:
    build = record(tree, BuildServer(attempt=1, spec=spec()), origin="east", to="west", server=tree.house.new_id())
    packet = tree["east"].identity.packet("west", 7, NEVER, (pack_record(build),), tree.clock())
    tree.network.exchange("leaf").publish(pack_bundle([packet]), "nobody")
    tree.settle()
    assert len(parked(tree, "leaf")) == 1
    assert parked(tree, "west") == []


def test_edge_saved_since_the_last_tick_is_known_when_something_comes_over_it(tree: Tree) -> None:
    with tree.stores["leaf"].inner.unit() as unit:
        edge = next(row for row in unit.all(EdgeRow) if row.neighbour == "west")
        unit.save(Remove(row=EdgeRow, key=("west",)))
    tree.run(2)
    tree.clock.advance(callers.GRACE / SECOND + 1)
    tree["leaf"].node.step()
    stop = record(tree, StopServer(), origin="west", server=tree.house.new_id())
    send(tree, "west", "leaf", pack_record(stop))
    assert len(parked(tree, "leaf")) == 1
    with tree.stores["leaf"].inner.unit() as unit:
        unit.save(edge)
    tree.clock.advance(1)
    send(tree, "west", "leaf", pack_record(stop))
    assert len(parked(tree, "leaf")) == 1


def test_who_sends_nothing_sound_does_not_fill_the_database(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "ROOM", 3)
    for _ in range(5):
        send(tree, "west", "leaf", b"nothing sound")
    assert len(parked(tree, "leaf")) == 3
    assert tree["leaf"].node.counts["refused"] == 5
    tree.clock.advance(intake.ROOM_TIME / SECOND + 1)
    send(tree, "west", "leaf", b"nothing sound")
    assert len(parked(tree, "leaf")) == 4


def test_record_in_anothers_name_is_parked(tree: Tree) -> None:
    build = record(tree, BuildServer(attempt=1, spec=spec()), origin="east", server=tree.house.new_id())
    send(tree, "west", "leaf", pack_record(build))
    assert "it is not" in parked(tree, "leaf")[0].reason
    assert tree.row("leaf", InstanceRow, build.server) is None


@pytest.mark.parametrize(
    ("sender", "to", "body", "reason"),
    [
        ("leaf", "east", Grant(attempt=1), "may not send server.grant"),
        ("leaf", "east", DeleteServer(build_deadline=0), "may not send server.delete"),
        ("east", "leaf", HelloUp(records=()), ""),
        ("east", "west", StopServer(), "no use for server.stop"),
    ],
)
def test_record_in_the_wrong_direction_is_parked_and_acknowledged(
    tree: Tree, sender: str, to: str, body: Any, reason: str
) -> None:
    wrong = record(tree, body, origin=sender, to=to, server=tree.house.new_id())
    outbox(tree, sender, wrong)
    send(tree, sender, to, pack_record(wrong), through="leaf" if (sender, to) == ("east", "west") else "")
    tree.run(1)
    rows = parked(tree, to)
    if not reason:
        assert not rows
        return
    assert [row.id for row in rows] == [wrong.id]
    assert reason in rows[0].reason
    if to == "east":  # two API cells have no way to each other
        assert unacknowledged(tree, sender) == []


def test_unknown_kind_is_parked_under_its_name_and_not_acknowledged(tree: Tree) -> None:
    known = record(tree, StopServer(), server=tree.house.new_id(), number=3)
    outbox(tree, "east", known)
    outside = list(msgspec.msgpack.decode(pack_record(known)))
    outside[1] = "server.future"
    send(tree, "east", "leaf", msgspec.msgpack.encode(tuple(outside)))
    tree.run(1)
    (row,) = parked(tree, "leaf")
    assert (row.kind, row.id, row.server) == ("server.future", known.id, known.server)
    assert "unknown record kind" in row.reason
    assert unacknowledged(tree, "east") == [known.id]


def test_local_kind_from_outside_is_parked(tree: Tree) -> None:
    send(tree, "east", "leaf", pack_record(record(tree, Tick())))
    assert "may not send local.tick" in parked(tree, "leaf")[0].reason


class Touchy:
    """A role with a fault in it: it fails for one server."""

    def __init__(self, role: Any, server: bytes) -> None:
        self._role = role
        self._server = server

    def __getattr__(self, name: str) -> Any:
        return getattr(self._role, name)

    def decide(self, view: Any, received: Any, now: int) -> Any:
        if received.record.server == self._server:
            raise ZeroDivisionError
        return self._role.decide(view, received, now)


def test_poison_is_parked_alone_and_its_batch_goes_through(tree: Tree) -> None:
    builds = [record(tree, BuildServer(attempt=1, spec=spec()), server=tree.house.new_id(), number=1) for _ in range(5)]
    tree["leaf"].node.deciding.role = Touchy(tree["leaf"].role, builds[2].server)
    outbox(tree, "east", *builds)
    send(tree, "east", "leaf", *(pack_record(build) for build in builds))
    tree.run(1)
    assert [row.id for row in parked(tree, "leaf")] == [builds[2].id]
    assert "see the log of leaf" in parked(tree, "leaf")[0].reason
    there = [tree.row("leaf", InstanceRow, build.server) is not None for build in builds]
    assert there == [True, True, False, True, True]
    assert unacknowledged(tree, "east") == []


def test_parked_record_can_be_played_again(tree: Tree) -> None:
    build = record(tree, BuildServer(attempt=1, spec=spec()), server=tree.house.new_id(), number=1)
    role = tree["leaf"].role
    tree["leaf"].node.deciding.role = Touchy(role, build.server)
    send(tree, "east", "leaf", pack_record(build))
    (row,) = parked(tree, "leaf")
    tree["leaf"].node.deciding.role = role
    send(tree, "east", "leaf", row.data)
    assert tree.row("leaf", InstanceRow, build.server) is not None


def test_compare_of_a_stranger_tells_nothing_of_others_servers(tree: Tree) -> None:
    server = tree.build("east", "vm")
    tree.run(3)
    before = tree.row("leaf", InstanceRow, server)
    send(tree, "west", "leaf", pack_record(record(tree, Compare(bucket=0, servers=()), origin="west")))
    tree.run(1)
    assert tree.row("leaf", InstanceRow, server) == before
    assert tree.find_server("west", server) is None
    validate_quiet(tree)


COMMANDS = [kind for kind in REGISTRY.values() if kind.direction is Direction.DOWN and kind.of_server]


def example(shape: Any) -> Any:
    """A value of a record's body, or of one of its fields."""
    known = {int: 1, str: "x", bytes: b"x", bool: True, Flavor: TINY, ImageRef: IMAGE, dict: {"x": "y"}}
    origin = get_origin(shape) or shape
    if origin in known:
        return known[origin]
    if isinstance(shape, type) and issubclass(shape, Enum):
        return next(iter(shape))
    hints = get_type_hints(shape)
    return shape(**{each.name: example(hints[each.name]) for each in fields(shape) if each.default is MISSING})


def test_api_cell_has_no_say_over_anothers_server(tree: Tree) -> None:
    server = tree.build("east", "vm")
    tree.run(5)
    before = tree.row("leaf", InstanceRow, server)
    assert before is not None
    assert before.owner == "east"
    for number, kind in enumerate(COMMANDS, 9):
        deadline = tree.clock() + 60 * SECOND
        wish = record(tree, example(kind.body), origin="west", server=server, number=number, deadline=deadline)
        send(tree, "west", "leaf", pack_record(wish))
        assert tree.row("leaf", InstanceRow, server) == before, kind.name
    tree.run(3)
    assert tree.row("leaf", InstanceRow, server) == before
    assert len(tree.vms("leaf")) == 1
    assert tree.find_server("west", server) is None
    validate_quiet(tree)


def spec() -> BuildSpec:
    return BuildSpec(name="vm", project="demo", user="demo", flavor=TINY, image=IMAGE)


def test_peek_never_raises() -> None:
    for data in (b"", b"\xc1", b"\x90", codec.pack((1, 2, 3)), codec.pack((b"x",) * 10)):
        assert codec.peek(data).id == b""
