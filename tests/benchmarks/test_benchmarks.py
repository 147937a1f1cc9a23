"""The benchmarks start, end, and say what they found in lines that a program can read. Never how fast anything is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cells.lab.programs import mariadb_programs, rabbitmq_programs
from tests.support.servers import needed

EXPECTED = {
    "command": {"in_flight", "per_second", "median_ms", "p99_ms", "cpu_ms_each"},
    "updates": {"in_flight", "per_second", "median_ms", "p99_ms", "cpu_ms_each"},
    "placement": {"what", "leaves", "hosts"},
    "builds": {"in_flight", "builds", "per_second", "cpu_ms_each"},
    "listing": {"what", "rows", "page", "median_ms"},
    "memory": {"cell", "rss_mib", "pss_mib"},
    "vhd": {"what", "data_mib", "cpu_s"},
    "hosts": {"what"},
    "overload": {"what"},
}
LAB_ONLY = ("overload",)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_quick_run_says_what_it_ran_on_and_gives_every_figure(name: str) -> None:
    if name in LAB_ONLY:
        needed(rabbitmq_programs)
        needed(mariadb_programs)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--quick", "--shape", "embedded"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines[0]["machine"]["cpus"] >= 1
    figures = [line for line in lines if "machine" not in line and "calibration" not in line]
    assert figures
    for line in figures:
        assert EXPECTED[name] <= line.keys()
        assert all(value >= 0 for value in line.values() if isinstance(value, int | float))
        assert line.get("complete", True), "some records never came to their end"
