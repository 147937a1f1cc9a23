"""More than a tree can do at once, and who feels it: 1,000 builds at once, a leaf and a parent that stand still while
builds are asked for, and a tenant who floods REST beside a quiet one. Clients come again when Retry-After says so.
`waited`: from a build's 202 to its VM's start. `peak`: the most that a cell's process was resident with, in MiB."""

import base64
import http.client
import json
import os
import queue
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.rig.cells import Tree, Wanted, open_tree, wait_for
from benchmarks.rig.report import Report, options

HOSTS = 80
CLIENTS = 16
MOST_WAITING = 200
STANDS_STILL = 15.0
PASSWORD = "bench"
# The noisy tenant comes again sooner than he is told to.
IMPATIENCE = 0.1


def main(words: Sequence[str] | None = None) -> None:
    parser = options("overload", words, __doc__ or "")
    parser.add_argument("--count", type=int, default=1000, help="how many builds at once")
    asked = parser.parse_args(words)
    count, still = (40, 2.0) if asked.quick else (asked.count, STANDS_STILL)
    report = Report("overload")
    limits = {"waiting": MOST_WAITING, "requests_per_second": 0}
    with open_tree("lab", Wanted(hosts=HOSTS, listen=True, limits=limits)) as tree:
        _burst(report, tree, count, "burst")
        for cell in ("leaf", "lower"):
            with _standing_still(tree, cell, still):
                _burst(report, tree, count // 2, f"{cell} stands still {still:.0f} s")
    for rate in (50,) if asked.quick else (0, 50):
        wanted = Wanted(
            shape={"top": ()},
            listen=True,
            limits={"requests_per_second": rate, "burst": rate},
            tenants=("noisy", "quiet"),
        )
        with open_tree("lab", wanted) as tree:
            _noise(report, tree, 2.0 if asked.quick else 8.0, f"{rate} requests/s a project" if rate else "no limit")
    report.table()


# --- builds at once ---


def _burst(report: Report, tree: Tree, count: int, what: str) -> None:
    image = tree.ask("top", do="image")
    port = int(tree.ask("top", do="front")["port"])
    wanted = {"name": "bench", "imageRef": image["image"], "flavorRef": image["flavor"], "networks": "none"}
    since = int(time.time() * 1_000_000)
    began = time.perf_counter()
    answers = _post(port, json.dumps({"server": wanted}), count)
    accepted_after = time.perf_counter() - began
    wait_for(f"every build of {what}", lambda: tree.ask("top", do="waits", since=since)["unfinished"] == 0)
    waits = tree.ask("top", do="waits", since=since)
    report.figures(
        "lab",
        what=what,
        builds=count,
        active=waits["active"],
        pushed_back=answers[429] + answers[503],
        accepted_after=accepted_after,
        waited_median=waits["median"],
        waited_longest=waits["longest"],
        all_after=time.perf_counter() - began,
        peak_top=_peak(tree, "top"),
        peak_relay=_peak(tree, "lower"),
        peak_leaf=_peak(tree, "leaf"),
    )


def _post(port: int, body: str, count: int) -> Counter[int]:
    """So many builds as fast as they are taken; gives how often each status was answered."""
    credits: queue.SimpleQueue[bool] = queue.SimpleQueue()
    for _ in range(count):
        credits.put(True)
    answers: Counter[int] = Counter()
    lock = threading.Lock()

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"Content-Type": "application/json", "OpenStack-API-Version": "compute 2.47"}
        while not credits.empty():
            try:
                credits.get_nowait()
            except queue.Empty:
                break
            status = 0
            while status != http.HTTPStatus.ACCEPTED:
                connection.request("POST", "/v2.1/servers", body, headers)
                answer = connection.getresponse()
                answer.read()
                status = answer.status
                with lock:
                    answers[status] += 1
                if status != http.HTTPStatus.ACCEPTED:
                    time.sleep(float(answer.headers.get("Retry-After", "1")))
        connection.close()

    _together(work, CLIENTS)
    return answers


def _together(work: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def _standing_still(tree: Tree, cell: str, seconds: float) -> Iterator[None]:
    """A cell's process is stopped when the block begins, and goes on by itself after a while."""
    pid = tree.pid(cell)
    os.kill(pid, signal.SIGSTOP)
    later = threading.Timer(seconds, os.kill, (pid, signal.SIGCONT))
    later.start()
    try:
        yield
    finally:
        later.join()


def _peak(tree: Tree, cell: str) -> float:
    lines = Path(f"/proc/{tree.pid(cell)}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


# --- a noisy tenant ---


def _noise(report: Report, tree: Tree, seconds: float, limit: str) -> None:
    port = int(tree.ask("top", do="front")["port"])
    for what, noisy in ((f"quiet tenant, {limit}", 0), (f"beside a noisy one, {limit}", 8)):
        over = threading.Event()
        loud: Counter[int] = Counter()
        threads = [threading.Thread(target=_flood, args=(port, over, loud)) for _ in range(noisy)]
        for thread in threads:
            thread.start()
        took, statuses = _quiet(port, seconds)
        over.set()
        for thread in threads:
            thread.join()
        report.figures(
            "lab",
            what=what,
            requests=len(took),
            median_ms=1000 * statistics.median(took),
            p99_ms=1000 * sorted(took)[int(len(took) * 0.99)],
            refused=sum(number for status, number in statuses.items() if status != 200),
            noisy_served=loud[200],
            noisy_refused=loud[429],
        )


def _quiet(port: int, seconds: float) -> tuple[list[float], Mapping[int, int]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    took, statuses, end = [], Counter[int](), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        statuses[_get(connection, "quiet")] += 1
        took.append(time.perf_counter() - began)
        time.sleep(0.05)
    connection.close()
    return took, statuses


def _flood(port: int, over: threading.Event, answers: Counter[int]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while not over.is_set():
        status = _get(connection, "noisy")
        answers[status] += 1
        if status == http.HTTPStatus.TOO_MANY_REQUESTS:
            over.wait(IMPATIENCE)
    connection.close()


def _get(connection: http.client.HTTPConnection, tenant: str) -> int:
    login = base64.b64encode(f"{tenant}:{PASSWORD}".encode()).decode()
    connection.request("GET", "/v2.1/servers/detail", headers={"Authorization": f"Basic {login}"})
    answer: Any = connection.getresponse()
    answer.read()
    return int(answer.status)


if __name__ == "__main__":
    main(sys.argv[1:])
