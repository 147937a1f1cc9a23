"""What will happen in one simulated run, drawn from a seed before it begins: the tree, what tenants ask, what goes
wrong. All of it is data, so that a failing run can be repeated with some of its faults left out.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cells.names import CellName

UNTOLD = "untold"
"""The step of a RESTORED API cell that is not told so."""


class Fault(StrEnum):
    """What can go wrong. Each has a cell, or an edge, and lasts a while unless it is a blow."""

    LOSS = "loss"  # the network loses confirmed bundles, everywhere
    COPIES = "copies"  # and doubles them
    DELAY = "delay"  # and delays them by up to seconds, so that they change places
    UNCONFIRMED = "unconfirmed"  # bundles arrive but their confirms do not
    CUT = "cut"  # an edge is out of reach, both ways
    BROKER_DOWN = "broker down"
    BROKER_WIPED = "broker wiped"
    CRASH = "crash"  # a daemon dies now
    CRASH_AT_STEP = "crash at a step"  # a daemon dies before or after its n-th commit, host call or acknowledgement
    FREEZE = "freeze"  # a daemon stands still, another one takes over, the first wakes up
    DATABASE = "database"  # units fail: conflict, out of reach, unknown outcome
    HOST = "host"  # calls of a pool fail before or after their effect
    SLOW_HOST = "slow host"  # calls of a pool take seconds
    HOSTS_DOWN = "hosts down"  # a pool does not answer at all
    DRAIN = "drain"
    EDGE_ADDED = "edge added"
    EDGE_REMOVED = "edge removed"
    RESTORED_ROW = "restored row"  # one server in an owner's database is put back to what it was
    HOST_CRASH = "host crash"  # a host dies, returns; in between an administrator may confirm that it is dead
    SKEW = "skew"  # a cell's clock is wrong, and right again
    QUOTA = "quota"  # the tenants of an API cell may have a few servers only
    FLAVOR = "flavor"  # a flavor is another one, and then again what it was
    RESTORED = "restored"  # a cell's whole database is put back to a backup


@dataclass(frozen=True, slots=True, kw_only=True)
class Mishap:
    """One fault: from `at` for `lasts` seconds. `cell` (and `other`, of an edge) is where; `rate` how likely for each
    message or call; `step` (before or after which of its steps) of a crash, `nth` which one."""

    fault: Fault
    at: float
    lasts: float = 0.0
    cell: CellName = ""
    other: CellName = ""
    rate: float = 0.0
    step: str = ""
    nth: int = 0

    def __str__(self) -> str:
        where = f" {self.cell}" if self.cell else ""
        where += f"-{self.other}" if self.other else ""
        more = f" rate {self.rate:.2f}" if self.rate else ""
        more += f" {self.step} {self.nth}" if self.step else ""
        span = f"{self.at:.1f}" + (f"-{self.at + self.lasts:.1f}" if self.lasts else "")
        return f"{span:>13} s  {self.fault.value}{where}{more}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request of a tenant: of the server with this number, at this API cell. Its first is 'create'; of 'next' the
    server's status and `draw` decide what it is. `argument`: the flavor of a creation or a resize."""

    at: float
    api: CellName
    project: str
    server: int
    action: str
    argument: str = ""
    draw: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole run. `shape`: the parents of each cell, above before below. `seconds`: when everything heals. `doubled`:
    cells with two daemons all the time; `evacuating`: leaves that bring up the servers of a dead host elsewhere."""

    seed: int
    seconds: float
    shape: Mapping[CellName, tuple[CellName, ...]]
    hosts: Mapping[CellName, int]
    shared: frozenset[CellName]
    mishaps: tuple[Mishap, ...]
    asks: tuple[Ask, ...]
    doubled: frozenset[CellName] = frozenset()
    evacuating: frozenset[CellName] = frozenset()

    @property
    def apis(self) -> tuple[CellName, ...]:
        return tuple(name for name, parents in self.shape.items() if not parents)

    @property
    def leaves(self) -> tuple[CellName, ...]:
        return tuple(self.hosts)


SETTLING = 8.0
PROJECTS = ("blue", "green")
FLAVORS = ("1", "2", "2", "3")
# What is usually asked of a server in this status; now and then a tenant asks for something else.
LIFE: Mapping[str, tuple[str, ...]] = {
    "ACTIVE": (
        *("resize", "resize", "resize", "snapshot", "snapshot", "stop", "stop"),
        *("reboot", "hard_reboot", "move", "move", "delete"),
    ),
    "SHUTOFF": ("start", "start", "start", "resize", "snapshot", "delete"),
    "VERIFY_RESIZE": ("confirm", "confirm", "revert", "revert", "delete"),
    "": ("stop", "start", "reboot", "hard_reboot", "snapshot", "resize", "confirm", "revert", "move", "delete"),
}


def wanted(status: str, draw: float) -> str:
    """What a tenant asks of a server that he sees in this status."""
    choices = LIFE[""] if draw < 0.15 else LIFE.get(status, LIFE[""])
    return choices[int(draw * 997) % len(choices)]


def draw(seed: int, minutes: float = 1.5) -> Plan:
    """The plan of a seed."""
    chance = random.Random(f"celltree plan {seed}")
    seconds = SETTLING + minutes * 60
    shape, hosts = _tree(chance)
    apis = [name for name, parents in shape.items() if not parents]
    return Plan(
        seed=seed,
        seconds=seconds,
        shape=shape,
        hosts=hosts,
        shared=frozenset(leaf for leaf in hosts if chance.random() < 0.3),
        mishaps=_mishaps(chance, shape, hosts, seconds),
        asks=_asks(chance, apis, seconds),
        doubled=frozenset(cell for cell in shape if chance.random() < 0.25),
        evacuating=frozenset(leaf for leaf in hosts if chance.random() < 0.5),
    )


def _tree(chance: random.Random) -> tuple[dict[CellName, tuple[CellName, ...]], dict[CellName, int]]:
    """API cells, up to two rows of cells under them, leaves; a cell has one parent or several of the rows above."""
    shape: dict[CellName, tuple[CellName, ...]] = {}
    rows: list[list[CellName]] = [[f"api-{n}" for n in range(chance.choice((1, 1, 2, 2, 3)))]]
    if chance.random() < 0.8:
        rows.append([f"mid-{n}" for n in range(chance.randint(1, 4))])
        if chance.random() < 0.3:
            rows.append([f"low-{n}" for n in range(chance.randint(1, 2))])
    rows.append([f"leaf-{n}" for n in range(chance.randint(1, 4))])
    for depth, row in enumerate(rows):
        for name in row:
            above = [each for upper in rows[max(0, depth - 2) : depth] for each in upper] if depth else []
            near = rows[depth - 1] if depth else []
            count = min(len(above), chance.choice((1, 1, 2, 2, 3)))
            parents = {chance.choice(near)} | set(chance.sample(above, count)) if depth else set()
            shape[name] = tuple(sorted(parents))
    return shape, {leaf: chance.randint(1, 3) for leaf in rows[-1]}


def _mishaps(
    chance: random.Random, shape: Mapping[CellName, tuple[CellName, ...]], hosts: Mapping[CellName, int], seconds: float
) -> tuple[Mishap, ...]:
    cells, leaves = list(shape), list(hosts)
    edges = [(parent, child) for child, parents in shape.items() for parent in parents]
    end = seconds - 2

    def one(fault: Fault) -> Mishap:
        at = round(chance.uniform(SETTLING, end - 1), 3)
        lasts = round(min(chance.expovariate(1 / 12) + 0.5, end - at), 3)
        match fault:
            case Fault.LOSS | Fault.COPIES | Fault.DELAY | Fault.UNCONFIRMED:
                return Mishap(fault=fault, at=at, lasts=lasts * 2, rate=round(chance.uniform(0.03, 0.35), 3))
            case Fault.CUT:
                parent, child = chance.choice(edges)
                return Mishap(fault=fault, at=at, lasts=lasts * 1.5, cell=parent, other=child)
            case Fault.CRASH_AT_STEP:
                step = chance.choice(("before commit", "after commit", "before call", "after call", "before ack"))
                cell = chance.choice(leaves if step.endswith("call") else cells)
                most = 40 if step.endswith("call") else 12
                return Mishap(fault=fault, at=at, lasts=2.0, cell=cell, step=step, nth=chance.randint(1, most))
            case Fault.HOST | Fault.DATABASE:
                cell = chance.choice(leaves if fault is Fault.HOST else cells)
                return Mishap(fault=fault, at=at, lasts=lasts, cell=cell, rate=round(chance.uniform(0.02, 0.3), 3))
            case Fault.SLOW_HOST | Fault.HOSTS_DOWN | Fault.DRAIN:
                return Mishap(fault=fault, at=at, lasts=lasts, cell=chance.choice(leaves))
            case Fault.FREEZE:
                return Mishap(fault=fault, at=at, lasts=14 + lasts, cell=chance.choice(cells))
            case Fault.EDGE_ADDED | Fault.EDGE_REMOVED:
                parent, child = chance.choice(edges) if fault is Fault.EDGE_REMOVED else _new_edge(chance, cells, shape)
                return Mishap(fault=fault, at=at, cell=parent, other=child)
            case Fault.HOST_CRASH:
                leaf = chance.choice(leaves)
                dead = round(chance.random(), 3)
                return Mishap(fault=fault, at=at, lasts=lasts, cell=leaf, nth=chance.randrange(hosts[leaf]), rate=dead)
            case Fault.SKEW:
                seconds_off = chance.choice((0.5, 2.0, 4.0, 20.0)) * chance.choice((-1, 1))
                return Mishap(fault=fault, at=at, lasts=lasts * 2, cell=chance.choice(cells), rate=seconds_off)
            case Fault.QUOTA | Fault.FLAVOR:
                api = chance.choice([cell for cell in cells if not shape[cell]])
                return Mishap(fault=fault, at=at, lasts=lasts * 2, cell=api, nth=chance.randint(1, 3))
            case Fault.RESTORED:
                return Mishap(fault=fault, at=at, lasts=round(min(5.0 + lasts, end - at), 3), cell=chance.choice(cells))
            case Fault.RESTORED_ROW:
                return Mishap(fault=fault, at=at, cell=chance.choice([c for c in cells if not shape[c]]))
            case _:
                return Mishap(fault=fault, at=at, lasts=min(lasts, 20.0), cell=chance.choice(cells))

    kinds = [fault for fault in Fault]
    weights = [_WEIGHT.get(fault, 1.0) for fault in kinds]
    count = chance.randint(4, 16)
    drawn = [one(fault) for fault in chance.choices(kinds, weights, k=count)]
    return tuple(sorted(drawn, key=lambda mishap: mishap.at))


_WEIGHT: dict[Fault, float] = {
    Fault.QUOTA: 0.5,
    Fault.FLAVOR: 0.5,
    Fault.CRASH: 3.0,
    Fault.CRASH_AT_STEP: 5.0,
    Fault.LOSS: 1.5,
    Fault.COPIES: 1.5,
    Fault.DELAY: 1.5,
    Fault.CUT: 2.0,
    Fault.HOST: 2.0,
}


def _new_edge(
    chance: random.Random, cells: list[CellName], shape: Mapping[CellName, tuple[CellName, ...]]
) -> tuple[CellName, CellName]:
    """An edge from an earlier cell to a later one: it makes no cycle. It may be there already; then nothing happens."""
    children = [cell for cell in cells if shape[cell]]
    child = chance.choice(children)
    above = [cell for cell in cells[: cells.index(child)] if not cell.startswith("leaf")]
    return chance.choice(above), child


def _asks(chance: random.Random, apis: list[CellName], seconds: float) -> tuple[Ask, ...]:
    asks: list[Ask] = []
    for server in range(chance.randint(4, 14)):
        api, project = chance.choice(apis), chance.choice(PROJECTS)
        at = chance.uniform(SETTLING, seconds * 0.8)
        asks.append(
            Ask(at=at, api=api, project=project, server=server, action="create", argument=chance.choice(FLAVORS))
        )
        for _ in range(chance.randint(0, 7)):
            at += chance.expovariate(1 / 9) + 0.2
            if at >= seconds - 1:
                break
            again = Ask(
                at=at,
                api=api,
                project=project,
                server=server,
                action="next",
                argument=chance.choice(FLAVORS),
                draw=chance.random(),
            )
            asks.append(again)
    return tuple(sorted(asks, key=lambda ask: ask.at))
