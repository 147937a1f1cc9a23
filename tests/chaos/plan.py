"""What is broken, when and for how long: all of it from a seed. Pure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

FIRST = 2.0
PAUSE = 1.6
LEASE = 12.0
# A cell is stopped, its database put back, the word said, and started: nothing else may start it meanwhile.
PUTTING_BACK = 30.0


class Kind(StrEnum):
    """What can be done, to what. A link is CELL PART: the way of a cell to a part of the lab."""

    DAEMON_KILLED = "daemon killed"
    CELL_KILLED = "all daemons of a cell killed"
    DAEMON_FROZEN = "daemon frozen for longer than its lease"
    DAEMON_STOPPED = "daemon stopped in peace"
    BROKER_KILLED = "broker killed"
    BROKER_RESTARTED = "broker stopped in peace"
    CONNECTIONS_CLOSED = "broker connections closed by its operator"
    PERMISSIONS_TAKEN = "permissions of a neighbour at a broker taken away"
    MEMORY_ALARM = "broker short of memory"
    DISK_ALARM = "broker short of disk"
    QUEUE_FULL = "queue full"
    QUEUE_DELETED = "queue deleted with its messages"
    DATABASE_KILLED = "database killed"
    CONNECTIONS_KILLED = "database connections killed"
    ROWS_LOCKED = "rows locked by another, in another order"
    DATABASE_READ_ONLY = "database read-only"
    DATABASE_PUT_BACK = "database of a cell put back to a backup"
    CELL_DRAINED = "cell drained"
    CELL_DETACHED = "cell detached from one of its parents"
    HOST_CRASHED = "host crashed, with its VMs"
    STORAGE_FULL = "storage of a pool's hosts full"
    HOSTS_HANG = "XenServer hangs"
    HOSTS_KILLED = "XenServer's toolstack killed"
    BLACK_HOLE = "link swallows everything"
    ONE_WAY = "link silent one way"
    LATE = "link late"
    SLOW = "link slow"
    CUT = "link cut again and again"
    REFUSED = "link refused"
    FLIPPED = "link flips bits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What there is to break, in the lab's words. `edges`, `ways`: links to a neighbour's broker, and to a cell's own
    broker, database and hosts. `second_parents`: CHILD PARENT, where the child has another parent too."""

    cells: tuple[str, ...]
    daemons: tuple[str, ...]
    brokers: tuple[str, ...]
    databases: tuple[str, ...]
    pools: tuple[str, ...]
    edges: tuple[str, ...]
    ways: tuple[str, ...]
    leaves: tuple[str, ...] = ()
    second_parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One of them. `at`, `lasts`: seconds."""

    at: float
    lasts: float
    kind: Kind
    target: str


USUAL = tuple(kind for kind in Kind if kind is not Kind.DATABASE_PUT_BACK)
"""What is broken unless more is asked for."""

RESTORES = (
    Kind.DATABASE_PUT_BACK,
    Kind.DAEMON_KILLED,
    Kind.DATABASE_PUT_BACK,
    Kind.BLACK_HOLE,
    Kind.DATABASE_PUT_BACK,
)
"""Databases put back again and again, also of several cells at once, with little else."""


def schedule(seed: int, seconds: float, shape: Shape, kinds: Sequence[Kind] = USUAL) -> tuple[Fault, ...]:
    """Every kind once before any comes twice; a target has one fault at a time, and all are over in time."""
    chance = random.Random(seed)
    faults: list[Fault] = []
    free: dict[str, float] = {}
    deck: list[Kind] = []
    at = FIRST
    while at < seconds:
        if not deck:
            deck = list(kinds)
            chance.shuffle(deck)
        kind = deck.pop()
        lasts = _lasts(kind, chance)
        idle = [target for target in targets(kind, shape) if free.get(_busy(kind, target), 0.0) <= at]
        if idle and at + lasts <= seconds:
            target = chance.choice(idle)
            faults.append(Fault(at=round(at, 2), lasts=round(lasts, 2), kind=kind, target=target))
            free[_busy(kind, target)] = at + lasts + (PUTTING_BACK if kind is Kind.DATABASE_PUT_BACK else 1.0)
        else:
            deck.insert(0, kind)  # later
        at += chance.expovariate(1 / PAUSE)
    return tuple(faults)


def targets(kind: Kind, shape: Shape) -> Sequence[str]:
    """What a kind of fault can be done to. Bits are flipped between cells only: there signatures stand against it, on
    the way to a cell's own servers only TLS would."""
    match kind:
        case Kind.DAEMON_KILLED | Kind.DAEMON_FROZEN | Kind.DAEMON_STOPPED:
            return shape.daemons
        case Kind.CELL_KILLED | Kind.DATABASE_PUT_BACK | Kind.QUEUE_FULL | Kind.QUEUE_DELETED:
            return shape.cells
        case Kind.CELL_DRAINED:
            return shape.leaves
        case Kind.CELL_DETACHED:
            return shape.second_parents
        case Kind.BROKER_KILLED | Kind.BROKER_RESTARTED | Kind.CONNECTIONS_CLOSED | Kind.MEMORY_ALARM | Kind.DISK_ALARM:
            return shape.brokers
        case Kind.DATABASE_KILLED | Kind.CONNECTIONS_KILLED | Kind.ROWS_LOCKED | Kind.DATABASE_READ_ONLY:
            return shape.databases
        case Kind.HOSTS_HANG | Kind.HOSTS_KILLED | Kind.HOST_CRASHED | Kind.STORAGE_FULL:
            return shape.pools
        case Kind.FLIPPED | Kind.ONE_WAY | Kind.PERMISSIONS_TAKEN:
            return shape.edges
        case _:
            return (*shape.edges, *shape.ways)


def _busy(kind: Kind, target: str) -> str:
    """What two faults must not share: a queue is not its cell's daemon, a daemon is its cell."""
    if kind in (Kind.QUEUE_FULL, Kind.QUEUE_DELETED):
        return f"queue of {target}"
    if kind is Kind.CELL_DRAINED:
        return f"state of {target}"
    if kind is Kind.CELL_DETACHED:  # it keeps one
        return f"parents of {target.split()[0]}"
    return target.partition("/")[0] if " " not in target else target


def _lasts(kind: Kind, chance: random.Random) -> float:
    if kind is Kind.DAEMON_FROZEN:
        return LEASE + chance.uniform(0, 3)
    return chance.uniform(0.5, 7.0)
