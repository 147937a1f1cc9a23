"""Watching a pool waits in slices, so that a daemon that is to end need not wait for the pool's answer."""

import threading
import time
from contextlib import closing

import pytest

from cells.errors import Refusal
from compute_cell.tasks import WatchTask
from compute_cell.work.pools import SLICE, wait_and_look
from tests.support.xen_hosts import KeptJournal
from tests.xenserver.simulated import connected
from xenapi_host import driver
from xenapi_host.session import Session
from xenapi_host.simulator.full import FullPool


class Ending(KeptJournal):
    """The journal of a job whose daemon is asked to end, after some time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._at = time.monotonic() + seconds

    def check(self) -> None:
        if time.monotonic() >= self._at:
            raise Refusal("deleted", "the daemon is ending")


def task(session: Session, wait: float) -> WatchTask:
    return WatchTask(pool="pool", token=driver.look(session).token, wait=wait, began=0, whole=False)


def test_watch_ends_within_a_slice_of_being_asked_to(session: Session) -> None:
    watch = task(session, 20.0)
    began = time.monotonic()
    with pytest.raises(Refusal):
        wait_and_look(session, watch, Ending(0.2))
    assert time.monotonic() - began < 0.2 + SLICE + 3.0  # twenty seconds without slices


def test_what_happens_in_a_later_slice_is_seen_at_once(session: Session, pool: FullPool) -> None:
    watch = task(session, 20.0)
    with closing(connected(pool)) as other:
        some = other.call("VM.get_all")[0]
        timer = threading.Timer(SLICE + 0.5, other.call, ("VM.set_name_description", some, "changed"))
        timer.start()
        began = time.monotonic()
        seen = wait_and_look(session, watch, KeptJournal())
        timer.join()
    assert not seen.quiet
    assert SLICE < time.monotonic() - began < 15


def test_wait_in_which_nothing_happens_ends_quietly_in_its_time(session: Session) -> None:
    began = time.monotonic()
    assert wait_and_look(session, task(session, 2.0), KeptJournal()).quiet
    assert time.monotonic() - began > 1.9
