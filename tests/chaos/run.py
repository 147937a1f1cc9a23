"""One chaos run: a lab, tenants, a nemesis; then everything heals, and in a bounded time all must be quiet and right.
What happened is in the folder of the run: history.jsonl, nemesis.jsonl, healing.txt, and if it fails the logs."""

import random
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TextIO

from cells.errors import CelltreeError
from tests.chaos.checker import Verdict, judge
from tests.chaos.history import History
from tests.chaos.lab import FaultyLab, small_tree
from tests.chaos.nemesis import Nemesis
from tests.chaos.plan import USUAL, Kind, schedule
from tests.chaos.tenants import Door, Tenant
from tests.chaos.truth import Truth, look
from tests.support.canary import Search, search
from tests.support.labs import RunningLab, running_lab

API = "east"
TENANTS = 5
# A tenant's first server, whose name is no secret.
OPEN = "t0-1"
QUIET_SECONDS = 150.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run. `planned`: the kinds of faults that were to come; `failed_faults`: how many did not begin, or
    did not end before the healing. `quiet`: seconds from the healing until all was at rest. `searched`: rows, files,
    queues and processes in which none of the tenants' secrets may be."""

    seed: int
    seconds: float
    quiet: float
    planned: frozenset[str]
    faults: Mapping[str, int]
    failed_faults: int
    kills: int
    records: int
    searched: int
    verdict: Verdict

    def figures(self) -> dict[str, object]:
        """For a table or a log."""
        told = asdict(self.verdict)
        told.pop("breaches")
        return {
            "seed": self.seed,
            "seconds": round(self.seconds),
            "faults": sum(self.faults.values()),
            "kinds of faults": len(self.faults),
            "faults that failed": self.failed_faults,
            "kills": self.kills,
            "records decided": self.records,
            "searched for secrets": self.searched,
            **told,
            "quiet after": round(self.quiet, 1),
            "breaches": len(self.verdict.breaches),
        }


def run(seed: int, seconds: float, folder: Path, kinds: Sequence[Kind] = USUAL) -> Outcome:
    """A whole run; its files are in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with running_lab(small_tree(), brokers="2", databases=2, daemons=2, kind=FaultyLab) as lab:
        assert isinstance(lab.lab, FaultyLab)
        outcome = _under_faults(lab, lab.lab, seed, seconds, folder, kinds)
        if outcome.verdict.breaches:
            shutil.copytree(lab.lab.folder / "run", folder / "logs", dirs_exist_ok=True)
    return outcome


def _under_faults(
    running: RunningLab, lab: FaultyLab, seed: int, seconds: float, folder: Path, kinds: Sequence[Kind]
) -> Outcome:
    image = running.image(API)
    endpoints = [lab.plan.endpoint(daemon) for daemon in lab.plan.daemons_of(API)]
    history = History(folder / "history.jsonl")
    nemesis = Nemesis(lab, folder / "nemesis.jsonl", history.now)
    stopping = threading.Event()
    halfway: list[Search] = []
    looking = threading.Timer(seconds / 2, lambda: halfway.append(_searched(lab, broken=True)))
    threads = [
        threading.Thread(target=Tenant(f"t{number}", seed, endpoints, image, history).run, args=(stopping,))
        for number in range(TENANTS)
    ]
    faults = schedule(seed, seconds, lab.shape(), kinds)
    for thread in (*threads, looking):
        thread.start()
    try:
        nemesis.run(faults)
    finally:
        stopping.set()
        nemesis.heal()
        for thread in (*threads, looking):
            thread.join()
        history.close()
    began = time.monotonic()
    door = Door(endpoints, random.Random(seed))
    with (folder / "healing.txt").open("w", encoding="utf-8") as told:
        truth, verdict = _at_rest(lab, history, door, told, nemesis)
    quiet = time.monotonic() - began
    looked = _searched(lab)
    leaks = {leak: None for each in (*halfway, looked) for leak in each.leaks}
    verdict = replace(verdict, breaches=verdict.breaches + tuple(f"P10, no secret: {leak}" for leak in leaks))
    assert halfway, "nobody looked for secrets while all was broken"
    return Outcome(
        seed=seed,
        seconds=seconds,
        quiet=quiet,
        searched=sum(each.places for each in (*halfway, looked)),
        planned=frozenset(fault.kind for fault in faults),
        faults=dict(nemesis.counts),
        failed_faults=nemesis.failed,
        kills=nemesis.kills,
        records=truth.records,
        verdict=verdict,
    )


def _searched(lab: FaultyLab, *, broken: bool = False) -> Search:
    """Tokens and sessions that are live now are secrets too."""
    live = lab.overheard
    assert live.tokens and live.sessions, "no token or session was overheard"
    looked = search(lab, OPEN, *live.words, broken=broken)
    assert looked.open >= ({"files"} if broken else {"rows", "files"}), "the search does not find what is there"
    return looked


def _at_rest(lab: FaultyLab, history: History, door: Door, told: TextIO, nemesis: Nemesis) -> tuple[Truth, Verdict]:
    """Look until all is as it should be, or until that has taken too long; what is not yet is told."""
    lab.wait_ready()
    leaves = frozenset(cell.name for cell in lab.topology.leaves)
    flips, detached = bool(nemesis.counts[Kind.FLIPPED]), bool(nemesis.counts[Kind.CELL_DETACHED])
    end = time.monotonic() + QUIET_SECONDS
    while True:
        try:
            truth = look(lab, door)
            verdict = judge(
                history.events, truth, API, leaves, flips=flips, detached=detached, forgotten=nemesis.forgotten
            )
        except CelltreeError as error:
            print(f"{history.now():.1f} {error}", file=told)
            if time.monotonic() > end:
                raise
        else:
            print(f"{history.now():.1f} {len(verdict.breaches)} {verdict.breaches[:3]}", file=told, flush=True)
            if not verdict.breaches or time.monotonic() > end:
                return truth, verdict
        time.sleep(1.0)
