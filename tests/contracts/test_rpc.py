"""The posting endpoint: one suite over the in-process twin and oslo.messaging on RabbitMQ."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cells.broker import MemoryExchanges, rpc
from cells.errors import BadInput, Permanent, Temporary

SECONDS = 20.0


class Endpoint:
    """What an API cell offers: posting twice under one request id is posting once."""

    def __init__(self) -> None:
        self.posted: dict[str, str] = {}
        self.threads: set[int] = set()

    def post_build(self, request: str, name: str, count: int = 1) -> dict[str, Any]:
        if not name:
            raise BadInput("name is missing: give the server a name")
        self.threads.add(threading.get_ident())
        first = self.posted.setdefault(request, name)
        return {"request": request, "name": first, "count": count}

    def refuse(self) -> None:
        raise Permanent("no: the cell is drained")


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.services)])
def where(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "memory":
        return {"url": "memory://dfw", "exchanges": MemoryExchanges()}
    return {"url": request.getfixturevalue("new_vhost")()}


@pytest.fixture
def client(where: dict[str, Any]) -> Iterator[rpc.Client]:
    made = rpc.client(cell="dfw", **where)
    yield made
    made.close()


@pytest.fixture
def server(where: dict[str, Any], endpoint: Endpoint) -> Iterator[rpc.Server]:
    made = rpc.serve(cell="dfw", endpoint={"post_build": endpoint.post_build, "refuse": endpoint.refuse}, **where)
    made.start()
    yield made
    made.stop()


@pytest.mark.usefixtures("server")
def test_build_is_posted_once_under_a_request_id_asked_twice(client: rpc.Client, endpoint: Endpoint) -> None:
    first = client.call("post_build", SECONDS, request="r-1", name="web", count=3)
    assert first == {"request": "r-1", "name": "web", "count": 3}
    assert client.call("post_build", SECONDS, request="r-1", name="web", count=3) == first
    assert endpoint.posted == {"r-1": "web"}


@pytest.mark.usefixtures("server")
def test_endpoints_own_errors_come_back_as_themselves(client: rpc.Client) -> None:
    with pytest.raises(BadInput) as refusal:
        client.call("post_build", SECONDS, request="r-1", name="")
    assert str(refusal.value) == "name is missing: give the server a name"
    with pytest.raises(Permanent, match=r"^no: the cell is drained$"):
        client.call("refuse", SECONDS)


def test_nobody_there_is_a_time_out(client: rpc.Client) -> None:
    with pytest.raises(Temporary, match="did not answer"):
        client.call("post_build", 0.5, request="r-1", name="web")


def test_stopped_endpoint_answers_no_more(client: rpc.Client, server: rpc.Server) -> None:
    client.call("post_build", SECONDS, request="r-1", name="web")
    server.stop()
    with pytest.raises(Temporary):
        client.call("post_build", 0.5, request="r-2", name="web")


def test_memory_endpoint_needs_its_house() -> None:
    with pytest.raises(BadInput, match="MemoryExchanges"):
        rpc.serve("memory://dfw", "dfw", {})
