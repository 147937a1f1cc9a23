"""Making and changing a tree with nothing running: SQLite files, and brokers that are only named."""

import os
import socket
import sqlite3
import stat

import pytest

from cells.config import identity
from cells.errors import BadInput, Permanent, Temporary
from cells.ids import Ids
from cells.model import CellState
from cells.registering import NewCell, PoolAccess, Registrar, _as_user, open_store
from cells.rows import EdgeRow, RosterRow, SettingRow
from cells.tree_folder import TreeFolder
from compute_cell.rows import PoolRow
from tests.support.embedded import START, SeededBytes
from tests.unit.routing.trees import a_capacity, a_record


class Yard:
    """A tree folder and its registrar."""

    def __init__(self, path):
        self.path = path
        random_bytes = SeededBytes("yard")
        self.folder = TreeFolder.create(path / "tree", random_bytes)
        ids = Ids(lambda: START, random_bytes)
        self.registrar = Registrar(self.folder, clock=lambda: START, new_id=ids, random_bytes=random_bytes)

    def register(self, name, *parents, **more):
        role = more.pop("role", "compute" if parents else "api")
        more = {"database": f"sqlite:///{self.path / name}.sqlite", "broker": f"memory://{name}", **more}
        return self.registrar.register(NewCell(name=name, role=role, parents=parents, **more))

    def edges(self, name):
        with open_store(self.folder.config(name)) as store, store.unit(lock=False) as unit:
            return {(edge.neighbour, edge.parent) for edge in unit.all(EdgeRow)}

    def hear(self, at, record):
        """Put a cell's record into the roster of another, as its daemon would have."""
        config = self.folder.config(record.name)
        own = bytes.fromhex(config.certificate)
        who = identity(config)
        signed = who.cell_record(record)
        row = RosterRow(
            name=record.name,
            uuid=record.uuid,
            generation=record.generation,
            updated=START,
            certificate=own,
            payload=signed.payload,
            signature=signed.signature,
        )
        with open_store(self.folder.config(at)) as store, store.unit() as unit:
            unit.save(row)

    def roster(self, at):
        with open_store(self.folder.config(at)) as store, store.unit(lock=False) as unit:
            return {row.name for row in unit.all(RosterRow)}


@pytest.fixture
def yard(tmp_path):
    return Yard(tmp_path)


@pytest.fixture
def unused_tcp_port():
    with socket.create_server(("127.0.0.1", 0)) as once:
        return once.getsockname()[1]


@pytest.fixture
def chain(yard):
    yard.register("east")
    yard.register("dfw", "east")
    yard.register("dfw-1", "dfw")
    return yard


def test_a_trees_private_key_is_readable_by_its_owner_only(yard):
    assert stat.S_IMODE((yard.folder.path / "root.key").stat().st_mode) == 0o600
    config = yard.register("east")
    assert stat.S_IMODE((yard.folder.cells / "east.key").stat().st_mode) == 0o600
    assert config.root == yard.folder.root_public.hex()


def test_a_tree_is_never_made_over_another(yard):
    with pytest.raises(BadInput, match="holds a tree already"):
        TreeFolder.create(yard.folder.path, os.urandom)


@pytest.mark.parametrize(
    ("broker", "written"),
    [
        ("amqps://east@mq.east:5671/east", "amqps://dfw@mq.east:5671/east"),
        ("amqps://east:word@mq.east/east", "amqps://east:word@mq.east/east"),
        ("amqp://east:word@mq.east/east", "amqp://east:word@mq.east/east"),
        ("memory://east", "memory://east"),
    ],
)
def test_with_certificates_each_cell_has_its_own_name_at_every_broker(broker, written):
    assert _as_user(broker, "dfw") == written


def test_neighbours_are_remembered_by_the_user_they_publish_as(yard):
    yard.register("east")
    yard.register("dfw", "east")
    with open_store(yard.folder.config("east")) as store, store.unit(lock=False) as unit:
        assert unit.get(EdgeRow, "dfw").user == "dfw"


def test_a_registered_cell_is_joined_at_both_ends(chain):
    assert chain.edges("east") == {("dfw", False)}
    assert chain.edges("dfw") == {("east", True), ("dfw-1", False)}
    assert chain.edges("dfw-1") == {("dfw", True)}


def test_neighbours_write_with_the_users_made_for_them(yard):
    yard.register("east")
    yard.register("dfw", "east", up={"east": "memory://up"}, down={"east": "memory://down"})
    for name, neighbour, url in (("east", "dfw", b"memory://down"), ("dfw", "east", b"memory://up")):
        config = yard.folder.config(name)
        with open_store(config) as store, store.unit(lock=False) as unit:
            edge = unit.get(EdgeRow, neighbour)
        assert identity(config).kept(edge.url) == url
        assert url not in edge.url


def test_a_leafs_pool_is_registered_with_it(yard):
    yard.register("east")
    pool = PoolAccess(name="p", url="http://127.0.0.1:1", password="xen")
    config = yard.register("leaf", "east", pools=(pool,))
    with open_store(config, whole=True) as store, store.unit(lock=False) as unit:
        row = unit.get(PoolRow, "p")
    assert (row.url, row.user) == ("http://127.0.0.1:1", "root")
    assert b"xen" not in row.secret


@pytest.mark.parametrize(
    ("parents", "more", "said"),
    [
        (("nowhere",), {}, "parent 'nowhere' is not registered in .*; there are: dfw, dfw-1, east"),
        (("new",), {}, "'new' cannot be its own parent: that is a cycle"),
        (("dfw", "dfw"), {}, "parent 'dfw' is named twice"),
        (("dfw",), {"role": "api"}, "an API cell has no parents"),
        ((), {"role": "compute"}, "a compute cell needs a parent"),
        ((), {"role": "boss"}, "role 'boss' is not installed; there are: api, compute"),
        (("dfw",), {"up": {"east": "memory://x"}}, "'east' is not among the parents"),
        (("dfw",), {"database": "postgres://x"}, "no store|not one"),
        (("dfw",), {"broker": "http://x"}, "is not the URL of a RabbitMQ"),
    ],
)
def test_what_cannot_be_registered_is_refused_and_changes_nothing(chain, parents, more, said):
    before = [chain.edges(name) for name in chain.folder.names()]
    with pytest.raises(BadInput, match=said):
        chain.register("new", *parents, **more)
    assert "new" not in chain.folder.names()
    assert [chain.edges(name) for name in chain.folder.names()] == before


def test_a_taken_name_is_refused_with_both_ways_out(chain):
    with pytest.raises(BadInput, match=r"the name 'dfw' is taken .* choose another, or, .* celltree cell attach dfw"):
        chain.register("dfw", "east")


def test_a_name_that_a_parent_knows_with_another_uuid_is_refused(chain):
    chain.hear("dfw", a_record("dfw-1", "dfw", uuid=_uuid(chain, "dfw-1"), capacity=a_capacity()))
    chain.folder.remove("dfw-1")
    with pytest.raises(BadInput, match="dfw knows another cell named 'dfw-1' with the uuid"):
        chain.register("dfw-1", "dfw")


def test_an_unreachable_broker_and_database_are_refused_in_time(chain, unused_tcp_port):
    nowhere = f"127.0.0.1:{unused_tcp_port}"
    with pytest.raises(Temporary, match=r"the broker amqp://127.*/v is out of reach: .* is it started") as refusal:
        chain.register("new", "dfw", broker=f"amqp://u:hidden@{nowhere}/v")
    assert "hidden" not in str(refusal.value)
    with pytest.raises(Temporary, match="database is out of reach") as refusal:
        chain.register("new", "dfw", database=f"mysql+pymysql://u:hidden@{nowhere}/s")
    assert "hidden" not in str(refusal.value)
    assert "new" not in chain.folder.names()


def test_a_registration_that_fails_half_way_is_taken_back(chain, tmp_path):
    taken = tmp_path / "of-a-newer-version.sqlite"
    with sqlite3.connect(taken) as base:
        base.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        base.execute("INSERT INTO alembic_version VALUES ('from_the_future')")
    base.close()
    with pytest.raises(Permanent, match="does not know"):
        chain.register("new", "dfw", database=f"sqlite:///{taken}")
    assert "new" not in chain.folder.names()
    assert ("new", False) not in chain.edges("dfw")


def test_one_more_parent_makes_a_diamond_and_a_ring_is_refused(chain):
    chain.register("ord", "east")
    chain.registrar.attach("dfw-1", "ord")
    assert chain.edges("dfw-1") == {("dfw", True), ("ord", True)}
    assert chain.edges("ord") == {("east", True), ("dfw-1", False)}
    with pytest.raises(BadInput, match=r"closes a cycle .* choose a parent that is not below dfw"):
        chain.registrar.attach("dfw", "dfw-1")
    with pytest.raises(BadInput, match="is under ord already"):
        chain.registrar.attach("dfw-1", "ord")
    with pytest.raises(BadInput, match="is an API cell"):
        chain.registrar.attach("east", "dfw")
    assert ("dfw-1", True) not in chain.edges("dfw")


def _uuid(yard, name):
    return identity(yard.folder.config(name)).says.uuid


def test_a_leaf_with_servers_is_not_detached_unless_forced_or_there_is_another_way(chain):
    record = a_record("dfw-1", "dfw", uuid=_uuid(chain, "dfw-1"), capacity=a_capacity(servers=1))
    chain.hear("dfw", record)
    with pytest.raises(Permanent, match=r"dfw-1 would be cut off with servers; .* --force"):
        chain.registrar.detach("dfw-1", "dfw")
    assert chain.edges("dfw-1") == {("dfw", True)}
    chain.registrar.detach("dfw-1", "dfw", force=True)
    assert chain.edges("dfw-1") == set()
    assert ("dfw-1", False) not in chain.edges("dfw")


def test_a_detached_leaf_is_forgotten_by_all_that_no_way_leads_from(chain):
    chain.register("ord", "east")
    chain.registrar.attach("dfw-1", "ord")
    record = a_record("dfw-1", "dfw", "ord", uuid=_uuid(chain, "dfw-1"), capacity=a_capacity())
    for at in ("dfw", "ord", "east"):
        chain.hear(at, record)
    assert chain.registrar.detach("dfw-1", "dfw") == ("dfw",)
    assert ("dfw-1" in chain.roster("dfw"), "dfw-1" in chain.roster("east")) == (False, True)
    assert chain.registrar.detach("dfw-1", "ord") == ("east", "ord")
    assert "dfw-1" not in chain.roster("east") | chain.roster("ord")
    with pytest.raises(BadInput, match="dfw-1 is not under ord"):
        chain.registrar.detach("dfw-1", "ord")


def test_draining_is_a_setting_of_the_cell_or_of_all_below_it(chain):
    def state(name):
        with open_store(chain.folder.config(name)) as store, store.unit(lock=False) as unit:
            row = unit.get(SettingRow, "state")
        return row.value if row else None

    assert chain.registrar.set_state("dfw-1", CellState.DRAINING) == ("dfw-1",)
    assert (state("dfw"), state("dfw-1")) == (None, "draining")
    assert chain.registrar.set_state("east", CellState.ENABLED, below=True) == ("dfw", "dfw-1")
    assert (state("dfw"), state("dfw-1")) == ("enabled", "enabled")
    with pytest.raises(BadInput, match="takes no builds itself"):
        chain.registrar.set_state("east", CellState.DRAINING)


def test_a_root_key_kept_elsewhere_is_asked_for(chain):
    (chain.folder.path / "root.key").unlink()
    with pytest.raises(BadInput, match="root key"):
        chain.register("new", "dfw")
