"""Whether the promises were kept: a pure function of what tenants were told and what there is when all is quiet. A
request of unknown end may have had its effect or not, but never half of it, and never twice."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from cells.audit import ServerFact
from cells.names import CellName, id_from_text, id_text
from cells.simulation.invariants import AT_REST, Memory, Rest, at_every_step
from tests.chaos.history import End, Event
from tests.chaos.truth import Truth

# What becomes of a bundle with a flipped bit: refused by its frame or its signature, and kept for an operator to see.
STRANGER = "is not this neighbour of ours"
GARBAGE = ("not a bundle", "is not signed by", "wire version", "not signed by this tree", "comes with the certificate")
# From the moment a request is taken to the moment its end is noted.
SLOWEST_REQUEST = 2.0
IMAGE_ENDS = ("active", "deleted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`breaches`: promises that were not kept, with the evidence. The rest are figures."""

    breaches: tuple[str, ...]
    asked: int
    accepted: int
    refused: int
    unknown: int
    ended: Mapping[str, int]
    lost: int
    doubled: int
    garbage: int


def judge(
    events: Sequence[Event],
    truth: Truth,
    owner: CellName,
    leaves: frozenset[CellName],
    *,
    flips: bool,
    detached: bool = False,
    forgotten: Mapping[CellName, Sequence[tuple[float, float]]] = MappingProxyType({}),
) -> Verdict:
    """`flips`: bits were flipped on the way, so that garbage has come in and was rightly parked. `detached`: an edge
    was taken away, so that what was on its way along it was, too. `forgotten`: times of
    which a cell's database knows nothing, because it was put back. Whatever the owner was asked then is of unknown end,
    a request id given then is not known again, and an image asked for then waits for data that nobody may bring."""
    lost = forgotten.get(owner, ())
    ends = [_unknown(event, lost) for event in events if event.end is not End.INVOKE]
    builds = [event for event in ends if event.action == "build"]
    memory = _memory(ends, truth, owner)
    memory.unsure = {id_from_text(event.server) for event in ends if event.server and _is_forgotten(event, lost)}
    memory.restored = set(forgotten)
    parked = {
        cell: tuple(one for one in reasons if not (flips and _garbage(one)) and not (detached and STRANGER in one))
        for cell, reasons in truth.parked.items()
    }
    rest = Rest(
        audits=truth.audits,
        pools=truth.pools,
        memory=memory,
        reaches={owner: leaves},
        parked={cell: reasons for cell, reasons in parked.items() if reasons},
    )
    breaches = [str(breach) for check in AT_REST for breach in check(rest)]
    for audit in truth.audits.values():
        if breach := at_every_step(audit, {}, Memory(restored=memory.restored)):
            breaches.append(str(breach))
    excused = {event.name for event in events if event.action == "build" and _is_forgotten(event, lost)}
    doubled = list(_doubled(builds, truth, excused))
    breaches += [f"P1, everything ends: {each}" for each in truth.busy]
    asked_for_good = [event for event in ends if not _is_forgotten(event, lost)]
    breaches += [*doubled, *_unasked(builds, truth), *_images(asked_for_good, truth), *_flavors(events, truth)]
    there = {fact.server for audit in truth.audits.values() for fact in audit.owned}
    gone = truth.audits[owner].gone
    return Verdict(
        breaches=tuple(breaches),
        asked=len(ends),
        accepted=sum(event.end is End.OK for event in ends),
        refused=sum(event.end is End.FAIL for event in ends),
        unknown=sum(event.end is End.INFO for event in ends),
        ended={**Counter(fact.status for fact in truth.audits[owner].owned), "DELETED": len(gone)},
        lost=sum(server not in there and server not in gone for server in memory.accepted),
        doubled=len(doubled),
        garbage=sum(_garbage(one) for reasons in truth.parked.values() for one in reasons),
    )


def _is_forgotten(event: Event, forgotten: Sequence[tuple[float, float]]) -> bool:
    return any(since - SLOWEST_REQUEST <= event.at <= until + SLOWEST_REQUEST for since, until in forgotten)


def _unknown(event: Event, forgotten: Sequence[tuple[float, float]]) -> Event:
    return replace(event, end=End.INFO) if _is_forgotten(event, forgotten) else event


def _garbage(reason: str) -> bool:
    return any(words in reason for words in GARBAGE)


def _memory(ends: Sequence[Event], truth: Truth, owner: CellName) -> Memory:
    """What was promised. A delete of unknown end has happened if its server is gone; a build of unknown end has
    happened if its server is there."""
    memory = Memory()
    gone = truth.audits[owner].gone
    for event in ends:
        if event.action == "build" and event.end is End.OK:
            memory.accepted[id_from_text(event.server)] = owner
        elif event.action == "delete":
            server = id_from_text(event.server)
            if event.end is End.OK or (event.end is End.INFO and server in gone):
                memory.deleted.add(server)
    for fact in truth.audits[owner].owned:
        memory.accepted.setdefault(fact.server, owner)
    return memory


def _doubled(builds: Sequence[Event], truth: Truth, excused: Collection[str]) -> Iterator[str]:
    """A name is given once, so two servers of a name are one build done twice."""
    ids: dict[str, set[bytes]] = defaultdict(set)
    for build in builds:
        if build.server:
            ids[build.name].add(id_from_text(build.server))
    for audit in truth.audits.values():
        for fact in audit.owned:
            ids[fact.name].add(fact.server)
    for name, servers in ids.items():
        if len(servers) > 1 and name not in excused:
            yield f"P2, a build is one build: {name} is {' and '.join(map(id_text, sorted(servers)))}"
    started = Counter(vm.server for pool in truth.pools.values() for vm in pool.vms if vm.power == "Running")
    for server, count in started.items():
        if count > 1:
            yield f"P3, at most one VM of a server is started: {count} of {id_text(server)}"


def _unasked(builds: Sequence[Event], truth: Truth) -> Iterator[str]:
    refused = {build.name for build in builds if build.end is End.FAIL}
    for audit in truth.audits.values():
        for fact in audit.owned:
            if fact.name in refused:
                yield f"P1, what was refused is not done: {fact.name} is {fact.status}"


def _images(ends: Sequence[Event], truth: Truth) -> Iterator[str]:
    for event in ends:
        if event.image and truth.images.get(event.image, "deleted") not in IMAGE_ENDS:
            status = truth.images[event.image]
            yield f"P1, a snapshot ends: image {event.image} of {event.name} is {status}"
    for said in truth.damaged:
        yield f"P1, an image is what is said of it: {said}"


def _flavors(events: Sequence[Event], truth: Truth) -> Iterator[str]:
    """A server has a flavor that somebody asked for."""
    asked: dict[str, set[str]] = defaultdict(set)
    for event in events:
        if event.flavor:
            asked[event.name].add(event.flavor)
    for fact in _owned(truth):
        if fact.state is not None and fact.name in asked and fact.state.flavor.id not in asked[fact.name]:
            yield f"P1, nothing goes unasked: {fact.name} has flavor {fact.state.flavor.id}, asked {asked[fact.name]}"


def _owned(truth: Truth) -> Iterator[ServerFact]:
    return (fact for audit in truth.audits.values() for fact in audit.owned)
