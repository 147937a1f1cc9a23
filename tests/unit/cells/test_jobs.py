"""Jobs: once, resumed, stopped early, tried again; and only under a lease."""

from collections.abc import Iterator
from typing import Any

import pytest

from cells.decision import Job, Remove
from cells.errors import LeaseLost, Permanent, Refusal, Temporary
from cells.jobs import TRIES, Jobs, StoreJournal
from cells.leases import LEASE, SKEW, Shards
from cells.messages import JobEnded
from cells.names import SECOND
from cells.ports import Journal
from cells.record import NO_SERVER
from cells.rows import MACHINERY, SHARDS, JobRow, LeaseRow
from cells.store.sql import SqlStore

NOW = 1_000 * SECOND


@pytest.fixture
def store() -> Iterator[SqlStore]:
    store = SqlStore("sqlite://", MACHINERY)
    store.create_all()
    with store.unit() as unit:
        unit.save(LeaseRow(shard=0, holder="main", epoch=4, expires=NOW + LEASE))
    yield store
    store.close()


class Work:
    """A role whose work does what it is told, and counts."""

    def __init__(self, *results: Any) -> None:
        self.results = list(results)
        self.runs = 0

    def work(self, job: Job, journal: Journal) -> Any:
        self.runs += 1
        result = self.results.pop(0) if self.results else None
        if isinstance(result, Exception):
            raise result
        return result(journal) if callable(result) else result


class Desk:
    """Jobs over a store, with a clock that is set by hand."""

    def __init__(self, store: SqlStore, work: Work, per_lane: int = 4) -> None:
        self.now = NOW
        self.ends: list[JobEnded] = []
        self.jobs = Jobs(
            role=work,  # type: ignore[arg-type]
            store=store,
            clock=lambda: self.now,
            ended=lambda row, end, epoch: self.ends.append(end),
            threads=0,
            per_lane=per_lane,
        )
        self._store = store

    def start(self, number: int = 1, epoch: int = 4, lane: str = "host", server: bytes = NO_SERVER) -> JobRow:
        row = JobRow(
            id=number.to_bytes(16, "big"), shard=0, kind="k", server=server, lane=lane, request="", started=NOW,
            body=b"",
        )  # fmt: skip
        with self._store.unit() as unit:
            unit.save(row)
        self.jobs.start(row, epoch)
        return row

    def run(self) -> int:
        count = 0
        while self.jobs.run_waiting():
            count += 1
        return count


def test_job_that_has_ended_is_not_adopted_again_before_its_end_is_decided(store: SqlStore) -> None:
    work = Work()
    desk = Desk(store, work)
    row = desk.start()
    desk.run()
    desk.jobs.start(row, 4)  # what the node does each second with every job it finds in the database
    assert desk.run() == 0
    assert work.runs == 1
    desk.jobs.forget(row.id)
    assert desk.jobs.idle


def test_temporary_failure_is_tried_again_later_and_later_and_then_given_up(store: SqlStore) -> None:
    desk = Desk(store, Work(*(Temporary("busy", retry_after=2.0) for _ in range(TRIES))))
    desk.start()
    desk.run()
    waits = []
    while (due := desk.jobs.next_try()) is not None:
        waits.append((due - desk.now) // SECOND)
        desk.jobs.turn(due - 1)
        assert desk.run() == 0
        desk.now = due
        desk.jobs.turn(due)
        desk.run()
    assert waits == [2, 4, 8, 16, 32]
    assert [(end.error, end.permanent) for end in desk.ends] == [("busy", False)]


def test_job_that_waits_for_another_try_is_stopped_at_once(store: SqlStore) -> None:
    desk = Desk(store, Work(Temporary("busy", retry_after=600.0), lambda journal: journal.check()))
    row = desk.start()
    desk.run()
    desk.jobs.stop_early(row.id, "the server is being deleted")
    desk.jobs.turn(desk.now)
    assert desk.run() == 1
    assert [end.error for end in desk.ends] == ["the server is being deleted"]


@pytest.mark.parametrize(
    ("server", "error"), [(NO_SERVER, "the daemon is ending"), (b"s" * 16, "")], ids=["of no server", "of a server"]
)
def test_daemon_that_ends_waits_for_jobs_of_servers_only(store: SqlStore, server: bytes, error: str) -> None:
    def ended_meanwhile(journal: Journal) -> None:
        desk.jobs.close()
        journal.check()

    desk = Desk(store, Work(ended_meanwhile))
    desk.start(server=server)
    desk.run()
    assert [end.error for end in desk.ends] == [error]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Permanent("no such image"), "no such image"),
        (Refusal("no_room", "full"), "full"),
        (ZeroDivisionError("secret"), "an internal error; see the cell's log"),
    ],
)
def test_failure_ends_the_job_with_words_for_people(store: SqlStore, error: Exception, text: str) -> None:
    desk = Desk(store, Work(error))
    desk.start()
    desk.run()
    assert [(end.error, end.permanent) for end in desk.ends] == [(text, True)]


def test_lane_holds_no_more_than_its_limit(store: SqlStore) -> None:
    desk = Desk(store, Work(), per_lane=2)
    for number in range(1, 6):
        desk.start(number, lane="slow host")
    desk.start(9, lane="other host")
    assert desk.jobs.run_waiting() and desk.jobs.run_waiting() and desk.jobs.run_waiting()
    assert desk.run() == 3
    assert len(desk.ends) == 6


def test_job_under_a_lease_that_was_taken_over_stops_and_has_no_end(store: SqlStore) -> None:
    desk = Desk(store, Work(lambda journal: journal.put("step", 1)))
    row = desk.start(epoch=3)
    desk.run()
    assert desk.ends == []
    assert not desk.jobs.knows(row.id)


def test_journal_keeps_steps_and_checks_the_lease_before_each(store: SqlStore) -> None:
    desk = Desk(store, Work())
    row = desk.start()
    mine = StoreJournal(store, row, 4, stopping=lambda job: "", held=lambda shard, epoch: False)
    mine.put("step", {"a": 1})
    assert mine.get("step") == {"a": 1}
    mine.check()
    stale = StoreJournal(store, row, 3, stopping=lambda job: "", held=lambda shard, epoch: False)
    for act in (stale.check, lambda: stale.put("step", 2)):
        with pytest.raises(LeaseLost):
            act()
    assert mine.get("step") == {"a": 1}


def test_job_whose_end_was_decided_elsewhere_stops_at_its_next_step(store: SqlStore) -> None:
    row = Desk(store, Work()).start()
    with store.unit() as unit:
        unit.save(Remove(row=JobRow, key=(row.id,)))
    with pytest.raises(LeaseLost):
        StoreJournal(store, row, 4, stopping=lambda job: "", held=lambda shard, epoch: False).check()


# --- leases ---


def test_two_daemons_share_the_shards_and_none_is_held_twice(store: SqlStore) -> None:
    one, two = Shards(store, "one"), Shards(store, "two")
    now = NOW + LEASE
    one.renew(now)
    two.renew(now)
    for _ in range(3):
        now += SECOND
        one.renew(now)
        two.renew(now)
    assert len(one.held) == len(two.held) == SHARDS // 2
    assert not set(one.held) & set(two.held)


def test_shards_of_a_silent_daemon_are_taken_over_at_a_higher_epoch_and_it_finds_out(store: SqlStore) -> None:
    one, two = Shards(store, "one"), Shards(store, "two")
    one.renew(NOW + LEASE)
    epochs = dict(one.held)
    later = NOW + 2 * LEASE
    assert not any(one.holds(shard, later) for shard in epochs)
    two.renew(later)
    assert set(two.held) == set(epochs)
    assert all(two.held[shard] > epoch for shard, epoch in epochs.items())
    one.renew(later)
    assert not set(one.held) & set(two.held)


def test_daemon_that_starts_anew_under_its_name_takes_its_shards_at_once(store: SqlStore) -> None:
    one = Shards(store, "one")
    one.renew(NOW + LEASE)
    again = Shards(store, "one")
    again.renew(NOW + LEASE + SECOND)
    assert all(again.held[shard] == epoch + 1 for shard, epoch in one.held.items())
    one.renew(NOW + LEASE + 2 * SECOND)
    assert not one.held


def test_shards_given_back_are_free_at_once(store: SqlStore) -> None:
    one, two = Shards(store, "one"), Shards(store, "two")
    one.renew(NOW + LEASE)
    one.give_back(NOW + LEASE + 1)
    two.renew(NOW + LEASE + 2)
    assert two.held and not one.held


def test_lease_is_sure_only_while_no_clock_can_have_ended_it(store: SqlStore) -> None:
    one = Shards(store, "one")
    one.renew(NOW + LEASE)
    shard, epoch = next(iter(one.held.items()))
    assert one.is_sure(shard, epoch, NOW + LEASE)
    assert not one.is_sure(shard, epoch, NOW + 2 * LEASE - SKEW)
    assert not one.is_sure(shard, epoch + 1, NOW + LEASE)
