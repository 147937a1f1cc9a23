"""Instance updates up three levels: changed and saved at the leaf, saved at the API cell, seen by the leaf. What is
counted is what the API cell has committed."""

import sys
from collections.abc import Sequence

from benchmarks.rig.calibration import calibrate
from benchmarks.rig.cells import Tree, Wanted, open_tree
from benchmarks.rig.report import Report, cpu_between, options, shapes

SERVERS = 4000


def main(words: Sequence[str] | None = None) -> None:
    parser = options("updates", words, __doc__ or "")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 512])
    asked = parser.parse_args(words)
    report = Report("updates")
    servers = 600 if asked.quick else SERVERS
    for shape in shapes(asked):
        with open_tree(shape, Wanted()) as tree:
            tree.ask("leaf", do="servers", count=servers, owner="top")
            tree.ask("top", do="servers", count=servers, leaf="leaf")
            report.calibration(shape, calibrate(tree, count=50 if asked.quick else 200))
            for in_flight in asked.in_flight:
                _measure(report, shape, tree, in_flight, 0.5 if asked.quick else asked.seconds, servers)
    report.table()


def _measure(report: Report, shape: str, tree: Tree, in_flight: int, seconds: float, servers: int) -> None:
    before = tree.cpu()
    got = tree.ask("leaf", do="updates", in_flight=in_flight, seconds=seconds, servers=servers)
    report.rate(shape, in_flight, got, cpu_between(before, tree.cpu(), got["done"]))


if __name__ == "__main__":
    main(sys.argv[1:])
