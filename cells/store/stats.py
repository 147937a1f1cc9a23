"""What a store tells of its own work: read by tests and benchmarks."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Units committed since the store was opened and the seconds the database took for the commits; with MariaDB the
    writes that travel in one packet with the commit are in it."""

    commits: int
    commit_seconds: float
