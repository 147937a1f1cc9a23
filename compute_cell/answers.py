"""What a leaf says to owners: replies and reports, and the shared last steps of every change to an instance. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cells.codec import pack, unpack
from cells.decision import Decision, Job, Wake
from cells.messages import InstanceReport, JobEnded
from cells.model import Fault, Flavor, InstanceState
from cells.names import NEVER, SECOND, CellName, Instant
from cells.ports import View
from cells.record import Record
from compute_cell import hosts
from compute_cell.rows import GroupRow, HostRow, InstanceRow
from compute_cell.tasks import Outcome

NO_JOB = bytes(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """The cell a decision is made in, and where its new ids come from. `remember`: how long a tombstone stays at
    least."""

    name: CellName
    new_id: Callable[[], bytes]
    remember: Instant = 3600 * SECOND

    def record(self, destination: CellName, body: Any, of: InstanceRow | Record, deadline: Instant = NEVER) -> Record:
        """A record about the same server as `of`."""
        server = of.id if isinstance(of, InstanceRow) else of.server
        return Record(
            id=self.new_id(),
            body=body,
            origin=self.name,
            destination=destination,
            server=server,
            deadline=deadline,
            request=of.request,
        )

    def wake(self, due: Instant, body: Any, of: InstanceRow) -> Wake:
        return Wake(due=due, record=self.record(self.name, body, of))

    def job(self, kind: str, instance: InstanceRow, body: Any, request: str = "") -> Job:
        """Slow work for an instance, in the lane of its host."""
        return Job(
            id=self.new_id(),
            kind=kind,
            server=instance.id,
            lane=instance.host,
            body=pack(body),
            request=request or instance.request,
        )

    def report(self, instance: InstanceRow) -> Record:
        """The whole state of an instance, for its owner."""
        body = InstanceReport(
            attempt=instance.attempt,
            version=instance.version,
            state=instance.state,
            number=instance.number,
            failed=instance.failed,
        )
        return self.record(instance.owner, body, instance)

    def changed(self, instance: InstanceRow, now: Instant, **state: Any) -> Decision:
        """Save an instance at its next version, with these fields of its state changed, and tell the owner."""
        new = replace(
            instance,
            state=replace(instance.state, **state),
            version=instance.version + 1,
            unseen=True,
            updated=now,
        )
        return Decision(save=(new,), send=(self.report(new),))


def fault(message: str, now: Instant, code: int = 500) -> Fault:
    return Fault(code=code, message=message[:255], at=now)


def told(state: InstanceState, end: JobEnded) -> InstanceState:
    """The state with what a job that makes a VM has found out."""
    outcome: Outcome | None = unpack(Outcome | None, end.result) if end.result else None
    if outcome is None:
        return state
    return replace(state, note=outcome.note, power_state=outcome.power_state or state.power_state)


def quiet(state: InstanceState) -> InstanceState:
    """The state with no task going on."""
    return replace(state, task_state="", progress=0)


def released(view: View, *claims: tuple[str, Flavor]) -> tuple[HostRow | GroupRow, ...]:
    """The rows of hosts and storage groups with these claims, (host, flavor), given back; several may share a host."""
    return _changed(view, claims, hosts.give_back)


def claimed(view: View, *claims: tuple[str, Flavor]) -> tuple[HostRow | GroupRow, ...]:
    """The same rows with these claims taken off, whatever is left then."""
    return _changed(view, claims, hosts.take)


def _changed(
    view: View,
    claims: tuple[tuple[str, Flavor], ...],
    change: Callable[[HostRow, GroupRow | None, Flavor], hosts.Claim],
) -> tuple[HostRow | GroupRow, ...]:
    on_hosts: dict[str, HostRow] = {}
    groups: dict[str, GroupRow] = {}
    for uuid, flavor in claims:
        host = on_hosts.get(uuid) or view.get(HostRow, uuid)
        if host is None:
            continue
        group = (groups.get(host.group) or view.get(GroupRow, host.group)) if host.group else None
        after = change(host, group, flavor)
        on_hosts[uuid] = after.host
        if after.group is not None:
            groups[after.group.name] = after.group
    return (*on_hosts.values(), *groups.values())
