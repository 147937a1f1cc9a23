"""What an idle cell's process holds, resident (RSS) and as its share (PSS), and its CPU: a process per cell in both
shapes. Embedded here means a SQLite file and a memory broker, so that no cell has a neighbour."""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.rig.calibration import calibrate
from benchmarks.rig.cells import CellProcess, Wanted, open_tree
from benchmarks.rig.plan import CHAIN, Place, plan_tree
from benchmarks.rig.report import Report, options, shapes
from cells.names import CellName

Usage = Callable[[], Mapping[str, Any]]


def main(words: Sequence[str] | None = None) -> None:
    parser = options("memory", words, __doc__ or "")
    parser.add_argument("--seconds", type=float, default=12.0, help="how long cells idle before they are looked at")
    asked = parser.parse_args(words)
    seconds = 1.0 if asked.quick else asked.seconds
    report = Report("memory")
    for shape in shapes(asked):
        if shape == "lab":
            # A tick of a second while they meet; production's is ten.
            with open_tree("lab", Wanted(bare=True)) as tree:
                report.calibration(shape, calibrate(tree, count=50))
                _look(report, shape, seconds, {cell: partial(tree.ask, cell, do="usage") for cell in CHAIN})
        else:
            _embedded(report, seconds)
    report.table()


def _embedded(report: Report, seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="celltree-bench-") as folder, ExitStack() as stack:
        places = {
            cell: Place(database=f"sqlite:///{Path(folder) / cell}.sqlite", broker=f"memory://{cell}") for cell in CHAIN
        }
        looks: dict[CellName, Usage] = {}
        for cell, plan in plan_tree(places, bare=True).items():
            if cell in ("top", "leaf"):
                process = CellProcess(replace(plan, edges=()), Path(folder) / f"{cell}.log")
                stack.callback(process.close)
                process.wait_ready()
                looks[cell] = partial(process.ask, do="usage")
        _look(report, "embedded", seconds, looks)


def _look(report: Report, shape: str, seconds: float, looks: Mapping[CellName, Usage]) -> None:
    before = {cell: look() for cell, look in looks.items()}
    time.sleep(seconds)
    for cell, look in looks.items():
        usage = look()
        report.figures(
            shape,
            cell=cell,
            rss_mib=usage["rss_kib"] / 1024,
            pss_mib=usage["pss_kib"] / 1024,
            idle_core_percent=100 * (usage["cpu"] - before[cell]["cpu"]) / seconds,
            commits_a_second=(usage["commits"] - before[cell]["commits"]) / seconds,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
