"""Which leaf shall build a server: filters, then room after reservations, then weights, then a weighted draw among the
best. Called by an API cell's role for each attempt; the leaf has the last word, and its refusal comes back here as one
more leaf in `tried`.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from heapq import nlargest
from typing import TYPE_CHECKING

from cells.errors import BadInput
from cells.model import BuildSpec
from cells.names import CellName, Instant
from routing.demand import Demand, demand_of
from routing.filters import MUTE, NO_WAY, Ask, filters_for, why_no_room
from routing.reservations import Reservations
from routing.weights import PlacementSettings, draw_one, freshness, room_share

Kept = tuple[CellName, int, int, float, float, float, float]
"""A leaf that could take the build: name, buildable, reserved, room, freshness, offset, score. A tuple, as a decision
over a thousand leaves makes a thousand of them; `Explanation.verdicts` gives them their names back."""

if TYPE_CHECKING:
    from routing.candidates import Candidates


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a decision says of one leaf. `reason` is empty when the leaf was kept."""

    leaf: CellName
    chosen: bool = False
    reason: str = ""
    buildable: int = 0
    reserved: int = 0
    room: float = 0.0
    freshness: float = 0.0
    offset: float = 0.0
    score: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A whole decision, as plain columns that the codec can carry. `left_out`: how many leaves of each reason (empty:
    kept) a shortened explanation no longer names."""

    chosen: CellName = ""
    draw: float = 0.0
    kept: tuple[Kept, ...] = ()
    refused: tuple[tuple[CellName, str], ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)

    def shortened(self, most: int = 20) -> "Explanation":
        """The chosen leaf, the best kept ones and some refused ones by name, at most so many of each, and the rest as
        counts: what to keep with every attempt of a tree of a thousand leaves."""
        if len(self.kept) <= most and len(self.refused) <= most:
            return self
        kept = nlargest(most, self.kept, key=lambda leaf: (leaf[0] == self.chosen, leaf[6]))
        left_out = dict(self.left_out)
        if len(self.kept) > most:
            left_out[""] = left_out.get("", 0) + len(self.kept) - most
        for _, reason in self.refused[most:]:
            left_out[reason] = left_out.get(reason, 0) + 1
        return replace(self, kept=tuple(kept), refused=self.refused[:most], left_out=left_out)

    def verdicts(self) -> Iterator[Verdict]:
        """Every leaf: those kept by falling score, then those refused by name."""
        for leaf, buildable, reserved, room, fresh, offset, score in sorted(self.kept, key=lambda kept: -kept[6]):
            yield Verdict(
                leaf=leaf,
                chosen=leaf == self.chosen,
                buildable=buildable,
                reserved=reserved,
                room=room,
                freshness=fresh,
                offset=offset,
                score=score,
            )
        for leaf, reason in self.refused:
            yield Verdict(leaf=leaf, reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The leaf to ask, and the demand to reserve there."""

    leaf: CellName
    demand: Demand
    explanation: Explanation


@dataclass(frozen=True, slots=True, kw_only=True)
class NoRoom:
    """No leaf can take this build now; the explanation has every leaf's reason."""

    explanation: Explanation

    @property
    def reasons(self) -> dict[CellName, str]:
        return dict(self.explanation.refused)

    @property
    def may_pass(self) -> bool:
        """Whether waiting may help without anybody giving room back: a leaf is out of reach for now, or this daemon has
        just started and has not heard of any."""
        return not self.reasons or any(reason in (NO_WAY, MUTE) for reason in self.reasons.values())

    def summary(self) -> str:
        """One line: how many leaves said what."""
        if not self.explanation.refused:
            return "no leaf is known below this cell"
        counts: dict[str, int] = {}
        for _, reason in self.explanation.refused:
            counts[reason] = counts.get(reason, 0) + 1
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{count} {'leaf' if count == 1 else 'leaves'}: {reason}" for reason, count in ranked)


def choose(
    spec: BuildSpec,
    candidates: "Candidates",
    reservations: Reservations,
    settings: PlacementSettings,
    *,
    draw: float,
    now: Instant,
    tried: Collection[CellName] = (),
    near: Collection[CellName] | None = None,
    far: Collection[CellName] | None = None,
) -> Choice | NoRoom:
    """The leaf to try next. `draw` is a random number in [0, 1). Reserves nothing: the caller does, with what it saves.
    BadInput for a flavor, image or hint that cannot be understood."""
    demand = demand_of(spec)
    ask = Ask(
        spec=spec,
        demand=demand,
        now=now,
        mute_after=settings.mute_after,
        open=candidates.open_below(now),
        tried=frozenset(tried),
        target=_cells_in(spec, "target_cell", candidates),
        different=_cells_in(spec, "different_cell", candidates),
        near=None if near is None else frozenset(near),
        far=None if far is None else frozenset(far),
    )
    filters = filters_for(ask)
    counts = candidates.buildable(demand)
    reserved_at = {leaf: reservations.units_at(leaf, demand.room) for leaf in reservations.leaves}
    refused: list[tuple[CellName, str]] = []
    able: list[tuple[CellName, int, int, int, float]] = []
    most = 0
    for slot, entry in candidates.leaves():
        record = entry.record
        for refuses in filters:
            if reason := refuses(entry, ask):
                refused.append((record.name, reason))
                break
        else:
            buildable = counts[slot]
            reserved = reserved_at.get(record.name, 0)
            free = buildable - reserved
            if free < 1:
                why = why_no_room(entry, demand) if buildable < 1 else f"no room: {buildable} free, {reserved} reserved"
                refused.append((record.name, why))
                continue
            most = max(most, free)
            able.append((record.name, buildable, reserved, entry.arrived, record.weight_offset))
    if not able:
        return NoRoom(explanation=Explanation(draw=draw, refused=tuple(refused)))
    kept = tuple(_weighed(able, most, settings, now))
    best = nlargest(max(1, settings.best), kept, key=lambda leaf: leaf[6])
    leaf = best[draw_one([score for *_, score in best], settings.sharpness, draw)][0]
    return Choice(
        leaf=leaf,
        demand=demand,
        explanation=Explanation(chosen=leaf, draw=draw, kept=kept, refused=tuple(refused)),
    )


def _weighed(
    able: list[tuple[CellName, int, int, int, float]], most: int, settings: PlacementSettings, now: Instant
) -> Iterator[Kept]:
    for name, buildable, reserved, arrived, weight_offset in able:
        room = room_share(buildable - reserved, most, settings.strategy)
        fresh = freshness(now - arrived, settings.mute_after)
        offset = weight_offset * settings.offset_weight
        score = room * settings.room_weight + fresh * settings.freshness_weight + offset
        yield name, buildable, reserved, room, fresh, offset, score


def _cells_in(spec: BuildSpec, hint: str, candidates: "Candidates") -> frozenset[CellName] | None:
    """The cells a hint names, each with all below it; names are separated by commas. None when the hint is absent."""
    text = spec.hints.get(hint)
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise BadInput(f"hint {hint} is empty: name one or more cells, separated by commas, or leave it out")
    return frozenset().union(*(candidates.within(name) for name in names))
