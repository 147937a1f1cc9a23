"""Changing the tree while it runs: certify and join a new cell, add or remove an edge, drain and enable. An
administrator's doing, with the tree's folder at hand; what is saved in a cell's own database is taken up by its
daemons at their next tick, so nothing restarts.

Everything is checked before anything is written, and what was written is taken back when a later step fails. BadInput
and Temporary name the remedy.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from cells import codec, tls
from cells.broker import AmqpOptions
from cells.broker.limits import redacted
from cells.config import CellConfig, fill, identity
from cells.decision import Remove
from cells.errors import BadInput, CelltreeError, Permanent, Temporary
from cells.house import role_class, save_edge
from cells.identity import Identity
from cells.model import CellRecord, CellState
from cells.names import CellName, Instant
from cells.parts import part
from cells.rows import EdgeRow, RosterRow, SettingRow
from cells.store import schema
from cells.store.sql import SqlStore
from cells.topology_file import API, COMPUTE, cycle_in
from cells.tree_folder import RandomBytes, TreeFolder
from cells.withdrawing import WITHDRAWN

STATE = "state"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolAccess:
    """How a leaf logs in to one of its pools."""

    name: str
    url: str
    user: str = "root"
    password: str = field(default="", repr=False)
    fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCell:
    """What `celltree cell register` is told. `up` and `down` give, by parent, how this cell writes to that parent's
    inbox and how the parent writes to this one's: users that may do nothing else. Where they are missing, each side
    uses the other's own broker URL. `settings` are further fields of its configuration (tick, listen, settings)."""

    name: CellName
    role: str
    database: str = field(repr=False)
    broker: str = field(repr=False)
    parents: tuple[CellName, ...] = ()
    up: Mapping[CellName, str] = field(default_factory=dict, repr=False)
    down: Mapping[CellName, str] = field(default_factory=dict, repr=False)
    pools: tuple[PoolAccess, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


class Registrar:
    """Changes to the tree kept in one folder. Clock, ids and randomness are given."""

    def __init__(
        self,
        folder: TreeFolder,
        *,
        clock: Callable[[], Instant],
        new_id: Callable[[], bytes],
        random_bytes: RandomBytes,
    ) -> None:
        self.folder = folder
        self._clock = clock
        self._new_id = new_id
        self._random_bytes = random_bytes

    # --- cells ---

    def register(self, new: NewCell) -> CellConfig:
        """Certify a cell, write its files, bring its schema up, and join it to its parents at both ends."""
        self._check(new)
        settings = {"database": new.database, "broker": new.broker, **new.settings}
        config = self.folder.add(new.name, new.role, self._new_id(), settings, self._random_bytes, self._clock())
        try:
            who = identity(config)
            schema.upgrade(config.database, config.role)
            with open_store(config) as store, store.unit() as unit:
                for edge in unit.all(EdgeRow):
                    unit.save(Remove(row=EdgeRow, key=(edge.neighbour,)))
                wire, _ = self.folder.withdrawn()
                if wire:
                    unit.save(SettingRow(name=WITHDRAWN, value=wire.hex()))
            for pool in new.pools:
                self.add_pool(config, pool)
            for parent in new.parents:
                self._join(self.folder.config(parent), config, new.up.get(parent, ""), new.down.get(parent, ""))
        except BaseException:
            for parent in new.parents:
                self._take_back(parent, new.name)
            self.folder.remove(new.name)
            raise
        assert who.name == new.name
        return config

    def _check(self, new: NewCell) -> None:
        names = self.folder.names()
        if new.name in names:
            raise BadInput(
                f"the name {new.name!r} is taken in {self.folder.path}; choose another, or, to give that cell one more "
                f"parent, use celltree cell attach {new.name} --parent P"
            )
        _check_role(new)
        for parent in new.parents:
            self._check_parent(parent, new.name)
        draft = tls.with_whole_paths(_draft(new), self.folder.cells.absolute())
        tls.check(draft, self._clock())
        reach_database(draft.database)
        reach_broker(draft.broker, draft.amqp)
        for parent in new.parents:
            self._check_not_known(parent, new.name)

    def _check_parent(self, parent: CellName, child: CellName) -> None:
        if parent == child:
            raise BadInput(f"{child!r} cannot be its own parent: that is a cycle")
        if parent not in self.folder.names():
            there = ", ".join(self.folder.names()) or "none yet"
            raise BadInput(f"parent {parent!r} is not registered in {self.folder.path}; there are: {there}")

    def _check_not_known(self, parent: CellName, name: CellName) -> None:
        with open_store(self.folder.config(parent)) as store, store.unit(lock=False) as unit:
            known = unit.get(RosterRow, name)
            edge = unit.get(EdgeRow, name)
        if known is None and edge is None:
            return
        uuid = f" with the uuid {_record(known).uuid.hex()}" if known is not None else ""
        raise BadInput(
            f"{parent} knows another cell named {name!r}{uuid}; choose another name, or detach that one first: "
            f"celltree cell detach {name} --parent {parent}"
        )

    def add_pool(self, config: CellConfig, pool: PoolAccess) -> None:
        """Register a pool with a leaf."""
        register_pool = part("pool")
        with open_store(config, whole=True) as store, store.unit() as unit:
            register_pool(
                unit,
                identity(config),
                self._random_bytes,
                name=pool.name,
                url=pool.url,
                user=pool.user,
                password=pool.password,
                fingerprint=pool.fingerprint,
            )

    def set_state(self, name: CellName, state: CellState, *, below: bool = False) -> tuple[CellName, ...]:
        """Drain or enable a cell, and with `below` every cell under it; the names changed."""
        names = [name, *(sorted(self.below(name)) if below else ())]
        configs = [self.folder.config(each) for each in names]
        if configs[0].role == API and not below:
            raise BadInput(
                f"{name} is an API cell and takes no builds itself; drain the cells below it, or use --below"
            )
        changed = [config for config in configs if config.role != API]
        for config in changed:
            with open_store(config) as store, store.unit() as unit:
                unit.save(SettingRow(name=STATE, value=state))
        return tuple(config.cell for config in changed)

    # --- edges ---

    def attach(self, child: CellName, parent: CellName, *, up: str = "", down: str = "") -> None:
        """Give a registered cell one more parent."""
        config = self.folder.config(child)
        self._check_parent(parent, child)
        if config.role == API:
            raise BadInput(f"{child} is an API cell: it has no parents; put a compute cell under {parent} instead")
        ancestry = self._parents_above(parent)
        if parent in {name for name, _ in self._edges(config, parents=True)}:
            raise BadInput(f"{child} is under {parent} already; nothing to do")
        ring = cycle_in({**ancestry, child: (*ancestry.get(child, ()), parent)})
        if ring:
            raise BadInput(
                f"{parent} as a parent of {child} closes a cycle ({' -> '.join(ring)}); "
                f"choose a parent that is not below {child}"
            )
        above = self.folder.config(parent)
        reach_broker(up or _as_user(above.broker, child), config.amqp, inbox=False)
        reach_broker(down or _as_user(config.broker, parent), above.amqp, inbox=False)
        self._join(above, config, up, down)

    def why_not_detach(self, child: CellName, parent: CellName) -> str:
        """Why the edge must stay: a cell with servers would lose its last way. Empty when it may go."""
        neighbourhood = part("neighbourhood")
        now = self._clock()
        above, below = self.folder.config(parent), self.folder.config(child)
        servers = 0
        for config, neighbour in ((above, child), (below, parent)):
            own = identity(config)
            known = neighbourhood(own.name, api=config.role == API, mute_after=2**62, verify=own.trust.cell_record)
            with open_store(config) as store, store.unit(lock=False) as unit:
                known.load(unit, now)
                seen = unit.get(RosterRow, child)
            if seen is not None:
                capacity = _record(seen).capacity
                servers = capacity.servers if capacity is not None else 0
            if reason := known.why_not_detach(neighbour, servers=servers):
                return str(reason)
        return ""

    def detach(self, child: CellName, parent: CellName, *, force: bool = False) -> tuple[CellName, ...]:
        """Remove the edge at both ends; gives the cells above that no longer know the child. Doing it again when the
        edge is gone does no harm: what the cells above still remember of the child is forgotten once more."""
        config, above = self.folder.config(child), self.folder.config(parent)
        there = child in {name for name, is_parent in self._all_edges(above) if not is_parent}
        if not there and parent not in {name for name, is_parent in self._all_edges(config) if is_parent}:
            if child not in self._roster(above):
                raise BadInput(f"{child} is not under {parent}; see celltree cell show {child}")
        elif not force and (reason := self.why_not_detach(child, parent)):
            raise Permanent(f"{child} stays under {parent}: {reason}; --force detaches it all the same")
        for one, neighbour in ((above, child), (config, parent)):
            with open_store(one) as store, store.unit() as unit:
                unit.save(Remove(row=EdgeRow, key=(neighbour,)))
        return self._forget(child, parent)

    def _forget(self, child: CellName, parent: CellName) -> tuple[CellName, ...]:
        """Remove what cells above say of the child and of all below it where no way leads to them any more. The cells
        above would never hear of the detachment otherwise: the child, not heard any more, would age there for ever."""
        lost = {child, *self.below(child)}
        forgot = []
        for name in sorted({parent, *self._parents_above(parent)}):
            gone = lost - self.below(name)
            if not gone:
                continue
            with open_store(self.folder.config(name)) as store, store.unit() as unit:
                unit.save(*(Remove(row=RosterRow, key=(each,)) for each in sorted(gone)))
            forgot.append(name)
        return tuple(forgot)

    def _join(self, parent: CellConfig, child: CellConfig, up: str, down: str) -> None:
        one, other = identity(parent), identity(child)
        up, down = up or _as_user(parent.broker, child.cell), down or _as_user(child.broker, parent.cell)
        self._save_edge(parent, one, other, parent=False, url=down, back=up)
        self._save_edge(child, other, one, parent=True, url=up, back=down)

    def _save_edge(
        self, config: CellConfig, own: Identity, other: Identity, *, parent: bool, url: str, back: str
    ) -> None:
        """`url`: how we write to the other's inbox; `back`: how the other writes to ours."""
        user = unquote(urlsplit(back).username or "")
        with open_store(config) as store, store.unit() as unit:
            save_edge(unit, own, other.says.uuid, other.name, parent, url, self._random_bytes, user=user)

    def _take_back(self, parent: CellName, child: CellName) -> None:
        try:
            with open_store(self.folder.config(parent)) as store, store.unit() as unit:
                unit.save(Remove(row=EdgeRow, key=(child,)))
        except CelltreeError:
            return  # An edge to a cell that nobody certified carries nothing.

    # --- looking ---

    def below(self, name: CellName) -> set[CellName]:
        """The cells of the folder below this one, by the edges in their databases."""
        found: set[CellName] = set()
        waiting = [name]
        while waiting:
            for child, _ in self._edges(self.folder.config(waiting.pop()), parents=False):
                if child not in found and child in self.folder.names():
                    found.add(child)
                    waiting.append(child)
        return found

    def _parents_above(self, name: CellName) -> dict[CellName, tuple[CellName, ...]]:
        """The parents of this cell and of each cell above it."""
        found: dict[CellName, tuple[CellName, ...]] = {}
        waiting = [name]
        while waiting:
            each = waiting.pop()
            if each in found or each not in self.folder.names():
                continue
            found[each] = tuple(parent for parent, _ in self._edges(self.folder.config(each), parents=True))
            waiting += found[each]
        return found

    def _edges(self, config: CellConfig, *, parents: bool) -> list[tuple[CellName, bool]]:
        return [edge for edge in self._all_edges(config) if edge[1] == parents]

    def _all_edges(self, config: CellConfig) -> list[tuple[CellName, bool]]:
        with open_store(config) as store, store.unit(lock=False) as unit:
            return [(edge.neighbour, edge.parent) for edge in unit.all(EdgeRow)]

    def _roster(self, config: CellConfig) -> set[CellName]:
        with open_store(config) as store, store.unit(lock=False) as unit:
            return {row.name for row in unit.all(RosterRow)}


def _check_role(new: NewCell) -> None:
    role_class(new.role)
    if new.role == API and new.parents:
        raise BadInput(f"an API cell has no parents; leave --parent out, or register {new.name!r} as a compute cell")
    if new.role == COMPUTE and not new.parents:
        raise BadInput(f"a compute cell needs a parent: celltree cell register {new.name} --role compute --parent P")
    if new.pools and new.role == API:
        raise BadInput("an API cell has no hosts; register the pool with a compute cell below it")
    twice = [name for name in new.parents if new.parents.count(name) > 1]
    if twice:
        raise BadInput(f"parent {twice[0]!r} is named twice; remove one")
    strangers = sorted({*new.up, *new.down} - set(new.parents))
    if strangers:
        raise BadInput(f"{strangers[0]!r} is not among the parents; name it with --parent as well")


def _draft(new: NewCell) -> CellConfig:
    """The configuration to be, without the files that are not made yet."""
    raw = {"cell": new.name, "role": new.role, "database": new.database, "broker": new.broker, **new.settings}
    return fill(CellConfig, {**raw, "key": "", "certificate": "", "root": ""}, new.name)


def _as_user(url: str, publisher: CellName) -> str:
    """How a cell writes to a neighbour's inbox where nothing else was said. With certificates each cell has a name of
    its own at every broker; with passwords both use the same."""
    parts = urlsplit(url)
    if parts.scheme != "amqps" or parts.password:
        return url
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{quote(publisher, safe='')}@{host}").geturl()


def _record(row: RosterRow) -> CellRecord:
    record: CellRecord = codec.unpack(CellRecord, row.payload)
    return record


@contextmanager
def open_store(config: CellConfig, *, whole: bool = False) -> Iterator[SqlStore]:
    """A cell's database for a moment: the rows that every cell has, or with `whole` its role's too."""
    rows: Sequence[type] = role_class(config.role).rows if whole else ()
    store = SqlStore(config.database, rows)
    try:
        yield store
    except Temporary as error:
        raise Temporary(f"cell {config.cell}: {error}", error.retry_after) from error
    finally:
        store.close()


def reach_database(url: str) -> None:
    """Raise Temporary with the remedy when no database answers there within a few seconds."""
    store = SqlStore(url)
    try:
        store.ping()
    except Temporary as error:
        raise Temporary(f"{error}; is it started, and are --database's user, password and schema right?") from None
    finally:
        store.close()


def reach_broker(url: str, options: AmqpOptions, *, inbox: bool = True) -> None:
    """Raise Temporary with the remedy when no broker answers there within a few seconds, or does not let us have an
    inbox there (`inbox`: false for a user that may only write to a neighbour's)."""
    if urlsplit(url).scheme == "memory":
        return
    from cells.broker.amqp.connection import AmqpConnection, check_url
    from cells.broker.amqp.wake import Wake

    check_url(url)
    wake = Wake()
    try:
        connection = AmqpConnection(url, options, "celltree cell register", wake)
        try:
            if inbox:
                connection.declare_inbox()
        finally:
            connection.close()
    except Temporary as error:
        raise Temporary(
            f"the broker {redacted(url)} is out of reach: {error}; is it started, and are user, password and virtual "
            "host right?"
        ) from None
    finally:
        wake.close()
