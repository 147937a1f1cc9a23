"""What lies in a cell's database sealed with a key it had before: found wherever it is, and sealed anew."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from api_cell.role import ApiRole
from api_cell.rows import SecretRow
from cells.config import keys
from cells.errors import BadInput
from cells.identity import Keys, fingerprint, new_key, seal
from cells.resealing import may_be_kept
from cells.rows import TABLES, DaemonRow, EdgeRow
from cells.store.sql import SqlStore
from cells.store.tables import BLOB
from compute_cell.pools import Pools
from compute_cell.role import ComputeRole
from compute_cell.rows import PoolRow
from tests.support.embedded import SeededBytes, Tree, make_tree

EVERY_ROW = tuple(dict.fromkeys((*ApiRole.rows, *ComputeRole.rows)))
KEPT = {"edges": {"url"}, "pools": {"secret"}, "secrets": {"box"}}
NEVER_KEPT = {
    "outbox": {"data"},  # sealed for others
    "wakes": {"data"},  # a wish may have something kept within, until it is on its way
    "jobs": {"body"},  # what was sealed for us is within, until the job is over
    "journal": {"value"},
    "parked": {"data"},
    "roster": {"certificate", "payload", "signature"},
    "questions": {"body"},
    "instances": {"proof"},
}


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = make_tree({"east": (), "dfw": ("east",), "leaf": ("dfw",)})
    yield tree
    tree.close()


def renew(tree: Tree, name: str, at: str = "") -> None:
    """Give a daemon of a cell a new key, as SIGHUP does."""
    who = tree[at or name].identity
    private, public = new_key(SeededBytes(f"new {name}"))
    certificate = tree.root.certify(name, who.says.uuid, who.says.role, public, tree.clock())
    who.renew(Keys(seed=private, former=(keys(tree[name].config).seed,)), certificate)


def test_every_column_that_may_hold_something_kept_is_known_here() -> None:
    """A new column of bytes fails here: say whether `keep` fills it. If so, it is sealed anew without further ado."""
    found = {TABLES[row].name: set(may_be_kept(row)) for row in EVERY_ROW if may_be_kept(row)}
    assert found == {**KEPT, **NEVER_KEPT}


@pytest.mark.parametrize("role", [ApiRole, ComputeRole])
def test_a_mark_is_found_in_every_column_of_bytes_there_is(role: type[ApiRole | ComputeRole], tmp_path: Path) -> None:
    url, mark, other = f"sqlite:///{tmp_path}/all.sqlite", b"\0\xffmark\0%", b"\0\xffmark\0_"
    store = SqlStore(url, role.rows)
    store.create_all()
    planted: dict[str, int] = {}
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for table in store.metadata.tables.values():
            for at, column in enumerate(table.columns):
                if column.type is not BLOB:
                    continue
                values = {each.name: _sample(each, at) for each in table.columns}
                for key, holds in ((0, mark), (100, other)):
                    keyed = {each.name: _sample(each, at + key) for each in table.primary_key.columns}
                    within = {column.name: b"before " + holds + b" after"}
                    connection.execute(table.insert().values(values | keyed | within))
                planted[table.name] = planted.get(table.name, 0) + 1
    engine.dispose()
    assert {"edges", "wakes", "jobs", "parked"} <= planted.keys()
    assert store.holding([mark]) == planted
    assert store.holding([mark, other]) == {name: 2 * count for name, count in planted.items()}
    assert store.holding([b"elsewhere"]) == store.holding([]) == {}
    assert store.holding([mark], stretch=1) == planted
    store.close()


def _sample(column: sa.Column[object], at: int) -> object:
    if isinstance(column.type, sa.LargeBinary):
        return bytes([at]) * 16
    if isinstance(column.type, sa.Boolean):
        return True
    return str(at) if isinstance(column.type, sa.String) else at


def test_what_a_former_key_kept_is_sealed_anew_and_nothing_else_is_touched(tree: Tree) -> None:
    before = {name: tree[name].identity.former_marks for name in tree.house.cells}
    tree.run(1)
    assert set(before.values()) == {()}
    secret = SecretRow(server=b"s" * 16, box=tree["east"].identity.keep(b"word", SeededBytes("x")))
    pool = replace(tree.rows("leaf", PoolRow)[0], secret=tree["leaf"].identity.keep(b"pass", SeededBytes("y")))
    for name, row in (("east", secret), ("leaf", pool)):
        with tree.stores[name].inner.unit() as unit:
            unit.save(row)
    urls = {name: [edge.url for edge in tree.rows(name, EdgeRow)] for name in ("east", "leaf", "dfw")}
    for name in ("east", "leaf"):
        renew(tree, name)
        assert len(tree[name].identity.former_marks) == 2
    tree.run(11)
    for name in ("east", "leaf"):
        held = tree.stores[name].inner.holding(tree[name].identity.former_keeps)
        assert held == {}
    assert tree["east"].identity.kept(tree.rows("east", SecretRow)[0].box) == b"word"
    assert tree["leaf"].identity.kept(tree.rows("leaf", PoolRow)[0].secret) == b"pass"
    assert [edge.url for edge in tree.rows("leaf", EdgeRow)] != urls["leaf"]
    assert [edge.url for edge in tree.rows("dfw", EdgeRow)] == urls["dfw"]
    kept = tree.rows("east", SecretRow)
    tree.run(11)
    assert tree.rows("east", SecretRow) == kept  # once is enough
    server = tree.build("east", "after")
    tree.run(10)
    instance = tree.instance("leaf", server)
    assert instance is not None and instance.state.vm_state == "active"


def test_nothing_is_sealed_anew_while_a_living_daemon_could_not_open_it(tree: Tree) -> None:
    tree.run(1)
    renew(tree, "leaf")
    slow = DaemonRow(name="slow", seen=tree.clock(), signer="of the former key")
    with tree.stores["leaf"].inner.unit() as unit:
        unit.save(slow)
    former = tree["leaf"].identity.former_keeps
    tree.run(30)
    assert tree.stores["leaf"].inner.holding(former)["edges"] == 1
    tree.run(45)  # by then it is seen to be gone
    assert tree.stores["leaf"].inner.holding(former) == {}


def test_a_pools_session_goes_on_when_only_its_password_is_sealed_anew(tree: Tree) -> None:
    tree.run(1)
    leaf = tree["leaf"]
    kept = leaf.identity.keep(b"word", SeededBytes("x"))
    row = PoolRow(name="far", url="http://127.0.0.1:9", user="root", secret=kept)
    with tree.stores["leaf"].inner.unit() as unit:
        unit.save(row)
    pools = Pools(store=tree.stores["leaf"].inner, identity=leaf.identity)
    session = pools.session("far")
    renew(tree, "leaf")
    tree.run(25)
    now = tree.row("leaf", PoolRow, "far")
    assert now is not None and now.secret != kept
    assert pools.session("far") is session
    with tree.stores["leaf"].inner.unit() as unit:
        unit.save(replace(now, secret=leaf.identity.keep(b"other", SeededBytes("y"))))
    assert pools.session("far") is not session
    pools.close()


def test_a_key_that_was_taken_out_opens_nothing_and_still_tells_what_it_signed(tree: Tree) -> None:
    who = tree["leaf"].identity
    former = who.says.key
    kept, sealed, proof = who.keep(b"a", SeededBytes("x")), seal(b"b", former), who.prove(b"asked")
    renew(tree, "leaf")
    assert (who.kept(kept), who.unseal(sealed), who.proved(b"asked", proof)) == (b"a", b"b", True)
    assert fingerprint(who.says.key) != fingerprint(former)
    private, _ = new_key(SeededBytes("new leaf"))
    who.renew(Keys(seed=private, public=(former,)), who.certificate)
    with pytest.raises(BadInput, match="cannot be opened with this cell's key"):
        who.kept(kept)
    with pytest.raises(BadInput, match="was not sealed for this cell"):
        who.unseal(sealed)
    assert who.proved(b"asked", proof)
    assert not who.proved(b"never asked", proof)
