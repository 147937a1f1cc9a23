"""How a program is asked and how it answers: options, what it ran on, figures as lines of JSON and as a table."""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.rig.cells import SHAPES
from cells.lab.programs import MissingProgram, mariadb_programs

_LIBRARIES = ("celltree", "SQLAlchemy", "PyMySQL", "amqp", "msgspec", "PyNaCl", "numpy", "waitress")


def options(name: str, words: Sequence[str] | None, about: str) -> argparse.ArgumentParser:
    """A parser with what every program takes."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=about)
    parser.add_argument("--shape", choices=(*SHAPES, "both"), default="both", help="which shape of the tree")
    parser.add_argument("--quick", action="store_true", help="under 10 s: to see that it works, not to compare")
    return parser


def shapes(asked: argparse.Namespace) -> tuple[str, ...]:
    return SHAPES if asked.shape == "both" else (asked.shape,)


def machine() -> dict[str, Any]:
    """What the run is on."""
    return {
        "cpus": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "mariadb": _mariadb(),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def _mariadb() -> str:
    try:
        server = mariadb_programs()[0]
    except MissingProgram:
        return ""
    done = subprocess.run([str(server), "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition(" Ver ")[2].split()[0] if " Ver " in done.stdout else ""


@dataclass(slots=True)
class Report:
    """The figures of one program. Each line is printed when it is known; the table comes at the end."""

    name: str
    lines: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._print({"benchmark": self.name, "machine": machine()})

    def calibration(self, shape: str, figures: Mapping[str, Any]) -> None:
        self._print({"benchmark": self.name, "shape": shape, "calibration": dict(figures)})

    def figures(self, shape: str, **figures: Any) -> None:
        """One measurement."""
        line = {"shape": shape, **{name: _rounded(value) for name, value in figures.items()}}
        self.lines.append(line)
        self._print({"benchmark": self.name, **line})

    def rate(self, shape: str, in_flight: int, got: Mapping[str, Any], cpu: Mapping[str, Any]) -> None:
        """One measurement of what was done so many at a time."""
        self.figures(
            shape,
            in_flight=in_flight,
            per_second=got["done"] / got["seconds"],
            median_ms=got["median_ms"],
            p99_ms=got["p99_ms"],
            done=got["done"],
            complete=got["complete"],
            **cpu,
        )

    def table(self) -> None:
        """Everything measured, for people."""
        columns = list(dict.fromkeys(name for line in self.lines for name in line if not isinstance(line[name], dict)))
        table = Table(title=self.name)
        for name in columns:
            words = name in ("shape", "what")
            table.add_column(name, justify="left" if words else "right", no_wrap=words)
        for line in self.lines:
            table.add_row(*(str(line.get(name, "")) for name in columns))
        Console(width=150).print(table)

    def _print(self, line: Mapping[str, Any]) -> None:
        print(json.dumps(line), flush=True)
        sys.stdout.flush()


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3 if abs(value) < 100 else 1)
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return value


def cpu_between(before: Mapping[str, float], after: Mapping[str, float], count: int) -> dict[str, Any]:
    """CPU milliseconds for each of `count`, in all cells together, and by process."""
    used = {name: 1000 * (after[name] - before[name]) / max(1, count) for name in after}
    ours = sum(value for name, value in used.items() if name not in ("rabbitmq", "mariadb"))
    return {"cpu_ms_each": ours, "cpu_ms_by_process": used}
