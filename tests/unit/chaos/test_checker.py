"""The checker sees what it is there for: one small world that is right, and one thing wrong in it at a time."""

import hashlib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

from cells.names import id_text
from tests.chaos.checker import Verdict, judge
from tests.chaos.history import End, Event, History, read
from tests.chaos.truth import Truth, differences
from tests.unit.cells.simulation.test_invariants import API, FACT, LEAF, OTHER, POOL, SERVER, VM, vms

BUILT = Event(at=1.0, by="t", end=End.OK, action="build", name="vm", server=id_text(SERVER), flavor="1")
TRUTH = Truth(audits={"api": API, "leaf": LEAF}, pools={"leaf": POOL}, parked={}, busy=(), records=9, images={})
NOTHING = replace(
    TRUTH,
    audits={
        "api": replace(API, owned=(), capacity=(), usage=()),
        "leaf": replace(LEAF, held=(), places=(), capacity=()),
    },
    pools={"leaf": vms()},
)
DELETED = replace(NOTHING, audits={**NOTHING.audits, "api": replace(NOTHING.audits["api"], gone=frozenset({SERVER}))})


def verdict(*events: Event, truth: Truth = TRUTH, flips: bool = False, put_back: Collection[str] = ()) -> Verdict:
    """`put_back`: cells that have lost what they did in the first seconds."""
    leaves = frozenset({"leaf"} if truth is TRUTH else ())
    forgotten = {cell: [(0.0, 5.0)] for cell in put_back}
    return judge(events, truth, "api", leaves, flips=flips, forgotten=forgotten)


def promises(*events: Event, truth: Truth = TRUTH, flips: bool = False, put_back: Collection[str] = ()) -> list[str]:
    """The names of the broken promises."""
    seen = verdict(*events, truth=truth, flips=flips, put_back=put_back)
    return [breach.partition(", ")[2].partition(":")[0] for breach in seen.breaches]


def test_a_build_that_was_accepted_and_is_there_once_is_right():
    seen = verdict(BUILT)
    assert (seen.breaches, seen.accepted, seen.lost, seen.doubled, seen.ended["ACTIVE"]) == ((), 1, 0, 0, 1)


def test_an_accepted_build_that_is_nowhere_is_lost():
    seen = verdict(BUILT, truth=NOTHING)
    assert seen.lost == 1
    assert promises(BUILT, truth=NOTHING) == ["nothing asked is forgotten"]


@pytest.mark.parametrize("truth", [TRUTH, NOTHING], ids=["was done", "was not done"])
def test_a_build_of_unknown_end_may_have_been_done_or_not(truth: Truth):
    assert promises(replace(BUILT, end=End.INFO, server=""), truth=truth) == []


def test_a_refused_build_that_is_there_is_a_lie():
    assert promises(replace(BUILT, end=End.FAIL, server="")) == ["what was refused is not done"]


def test_a_name_with_two_servers_is_a_build_done_twice():
    again = replace(BUILT, server=id_text(OTHER))
    there = replace(FACT, server=OTHER)
    truth = replace(
        TRUTH,
        audits={
            "api": replace(API, owned=(FACT, there)),
            "leaf": replace(LEAF, held=(*LEAF.held, replace(LEAF.held[0], server=OTHER))),
        },
        pools={"leaf": vms(VM, replace(VM, server=OTHER, uuid="vm-2"))},
    )
    assert verdict(BUILT, again, truth=truth).doubled == 1
    assert "a build is one build" in promises(BUILT, again, truth=truth)


def test_two_running_vms_of_a_server_are_seen_wherever_they_are():
    truth = replace(TRUTH, pools={"leaf": vms(VM, replace(VM, uuid="vm-2"))})
    assert "at most one VM of a server is started" in promises(BUILT, truth=truth)


@pytest.mark.parametrize("end", [End.OK, End.INFO])
def test_a_delete_that_may_have_been_taken_explains_that_a_server_is_gone(end: End):
    asked = Event(at=2.0, by="t", end=end, action="delete", name="vm", server=id_text(SERVER))
    assert promises(BUILT, asked, truth=DELETED) == []
    assert promises(BUILT, replace(asked, end=End.FAIL), truth=DELETED) == ["nothing goes unasked"]


def test_a_delete_that_was_accepted_must_end():
    asked = Event(at=2.0, by="t", end=End.OK, action="delete", name="vm", server=id_text(SERVER))
    assert promises(BUILT, asked) == ["deletes end"]
    assert promises(BUILT, replace(asked, end=End.INFO)) == []


def test_what_still_waits_has_not_ended():
    assert promises(BUILT, truth=replace(TRUTH, busy=("api waits",))) == ["everything ends"]


def test_garbage_is_parked_rightly_where_bits_were_flipped_and_only_there():
    truth = replace(TRUTH, parked={"leaf": (" not a bundle: unpack failed",)})
    assert promises(BUILT, truth=truth) == ["nothing sound is parked"]
    assert promises(BUILT, truth=truth, flips=True) == []
    sound = replace(TRUTH, parked={"leaf": ("server.stop could not be decided on: no",)})
    assert promises(BUILT, truth=sound, flips=True) == ["nothing sound is parked"]


def test_a_snapshot_must_end_and_a_flavor_must_have_been_asked_for():
    snapshot = Event(at=2.0, by="t", end=End.OK, action="createImage", name="vm", server=id_text(SERVER), image="i")
    assert promises(BUILT, snapshot, truth=replace(TRUTH, images={"i": "active"})) == []
    assert promises(BUILT, snapshot, truth=replace(TRUTH, images={"i": "saving"})) == ["a snapshot ends"]


def test_an_image_whose_data_is_not_what_is_said_of_it_is_damaged() -> None:
    image = {
        "id": "i",
        "size": 5,
        "checksum": hashlib.md5(b"image").hexdigest(),
        "os_hash_algo": "sha512",
        "os_hash_value": hashlib.sha512(b"image").hexdigest(),
    }
    assert list(differences(image, b"image")) == []
    assert [line.split()[3] for line in differences(image, b"imagE")] == ["checksum", "os_hash_value"]
    assert [line.split()[3] for line in differences(image, b"")] == ["size", "checksum", "os_hash_value"]
    damaged = tuple(differences(image, b"imagE"))[:1]
    assert promises(BUILT, truth=replace(TRUTH, damaged=damaged)) == ["an image is what is said of it"]
    assert promises(replace(BUILT, flavor="2")) == ["nothing goes unasked"]


def test_vm_of_a_server_is_left_over_only_where_all_have_lost_it():
    truth = replace(NOTHING, pools={"leaf": vms(VM)})
    assert promises(BUILT, truth=truth, put_back=("api", "leaf")) == []
    assert "no VM without an owner" in promises(BUILT, truth=truth, put_back=("api",))
    assert "no VM without an owner" in promises(BUILT, truth=truth, put_back=("leaf",))
    assert "no VM without an owner" in promises(replace(BUILT, at=20.0), truth=truth, put_back=("api", "leaf"))


def test_snapshot_that_its_owner_has_lost_need_not_end():
    snapshot = Event(at=2.0, by="t", end=End.OK, action="createImage", name="vm", server=id_text(SERVER), image="i")
    queued = replace(TRUTH, images={"i": "queued"})
    assert promises(BUILT, snapshot, truth=queued, put_back=("api",)) == []
    assert promises(BUILT, snapshot, truth=queued, put_back=("leaf",)) == ["a snapshot ends"]
    assert promises(BUILT, replace(snapshot, at=20.0), truth=queued, put_back=("api",)) == ["a snapshot ends"]


def test_a_history_is_read_as_it_was_written(tmp_path: Path):
    history = History(tmp_path / "history.jsonl")
    history.add(BUILT)
    history.close()
    assert read(tmp_path / "history.jsonl") == [BUILT] == history.events
