"""The lab's own processes: a daemon per cell and a simulated XenServer per pool, each started as an operator would,
with its log and its mark in the lab's folder."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from cells.errors import Permanent
from cells.lab import processes
from cells.lab.programs import clean_environment

STOP_SECONDS = 20.0


class Daemon:
    """One process of the lab, running or not. The same folder and name are the same process, in any program."""

    def __init__(self, folder: Path, name: str, arguments: Sequence[str | Path]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._mark = folder / f"{name}.pid"
        self.arguments = tuple(arguments)

    def start(self) -> None:
        """Start it unless it runs; does not wait for it."""
        if self.running:
            return
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # In the log's folder, so that a Python that is asked for its modules finds none by chance.
        command: list[str | Path] = [sys.executable, "-m", "cells.cli", *self.arguments]
        environment = clean_environment("CELLTREE_TREE")
        processes.spawn(command, env=environment, log=self.log, mark_file=self._mark, folder=self.log.parent)

    def ask_to_stop(self) -> None:
        """SIGTERM; does not wait."""
        if mark := processes.read_mark(self._mark):
            processes.send_signal(mark, signal.SIGTERM)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when that takes too long. May be called when it does not run."""
        if mark := processes.read_mark(self._mark):
            processes.stop(mark, grace=STOP_SECONDS)

    def kill9(self) -> None:
        """SIGKILL, as if the power had failed."""
        if mark := processes.read_mark(self._mark):
            processes.kill(mark)

    def must_run(self) -> None:
        """Permanent, with the end of its log, when it has ended."""
        if not self.running:
            raise Permanent(f"{self.name} has ended; its log {self.log} ends:\n{processes.log_tail(self.log)}")

    @property
    def running(self) -> bool:
        return self.pid is not None

    @property
    def pid(self) -> int | None:
        """Its pid, None when it does not run."""
        mark = processes.read_mark(self._mark)
        return mark.pid if mark and processes.is_alive(mark) else None
