"""Faults on demand: the n-th call of a method fails, waits, hangs or loses its connection, before or after its effect.

A rule counts the calls it matches, and chance is drawn from the seed, the rule and that count: a run can be repeated
exactly, whatever else the pool does. Rules come from a test or from the control socket (control.py).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import inf

from xenapi_host.simulator.failure import Dropped, Failure

WHEN = ("before", "during", "after")
ASYNC = "Async."


@dataclass(slots=True, kw_only=True)
class Fault:
    """One rule. `when`: "before" the effect, "after" it, or "during" (under way, where others can watch it)."""

    method: str  # a name, or a glob; `Async.` methods are meant only where it begins so, see `covers`
    when: str = "before"
    error: tuple[str, ...] = ()  # code and parameters; empty: no refusal
    delay: float = 0.0  # seconds
    hang: bool = False  # wait until the rule is cleared
    drop: bool = False  # the client's connection breaks
    nth: int = 1  # the first matching call is 1
    times: int = 1  # 0: for ever
    probability: float = 1.0
    number: int = field(default=0, init=False)
    seen: int = field(default=0, init=False)
    struck: int = field(default=0, init=False)

    def covers(self, name: str) -> bool:
        """`VM.start` is the work, whether it was called so or as a task; `Async.VM.start` is the call that begins a
        task. A connection breaks under a call, so a rule that drops means either."""
        if self.drop:
            return fnmatchcase(name, self.method) or fnmatchcase(name.removeprefix(ASYNC), self.method)
        return name.startswith(ASYNC) == self.method.startswith(ASYNC) and fnmatchcase(name, self.method)

    def strikes(self, seed: int) -> bool:
        self.seen += 1
        if self.seen < self.nth or (self.times and self.struck >= self.times):
            return False
        if self.probability < 1 and random.Random(f"{seed} {self.number} {self.seen}").random() >= self.probability:
            return False
        self.struck += 1
        return True


@dataclass(frozen=True, slots=True)
class Stroke:
    """What the rules do to one call at one point: `rules` may still be taken back while it waits."""

    rules: tuple[Fault, ...] = ()

    @property
    def seconds(self) -> float:
        return inf if any(rule.hang for rule in self.rules) else sum(rule.delay for rule in self.rules)

    @property
    def error(self) -> Exception | None:
        if any(rule.drop for rule in self.rules):
            return Dropped("a fault rule dropped the connection")
        return next((Failure(*rule.error) for rule in self.rules if rule.error), None)


NOTHING = Stroke()


class Faults:
    """The rules in force. Empty almost always, so that asking costs nothing."""

    def __init__(self, seed: int = 0) -> None:
        self.rules: list[Fault] = []
        self.seed = seed
        self._count = 0

    def add(self, fault: Fault) -> Fault:
        self._count += 1
        fault.number = self._count
        self.rules = [*self.rules, fault]
        return fault

    def clear(self, number: int | None = None) -> int:
        """Take back one rule, or all; how many went. Calls that hang by them go on once the engine wakes them."""
        left = [rule for rule in self.rules if number is not None and rule.number != number]
        gone, self.rules = len(self.rules) - len(left), left
        return gone

    def at(self, name: str, when: str, *, connected: bool = True) -> Stroke:
        """What happens at this point of a call. Work in the background is not `connected`: it has nothing to drop."""
        if not self.rules:
            return NOTHING
        struck = tuple(
            rule
            for rule in self.rules
            if rule.when == when and (connected or not rule.drop) and rule.covers(name) and rule.strikes(self.seed)
        )
        return Stroke(struck) if struck else NOTHING
