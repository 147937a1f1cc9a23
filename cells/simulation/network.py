"""The network between simulated cells: memory exchanges whose bundles take time, get lost after they were confirmed,
come twice, change places, or arrive although nobody hears so.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from cells.broker.memory import MemoryExchange, MemoryExchanges, MemoryInbox
from cells.names import CellName
from cells.ports import Delivery

Later = Callable[[float, Callable[[], None]], None]


class Network(MemoryExchanges):
    """`loss`, `copies`, `delay`, `unconfirmed`: how likely each is for a bundle. `cuts`: ways (from, to) on which
    nothing gets through. `arrived(cell)` is called when there is something for a cell."""

    def __init__(self, chance: random.Random, later: Later, arrived: Callable[[CellName], None]) -> None:
        super().__init__()
        self.chance = chance
        self.later = later
        self.arrived = arrived
        self.loss = self.copies = self.delay = self.unconfirmed = 0.0
        self.cuts: set[tuple[CellName, CellName]] = set()
        self.on_the_way = 0
        self.counts: Counter[str] = Counter()
        self.note: Callable[[str], None] = lambda _: None
        self.before_ack: Callable[[CellName], None] = lambda _: None
        self.acks_early = False

    def exchange(self, name: str, max_length: int = 50_000) -> "MemoryExchange":
        found = self._by_name.get(name)
        if found is None:
            found = self._by_name[name] = SimulatedExchange(self, name, max_length)
        return found

    def heal(self) -> None:
        """Everything gets through from now on; what was lost stays lost."""
        self.loss = self.copies = self.delay = self.unconfirmed = 0.0
        self.cuts.clear()

    def happens(self, kind: str, rate: float) -> bool:
        if not rate or self.chance.random() >= rate:
            return False
        self.counts[kind] += 1
        return True


class SimulatedExchange(MemoryExchange):
    """One cell's broker behind such a network."""

    def __init__(self, network: Network, name: str, max_length: int) -> None:
        super().__init__(name, network, max_length)
        self._network = network

    def publish(self, data: bytes, user: str) -> str:
        network = self._network
        network.counts["bundles"] += 1
        if not self.running:
            return f"broker {self.name!r} is down"
        if (user, self.name) in network.cuts:
            return f"{self.name} is out of reach"
        if not self._declared:
            return super().publish(data, user)
        network.note(f"{user}>{self.name} {len(data)}")
        if network.happens("lost", network.loss):
            return ""
        self._send(data, user)
        if network.happens("doubled", network.copies):
            self._send(data, user)
        return "no confirm came" if network.happens("unconfirmed", network.unconfirmed) else ""

    def deliver(self, inbox: MemoryInbox, most: int) -> list[Delivery]:
        found = super().deliver(inbox, most)
        if self._network.acks_early:
            super().settle(inbox, [delivery.tag for delivery in found])
        return found

    def settle(self, inbox: MemoryInbox, tags: Iterable[Any]) -> None:
        self._network.before_ack(self.name)
        super().settle(inbox, tags)

    def _send(self, data: bytes, user: str) -> None:
        network = self._network
        seconds = network.chance.uniform(0.001, 0.005)
        if network.happens("delayed", network.delay):
            seconds += min(network.chance.expovariate(0.5), 40.0)
        network.on_the_way += 1
        network.later(seconds, lambda: self._arrive(data, user))

    def _arrive(self, data: bytes, user: str) -> None:
        self._network.on_the_way -= 1
        if not super().publish(data, user):
            self._network.arrived(self.name)
