"""Whatever comes in at a door other than REST gets a clear error or is taken; nothing falls over, nothing is lost."""

import io
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cells import codec
from cells.cli.main import main
from cells.config import CellConfig, load
from cells.errors import BadInput, CelltreeError
from cells.topology_file import TopologyFile, default, dump, read
from tests.support.embedded import Tree, make_tree
from tests.support.invariants import validate
from tests.support.network import UnsteadyExchange
from xenapi_host.agent_cipher import KeyExchange

quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
texts = st.text(max_size=12) | st.sampled_from(
    ["", "../x", "\0", "east", "dfw", "a" * 300, "-1", "1e9", "::", "[", "&a *a"]
)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.integers(), inner, max_size=3),
    max_leaves=6,
)


def _spoiled(value: Any, draw: Any) -> Any:
    """The value with one part, at any depth, replaced, renamed or left out."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value, key=str)))
        match draw(st.sampled_from(["in", "out", "renamed"])):
            case "in":
                return {**value, key: _spoiled(value[key], draw)}
            case "out":
                return {name: each for name, each in value.items() if name != key}
            case _:
                return {**value, draw(texts | st.integers()): value[key]}
    if isinstance(value, list) and value and draw(st.booleans()):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], _spoiled(value[place], draw), *value[place + 1 :]]
    return draw(values)


@quick
@given(data=st.data())
def test_a_topology_file_is_a_tree_or_is_refused_in_words(data: st.DataObject, tmp_path: Path) -> None:
    raw = _spoiled(yaml.safe_load(dump(default())), data.draw)
    whole = yaml.safe_dump(raw, allow_unicode=True).encode()
    path = tmp_path / "topology.yaml"
    path.write_bytes(data.draw(st.just(whole) | st.binary(max_size=60)))
    try:
        assert isinstance(read(path), TopologyFile)
    except BadInput as refused:
        assert str(refused) and "Traceback" not in str(refused)


@quick
@given(data=st.data())
def test_a_configuration_file_is_one_or_is_refused_by_the_name_of_the_setting(
    data: st.DataObject, tmp_path: Path
) -> None:
    for name in ("key", "certificate", "root"):
        (tmp_path / name).write_text("00" * 32)
    whole = {"cell": "dfw", "role": "compute", "database": "sqlite://", "broker": "memory://dfw"}
    whole |= {
        "key": "key",
        "certificate": "certificate",
        "root": "root",
        "threads": 4,
        "settings": {"digest_every": 10.0},
    }
    raw = yaml.safe_dump(_spoiled(whole, data.draw), allow_unicode=True).encode()
    path = tmp_path / "dfw.yaml"
    path.write_bytes(data.draw(st.just(raw) | st.binary(max_size=60)))
    try:
        assert isinstance(load(path), CellConfig)
    except BadInput as refused:
        assert str(path) in str(refused) or "cell name" in str(refused), refused


@pytest.mark.parametrize("door", [read, load])
def test_brackets_without_end_are_no_yaml(door: Any, tmp_path: Path) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text("[" * 1100)
    with pytest.raises(BadInput, match="is not YAML"):
        door(path)


WORDS = (
    "tree",
    "capacity",
    "story",
    "messages",
    "cell",
    "host",
    "list",
    "show",
    "drain",
    "register",
    "explain",
    "init",
)
ODD = (
    "--tree",
    "--cell",
    "--parent",
    "-f",
    "json",
    "../x",
    "\udcff",
    "x" * 5000,
    "",
    "--",
    "-1",
    "east",
    "''",
    "%s",
    "\n",
)


@settings(quick, max_examples=40)
@given(words=st.lists(st.sampled_from(WORDS), max_size=2), odd=st.lists(st.sampled_from(ODD) | texts, max_size=4))
def test_a_command_line_is_done_or_refused_in_a_line(words: list[str], odd: list[str], tmp_path: Path) -> None:
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stderr(said), redirect_stdout(said):
        patched.setenv("XDG_DATA_HOME", str(tmp_path))
        patched.chdir(tmp_path)
        try:
            status = main([*words, *odd])
        except SystemExit as end:
            status = int(end.code or 0)
    assert status in (0, 1, 2)
    assert "unexpected" not in said.getvalue() and "Traceback" not in said.getvalue(), said.getvalue()


@quick
@given(said=st.text(max_size=40) | st.sampled_from(["0", "1", "9" * 5000, "-5", "\u0665", "1.0", ""]))
def test_a_guests_key_is_taken_or_refused(said: str) -> None:
    try:
        KeyExchange(lambda length: b"\7" * length).shared(said).encrypt("password")
    except BadInput as refused:
        assert len(str(refused)) < 200
    try:
        KeyExchange(lambda length: b"\7" * length).shared("25").decrypt(said)
    except BadInput as refused:
        assert "not encrypted" in str(refused)


@pytest.fixture(scope="module")
def tree() -> Iterator[Tree]:
    tree = make_tree()
    yield tree
    tree.close()


@pytest.fixture(scope="module")
def bundles(tree: Tree) -> list[tuple[str, str, bytes]]:
    """What the cells of a tree have sent each other: (to, broker user, bytes)."""
    sent: list[tuple[str, str, bytes]] = []
    publish = UnsteadyExchange.publish

    def watched(exchange: UnsteadyExchange, data: bytes, user: str) -> str:
        sent.append((exchange.name, user, data))
        return publish(exchange, data, user)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(UnsteadyExchange, "publish", watched)
        tree.run(3)
    return sent


@settings(quick, max_examples=80)
@given(data=st.data())
def test_a_bundle_that_was_altered_changes_nothing_and_stops_nobody(
    tree: Tree, bundles: list[tuple[str, str, bytes]], data: st.DataObject
) -> None:
    to, user, good = data.draw(st.sampled_from(bundles))
    raw = bytearray(good)
    for place, word in data.draw(
        st.lists(st.tuples(st.integers(0, len(good)), st.binary(min_size=1, max_size=6)), min_size=1, max_size=3)
    ):
        raw[place : place + len(word)] = word
    hostile = bytes(raw[: data.draw(st.integers(0, len(raw)) | st.just(len(raw)))])
    user = data.draw(st.sampled_from([user, "stranger", ""]))
    tree.network.exchange(to).publish(hostile, user)
    tree.settle()
    validate(tree)
    assert set(tree.house.cells) == set(tree.configs)


@quick
@given(data=st.binary(max_size=200) | st.sampled_from([b"", b"\xdf\xff\xff\xff\xff", b"\x91" * 10_000, b"\x80" * 500]))
def test_bytes_that_are_no_message_are_refused_by_the_codec(data: bytes) -> None:
    for decode in (codec.unpack_bundle, codec.unpack_record, codec.peek):
        try:
            decode(data)
        except CelltreeError as refused:
            assert len(str(refused)) < 1000
