"""Many runs: a seed after the other, what they came to, and of a failing one the smallest set of faults that still
fails and the story of the server in question.
"""

import logging
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cells.names import id_text
from cells.simulation.house import Build
from cells.simulation.plan import Mishap, Plan, draw
from cells.simulation.world import Outcome, simulate

MOST_TRIES = 60
_STORY_LINES = 60


@dataclass(slots=True, kw_only=True)
class Tally:
    """What so many runs came to. `failed`: the seeds, and what was broken."""

    seeds: int = 0
    events: int = 0
    seconds: float = 0.0
    virtual: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    failed: dict[int, str] = field(default_factory=dict)

    def add(self, outcome: Outcome, seconds: float) -> None:
        """Count a run."""
        self.seeds += 1
        self.events += outcome.events
        self.seconds += seconds
        self.virtual += outcome.ended
        self.counts.update(outcome.counts)
        if outcome.breach is not None:
            self.failed[outcome.plan.seed] = str(outcome.breach)

    def lines(self) -> Iterator[str]:
        """The tally in words."""
        pace = self.events / self.seconds if self.seconds else 0.0
        yield f"{self.seeds} seeds, {len(self.failed)} failed, {self.virtual / 3600:.1f} virtual hours"
        yield f"{self.events} events in {self.seconds:.0f} s ({pace:.0f}/s)"
        for name, count in sorted(self.counts.items()):
            yield f"{count:>10}  {name}"


def run_seeds(seeds: Iterable[int], minutes: float, build: Build | None = None) -> Iterator[tuple[Outcome, float]]:
    """Each seed's outcome, and the seconds it took."""
    with quietly():
        for seed in seeds:
            began = time.perf_counter()
            outcome = simulate(draw(seed, minutes), build)
            yield outcome, time.perf_counter() - began


@contextmanager
def quietly() -> Iterator[None]:
    """Cells log what goes wrong, and here a lot does, on purpose."""
    logger = logging.getLogger("celltree")
    before, logger.disabled = logger.disabled, True
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)
        logger.disabled = before


def shrunk(plan: Plan, build: Build | None = None, most: int = MOST_TRIES) -> Plan:
    """The plan with as few faults, and then as few requests, as still break the same promise; `most` runs are spent on
    that."""
    first = simulate(plan, build).breach
    if first is None:
        return plan
    left = most

    def fails(smaller: Plan) -> bool:
        nonlocal left
        left -= 1
        breach = simulate(smaller, build).breach
        return breach is not None and breach.name == first.name

    size = max(1, len(plan.mishaps) // 2)
    while left > 0 and plan.mishaps:
        for without in _cuts(plan.mishaps, size):
            smaller = replace(plan, mishaps=without)
            if left > 0 and fails(smaller):
                plan = smaller
                break
        else:
            if size == 1:
                break
            size = max(1, size // 2)
    for server in sorted({ask.server for ask in plan.asks}):
        smaller = replace(plan, asks=tuple(ask for ask in plan.asks if ask.server != server))
        if left > 0 and fails(smaller):
            plan = smaller
    return plan


def _cuts(mishaps: tuple[Mishap, ...], size: int) -> Iterator[tuple[Mishap, ...]]:
    """Without each stretch of this size."""
    for at in range(0, len(mishaps), size):
        yield mishaps[:at] + mishaps[at + size :]


def report(seed: int, minutes: float, build: Build | None = None) -> Iterator[str]:
    """Everything about a seed's failure that helps to understand it."""
    with quietly():
        whole = draw(seed, minutes)
        plan = shrunk(whole, build)
        outcome = simulate(plan, build, tell=True)
    yield f"seed {seed}, {minutes} minutes, commit {commit()}"
    if outcome.breach is None:
        yield "every promise was kept"
        return
    yield f"broken: {outcome.breach}"
    yield f"faults that are needed ({len(plan.mishaps)} of {len(whole.mishaps)}):"
    yield from (f"  {mishap}" for mishap in plan.mishaps)
    yield "the tree: " + "; ".join(
        f"{name} under {', '.join(above) or 'nothing'}" for name, above in plan.shape.items()
    )
    server = outcome.breach.server
    mark = id_text(server)[-12:] if server is not None else ""
    words = ("! ", "crash", "start ", "killed", "heal", "freeze", "thaw", "BROKEN")
    lines = [line for line in outcome.lines if (mark and mark in line) or any(word in line for word in words)]
    yield f"the story{' of ' + id_text(server) if server is not None else ''} (the last {_STORY_LINES} lines):"
    yield from lines[-_STORY_LINES:]


def commit() -> str:
    """The commit these sources are at, if that can be known."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
