"""GET /servers/detail of 1,000 among very many: the first page, and the page after a marker in the middle."""

import http.client
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.rig.calibration import calibrate
from benchmarks.rig.cells import Wanted, open_tree
from benchmarks.rig.load import latencies, server_id
from benchmarks.rig.report import Report, cpu_between, options, shapes
from cells.names import id_text

PAGE = 1000


def main(words: Sequence[str] | None = None) -> None:
    parser = options("listing", words, __doc__ or "")
    parser.add_argument("--rows", type=int, default=100_000, help="how many servers there are")
    parser.add_argument("--times", type=int, default=15)
    asked = parser.parse_args(words)
    rows = 2000 if asked.quick else asked.rows
    times = 3 if asked.quick else asked.times
    report = Report("listing")
    for shape in shapes(asked):
        with open_tree(shape, Wanted(shape={"top": ()}, listen=True)) as tree:
            tree.ask("top", do="servers", count=rows, leaf="leaf")
            report.calibration(shape, calibrate(tree, count=50 if asked.quick else 200))
            port = int(tree.ask("top", do="front")["port"])
            for what, query in (
                ("first page", f"limit={PAGE}"),
                ("after a marker", f"limit={PAGE}&marker={id_text(server_id(rows // 2 + PAGE - 1))}"),
            ):
                _get(port, query)
                before = tree.cpu()
                took = [_get(port, query) for _ in range(times)]
                cpu = cpu_between(before, tree.cpu(), times)
                report.figures(shape, what=what, rows=rows, page=PAGE, **latencies(took), **cpu)
    report.table()


def _get(port: int, query: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    began = time.perf_counter()
    connection.request("GET", f"/v2.1/servers/detail?{query}", headers={"OpenStack-API-Version": "compute 2.47"})
    answer = connection.getresponse()
    body = answer.read()
    took = time.perf_counter() - began
    connection.close()
    said: Any = json.loads(body)
    found = len(said.get("servers", ()))
    if answer.status != http.HTTPStatus.OK or found != PAGE:
        raise AssertionError(f"{answer.status} with {found} servers, {PAGE} were asked for: {body[:200]!r}")
    return took


if __name__ == "__main__":
    main(sys.argv[1:])
