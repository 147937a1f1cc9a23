"""Which of several ways a record takes: what was lost by one goes by another, and an answer goes where the command came
from."""

from collections.abc import Iterator
from itertools import accumulate, count

import pytest

from cells.broker.memory import MemoryBroker, MemoryExchange, MemoryExchanges
from cells.codec import unpack_bundle
from cells.identity import Identity
from cells.names import NEVER, SECOND
from cells.ports import Inbox
from cells.pump import AVOID, LED_LATELY, Pump
from cells.unsent import RESEND_AFTER
from compute_cell.reports import due_again
from tests.support.embedded import make_tree

NOW = 1_000 * SECOND
FAR = "leaf"
WAYS = ("dfw", "ord")


class Place:
    """A cell with two ways to FAR, and what has come to the neighbours."""

    def __init__(self, identity: Identity) -> None:
        self.exchanges = MemoryExchanges()
        self.inboxes: dict[str, Inbox] = {}
        own = MemoryBroker(self.exchanges.exchange("east"), "east", lambda: None)
        self.pump = Pump(identity=identity, next_hops=lambda destination, now: self.ways, first_serial=0)
        self.ways = WAYS
        for way in WAYS:
            self.inboxes[way] = MemoryBroker(self.exchange(way), way, lambda: None).inbox()
            self.pump.join(way, own.link(way, f"memory://{way}"))
        self._ids = count()

    def exchange(self, way: str) -> MemoryExchange:
        return self.exchanges.exchange(way)

    def send(self, now: int, *, id: bytes = b"", straight: bool = False) -> str | None:
        return self.pump.send(FAR, id or b"%d" % next(self._ids), b"record", NEVER, now, straight=straight)

    def has_come(self, way: str) -> int:
        return sum(len(unpack_bundle(each.data)) for each in self.inboxes[way].poll(100))


@pytest.fixture(scope="module")
def identity() -> Iterator[Identity]:
    tree = make_tree({"east": ()})
    yield tree["east"].identity
    tree.close()


@pytest.fixture
def place(identity: Identity) -> Place:
    return Place(identity)


def test_the_best_way_is_taken_while_nothing_speaks_against_it(place: Place) -> None:
    assert [place.send(NOW) for _ in range(3)] == ["dfw"] * 3


def test_what_was_not_answered_by_one_way_goes_by_the_other_whatever_else_was_sent_again_meanwhile(
    place: Place,
) -> None:
    for _ in range(3):
        place.pump.lost(FAR, "dfw", NOW)
        assert place.send(NOW) == "ord"


def test_a_way_is_left_aside_for_that_destination_only_and_for_a_while(place: Place) -> None:
    place.pump.lost(FAR, "dfw", NOW)
    assert place.pump.send("other", b"id", b"record", NEVER, NOW) == "dfw"
    assert place.send(NOW + AVOID - 1) == "ord"
    assert place.send(NOW + AVOID) == "dfw"


def test_with_every_way_in_doubt_they_take_turns(place: Place) -> None:
    taken: list[str] = []
    for turn in range(4):
        now = NOW + turn * SECOND
        taken.append(place.send(now) or "")
        place.pump.lost(FAR, taken[-1], now)
    assert taken == ["dfw", "ord", "dfw", "ord"]


def test_a_way_in_doubt_is_better_than_a_broker_that_takes_nothing(place: Place) -> None:
    place.pump.lost(FAR, "ord", NOW)
    place.exchange("dfw").stop()
    place.send(NOW)
    place.pump.turn(NOW)
    place.pump.turn(NOW)
    assert place.send(NOW) == "ord"


def test_answers_go_the_way_the_last_command_came(place: Place) -> None:
    place.pump.led(FAR, "ord", NOW)
    assert place.send(NOW) == "ord"
    place.pump.led(FAR, "dfw", NOW)
    assert place.send(NOW) == "dfw"
    place.pump.lost(FAR, "dfw", NOW)
    assert place.send(NOW) == "ord"


def test_a_report_without_answer_speaks_against_the_last_way_unless_a_command_came_by_it_since(place: Place) -> None:
    place.pump.led(FAR, "dfw", NOW)
    place.send(NOW)
    place.pump.unanswered(FAR, NOW + LED_LATELY)
    assert place.send(NOW + LED_LATELY) == "dfw"
    place.pump.unanswered(FAR, NOW + LED_LATELY + 1)
    assert place.send(NOW + LED_LATELY + 1) == "ord"


def test_what_comes_again_by_another_way_speaks_against_the_way_of_its_acknowledgement(place: Place) -> None:
    place.send(NOW)
    place.pump.came_again(FAR, "dfw", NOW)
    assert place.send(NOW) == "dfw"
    place.pump.came_again(FAR, "ord", NOW)
    assert place.send(NOW) == "ord"


def test_what_waits_behind_a_silent_link_is_moved_to_the_other(place: Place) -> None:
    place.send(NOW)
    place.pump.turn(NOW)  # on its way, not confirmed yet as far as the pump has looked
    assert place.send(NOW, id=b"late") == "dfw"
    place.pump.lost(FAR, "dfw", NOW)
    assert place.send(NOW, id=b"late") == "ord"
    place.pump.turn(NOW)
    place.pump.turn(NOW)
    assert (place.has_come("dfw"), place.has_come("ord")) == (1, 1)
    assert not place.pump.busy


def test_a_hello_goes_straight_or_not_at_all(place: Place) -> None:
    assert place.pump.send("dfw", b"1", b"hello", NEVER, NOW, straight=True) == "dfw"
    place.pump.lost("dfw", "dfw", NOW)
    assert place.pump.send("dfw", b"2", b"hello", NEVER, NOW, straight=True) == "dfw"
    assert place.send(NOW, straight=True) is None


def test_a_report_is_sent_again_as_often_as_a_record_of_the_outbox() -> None:
    sent, after, times = NOW, NOW, []
    for _ in range(len(RESEND_AFTER) + 2):
        after = due_again(sent, after)
        times.append(after - sent)
    assert times == list(accumulate((*RESEND_AFTER, RESEND_AFTER[-1], RESEND_AFTER[-1])))
