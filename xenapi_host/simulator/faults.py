"""Faults on demand: the n-th call of a method fails before or after its effect, or takes its time.

A test or the control command adds rules; a rule counts the calls it matches, so a run can be repeated exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xenapi_host.simulator.failure import Failure


@dataclass(slots=True, kw_only=True)
class Fault:
    """One rule. `when`: "before" the effect, "after" it, or "during" (a delay others can watch)."""

    method: str
    when: str = "before"
    error: tuple[str, ...] = ()  # empty: only the delay
    delay: float = 0.0
    nth: int = 1  # the first matching call is 1
    times: int = 1  # 0: for ever
    seen: int = field(default=0, init=False)

    def strikes(self) -> bool:
        self.seen += 1
        return self.seen >= self.nth and (not self.times or self.seen < self.nth + self.times)


class Faults:
    """The rules in force. Empty almost always, so that asking costs nothing."""

    def __init__(self) -> None:
        self.rules: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        self.rules = [*self.rules, fault]
        return fault

    def clear(self) -> None:
        self.rules = []

    def _struck(self, method: str, when: str) -> list[Fault]:
        return [r for r in self.rules if r.when == when and r.method in (method, "*") and r.strikes()]

    def during(self, method: str) -> float:
        if not self.rules:
            return 0.0
        return sum(rule.delay for rule in self._struck(method, "during"))

    def at(self, method: str, when: str) -> tuple[float, Failure | None]:
        """How long to wait and what to raise at this point of the call."""
        struck = self._struck(method, when)
        errors = [Failure(*rule.error) for rule in struck if rule.error]
        return sum(rule.delay for rule in struck), errors[0] if errors else None
