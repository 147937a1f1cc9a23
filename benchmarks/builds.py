"""Builds from REST to ACTIVE through three levels, on light hosts in the leaf's process: alone, and with 64 asked for
and not yet ACTIVE. CPU is that of our processes; the client is a process of its own and not counted."""

import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.rig.calibration import calibrate
from benchmarks.rig.cells import Tree, Wanted, open_tree
from benchmarks.rig.load import latencies
from benchmarks.rig.report import Report, cpu_between, options, shapes
from cells.errors import Permanent, Temporary

HOSTS = 20
STALL_SECONDS = 30.0


def main(words: Sequence[str] | None = None) -> None:
    parser = options("builds", words, __doc__ or "")
    parser.add_argument("--count", type=int, default=1000, help="how many builds with 64 in flight")
    parser.add_argument("--in-flight", type=int, default=64)
    asked = parser.parse_args(words)
    report = Report("builds")
    for shape in shapes(asked):
        with open_tree(shape, Wanted(hosts=HOSTS, listen=True)) as tree:
            report.calibration(shape, calibrate(tree, count=50 if asked.quick else 200))
            image = tree.ask("top", do="image")
            port = str(tree.ask("top", do="front")["port"])
            client = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.rig.client", port, image["image"], image["flavor"]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            try:
                done = _alone(report, shape, tree, client, 5 if asked.quick else 30)
                _together(report, shape, tree, client, done, 40 if asked.quick else asked.count, asked.in_flight)
            finally:
                said, _ = client.communicate(timeout=60)
            if said.strip() != "[]":
                raise Permanent(f"builds were refused: {said}")
    report.table()


def _active(tree: Tree) -> int:
    return int(tree.ask("top", do="count", status="ACTIVE")["count"])


def _credit(client: "subprocess.Popen[str]", count: int) -> None:
    assert client.stdin is not None
    client.stdin.write(f"{count}\n")
    client.stdin.flush()


def _alone(report: Report, shape: str, tree: Tree, client: "subprocess.Popen[str]", count: int) -> int:
    took = []
    done = _active(tree)
    before = tree.cpu()
    for _ in range(count):
        began = time.perf_counter()
        _credit(client, 1)
        _until(tree, done + 1, 0.002)
        done += 1
        took.append(time.perf_counter() - began)
    figures: dict[str, Any] = {"per_second": count / sum(took), **latencies(took)}
    report.figures(shape, in_flight=1, builds=count, **figures, **cpu_between(before, tree.cpu(), count))
    return done


def _until(tree: Tree, wanted: int, pause: float) -> None:
    limit = time.monotonic() + STALL_SECONDS
    while _active(tree) < wanted:
        if time.monotonic() > limit:
            raise Temporary(f"{_active(tree)} of {wanted} builds are ACTIVE and no more come")
        time.sleep(pause)


def _together(
    report: Report, shape: str, tree: Tree, client: "subprocess.Popen[str]", done: int, count: int, in_flight: int
) -> None:
    first, asked = done, 0
    before = tree.cpu()
    began = moved = time.perf_counter()
    while done < first + count:
        active = _active(tree)
        if active > done:
            moved = time.perf_counter()
        elif time.perf_counter() - moved > STALL_SECONDS:
            raise Temporary(f"{active - first} of {count} builds are ACTIVE and no more come")
        done = active
        more = min(count - asked, in_flight - (asked - (done - first)))
        if more > 0:
            _credit(client, more)
            asked += more
        time.sleep(0.02)
    took = time.perf_counter() - began
    report.figures(
        shape,
        in_flight=in_flight,
        builds=count,
        per_second=count / took,
        **cpu_between(before, tree.cpu(), count),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
