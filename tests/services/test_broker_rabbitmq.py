"""What only a real RabbitMQ can show: kills, silent links, permissions."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from amqp.exceptions import AccessRefused, PreconditionFailed
from kombu.connection import Connection

from cells.broker import AmqpOptions, open_broker
from cells.broker.limits import INBOX
from cells.lab.rabbitmq import RabbitNode
from cells.ports import Broker, Delivery, Inbox, Link
from tests.support.brokers import Bell, RabbitWires, deliveries, offer, outcomes, publish
from tests.support.tcp_proxy import TcpProxy

LIMIT = 1.0


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def wires(rabbit: RabbitNode) -> Iterator[RabbitWires]:
    made = RabbitWires(rabbit, time_limit=LIMIT)
    yield made
    made.close()


@pytest.fixture
def far_url(rabbit: RabbitNode, wires: RabbitWires) -> Iterator[tuple[TcpProxy, str]]:
    """The leaf's inbox, declared, and a way to it through a network that can be disturbed."""
    started(wires, "leaf").close()
    with TcpProxy(rabbit.amqp_port) as proxy:
        yield proxy, wires.url("parent", "leaf").replace(f":{rabbit.amqp_port}/", f":{proxy.port}/")


def started(wires: RabbitWires, cell: str) -> Broker:
    """A broker of the cell whose queue is declared for sure: something has come through it."""
    bell = Bell()
    broker = wires.open(cell, bell, max_length=10_000)
    inbox = broker.inbox()
    link = broker.link(cell, wires.url("first", cell))
    while not publish(link, bell, b"knock")[0].ok:
        pass
    inbox.ack([one.tag for one in deliveries(inbox, bell, 1)])
    return broker


def ended_within(seconds: float, act: Callable[[], object]) -> object:
    """A bound on what must never block, far above what it takes and far below for ever."""
    begin = time.monotonic()
    result = act()
    assert time.monotonic() - begin < seconds
    return result


def refusing(link: Link, bell: Bell) -> bool:
    """Wait until the link says no at once."""
    for number in range(10_000):
        if not link.offer(number, b"x"):
            return True
        link.outcomes()
    return False


def test_what_was_confirmed_survives_a_kill_of_the_node(private_rabbit: Callable[[], RabbitNode], bell: Bell) -> None:
    node = private_rabbit()
    wires = RabbitWires(node)
    try:
        started(wires, "leaf").close()
        link = wires.open("parent", bell).link("leaf", wires.url("parent", "leaf"))
        fates = []
        for number in range(2000):
            while not link.offer(number, b"%d" % number):
                bell.wait()
                fates += link.outcomes()
            if number == 1500:
                node.kill9()
                break
        fates += outcomes(link, bell, 1501 - len(fates))
        confirmed = {one.ref for one in fates if one.ok}
        assert confirmed
        assert all(one.reason for one in fates if not one.ok)
        node.start()
        node.wait_ready()
        # The same link finds the node again by itself.
        assert publish_until_confirmed(link, bell, b"-1")
        inbox = wires.open("leaf", bell, max_length=10_000).inbox()
        seen: set[int] = set()
        while not seen >= confirmed | {-1}:
            batch = inbox.poll(500)
            inbox.ack([one.tag for one in batch])
            seen |= {int(one.data) for one in batch}
            if not batch:
                bell.wait()
    finally:
        wires.close()


def test_inbox_finds_a_killed_node_again_and_has_its_deliveries_again(
    private_rabbit: Callable[[], RabbitNode], bell: Bell
) -> None:
    node = private_rabbit()
    wires = RabbitWires(node)
    try:
        broker = started(wires, "leaf")
        inbox = broker.inbox()
        publish(wires.open("parent", bell).link("leaf", wires.url("parent", "leaf")), bell, b"one", b"two")
        held = poll_until(inbox, 2)
        node.kill9()
        node.start()
        node.wait_ready()
        inbox.ack([one.tag for one in held])  # tags of a lost connection mean nothing
        back = poll_until(inbox, 2)
        assert {one.data for one in back} == {b"one", b"two"}
        assert all(one.redelivered for one in back)
    finally:
        wires.close()


def poll_until(inbox: Inbox, count: int) -> list[Delivery]:
    """For an inbox whose bell is another's."""
    found: list[Delivery] = []
    pause = threading.Event()
    while len(found) < count:
        found += inbox.poll(count - len(found))
        pause.wait(0.01)
    return found


def publish_until_confirmed(link: Link, bell: Bell, body: bytes) -> bool:
    while True:
        if publish(link, bell, body)[0].ok:
            return True


def test_black_hole_ends_in_a_failure_then_in_a_quick_no_and_heals(
    wires: RabbitWires, far_url: tuple[TcpProxy, str], bell: Bell
) -> None:
    proxy, url = far_url
    link = wires.open("parent", bell).link("leaf", url)
    assert publish(link, bell, b"before")[0].ok
    proxy.black_hole()
    assert link.offer("lost", b"lost")
    [outcome] = ended_within(LIMIT * 4, lambda: outcomes(link, bell, 1))
    assert (outcome.ok, outcome.reason) == (False, "not confirmed within 1 s")
    assert ended_within(LIMIT / 2, lambda: link.offer("next", b"next")) is False
    proxy.heal()
    assert publish_until_confirmed(link, bell, b"after")


def test_link_that_is_born_into_a_black_hole_ends_its_messages_too(
    wires: RabbitWires, far_url: tuple[TcpProxy, str], bell: Bell
) -> None:
    proxy, url = far_url
    proxy.black_hole()
    link = wires.open("parent", bell).link("leaf", url)
    assert link.offer("lost", b"lost")
    [outcome] = ended_within(LIMIT * 4, lambda: outcomes(link, bell, 1))
    assert not outcome.ok
    assert outcome.reason


def test_refused_and_cut_connections_are_made_again(
    wires: RabbitWires, far_url: tuple[TcpProxy, str], bell: Bell
) -> None:
    proxy, url = far_url
    link = wires.open("parent", bell).link("leaf", url)
    assert publish(link, bell, b"before")[0].ok
    proxy.refuse()
    assert refusing(link, bell)
    proxy.heal()
    assert publish_until_confirmed(link, bell, b"refused before")
    proxy.cut()
    assert publish_until_confirmed(link, bell, b"cut before")


def test_window_keeps_a_slow_line_busy(wires: RabbitWires, far_url: tuple[TcpProxy, str], bell: Bell) -> None:
    proxy, url = far_url
    proxy.delay(0.05)
    link = wires.open("parent", bell).link("leaf", url)
    offer(link, bell, 0, b"first")
    assert all(link.offer(number, b"more") for number in range(1, 100))
    assert all(one.ok for one in outcomes(link, bell, 100))


def test_message_is_returned_when_the_queue_is_gone(wires: RabbitWires, bell: Bell) -> None:
    started(wires, "leaf").close()
    link = wires.open("parent", bell).link("leaf", wires.url("parent", "leaf"))
    assert publish(link, bell, b"before")[0].ok
    with Connection(wires.owner_url("leaf")) as connection:
        connection.default_channel.queue_delete(INBOX)
    body = b"x" * 200_000  # more than one frame comes back
    fates = publish(link, bell, body, b"", b"y")
    assert [one.ok for one in fates] == [False] * 3
    assert all("unroutable" in one.reason for one in fates)
    started(wires, "leaf").close()
    assert publish(link, bell, b"after")[0].ok


def test_deleted_queue_is_declared_again_by_its_consumer(wires: RabbitWires, bell: Bell) -> None:
    started(wires, "leaf").close()
    inbox = wires.open("leaf", bell).inbox()
    link = wires.open("parent", bell).link("leaf", wires.url("parent", "leaf"))
    publish(link, bell, b"before")
    deliveries(inbox, bell, 1)
    with Connection(wires.owner_url("leaf")) as connection:
        connection.default_channel.queue_delete(INBOX)
    assert publish_until_confirmed(link, bell, b"after")
    assert [one.data for one in deliveries(inbox, bell, 1)] == [b"after"]


def test_queue_with_other_limits_is_kept_and_consumed(
    wires: RabbitWires, bell: Bell, caplog: pytest.LogCaptureFixture
) -> None:
    started(wires, "leaf").close()
    link = wires.open("parent", bell).link("leaf", wires.url("parent", "leaf"))
    publish(link, bell, b"kept")
    with caplog.at_level(logging.WARNING):
        inbox = wires.open("leaf", bell, max_length=7).inbox()
        assert [one.data for one in deliveries(inbox, bell, 1)] == [b"kept"]
    assert "exists with other settings and is kept" in caplog.text


def test_neighbours_user_can_only_write_to_the_inbox(wires: RabbitWires) -> None:
    started(wires, "leaf").close()
    url = wires.url("parent", "leaf")
    for forbidden in (
        lambda channel: channel.queue_declare("mine"),
        lambda channel: channel.exchange_declare("mine", "fanout"),
        lambda channel: channel.basic_consume(INBOX),
        lambda channel: channel.basic_get(INBOX),
        lambda channel: channel.queue_purge(INBOX),
    ):
        with Connection(url) as connection, pytest.raises(AccessRefused):
            forbidden(connection.default_channel)


def test_neighbours_user_cannot_reach_the_cells_other_queues(wires: RabbitWires) -> None:
    started(wires, "leaf").close()
    with Connection(wires.url("parent", "leaf"), transport_options={"confirm_publish": True}) as connection:
        channel = connection.default_channel
        with pytest.raises(AccessRefused):
            channel.basic_publish(channel.prepare_message(b"{}"), exchange="", routing_key="celltree.posting")


def test_forged_publisher_is_refused(wires: RabbitWires) -> None:
    started(wires, "leaf").close()
    with Connection(wires.url("parent", "leaf"), transport_options={"confirm_publish": True}) as connection:
        channel = connection.default_channel
        message = channel.prepare_message(b"{}", properties={"user_id": wires.user("uncle")})
        with pytest.raises(PreconditionFailed):
            channel.basic_publish(message, exchange=INBOX)


def test_wrong_password_is_a_reason_and_not_in_it(rabbit: RabbitNode, wires: RabbitWires, bell: Bell) -> None:
    right = wires.url("parent", "leaf")
    password = urlsplit(right).password
    link = wires.open("parent", bell).link("leaf", right.replace(f":{password}@", ":hunter2@"))
    reasons = [one.reason for one in outcomes(link, bell, 1)] if link.offer(1, b"x") else ["403"]
    assert "403" in reasons[0] or "ACCESS_REFUSED" in reasons[0]
    assert "hunter2" not in reasons[0]


def test_closing_is_bounded_when_the_broker_is_silent(
    rabbit: RabbitNode, wires: RabbitWires, far_url: tuple[TcpProxy, str], bell: Bell
) -> None:
    proxy, url = far_url
    owner = wires.owner_url("leaf").replace(f":{rabbit.amqp_port}/", f":{proxy.port}/")
    broker = open_broker(owner, "leaf", bell, options=AmqpOptions(time_limit=LIMIT))
    inbox = broker.inbox()
    link = broker.link("leaf", url)
    assert publish_until_confirmed(link, bell, b"one")
    deliveries(inbox, bell, 1)
    proxy.black_hole()
    link.offer(1, b"swallowed")
    ended_within(10.0, broker.close)
