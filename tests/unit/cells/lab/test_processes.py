"""Children are found by pid and start time, and ended for certain."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from cells.errors import Permanent
from cells.lab import processes
from cells.lab.programs import clean_environment


def child(tmp_path: Path, script: str) -> processes.ProcessMark:
    return processes.spawn(
        ["/bin/sh", "-c", script], env=clean_environment(), log=tmp_path / "log", mark_file=tmp_path / "child.pid"
    )


def said(tmp_path: Path, word: str) -> bool:
    return processes.wait_until(lambda: word in processes.log_tail(tmp_path / "log"), timeout=30)


def test_child_is_found_again_by_its_mark_file(tmp_path: Path) -> None:
    mark = child(tmp_path, "exec cat /dev/zero > /dev/null")
    assert processes.read_mark(tmp_path / "child.pid") == mark
    assert processes.is_alive(mark)
    processes.kill(mark)
    assert not processes.is_alive(mark)


def test_pid_given_to_another_process_is_neither_alive_nor_killed(tmp_path: Path) -> None:
    mark = child(tmp_path, "exec cat /dev/zero > /dev/null")
    reused = replace(mark, started=mark.started - 1)
    assert not processes.is_alive(reused)
    processes.stop(reused, grace=0.0)
    assert processes.is_alive(mark)
    rebooted = replace(mark, boot="another boot")
    assert not processes.is_alive(rebooted)
    processes.kill(mark)


def test_child_that_ends_by_itself_is_reaped_and_counts_as_gone(tmp_path: Path) -> None:
    mark = child(tmp_path, "echo over")
    assert processes.wait_until(lambda: not processes.is_alive(mark), timeout=30)
    assert processes.mark_of(mark.pid) is None
    assert processes.log_tail(tmp_path / "log") == "over"


def test_child_that_ignores_sigterm_is_killed_with_its_own_children(tmp_path: Path) -> None:
    mark = child(tmp_path, "trap '' TERM; cat /dev/zero > /dev/null & echo grandchild $!; wait")
    assert said(tmp_path, "grandchild")
    grandchild = processes.mark_of(int(processes.log_tail(tmp_path / "log").split()[1]))
    assert grandchild is not None
    assert processes.is_alive(grandchild)
    processes.stop(mark, grace=0.05)
    assert not processes.is_alive(mark)
    assert processes.wait_until(lambda: not processes.is_alive(grandchild), timeout=30)


def test_child_leads_a_session_of_its_own(tmp_path: Path) -> None:
    mark = child(tmp_path, "exec cat /dev/zero > /dev/null")
    assert os.getsid(mark.pid) == mark.pid
    processes.send_signal(mark, signal.SIGKILL)
    assert processes.wait_until(lambda: not processes.is_alive(mark), timeout=30)


def test_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="cannot start /nowhere/server"):
        processes.spawn([Path("/nowhere/server")], env={}, log=tmp_path / "log")


def test_mark_file_that_is_missing_or_broken_is_no_mark(tmp_path: Path) -> None:
    assert processes.read_mark(tmp_path / "none") is None
    for text in ("", "17", "[]", '{"pid": 1}'):
        (tmp_path / "broken").write_text(text)
        assert processes.read_mark(tmp_path / "broken") is None


def test_log_tail_gives_the_last_lines_only(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    assert processes.log_tail(log, lines=2) == "line 98\nline 99"
    assert processes.log_tail(tmp_path / "none") == "(no log)"
