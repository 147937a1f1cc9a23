"""Measurements over time, as XAPI's rrd daemon keeps them: one sample each 5 s, and archives that hold its average,
least and largest over 5 s (for 10 minutes), a minute (2 hours), an hour (a week), a day (a year). No clock here.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

STEP = 5
_SHAPES = ((1, 120), (12, 120), (720, 168), (17280, 366))  # samples a row, rows kept
_FUNCTIONS: dict[str, Callable[[tuple[float, float]], float]] = {"AVERAGE": sum, "MIN": min, "MAX": max}
NAN = math.nan
Values = dict[str, float]


@dataclass(slots=True)
class Archive:
    """One consolidation: `rows` are (time at the row's end, values), oldest first, only of spans that were measured."""

    function: str
    samples: int
    kept: int
    rows: deque[tuple[int, Values]] = field(init=False)
    _span: int = -1
    _gathered: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rows = deque(maxlen=self.kept)

    @property
    def step(self) -> int:
        """Seconds a row."""
        return self.samples * STEP

    def add(self, now: float, values: Mapping[str, float]) -> None:
        span = int(now) // self.step
        if span != self._span:
            self._close()
            self._span = span
        for name, value in values.items():
            gathered = self._gathered.get(name)
            if gathered is None:
                self._gathered[name] = [value, 1]
            else:
                gathered[0] = _FUNCTIONS[self.function]((gathered[0], value))
                gathered[1] += 1

    def _close(self) -> None:
        if self._gathered:
            self.rows.append(((self._span + 1) * self.step, {n: self._value(g) for n, g in self._gathered.items()}))
        self._gathered = {}

    def _value(self, gathered: list[float]) -> float:
        return gathered[0] / gathered[1] if self.function == "AVERAGE" else gathered[0]

    def between(self, start: int, end: int) -> list[tuple[int, Values]]:
        """A row for every span that ends after `start` and not after `end`, oldest first; unmeasured ones are empty."""
        measured = dict(self.rows)
        first = max((start // self.step + 1) * self.step, end // self.step * self.step - (self.kept - 1) * self.step)
        return [(time, measured.get(time, {})) for time in range(first, end + 1, self.step)]


class Rrd:
    """Everything measured of one host, VM or repository."""

    def __init__(self) -> None:
        self.archives = [Archive(name, samples, kept) for name in _FUNCTIONS for samples, kept in _SHAPES]
        self.last: Values = {}
        self.updated = 0.0

    def add(self, now: float, values: Mapping[str, float]) -> None:
        """A sample; one that is not newer than the last is left out."""
        if now <= self.updated:
            return
        self.updated, self.last = now, dict(values)
        for archive in self.archives:
            archive.add(now, values)

    def forget(self, name: str) -> None:
        for archive in self.archives:
            for _, values in archive.rows:
                values.pop(name, None)

    def archive(self, function: str, samples: int) -> Archive:
        return next(a for a in self.archives if (a.function, a.samples) == (function, samples))


def samples_for(now: float, start: float, interval: float = 0) -> int:
    """The finest archive that reaches back to `start` and has rows of at least `interval` seconds."""
    for samples, kept in _SHAPES:
        if samples * STEP >= interval and now - start <= samples * kept * STEP:
            return samples
    return _SHAPES[-1][0]
