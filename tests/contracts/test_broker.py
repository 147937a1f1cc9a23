"""What every broker promises a node; one suite, held to by memory and by RabbitMQ."""

from collections.abc import Iterator

import pytest

from cells.broker import MemoryExchanges, open_broker
from cells.errors import BadInput
from cells.record import MAX_BUNDLE
from tests.support.brokers import Bell, MemoryWires, RabbitWires, Wires, deliveries, offer, outcomes, publish


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.services)])
def wires(request: pytest.FixtureRequest) -> Iterator[Wires]:
    made = MemoryWires() if request.param == "memory" else RabbitWires(request.getfixturevalue("rabbit"))
    yield made
    made.close()


@pytest.fixture
def bell() -> Bell:
    return Bell()


def declared(wires: Wires, cell: str, **limits: int) -> None:
    """The cell has been there once, so its queue exists; nobody consumes it now."""
    bell = Bell()
    broker = wires.open(cell, bell, **limits)
    inbox = broker.inbox()
    sender = wires.open("first", bell)
    link = sender.link(cell, wires.url("first", cell))
    while not publish(link, bell, b"knock")[0].ok:
        pass  # the queue is declared by a thread of the inbox
    inbox.ack([one.tag for one in deliveries(inbox, bell, 1)])
    sender.close()
    broker.close()


def test_message_reaches_the_neighbours_inbox_and_tells_its_publisher(wires: Wires, bell: Bell) -> None:
    declared(wires, "leaf")
    link = wires.open("parent", bell).link("leaf", wires.url("parent", "leaf"))
    assert [(one.ref, one.ok, one.reason) for one in publish(link, bell, b"hello")] == [(0, True, "")]
    inbox = wires.open("leaf", bell).inbox()
    [delivery] = deliveries(inbox, bell, 1)
    assert delivery.data == b"hello"
    assert delivery.user == wires.user("parent")
    assert not delivery.redelivered


def test_any_bytes_pass_untouched_up_to_the_limit(wires: Wires, bell: Bell) -> None:
    declared(wires, "leaf")
    bodies = {b"", b"\0", b"\xce" * 9, b"not msgpack", bytes(range(256)) * 64, b"\xff" * MAX_BUNDLE}
    link = wires.open("parent", bell).link("leaf", wires.url("parent", "leaf"))
    assert all(one.ok for one in publish(link, bell, *bodies))
    inbox = wires.open("leaf", bell).inbox()
    assert {one.data for one in deliveries(inbox, bell, len(bodies))} == bodies


def test_message_over_the_limit_is_refused_before_it_is_taken(wires: Wires, bell: Bell) -> None:
    link = wires.open("parent", bell).link("leaf", wires.url("parent", "leaf"))
    with pytest.raises(BadInput, match="over the limit"):
        link.offer(1, bytes(MAX_BUNDLE + 1))


def test_unacknowledged_deliveries_come_again_flagged_and_acknowledged_ones_never(wires: Wires, bell: Bell) -> None:
    declared(wires, "leaf")
    link = wires.open("parent", bell).link("leaf", wires.url("parent", "leaf"))
    publish(link, bell, *(b"%d" % number for number in range(10)))
    first = wires.open("leaf", bell)
    inbox = first.inbox()
    held = {one.data: one.tag for one in deliveries(inbox, bell, 10)}
    inbox.ack([held[b"%d" % number] for number in (9, 0, 1, 5)])
    first.close()
    again = wires.open("leaf", bell)
    back = deliveries(again.inbox(), bell, 6)
    assert {one.data for one in back} == {b"2", b"3", b"4", b"6", b"7", b"8"}
    assert all(one.redelivered for one in back)
    again.inbox().ack([one.tag for one in back])
    again.close()
    publish(link, bell, b"last")
    [last] = deliveries(wires.open("leaf", bell).inbox(), bell, 1)
    assert last.data == b"last"


def test_acknowledging_after_the_end_does_nothing(wires: Wires, bell: Bell) -> None:
    declared(wires, "leaf")
    link = wires.open("parent", bell).link("leaf", wires.url("parent", "leaf"))
    publish(link, bell, b"one")
    first = wires.open("leaf", bell)
    late = first.inbox()
    [held] = deliveries(late, bell, 1)
    first.close()
    second = wires.open("leaf", bell).inbox()
    [again] = deliveries(second, bell, 1)
    late.ack([held.tag])
    assert late.poll(10) == []
    assert again.data == b"one"
    assert again.redelivered


def test_full_queue_pushes_back_and_keeps_what_it_confirmed(wires: Wires, bell: Bell) -> None:
    declared(wires, "leaf", max_length=3)
    link = wires.open("parent", bell).link("leaf", wires.url("parent", "leaf"))
    fates = [publish(link, bell, b"%d" % number)[0] for number in range(6)]
    assert [one.ok for one in fates] == [True] * 3 + [False] * 3
    assert {one.reason for one in fates[3:]} == {"queue is full"}
    inbox = wires.open("leaf", bell, max_length=3).inbox()
    assert {one.data for one in deliveries(inbox, bell, 3)} == {b"0", b"1", b"2"}


def test_two_daemons_of_a_cell_share_its_queue(wires: Wires, bell: Bell) -> None:
    declared(wires, "leaf")
    one, other = (wires.open("leaf", bell, prefetch=40).inbox() for _ in range(2))
    link = wires.open("parent", bell).link("leaf", wires.url("parent", "leaf"))
    sent = {b"%d" % number for number in range(60)}
    publish(link, bell, *sent)
    mine: list[bytes] = []
    yours: list[bytes] = []
    while len(mine) + len(yours) < len(sent):
        came = one.poll(5), other.poll(5)
        mine += [delivery.data for delivery in came[0]]
        yours += [delivery.data for delivery in came[1]]
        if not any(came):
            bell.wait()
    assert sorted(mine + yours) == sorted(sent)
    assert 20 <= len(mine) <= 40


def test_what_a_dead_daemon_held_goes_to_the_other(wires: Wires, bell: Bell) -> None:
    declared(wires, "leaf")
    first = wires.open("leaf", bell)
    holding = first.inbox()
    link = wires.open("parent", bell).link("leaf", wires.url("parent", "leaf"))
    publish(link, bell, b"one", b"two")
    deliveries(holding, bell, 2)
    other = wires.open("leaf", bell).inbox()
    assert other.poll(10) == []
    first.close()
    assert {one.data for one in deliveries(other, bell, 2)} == {b"one", b"two"}


def test_daemon_holds_no_more_than_its_prefetch(wires: Wires, bell: Bell) -> None:
    declared(wires, "leaf")
    inbox = wires.open("leaf", bell, prefetch=4).inbox()
    link = wires.open("parent", bell).link("leaf", wires.url("parent", "leaf"))
    publish(link, bell, *(b"%d" % number for number in range(6)))
    held = deliveries(inbox, bell, 4)
    assert inbox.poll(10) == []
    inbox.ack([held[3].tag])
    [fifth] = deliveries(inbox, bell, 1)
    assert fifth.data not in {one.data for one in held}


def test_each_of_many_messages_has_one_outcome_and_one_delivery(wires: Wires, bell: Bell) -> None:
    declared(wires, "leaf", max_length=10_000)
    inbox = wires.open("leaf", bell, max_length=10_000).inbox()
    link = wires.open("parent", bell).link("leaf", wires.url("parent", "leaf"))
    fates, taken, number = [], [], 0
    while len(fates) < 1500 or len(taken) < 1500:
        known, batch = link.outcomes(), inbox.poll(100)
        while number < 1500 and link.offer(number, b"%d" % number):
            number += 1
        inbox.ack([one.tag for one in batch])
        fates += known
        taken += batch
        if not known and not batch:
            bell.wait()
    assert sorted(one.ref for one in fates) == list(range(1500))
    assert all(one.ok for one in fates)
    assert sorted(int(one.data) for one in taken) == list(range(1500))


def test_message_to_a_broker_that_is_not_there_is_refused_or_ends_with_a_reason(wires: Wires, bell: Bell) -> None:
    link = wires.open("parent", bell).link("leaf", wires.nowhere())
    if not link.offer("it", b"hello"):
        return  # it has found out already, and says no at once
    [outcome] = outcomes(link, bell, 1)
    assert (outcome.ref, outcome.ok) == ("it", False)
    assert outcome.reason


def test_message_to_a_cell_that_was_never_started_ends_as_unroutable(wires: Wires, bell: Bell) -> None:
    link = wires.open("parent", bell).link("leaf", wires.url("parent", "leaf"))
    offer(link, bell, "it", b"hello")
    [outcome] = outcomes(link, bell, 1)
    assert not outcome.ok
    assert "nreachable" in outcome.reason or "unroutable" in outcome.reason


def test_closed_link_takes_nothing(wires: Wires, bell: Bell) -> None:
    declared(wires, "leaf")
    link = wires.open("parent", bell).link("leaf", wires.url("parent", "leaf"))
    publish(link, bell, b"one")
    link.close()
    assert not link.offer(2, b"two")


def test_link_to_a_url_of_no_known_kind_is_refused_without_its_password(wires: Wires, bell: Bell) -> None:
    broker = wires.open("parent", bell)
    with pytest.raises(BadInput) as refusal:
        broker.link("leaf", "http://user:secret@127.0.0.1/")
    assert "secret" not in str(refusal.value)


def test_broker_of_a_url_of_no_known_kind_is_refused(bell: Bell) -> None:
    with pytest.raises(BadInput, match="is not known"):
        open_broker("kafka://127.0.0.1", "leaf", bell, exchanges=MemoryExchanges())
