"""The posting endpoint: asking twice with one id is asking once, and what is wrong is said by name."""

import itertools
from uuid import uuid4

import pytest

from api_cell.errors import Invalid
from api_cell.posting import endpoint
from api_cell.rows import ROWS, FlavorRow, ServerRow
from api_cell.service.api import Api
from api_cell.settings import Auth, Settings
from api_cell.simulated import BASE_IMAGE, MemoryImages
from cells.broker import MemoryExchanges, rpc
from cells.errors import BadInput
from cells.ids import Ids
from cells.rows import WakeRow
from cells.store.sql import SqlStore
from tests.support.embedded import START, TINY, SeededBytes


@pytest.fixture
def api():
    ticks = itertools.count(START, 1000)
    ids = Ids(lambda: next(ticks), SeededBytes("posting"))
    store = SqlStore("sqlite://", ROWS)
    store.create_all()
    with store.unit() as unit:
        unit.save(FlavorRow(id=TINY.id, name=TINY.name, flavor=TINY))
    yield Api(
        settings=Settings(cell="east", auth=Auth.NONE),
        store=store,
        images=MemoryImages(lambda: next(ticks), ids),
        poke=lambda: None,
        clock=lambda: next(ticks),
        ids=ids,
    )
    store.close()


@pytest.fixture
def client(api):
    """Calls the endpoint as a program beside the cell would."""
    exchanges = MemoryExchanges()
    server = rpc.serve("memory://east", "east", endpoint(api), exchanges=exchanges)
    server.start()
    yield rpc.client("memory://east", "east", exchanges=exchanges)
    server.stop()


def wish(**changes):
    return {
        "request": "req-1",
        "project": "p",
        "user": "u",
        "name": "vm",
        "flavor": "m1.tiny",
        "image": BASE_IMAGE,
        **changes,
    }


def test_a_posted_build_is_saved_and_left_to_the_daemon(api, client):
    made = client.call("build", 5.0, **wish(metadata={"a": "b"}))
    assert (made["status"], made["project"], made["request"]) == ("BUILD", "p", "req-1")
    with api.store.unit(lock=False) as unit:
        (row,) = unit.find(ServerRow)
        assert (row.user, row.spec.metadata, row.spec.flavor.id) == ("u", {"a": "b"}, TINY.id)
        assert len(unit.find(WakeRow)) == 1


def test_asking_twice_with_one_request_id_is_asking_once(api, client):
    first = client.call("build", 5.0, **wish())
    assert client.call("build", 5.0, **wish())["server"] == first["server"]
    assert client.call("build", 5.0, **wish(request="req-2"))["server"] != first["server"]
    assert client.call("build", 5.0, **wish(project="other"))["server"] != first["server"]
    with api.store.unit(lock=False) as unit:
        assert len(unit.find(ServerRow)) == 3


def test_a_server_is_shown_by_its_id(client):
    made = client.call("build", 5.0, **wish())
    assert client.call("show", 5.0, server=made["server"]) == made
    assert client.call("show", 5.0, server=str(uuid4()))["status"] == ""


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"flavor": "m9"}, BadInput, "flavor 'm9' is not one of this cell; there are: m1.tiny"),
        ({"image": "nope"}, Invalid, "can not find requested image nope"),
        ({"name": " "}, BadInput, "name must be a text of 1 to 255 characters"),
        ({"request": "r" * 65}, BadInput, "request must be a text of 1 to 64"),
        ({"project": 7}, BadInput, "project must be a text"),
        ({"metadata": ["a"]}, BadInput, "metadata must be a mapping"),
        ({"metadata": {"a": 1}}, BadInput, "metadata: keys and values must be texts"),
        ({"hints": "near"}, BadInput, "hints must be a mapping"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name_and_saves_nothing(api, client, changes, error, said):
    with pytest.raises(error, match=said):
        client.call("build", 5.0, **wish(**changes))
    with api.store.unit(lock=False) as unit:
        assert unit.find(ServerRow) == ()
