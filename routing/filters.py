"""Hard conditions of placement: each filter gives the reason why a leaf cannot take a build, or nothing.

To add a filter: a function here and a line in `filters_for`. A filter that this build has no use for is left out
there, so that it costs nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from cells.model import BuildSpec, CellState
from cells.names import CellName, Instant
from routing.demand import Demand
from routing.roster import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One build and all that is known for it at this moment. `near` and `far`: leaves that it must, or must not, share
    (the caller has resolved the servers named in its hints to their leaves); None when nothing was asked."""

    spec: BuildSpec
    demand: Demand
    now: Instant
    mute_after: int
    open: frozenset[CellName]
    tried: frozenset[CellName] = frozenset()
    target: frozenset[CellName] | None = None
    different: frozenset[CellName] | None = None
    near: frozenset[CellName] | None = None
    far: frozenset[CellName] | None = None


Filter = Callable[[Entry, Ask], str]

NO_WAY = "no open way leads there"
MUTE = "not heard of lately"


def has_a_way(entry: Entry, ask: Ask) -> str:
    return "" if entry.record.name in ask.open else NO_WAY


def is_enabled(entry: Entry, ask: Ask) -> str:
    return "" if entry.record.state is CellState.ENABLED else f"its administrator has it {entry.record.state.value}"


def is_fresh(entry: Entry, ask: Ask) -> str:
    return "" if ask.now - entry.arrived <= ask.mute_after else MUTE


def admits_project(entry: Entry, ask: Ask) -> str:
    projects = entry.record.projects
    return "" if not projects or ask.spec.project in projects else "not open to this project"


def was_not_tried(entry: Entry, ask: Ask) -> str:
    return "tried already" if entry.record.name in ask.tried else ""


def is_target(entry: Entry, ask: Ask) -> str:
    return "" if ask.target is None or entry.record.name in ask.target else "hint target_cell names another"


def is_different(entry: Entry, ask: Ask) -> str:
    return "hint different_cell" if ask.different and entry.record.name in ask.different else ""


def is_near(entry: Entry, ask: Ask) -> str:
    return "" if ask.near is None or entry.record.name in ask.near else "hint near names servers elsewhere"


def is_far(entry: Entry, ask: Ask) -> str:
    return "hint far names servers here" if ask.far and entry.record.name in ask.far else ""


def filters_for(ask: Ask) -> tuple[Filter, ...]:
    """The filters that can refuse some leaf for this build, in the order their reasons are given."""
    wanted: list[Filter] = [has_a_way, is_enabled, is_fresh, admits_project]
    if ask.tried:
        wanted.append(was_not_tried)
    if ask.target is not None:
        wanted.append(is_target)
    if ask.different:
        wanted.append(is_different)
    if ask.near is not None:
        wanted.append(is_near)
    if ask.far:
        wanted.append(is_far)
    return tuple(wanted)


def why_no_room(entry: Entry, demand: Demand) -> str:
    """Why a leaf can build none of this: no host class will do, or those that will are full."""
    capacity = entry.record.capacity
    if capacity is None or not capacity.classes:
        return "has no hosts"
    reasons = [demand.why_not(known) for known in capacity.classes]
    if all(reasons):
        return "; ".join(dict.fromkeys(reasons))
    return "no room"
