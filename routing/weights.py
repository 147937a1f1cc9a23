"""How good a leaf is for a build, among those that could take it. The score is

    room * room_weight + freshness * freshness_weight + the leaf's weight_offset * offset_weight

where room is the leaf's share of the most room any kept leaf has (1 less that when stacking), and freshness falls
from 1 to 0 as its record ages. Only the first two are scaled to 0..1; an administrator's offset counts as it stands, so
that an offset of a few points always wins and a small one leans.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import exp

from cells.names import SECOND


class Strategy(StrEnum):
    """SPREAD prefers the leaf with the most room; STACK fills a leaf before it begins another."""

    SPREAD = "spread"
    STACK = "stack"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementSettings:
    """`best`: the draw is among this many of the highest scores. `sharpness`: how much a higher score is preferred in
    the draw; 0 is an even draw, a large one takes the best nearly always."""

    mute_after: int = 60 * SECOND
    strategy: Strategy = Strategy.SPREAD
    room_weight: float = 1.0
    freshness_weight: float = 0.1
    offset_weight: float = 1.0
    best: int = 10
    sharpness: float = 5.0


def room_share(free: int, most: int, strategy: Strategy) -> float:
    """0..1: how much the free room speaks for a leaf."""
    share = free / most
    return share if strategy is Strategy.SPREAD else 1.0 - share


def freshness(age: int, mute_after: int) -> float:
    """0..1: how new the leaf's record is. A record from before our clock was set back counts as new."""
    return 1.0 - min(max(age, 0), mute_after) / mute_after if mute_after > 0 else 1.0


def draw_one(scores: Sequence[float], sharpness: float, draw: float) -> int:
    """Which of the scores (highest first) a draw in [0, 1) takes: chances fall off exponentially with the distance to
    the best."""
    chances = [exp(max(-700.0, sharpness * (score - scores[0]))) for score in scores]
    mark = draw * sum(chances)
    for number, chance in enumerate(chances):
        mark -= chance
        if mark < 0:
            return number
    return 0
