"""Threads that take turns. A job of a simulated cell runs in a strand: it lets go only where it waits for its host, and
goes on when virtual time has come there, so many jobs interleave and every run of a seed is the same.
"""

import threading
from collections.abc import Callable
from typing import Any


class Killed(BaseException):
    """The process ends here, whatever it was doing."""


Later = Callable[[float, Callable[[], None]], None]


class Strand:
    """One piece of work. The loop and the strand hand one baton to and fro."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._turn = threading.Lock()
        self._back = threading.Lock()
        self._turn.acquire()
        self._back.acquire()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.killed = False
        self.over = False
        self.frozen = False
        self.error: BaseException | None = None

    def resume(self) -> None:
        """Let it run until it waits again or is over. Called by the loop."""
        if self.over:
            return
        if not self._thread.is_alive():
            self._thread.start()
        else:
            self._turn.release()
        self._back.acquire()
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def wait(self) -> None:
        """Hand the baton back. Called by the strand itself."""
        self._back.release()
        self._turn.acquire()
        if self.killed:
            raise Killed

    def kill(self) -> None:
        """End it where it waits."""
        self.killed = True
        if self._thread.is_alive() and not self.over:
            self.resume()
            self._thread.join()
        self.over = True

    def _run(self) -> None:
        try:
            self._work()
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        self.over = True
        self._back.release()


class Crew:
    """The strands of one daemon: the Workers (cells.jobs) of its node. `later(seconds, act)` is the loop's."""

    def __init__(self, later: Later, ended: Callable[[], None]) -> None:
        self._later = later
        self._ended = ended
        self._strands: list[Strand] = []
        self._frozen: list[Strand] = []
        self.is_frozen = False
        self.current: Strand | None = None

    def submit(self, work: Callable[..., None], /, *arguments: Any) -> None:
        strand = Strand(lambda: work(*arguments))
        self._strands.append(strand)
        self._later(0.001, lambda: self._go(strand))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As a killed process ends: each strand where it is."""
        strands, self._strands = self._strands, []
        for strand in strands:
            if strand is not self.current:
                strand.kill()

    def sleep(self, seconds: float) -> None:
        """Called from within a strand: let virtual time pass. Elsewhere no time passes."""
        strand = self.current
        if strand is None:
            return
        self._later(seconds, lambda: self._go(strand))
        strand.wait()

    def thaw(self) -> None:
        self.is_frozen = False
        frozen, self._frozen = self._frozen, []
        for strand in frozen:
            self._later(0.0, lambda strand=strand: self._go(strand))  # type: ignore[misc]

    def _go(self, strand: Strand) -> None:
        if strand.over or strand.killed:
            return
        if self.is_frozen:
            self._frozen.append(strand)
            return
        self.current = strand
        try:
            strand.resume()
        finally:
            self.current = None
        self._see(strand)

    def _see(self, strand: Strand) -> None:
        if strand.over:
            if strand in self._strands:
                self._strands.remove(strand)
            self._ended()
