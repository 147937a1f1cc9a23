"""Whatever a neighbour with a true certificate says, in a form that the codec takes: a role decides on it or refuses it
in words, and its next decision is as good as before."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from api_cell.rows import ServerRow
from cells import codec
from cells.errors import CelltreeError
from cells.messages import REGISTRY, Direction, HelloDown, HelloUp, Tick
from cells.record import Received, Record
from tests.support.embedded import Tree, make_tree

SENT = sorted(name for name, kind in REGISTRY.items() if kind.direction is not Direction.LOCAL)
quick = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def tree() -> Iterator[Tree]:
    tree = make_tree({"east": (), "mid": ("east",), "leaf": ("mid", "east")})
    tree.build("east")
    tree.run(4)
    yield tree
    tree.close()


@st.composite
def words(draw: st.DrawFn, kind: str, servers: tuple[bytes, ...]) -> Record:
    """Any record of a kind that comes through the codec as it was."""
    body = draw(st.from_type(REGISTRY[kind].body))
    record = Record(
        id=draw(st.binary(min_size=16, max_size=16)),
        body=body,
        origin=draw(st.sampled_from(["east", "mid", "leaf"])),
        destination="",
        server=draw(st.sampled_from(servers) | st.binary(min_size=16, max_size=16)),
        number=draw(st.integers(0, 2**62)),
        deadline=draw(st.integers(0, 2**62)),
    )
    try:
        data = codec.pack_record(record)
    except OverflowError:
        reject()  # a number that the wire has no room for cannot be said
    return codec.unpack_record(data)


def decides(tree: Tree, cell: str, record: Record) -> Any:
    with tree.stores[cell].inner.unit(lock=False) as unit:
        return tree[cell].role.decide(unit, Received(record=record, neighbour=record.origin), tree.clock())


@quick
@given(data=st.data())
def test_any_word_of_a_neighbour_is_decided_on_or_refused(tree: Tree, data: st.DataObject) -> None:
    servers = tuple(row.id for row in tree.rows("east", ServerRow))
    kind = data.draw(st.sampled_from(SENT))
    try:
        record = data.draw(words(kind, servers))
    except CelltreeError:
        return  # the codec's to refuse
    for cell in ("east", "leaf"):
        try:
            decides(tree, cell, record)
        except CelltreeError as refused:
            assert 0 < len(str(refused)) < 1000
        own = Record(id=bytes(16), body=Tick(), origin=cell, destination=cell)
        said = [each.body for each in decides(tree, cell, own).send]
        assert any(isinstance(body, HelloUp | HelloDown) for body in said)
