"""A command down three hops and the leaf's acknowledgement back, with 1, 16 and 64 in flight: signed, durable at both
ends. Time runs from the owner's decision to the commit of the acknowledgement at the owner."""

import sys
from collections.abc import Sequence

from benchmarks.rig.calibration import calibrate
from benchmarks.rig.cells import Tree, Wanted, open_tree
from benchmarks.rig.report import Report, cpu_between, options, shapes

SERVERS = 1000


def main(words: Sequence[str] | None = None) -> None:
    parser = options("command", words, __doc__ or "")
    parser.add_argument("--seconds", type=float, default=6.0, help="how long each number in flight is measured")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 16, 64])
    asked = parser.parse_args(words)
    report = Report("command")
    for shape in shapes(asked):
        with open_tree(shape, Wanted()) as tree:
            tree.ask("leaf", do="servers", count=SERVERS, owner="top")
            report.calibration(shape, calibrate(tree, count=50 if asked.quick else 200))
            for in_flight in asked.in_flight:
                _measure(report, shape, tree, in_flight, 0.5 if asked.quick else asked.seconds)
    report.table()


def _measure(report: Report, shape: str, tree: Tree, in_flight: int, seconds: float) -> None:
    before = tree.cpu()
    got = tree.ask("top", do="commands", leaf="leaf", in_flight=in_flight, seconds=seconds, servers=SERVERS)
    report.rate(shape, in_flight, got, cpu_between(before, tree.cpu(), got["done"]))


if __name__ == "__main__":
    main(sys.argv[1:])
