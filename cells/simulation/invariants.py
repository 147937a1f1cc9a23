"""What must be so, whatever happens: pure functions over audits and the truth of the pools, each named after what it
says, with the promise it belongs to. Those of `at_every_step` hold at every moment, those of `at_rest` when all is
quiet.

They know nothing of roles or hosts, so the same ones can be asked of any tree.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from cells.audit import Audit, ImageFact, PoolFacts, ServerFact, Standing, VmFact
from cells.decision import Decision
from cells.model import PowerState
from cells.names import CellName, Id, Instant, id_text
from cells.record import Received

GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """A promise that was not kept: which, and the evidence. `server`: whose story tells more."""

    name: str
    promise: str
    text: str
    server: Id | None = None

    def __str__(self) -> str:
        return f"{self.promise}, {self.name}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a cell had been asked and had done when its database was backed up."""

    accepted: frozenset[Id]
    deleted: frozenset[Id]
    ended: frozenset[Id]
    handled: frozenset[Id]


@dataclass(slots=True)
class Memory:
    """What has been seen so far. `accepted`: servers that a tenant was promised, and by whom; `deleted`: those he wants
    gone; `started`: (server, VM) that run at each leaf; `whole`: the disks (uuids) that a server had at a leaf when
    nothing was being done to it last, and at which version that was. `unsure`: servers of which a wish may be lost
    with the database it was in; `restored`: cells whose database was put back to a backup."""

    accepted: dict[Id, CellName] = field(default_factory=dict)
    deleted: set[Id] = field(default_factory=set)
    ended: set[Id] = field(default_factory=set)
    handled: dict[CellName, set[Id]] = field(default_factory=lambda: defaultdict(set))
    versions: dict[tuple[CellName, Id, int], int] = field(default_factory=dict)
    started: dict[CellName, tuple[tuple[Id, str], ...]] = field(default_factory=dict)
    whole: dict[tuple[CellName, Id], tuple[int, frozenset[str]]] = field(default_factory=dict)

    unsure: set[Id] = field(default_factory=set)
    restored: set[CellName] = field(default_factory=set)

    def of(self, cell: CellName) -> Known:
        """What is true of this cell now."""
        accepted = frozenset(server for server, owner in self.accepted.items() if owner == cell)
        return Known(
            accepted=accepted,
            deleted=accepted & self.deleted,
            ended=accepted & self.ended,
            handled=frozenset(self.handled[cell]),
        )

    def put_back(self, cell: CellName, known: Known) -> None:
        """The cell's database is what it was then: what was asked of it and decided in it since may be lost."""
        now = self.of(cell)
        self.unsure |= (now.accepted - known.accepted) | (now.deleted - known.deleted) | (now.ended - known.ended)
        self.deleted -= now.deleted - known.deleted
        self.ended -= now.ended - known.ended
        self.handled[cell] = set(known.handled)
        self.versions = {key: version for key, version in self.versions.items() if key[0] != cell}
        self.restored.add(cell)

    def look_at(self, leaf: CellName) -> None:
        """Something may have started there."""
        self.started.setdefault(leaf, ())

    def whole_are(self, audit: Audit, disks_of: Callable[[Id], frozenset[str]]) -> None:
        """What a leaf has committed tells of which servers all disks are complete: those that nothing is done to."""
        for fact in audit.held:
            key = (audit.cell, fact.server)
            if fact.standing is Standing.GONE:
                self.whole.pop(key, None)
            elif fact.standing is Standing.HELD and self.whole.get(key, (0, ()))[0] != fact.version:
                self.whole[key] = (fact.version, disks_of(fact.server))

    def disks_are_lost(self, leaf: CellName) -> None:
        """A host there is gone for good, as an administrator says, with the disks that were on it."""
        self.whole = {key: disks for key, disks in self.whole.items() if key[0] != leaf}

    def set_back(self, server: Id) -> None:
        """A backup was put back: what its owner knows of it may be older now."""
        self.versions = {key: version for key, version in self.versions.items() if key[1] != server}

    def decided(self, cell: CellName, received: Received, decision: Decision, now: Instant) -> Breach | None:
        """A record has had its effect."""
        record = received.record
        if record.kind.acknowledged and record.origin != cell and decision.taken:
            if record.id in self.handled[cell]:
                return Breach(
                    name="effects happen once",
                    promise="P2",
                    text=f"{record.kind.name} {id_text(record.id)} had its effect twice in {cell}",
                    server=record.server,
                )
            self.handled[cell].add(record.id)
        if record.deadline < now and decision.do:
            late = (now - record.deadline) / 1_000_000
            return Breach(
                name="nothing begins after its deadline",
                promise="P8",
                text=f"{record.kind.name} began a job in {cell} {late:.1f} s after its deadline",
                server=record.server,
            )
        return None


def _breach(name: str, promise: str, text: str, server: Id | None = None) -> Breach:
    return Breach(name=name, promise=promise, text=text, server=server)


# --- at every step ---


def at_every_step(audit: Audit, others: Mapping[CellName, Audit], memory: Memory) -> Breach | None:
    """The first breach in what one cell has just committed."""
    for check in _STEPS:
        for breach in check(audit, others, memory):
            return breach
    return None


def _one_started_vm(audit: Audit, others: Mapping[CellName, Audit], memory: Memory) -> Iterator[Breach]:
    if audit.cell not in memory.started:
        return
    where: dict[Id, list[str]] = defaultdict(list)
    for leaf, started in memory.started.items():
        for server, vm in started:
            where[server].append(f"{vm} at {leaf}")
    for server, vms in where.items():
        if len(vms) > 1:
            text = f"{len(vms)} VMs of server {id_text(server)} are started: {', '.join(vms)}"
            yield _breach("at most one VM of a server is started", "P3", text, server)
        if server in memory.ended:
            text = f"a VM of {id_text(server)} runs ({vms[0]}) after its owner said it is gone"
            yield _breach("delete wins", "P1", text, server)


def _room_adds_up(audit: Audit, others: Mapping[CellName, Audit], memory: Memory) -> Iterator[Breach]:
    for place in audit.places:
        for what, total, free, claimed in zip(
            ("RAM", "vCPUs", "disk"), place.total, place.free, place.claimed, strict=True
        ):
            if free != total - claimed or (free < 0 and audit.cell not in memory.restored):
                text = f"{place.name} at {audit.cell}: {what} free {free}, total {total}, claimed {claimed}"
                yield _breach("free = total - claimed, never negative", "P5", text)


def _views_follow(audit: Audit, others: Mapping[CellName, Audit], memory: Memory) -> Iterator[Breach]:
    for fact in audit.owned:
        if not fact.leaf:
            continue  # what an attempt that was given up had said counts no more
        key = (audit.cell, fact.server, fact.attempt)
        before = memory.versions.get(key, 0)
        if fact.version < before:
            text = f"{audit.cell} had version {before} of {fact.name} and now has {fact.version}"
            yield _breach("versions only grow", "P4", text, fact.server)
        memory.versions[key] = fact.version
        at = others.get(fact.leaf)
        there = next((held for held in at.held if held.server == fact.server), None) if at is not None else None
        if there is None or fact.leaf in memory.restored:
            continue
        if there.attempt == fact.attempt and fact.version > there.version:
            text = f"{audit.cell} has version {fact.version} of {fact.name}, its leaf {fact.leaf} {there.version}"
            yield _breach("no view is ahead of the truth", "P4", text, fact.server)


def _over_is_over(audit: Audit, others: Mapping[CellName, Audit], memory: Memory) -> Iterator[Breach]:
    for fact in audit.held:
        again = [number for number in fact.open if number <= fact.number]
        if again:
            text = f"command {again[0]} of {fact.name} waits at {audit.cell}, where {fact.number} is over"
            yield _breach("a command that is over does not begin again", "P2", text, fact.server)


def _ends_are_final(audit: Audit, others: Mapping[CellName, Audit], memory: Memory) -> Iterator[Breach]:
    if audit.owned or audit.usage:
        memory.ended |= {server for server in audit.gone if memory.accepted.get(server) == audit.cell}
        for fact in audit.owned:
            if fact.server in memory.ended:
                yield _breach("delete wins", "P1", f"{fact.name} is back after it was gone", fact.server)


Check = Callable[[Audit, Mapping[CellName, Audit], Memory], Iterator[Breach]]
_STEPS: tuple[Check, ...] = (_one_started_vm, _room_adds_up, _views_follow, _over_is_over, _ends_are_final)


def a_disk_remains(leaf: CellName, disks: frozenset[str], running: frozenset[Id], memory: Memory) -> Breach | None:
    """Asked when a disk or a VM has gone from a pool; `disks`: those that are left there, `running`: servers with a
    started VM. Of the disks that a server had when nothing was being done to it one at least stays, until it runs on
    what replaces it, or its leaf says that this is complete."""
    asked_to_go = memory.deleted | memory.unsure | running
    for (cell, server), (_, whole) in memory.whole.items():
        if cell == leaf and whole and not whole & disks and server not in asked_to_go:
            text = f"{leaf} has none left of the disks of {id_text(server)}, {', '.join(sorted(whole))}"
            return _breach("one complete disk at least", "P1", text, server)
    return None


# --- at rest ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """Everything there is when nothing goes on any more. `reaches`: the leaves below each API cell."""

    audits: Mapping[CellName, Audit]
    pools: Mapping[CellName, PoolFacts]
    memory: Memory
    reaches: Mapping[CellName, frozenset[CellName]]
    parked: Mapping[CellName, tuple[str, ...]]
    images: Mapping[CellName, tuple[ImageFact, ...]] = field(default_factory=dict)


def at_rest(rest: Rest) -> Breach | None:
    """The first breach."""
    for check in AT_REST:
        for breach in check(rest):
            return breach
    return None


def _vms(rest: Rest) -> dict[Id, list[tuple[CellName, VmFact]]]:
    found: dict[Id, list[tuple[CellName, VmFact]]] = defaultdict(list)
    for leaf, facts in rest.pools.items():
        for vm in facts.vms:
            found[vm.server].append((leaf, vm))
    return found


def _builds_end(rest: Rest) -> Iterator[Breach]:
    vms = _vms(rest)
    for server, owner in rest.memory.accepted.items():
        audit = rest.audits[owner]
        fact = next((each for each in audit.owned if each.server == server), None)
        there = vms[server]
        seen = ", ".join(f"{vm.power} at {leaf}" for leaf, vm in there) or "no VM"
        if fact is None:
            if server in rest.memory.unsure:
                continue  # its VM, if there is one, is seen by the other checks
            if server not in audit.gone:
                yield _breach("nothing asked is forgotten", "P1", f"{owner} knows nothing of {id_text(server)}", server)
            elif server not in rest.memory.deleted:
                yield _breach("nothing goes unasked", "P1", f"{id_text(server)} is gone, nobody deleted it", server)
            elif there:
                yield _breach("delete leaves nothing", "P1", f"{id_text(server)} is gone and has {seen}", server)
        elif server in rest.memory.deleted:
            yield _breach("deletes end", "P1", f"{fact.name} was deleted and is {fact.phase} {fact.status}", server)
        elif fact.standing is Standing.FAILED:
            if not fact.fault:
                yield _breach("failures say why", "P1", f"{fact.name} is {fact.status} without a reason", server)
            if there:
                yield _breach(
                    "a failed build leaves nothing", "P1", f"{fact.name} failed ({fact.fault}), {seen}", server
                )
        elif sum(not vm.kept for _, vm in there) != 1:
            yield _breach("one VM for each server", "P1", f"{fact.name} is {fact.status} and has {seen}", server)


def _nothing_unknown(rest: Rest) -> Iterator[Breach]:
    owned = {fact.server for audit in rest.audits.values() for fact in audit.owned}
    for leaf, facts in rest.pools.items():
        held = {fact.server: fact for fact in rest.audits[leaf].held}
        for vm in facts.vms:
            fact = held.get(vm.server)
            if vm.server in rest.memory.unsure and leaf in rest.memory.restored:
                continue  # both databases that knew of it may have been put back
            if fact is None or fact.standing is Standing.GONE:
                text = f"{leaf} runs VM {vm.uuid} of {id_text(vm.server)} and has no row for it"
                yield _breach("no VM without a row", "P9", text, vm.server)
            if vm.server not in owned:
                text = f"VM {vm.uuid} of {id_text(vm.server)} at {leaf} has no owner"
                yield _breach("no VM without an owner", "P1", text, vm.server)
        for disk in facts.loose:
            text = f"disk {disk.name!r} at {leaf} hangs on no VM"
            yield _breach("no disk is left over", "P9", text, disk.server)
        for fact in held.values():
            if fact.standing is not Standing.GONE and fact.server not in owned:
                text = f"{leaf} holds {fact.name} ({fact.phase}), {fact.owner} does not know it"
                yield _breach("no server without an owner", "P4", text, fact.server)


def _hosts_are_as_said(rest: Rest) -> Iterator[Breach]:
    for leaf, facts in rest.pools.items():
        vms: dict[Id, list[VmFact]] = defaultdict(list)
        for vm in facts.vms:
            vms[vm.server].append(vm)
        for fact in rest.audits[leaf].held:
            there = vms[fact.server]
            copies = 0 if fact.standing in (Standing.GONE, Standing.FAILED) else fact.copies
            if len(there) != copies:
                text = f"{fact.name} at {leaf} ({fact.phase} {fact.status}) has {len(there)} VMs, not {copies}"
                yield _breach("as many VMs as the leaf says", "P9", text, fact.server)
            current = [vm for vm in there if not vm.kept]
            if copies and fact.state is not None and len(current) == 1:
                yield from _like_its_state(leaf, fact, current[0])


def _like_its_state(leaf: CellName, fact: ServerFact, vm: VmFact) -> Iterator[Breach]:
    assert fact.state is not None
    flavor = fact.state.flavor
    if vm.power != fact.state.power_state:
        text = f"{fact.name} at {leaf} is {vm.power}, its row says {fact.state.power_state}"
        yield _breach("power is as the leaf says", "P4", text, fact.server)
    if vm.ram_mib != flavor.ram_mib:
        text = f"{fact.name} at {leaf} has {vm.ram_mib} MiB, its flavor {flavor.name} {flavor.ram_mib}"
        yield _breach("a server is as large as its flavor", "P1", text, fact.server)
    if len(vm.disks) != 1 or vm.disks[0] != flavor.disk_gib * GIB:
        text = f"{fact.name} at {leaf} has disks of {vm.disks} bytes, its flavor {flavor.name} {flavor.disk_gib} GiB"
        yield _breach("one disk, as large as its flavor", "P1", text, fact.server)
    if fact.status == "active" and fact.state.power_state is not PowerState.RUNNING:
        yield _breach("active is running", "P4", f"{fact.name} is active and {fact.state.power_state}", fact.server)


def _views_are_true(rest: Rest) -> Iterator[Breach]:
    for audit in rest.audits.values():
        for fact in audit.owned:
            if fact.standing is Standing.FAILED and not fact.leaf:
                continue
            at = rest.audits.get(fact.leaf)
            there = next((held for held in at.held if held.server == fact.server), None) if at is not None else None
            if there is None:
                text = f"{audit.cell} shows {fact.name} at {fact.leaf!r}, which does not have it"
                yield _breach("every view has its truth", "P4", text, fact.server)
            elif (there.version, there.state, there.attempt) != (fact.version, fact.state, fact.attempt):
                view, truth = f"{fact.version} {fact.state}", f"{there.version} {there.state}"
                text = f"{fact.name}: {audit.cell} has {view}, {fact.leaf} {truth}"
                yield _breach("views equal the truth", "P4", text, fact.server)


def _capacity_is_known(rest: Rest) -> Iterator[Breach]:
    for api, leaves in rest.reaches.items():
        known = {each.leaf: each for each in rest.audits[api].capacity}
        counted = Counter(each.leaf for each in rest.audits[api].capacity)
        for leaf in sorted(leaves):
            said = next(iter(rest.audits[leaf].capacity), None)
            if counted[leaf] != 1 or known[leaf] != said:
                text = f"{api} counts {leaf} {counted[leaf]} times, {known.get(leaf)}; {leaf} itself says {said}"
                yield _breach("capacity is counted once and exact", "P5", text)


def _usage_adds_up(rest: Rest) -> Iterator[Breach]:
    for audit in rest.audits.values():
        for usage in audit.usage:
            if usage.kept != usage.counted:
                text = f"project {usage.project} at {audit.cell} is charged {usage.kept}, has {usage.counted}"
                yield _breach("quota usage is what there is", "P1", text)


def _nothing_parked(rest: Rest) -> Iterator[Breach]:
    for cell, reasons in rest.parked.items():
        yield _breach("nothing sound is parked", "P2", f"{cell} has parked {len(reasons)}: {reasons[0]}")


def _images_end(rest: Rest) -> Iterator[Breach]:
    """The image of a snapshot is whole, or it is said that there will be none: it is taken away or in error."""
    for owner, images in rest.images.items():
        for fact in images:
            # A wish that was lost with its database leaves an image, which goes after a day.
            if fact.status not in ("active", "error") and owner not in rest.memory.restored:
                text = f"image {fact.image} of {id_text(fact.server)} at {owner} is {fact.status}"
                yield _breach("an image is whole or given up", "P1", text, fact.server)


AT_REST: tuple[Callable[[Rest], Iterator[Breach]], ...] = (
    _builds_end,
    _nothing_unknown,
    _hosts_are_as_said,
    _views_are_true,
    _capacity_is_known,
    _usage_adds_up,
    _nothing_parked,
    _images_end,
)
