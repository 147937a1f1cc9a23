"""Cells with one safety rule switched off each, as Builds of the simulated house. No configuration of the product can
do this: the rule is taken out of a cell's parts from outside."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cells.codec import pack
from cells.deciding import Batch, Deciding
from cells.decision import Decision, Job
from cells.messages import BuildServer, Digest, InstanceReport
from cells.names import NEVER
from cells.node import Node
from cells.ports import Outcome
from cells.record import Received
from cells.rows import InboxRow, JournalRow, LeaseRow, OutboxRow
from cells.simulation.house import Build
from cells.simulation.store import SimulatedStore
from cells.store.dicts import DictUnit


def _without(row: type) -> type[SimulatedStore]:
    """A store that keeps no rows of this type."""

    class Unit(DictUnit):
        def save(self, *rows: Any) -> None:
            super().save(*(each for each in rows if type(each) is not row))

    class Store(SimulatedStore):
        unit_class = Unit

    return Store


class _Dressed:
    """A role that decides, or works, differently in one thing."""

    def __init__(self, role: Any) -> None:
        self._role = role

    def __getattr__(self, name: str) -> Any:
        return getattr(self._role, name)


class _View:
    """A view in which rows of one type look different."""

    def __init__(self, view: Any, row: str, change: Callable[[Any], Any]) -> None:
        self._view = view
        self._row = row
        self._change = change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)

    def get(self, row: type, *key: Any) -> Any:
        found = self._view.get(row, *key)
        return self._change(found) if found is not None and row.__name__ == self._row else found


def _dress(role_name: str, dressed: type[_Dressed]) -> Callable[[Any], Any]:
    return lambda role: dressed(role) if role.name == role_name else role


# --- the rules ---


class _ConfirmIsEnough(Node):
    """The outbox lets go of a record when the next hop's broker has it, not when its destination says so."""

    def _link(self, neighbour: str, url: str) -> Any:
        return _Confirming(super()._link(neighbour, url), self, neighbour)

    def confirmed(self, neighbour: str, ref: Any) -> None:
        packets, _ = self._pump._edges[neighbour].on_the_way.get(ref, ([], []))
        ids = [id for packet in packets for id in self._pump._serials.get(packet.serial, ("", "", ()))[2]]
        if not ids:
            return
        tables = self.store.database.tables["outbox"]  # type: ignore[attr-defined]
        for id in ids:
            self._unsent.forget([id])
            tables.pop((id,), None)


class _Confirming:
    def __init__(self, link: Any, node: _ConfirmIsEnough, neighbour: str) -> None:
        self._link = link
        self._node = node
        self._neighbour = neighbour

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def outcomes(self) -> list[Outcome]:
        found: list[Outcome] = self._link.outcomes()
        for outcome in found:
            if outcome.ok:
                self._node.confirmed(self._neighbour, outcome.ref)
        return found


class _StartsUngranted(_Dressed):
    def decide(self, view: Any, received: Received, now: int) -> Decision:
        decision: Decision = self._role.decide(view, received, now)
        if not isinstance(received.record.body, BuildServer):
            return decision
        return decision.but(
            save=tuple(
                replace(row, phase=type(row.phase)("granted")) if type(row).__name__ == "InstanceRow" else row
                for row in decision.save
            )
        )


class _ClaimsNothing(_Dressed):
    def decide(self, view: Any, received: Received, now: int) -> Decision:
        decision: Decision = self._role.decide(view, received, now)
        if not isinstance(received.record.body, BuildServer):
            return decision
        return decision.but(
            save=tuple(row for row in decision.save if type(row).__name__ not in ("HostRow", "GroupRow"))
        )


class _AnyVersion(_Dressed):
    def decide(self, view: Any, received: Received, now: int) -> Decision:
        if isinstance(received.record.body, InstanceReport):
            view = _View(view, "ServerRow", lambda row: replace(row, version=0))
        return self._role.decide(view, received, now)


class _NoDigests(_Dressed):
    def decide(self, view: Any, received: Received, now: int) -> Decision:
        decision: Decision = self._role.decide(view, received, now)
        return decision.but(send=tuple(record for record in decision.send if not isinstance(record.body, Digest)))


class _NoReservations(_Dressed):
    def __init__(self, role: Any) -> None:
        super().__init__(role)
        role._reservations.reserve = lambda reservation: None


class _NoFirstWords(_Dressed):
    """A cell whose daemon acts at once after its start: places, or goes on with what it had begun."""

    def decide(self, view: Any, received: Received, now: int) -> Decision:
        self._role._first_words.is_known = True
        return self._role.decide(view, received, now)

    def is_sure(self, view: Any, now: int) -> bool:
        return True


def _behind_first_words(dress: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A leaf that has just started asks its parents first, which spares it most of what these rules are for. They stand
    behind that, for a leaf whose parents do not answer."""
    at_once = _dress("compute", _NoFirstWords)
    return lambda role: dress(at_once(role))


class _NoDeadlines(_Dressed):
    def decide(self, view: Any, received: Received, now: int) -> Decision:
        timeless = replace(received, record=replace(received.record, deadline=NEVER))
        return self._role.decide(view, timeless, now)


class _NoNumbers(_Dressed):
    def decide(self, view: Any, received: Received, now: int) -> Decision:
        seen = _View(view, "InstanceRow", lambda row: replace(row, number=0))
        return self._role.decide(seen, received, now)


class _TakesAll(_Dressed):
    """A command for a server that was forgotten is acknowledged like any other."""

    def decide(self, view: Any, received: Received, now: int) -> Decision:
        decision: Decision = self._role.decide(view, received, now)
        return decision.but(taken=True)


class _WishesOnce(_Dressed):
    """A wish that its leaf is not at is not wished again when digests are compared."""

    def decide(self, view: Any, received: Received, now: int) -> Decision:
        decision: Decision = self._role.decide(view, received, now)
        return decision.but(wake=()) if isinstance(received.record.body, Digest) else decision


def _forgetful(role: Any) -> Any:
    return _TakesAll(role) if role.name == "compute" else _WishesOnce(role)


class _TrustingJournal:
    """A journal that does not ask who holds the shard."""

    def __init__(self, journal: Any) -> None:
        self._journal = journal

    def get(self, step: str) -> Any:
        return self._journal.get(step)

    def put(self, step: str, value: Any) -> None:
        with self._journal._store.unit() as unit:
            unit.save(JournalRow(job=self._journal._job.id, step=step, value=pack(value)))

    def held(self) -> None:
        pass

    def check(self) -> None:
        pass


class _NoEpochsInJobs(_Dressed):
    def work(self, job: Job, journal: Any) -> Any:
        return self._role.work(job, _TrustingJournal(journal))


class _AnyEpoch(Deciding):
    def batch(self, unit: Any, items: Any, now: int) -> Batch:
        for item in items:
            if item.job is not None:
                item.epoch = unit.get(LeaseRow, item.job.shard).epoch
        return super().batch(unit, items, now)


class _NoEpochsInNode(Node):
    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.deciding.__class__ = _AnyEpoch


class _Blind:
    """What `VM.get_by_name_label` finds while a build is prepared: nothing, as if a restarted leaf did not look."""

    def __init__(self) -> None:
        self.local = threading.local()

    def __call__(self, method: str) -> bool:
        return method == "VM.get_by_name_label" and getattr(self.local, "kind", "") == "build.prepare"

    def dress(self, role: Any) -> Any:
        blind = self

        class Preparing(_Dressed):
            def work(self, job: Job, journal: Any) -> Any:
                blind.local.kind = job.kind
                return self._role.work(job, journal)

        return Preparing(role) if role.name == "compute" else role


def _tag_lookup() -> Build:
    blind = _Blind()
    return Build(dress=blind.dress, blind=blind)


RULES: dict[str, Callable[[], Build]] = {
    "inbox marks": lambda: Build(store=_without(InboxRow)),
    "outbox": lambda: Build(store=_without(OutboxRow)),
    "end-to-end acknowledgement": lambda: Build(node=_ConfirmIsEnough),
    "grant": lambda: Build(dress=_dress("compute", _StartsUngranted)),
    "tag lookup": _tag_lookup,
    "versions": lambda: Build(dress=_dress("api", _AnyVersion)),
    "digests": lambda: Build(dress=_dress("compute", _NoDigests)),
    "claims of hosts": lambda: Build(dress=_dress("compute", _ClaimsNothing)),
    "deadlines": lambda: Build(dress=_behind_first_words(_dress("compute", _NoDeadlines))),
    "lease epochs": lambda: Build(node=_NoEpochsInNode, dress=_dress("compute", _NoEpochsInJobs)),
    "reservations": lambda: Build(dress=_dress("api", _NoReservations)),
    "command numbers": lambda: Build(dress=_behind_first_words(_dress("compute", _NoNumbers))),
    "first words": lambda: Build(dress=_dress("api", _NoFirstWords)),
    "first words of leaves": lambda: Build(dress=_dress("compute", _NoFirstWords)),
    "commands to forgotten servers": lambda: Build(dress=_behind_first_words(_forgetful)),
    "acknowledged after the commit": lambda: Build(acks_early=True),
}
