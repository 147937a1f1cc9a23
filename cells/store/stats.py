"""What a store tells of its own work: read by tests and benchmarks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Units committed since the store was opened and the seconds the database took for the commits alone."""

    commits: int
    commit_seconds: float
