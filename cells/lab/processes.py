"""Child processes that outlive the program that started them: started here, found again by their mark, ended by pid.

A mark is a pid together with the process's start time as the kernel counts it, so a pid that the kernel has given to
somebody else is never taken for ours. Each child leads a session of its own: a Ctrl-C at the terminal does not reach
it, and killing its process group kills what it started.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cells.errors import Permanent, Temporary

POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMark:
    """One process, for ever: `started` is in clock ticks since the machine booted, `boot` is that boot's id."""

    pid: int
    started: int
    boot: str


def spawn(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    log: Path,
    mark_file: Path | None = None,
    folder: Path = Path("/"),
) -> ProcessMark:
    """Start a child in a session of its own and in `folder`, its output appended to `log`, its mark in `mark_file`."""
    program = Path(command[0])
    if not os.access(program, os.X_OK):
        raise Permanent(f"cannot start {program}: no such program; is it installed and executable?")
    # posix_spawn knows no working folder; the shell steps aside for the program, the pid stays.
    words = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', str(folder), *(str(word) for word in command)]
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        pid = os.posix_spawn(
            words[0],
            words,
            dict(env),
            setsid=True,
            setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
            file_actions=(
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ),
        )
    except OSError as error:
        raise Permanent(f"cannot start {program}: {error}") from error
    mark = mark_of(pid)
    if mark is None:
        raise Permanent(f"{program} (pid {pid}) vanished at once; its output is in {log}:\n{log_tail(log)}")
    if mark_file is not None:
        write_whole(mark_file, json.dumps(asdict(mark)))
    return mark


def mark_of(pid: int) -> ProcessMark | None:
    """The mark of a process of this moment; None when there is none. A zombie still has one."""
    stat = _stat(pid)
    return None if stat is None else ProcessMark(pid=pid, started=stat[1], boot=_boot_id())


def read_mark(mark_file: Path) -> ProcessMark | None:
    """The mark that `spawn` wrote, in whichever process; None when there is no readable one."""
    try:
        return ProcessMark(**json.loads(mark_file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def is_alive(mark: ProcessMark) -> bool:
    """Whether this very process runs. A zombie does not; one that is our child is reaped on the way."""
    _reap(mark.pid)
    stat = _stat(mark.pid)
    if stat is None or stat[1] != mark.started or mark.boot != _boot_id():
        return False
    return stat[0] not in "ZX" or _has_threads(mark.pid)


def send_signal(mark: ProcessMark, number: signal.Signals) -> None:
    """Signal the process's group, if the process is still the one marked."""
    if not is_alive(mark):
        return
    try:
        if os.getpgid(mark.pid) == mark.pid:
            os.killpg(mark.pid, number)
        else:
            os.kill(mark.pid, number)
    except ProcessLookupError:
        return


def kill(mark: ProcessMark) -> None:
    """SIGKILL, and wait until the process is gone."""
    send_signal(mark, signal.SIGKILL)
    if not wait_until(lambda: not is_alive(mark), timeout=30.0):
        raise Temporary(f"process {mark.pid} is still there 30 s after SIGKILL; it hangs in the kernel")


def stop(mark: ProcessMark, *, grace: float) -> None:
    """SIGTERM, `grace` seconds to go in peace, then SIGKILL."""
    send_signal(mark, signal.SIGTERM)
    if not wait_until(lambda: not is_alive(mark), timeout=grace):
        kill(mark)


def wait_until(condition: Callable[[], bool], *, timeout: float) -> bool:
    """Look until `condition` holds or `timeout` seconds are over; gives back whether it held."""
    give_up = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > give_up:
            return False
        time.sleep(POLL_SECONDS)
    return True


def log_tail(log: Path, *, lines: int = 15, most_bytes: int = 16_384) -> str:
    """The end of a log, for an error message."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most_bytes))
            text = file.read().decode(errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"


def write_whole(path: Path, text: str) -> None:
    """Write a file that a reader sees either whole or not at all, readable by its owner only."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return  # somebody else's child


def _stat(pid: int) -> tuple[str, int] | None:
    """State letter and start time. The command's name, second in the line, may itself hold spaces and brackets."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[19])


def _has_threads(pid: int) -> bool:
    """Whether threads are left beside the main one. Killed, that is a zombie at once; they still hold the sockets."""
    try:
        return len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
