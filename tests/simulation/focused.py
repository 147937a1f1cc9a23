"""Plans that press on one rule: a seed's tree and requests, with faults that only this rule stands against."""

import random
from dataclasses import replace

from cells.simulation.plan import SETTLING, UNTOLD, Ask, Fault, Mishap, Plan, draw

CALM = SETTLING + 4


def _calm(seed: int) -> tuple[Plan, random.Random]:
    return replace(draw(seed), mishaps=()), random.Random(f"focused {seed}")


def late_offers(seed: int) -> Plan:
    """Every leaf is away for longer than an offer is good for, each time just after something was asked."""
    plan, chance = _calm(seed)
    mishaps = []
    for ask in plan.asks:
        if ask.action == "create" and ask.at > CALM:
            lasts = chance.uniform(10.0, 14.0)
            mishaps += [Mishap(fault=Fault.CRASH, at=ask.at - 0.01, lasts=lasts, cell=leaf) for leaf in plan.leaves]
    return replace(plan, mishaps=tuple(mishaps[: 3 * len(plan.leaves)]))


def frozen_jobs(seed: int) -> Plan:
    """Slow hosts, and leaf daemons that stand still in the middle of a job until another one has gone on with it and
    with what was asked after it."""
    plan, chance = _calm(seed)
    mishaps = []
    for leaf in plan.leaves:
        mishaps.append(Mishap(fault=Fault.SLOW_HOST, at=CALM, lasts=plan.seconds, cell=leaf))
        at = CALM + chance.uniform(4.0, 12.0)
        while at < plan.seconds - 30:
            mishaps.append(Mishap(fault=Fault.FREEZE, at=at, lasts=22.0, cell=leaf))
            at += 34.0 + chance.uniform(0.0, 4.0)
    return replace(plan, mishaps=tuple(sorted(mishaps, key=lambda mishap: mishap.at)))


def rows_put_back(seed: int) -> Plan:
    """Servers that change and then rest, and an owner's database that is put back to what it was before."""
    plan, _ = _calm(seed)
    asks: list[Ask] = []
    for number, api in enumerate(plan.apis):
        first = Ask(at=CALM, api=api, project="blue", server=number, action="create", argument="1")
        asks += [first, replace(first, at=CALM + 25, action="stop")]
    mishaps = (Mishap(fault=Fault.RESTORED_ROW, at=CALM + 20, lasts=30.0, cell=api) for api in plan.apis)
    return replace(plan, asks=tuple(sorted(asks, key=lambda ask: ask.at)), mishaps=tuple(mishaps))


def forgetful_leaves(seed: int) -> Plan:
    """Servers that are rebooted all the time over a slow network, and leaves that are put back to what they were some
    seconds ago: what is open is wished again, and the first wish comes after it."""
    plan, chance = _calm(seed)
    asks = []
    for server in range(6):
        ask = Ask(at=CALM, api=chance.choice(plan.apis), project="blue", server=server, action="create", argument="1")
        asks.append(ask)
        for n in range(20):
            asks.append(replace(ask, at=CALM + 5 + n * 2.5 + chance.random(), action="hard_reboot"))
    mishaps = [Mishap(fault=Fault.DELAY, at=CALM + 4, lasts=plan.seconds, rate=0.6)]
    for leaf in plan.leaves:
        at = CALM + chance.uniform(6.0, 10.0)
        while at < plan.seconds - 20:
            mishaps.append(Mishap(fault=Fault.RESTORED, at=at, lasts=chance.uniform(4.0, 8.0), cell=leaf))
            at += 16.0
    return replace(
        plan,
        asks=tuple(sorted(asks, key=lambda ask: ask.at)),
        mishaps=tuple(sorted(mishaps, key=lambda mishap: mishap.at)),
    )


def forgotten_servers(seed: int) -> Plan:
    """New servers all the time that are rebooted at once, a network that loses and delays, and leaves that are put back
    to what they were before they had them: commands come to leaves that do not know the server."""
    plan, chance = _calm(seed)
    asks = []
    for server in range(14):
        at = CALM + 1 + server * 4 + chance.random()
        ask = Ask(at=at, api=chance.choice(plan.apis), project="blue", server=server, action="create", argument="1")
        asks.append(ask)
        for n in range(10):
            asks.append(replace(ask, at=at + 1 + n * 1.3 + chance.random(), action="hard_reboot"))
    mishaps = [
        Mishap(fault=Fault.DELAY, at=CALM, lasts=plan.seconds, rate=0.35),
        Mishap(fault=Fault.LOSS, at=CALM, lasts=plan.seconds, rate=0.25),
    ]
    for leaf in plan.leaves:
        at = CALM + chance.uniform(1.0, 3.0)
        while at < plan.seconds - 20:
            mishaps.append(Mishap(fault=Fault.RESTORED, at=at, lasts=chance.uniform(5.0, 9.0), cell=leaf))
            at += 12.0
    return replace(
        plan,
        asks=tuple(sorted(asks, key=lambda ask: ask.at)),
        mishaps=tuple(sorted(mishaps, key=lambda mishap: mishap.at)),
    )


def restored(seed: int) -> Plan:
    """Every cell is put back to a backup once, one after the other, in the middle of everything."""
    plan, chance = _calm(seed)
    cells = list(plan.shape)
    chance.shuffle(cells)
    step = (plan.seconds - CALM - 15) / len(cells)
    return replace(
        plan,
        mishaps=tuple(
            Mishap(fault=Fault.RESTORED, at=CALM + n * step, lasts=chance.uniform(5.0, 14.0), cell=cell)
            for n, cell in enumerate(cells)
        ),
    )


def untold(seed: int) -> Plan:
    """Every API cell is put back, a little later, to the moment in which servers were on offer, and nobody says so. Its
    leaves have taken them since."""
    plan, chance = _calm(seed)
    asks, mishaps = [], []
    for api in plan.apis:
        for n in range(3):
            at = CALM + 2 + n * 26
            for server in range(4):
                number = len(asks)
                asks.append(
                    Ask(at=at + server * 0.002, api=api, project="blue", server=number, action="create", argument="1")
                )
            mishaps.append(
                Mishap(fault=Fault.RESTORED, at=at + chance.uniform(0.0, 0.02), lasts=14.0, cell=api, step=UNTOLD)
            )
    return replace(
        plan,
        asks=tuple(sorted(asks, key=lambda ask: ask.at)),
        mishaps=tuple(sorted(mishaps, key=lambda mishap: mishap.at)),
    )


def untold_leaves(seed: int) -> Plan:
    """Every leaf is put back, a little later, to the middle of builds, and nobody says so. The servers were deleted
    since."""
    plan, chance = _calm(seed)
    asks, mishaps = [], []
    for n in range(4):
        at = CALM + 2 + n * 20
        for number in range(4 * n, 4 * n + 4):
            ask = Ask(
                at=at + number * 0.002, api=plan.apis[0], project="blue", server=number, action="create", argument="1"
            )
            asks += [ask, replace(ask, at=at + 4, action="delete", argument="")]
        moment = at + chance.uniform(0.0, 0.3)
        mishaps += [Mishap(fault=Fault.RESTORED, at=moment, lasts=8.0, cell=leaf) for leaf in plan.leaves]
    return replace(
        plan,
        asks=tuple(sorted(asks, key=lambda ask: ask.at)),
        mishaps=tuple(sorted(mishaps, key=lambda mishap: mishap.at)),
    )


def killed_at_commits(seed: int) -> Plan:
    """In every cell a daemon dies before a commit, again and again, with what was delivered to it; the other lives."""
    plan, chance = _calm(seed)
    mishaps = []
    at = CALM
    while at < plan.seconds - 6:
        for cell in plan.shape:
            nth = chance.randint(1, 6)
            mishaps.append(
                Mishap(fault=Fault.CRASH_AT_STEP, at=at, lasts=2.0, cell=cell, step="before commit", nth=nth)
            )
        at += 6.0
    return replace(plan, mishaps=tuple(mishaps), doubled=frozenset(plan.shape))


def bursts(seed: int) -> Plan:
    """Many servers at once at one API cell, on few hosts."""
    plan, _ = _calm(seed)
    asks = tuple(
        Ask(
            at=CALM + n * 0.001,
            api=plan.apis[0],
            project="blue",
            server=n,
            action="create",
            argument="3",
        )
        for n in range(12)
    )
    return replace(plan, asks=asks)


def lost_answers(seed: int) -> Plan:
    """Every edge is cut just after a server was asked for, for longer than an offer is good for: the leaf has it, and
    its answer comes after the owner has given up."""
    plan, chance = _calm(seed)
    edges = [(parent, child) for child, parents in plan.shape.items() for parent in parents]
    asked = [ask.at for ask in plan.asks if ask.action == "create" and ask.at > CALM][::2]
    mishaps = [
        Mishap(fault=Fault.CUT, at=at + chance.uniform(0.004, 0.02), lasts=10.0, cell=parent, other=child)
        for at in asked
        for parent, child in edges
    ]
    return replace(plan, mishaps=tuple(sorted(mishaps, key=lambda mishap: mishap.at)))


def killed_builds(seed: int) -> Plan:
    """Leaves that die at a host call, again and again."""
    plan, chance = _calm(seed)
    mishaps = []
    at = CALM
    while at < plan.seconds - 8:
        for leaf in plan.leaves:
            step, nth = chance.choice(("before call", "after call")), chance.randint(1, 25)
            mishaps.append(Mishap(fault=Fault.CRASH_AT_STEP, at=at, lasts=2.0, cell=leaf, step=step, nth=nth))
        at += 8.0
    return replace(plan, mishaps=tuple(mishaps))


def lossy(seed: int) -> Plan:
    """A network that loses four bundles of ten, after it has confirmed them."""
    plan, _ = _calm(seed)
    return replace(plan, mishaps=(Mishap(fault=Fault.LOSS, at=CALM, lasts=plan.seconds, rate=0.4),))
