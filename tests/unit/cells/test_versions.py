"""Cells of two versions side by side, and a relay between them that knows neither: what both understand has its effect,
what one does not is told and tried again."""

from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any, get_type_hints

import msgspec
import pytest

from cells import codec
from cells.codec import WIRE_VERSION, pack_bundle, pack_record
from cells.messages import REGISTRY, BuildServer
from cells.model import BuildSpec
from cells.names import NEVER, SECOND
from cells.record import Record
from cells.rows import OutboxRow, ParkedRow, shard_of
from compute_cell.rows import InstanceRow
from tests.support.embedded import IMAGE, TINY, Tree, make_tree

SPEC = BuildSpec(name="vm", project="p", user="u", flavor=TINY, image=IMAGE)


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = make_tree({"east": (), "dfw": ("east",), "leaf": ("dfw",)})
    yield tree
    tree.close()


def a_build(tree: Tree) -> Record:
    return Record(
        id=tree.house.new_id(),
        body=BuildServer(attempt=1, spec=SPEC),
        origin="east",
        destination="leaf",
        server=tree.house.new_id(),
        number=1,
        deadline=tree.clock() + 600 * SECOND,
    )


def as_written(record: Record) -> tuple[list[Any], dict[str, Any]]:
    """A record on the wire: its outside and its body, to be changed as another version would write them."""
    outside = list(msgspec.msgpack.decode(pack_record(record)))
    return outside, msgspec.msgpack.decode(outside[-1])


def send(tree: Tree, outside: list[Any], body: dict[str, Any]) -> bytes:
    """Signed by its origin, and given to the relay; the bytes."""
    data = msgspec.msgpack.encode((*outside[:-1], msgspec.msgpack.encode(body)))
    packet = tree["east"].identity.packet("leaf", 7, NEVER, (data,), tree.clock())
    tree.network.exchange("dfw").publish(pack_bundle([packet]), "east")
    tree.settle()
    return data


def built(tree: Tree, build: Record) -> str:
    """The name of the server that it has made at the leaf."""
    row = tree.row("leaf", InstanceRow, build.server)
    assert row is not None
    return row.spec.name


def test_a_later_version_adds_fields_and_an_earlier_one_still_understands(tree: Tree) -> None:
    build = a_build(tree)
    outside, body = as_written(build)
    body |= {"colour": "blue"}
    body["spec"] |= {"firmware": {"kind": "uefi", "secure": True}}
    body["spec"]["flavor"] |= {"gpus": 0}
    send(tree, outside, body)
    assert built(tree, build) == "vm"


def test_an_earlier_version_leaves_out_what_was_added_since_and_is_understood(tree: Tree) -> None:
    build = a_build(tree)
    outside, body = as_written(build)
    send(tree, outside, _needed(BuildServer, body))
    assert built(tree, build) == "vm"


def _needed(shape: type, written: dict[str, Any]) -> dict[str, Any]:
    """Only the fields that never had a default, all the way down."""
    hints = get_type_hints(shape)
    kept = {}
    for field in fields(shape):
        if field.default is MISSING and field.default_factory is MISSING:
            value = written[field.name]
            kept[field.name] = _needed(hints[field.name], value) if is_dataclass(hints[field.name]) else value
    return kept


@pytest.mark.parametrize(("place", "value"), [(1, "server.teleport"), (2, 2)], ids=["a new kind", "a new version"])
def test_what_only_a_later_version_understands_passes_relays_whole_and_is_parked(
    tree: Tree, place: int, value: Any
) -> None:
    build = a_build(tree)
    outside, body = as_written(build)
    outside[place] = value
    sent = send(tree, outside, body)
    (row,) = tree.rows("leaf", ParkedRow)
    assert row.data == sent
    assert not tree.rows("dfw", ParkedRow)
    assert tree.row("leaf", InstanceRow, build.server) is None


def outbox(tree: Tree, record: Record) -> None:
    """The owner has it to send, and sends it until it is acknowledged."""
    with tree.stores["east"].inner.unit() as unit:
        unit.save(
            OutboxRow(
                id=record.id,
                shard=shard_of(record.server),
                destination=record.destination,
                next_try=tree.clock(),
                attempts=0,
                deadline=record.deadline,
                data=pack_record(record),
            )
        )


@pytest.mark.parametrize("new", ["kind", "version"])
def test_what_only_a_later_version_understands_is_tried_again_and_has_its_effect_after_the_upgrade(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, new: str
) -> None:
    """Until then it is parked once, told to nobody as done, and its owner has it still."""
    build = a_build(tree)
    earlier = dict(REGISTRY)
    known = earlier.pop("server.build")
    if new == "version":
        earlier["server.build"] = replace(known, version=known.version + 1)
    with monkeypatch.context() as before_the_upgrade:
        before_the_upgrade.setattr(codec, "REGISTRY", earlier)
        outbox(tree, build)
        tree.run(30)
        (row,) = tree.rows("leaf", ParkedRow)
        assert (row.id, row.kind) == (build.id, "server.build")
        assert "upgrade this one" in row.reason or "is not understood here" in row.reason
        assert tree.row("leaf", InstanceRow, build.server) is None
        assert tree.row("east", OutboxRow, build.id) is not None
        assert tree["east"].node.counts["resent"] > 0
    tree.run(30)
    assert built(tree, build) == "vm"
    assert tree.row("east", OutboxRow, build.id) is None


def test_a_bundle_of_a_later_wire_version_is_parked_at_the_relay_and_what_was_in_it_comes_again(tree: Tree) -> None:
    """A relay that was upgraded too late (docs/how-to.md, Upgrade) holds up what was in the bundle and loses none of
    it: its origin sends it again until it is acknowledged."""
    build = a_build(tree)
    packet = tree["east"].identity.packet("leaf", 7, NEVER, (pack_record(build),), tree.clock())
    _, packets = msgspec.msgpack.decode(pack_bundle([packet]))
    tree.network.exchange("dfw").publish(msgspec.msgpack.encode((WIRE_VERSION + 1, packets)), "east")
    tree.settle()
    (row,) = tree.rows("dfw", ParkedRow)
    assert f"wire version {WIRE_VERSION + 1} is not understood here" in row.reason
    assert tree.rows("leaf", ParkedRow) == () and tree.row("leaf", InstanceRow, build.server) is None
    outbox(tree, build)
    tree.run(10)
    assert built(tree, build) == "vm"
