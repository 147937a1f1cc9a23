"""The network between the cells of an embedded tree: memory exchanges that can be cut off from each other, and that
lose, double and reorder bundles, by hand or by a seed."""

import random
from collections import Counter
from collections.abc import Callable
from functools import partial

from cells.broker.memory import MemoryExchange, MemoryExchanges

Way = tuple[str, str]


class Network(MemoryExchanges):
    """`cuts`: ways (from, to) on which nothing gets through, as a broker out of reach. `lose_next` and `double_next`:
    how many of the next bundles of a way are lost (after they were confirmed) or come twice; `late_next`: how many
    come only when `late` is asked for. `loss`, `copies` and `shuffle`: how likely each is for every bundle."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.cuts: set[Way] = set()
        self.lose_next: Counter[Way] = Counter()
        self.double_next: Counter[Way] = Counter()
        self.late_next: Counter[Way] = Counter()
        self.loss = self.copies = self.shuffle = 0.0
        self.lost = self.doubled = 0
        self._late: list[Callable[[], object]] = []

    def exchange(self, name: str, max_length: int = 50_000) -> MemoryExchange:
        with self._lock:
            found = self._by_name.get(name)
            if found is None:
                found = self._by_name[name] = UnsteadyExchange(self, name, max_length)
            return found

    def cut(self, one: str, other: str) -> None:
        self.cuts |= {(one, other), (other, one)}

    def keep(self, publish: Callable[[], object]) -> None:
        """Do this later."""
        self._late.append(publish)

    def late(self) -> None:
        """What was kept back comes now."""
        late, self._late = self._late, []
        for publish in late:
            publish()

    def heal(self) -> None:
        """The network works from now on; what was lost stays lost."""
        self.cuts.clear()
        self.lose_next.clear()
        self.double_next.clear()
        self.late_next.clear()
        self.loss = self.copies = self.shuffle = 0.0


class UnsteadyExchange(MemoryExchange):
    """One cell's broker behind such a network."""

    def __init__(self, network: Network, name: str, max_length: int) -> None:
        super().__init__(name, network, max_length)
        self._network = network

    def publish(self, data: bytes, user: str) -> str:
        network, way = self._network, (user, self.name)
        if way in network.cuts:
            return f"cut off from {self.name}"
        if _comes_true(network, network.lose_next, way, network.loss):
            network.lost += 1
            return ""
        if _comes_true(network, network.late_next, way, 0.0):
            network.keep(partial(super().publish, data, user))
            return ""
        reason = super().publish(data, user)
        if not reason and _comes_true(network, network.double_next, way, network.copies):
            network.doubled += 1
            super().publish(data, user)
        if network.shuffle and network.random.random() < network.shuffle:
            with self._lock:
                waiting = list(self._ready)
                network.random.shuffle(waiting)
                self._ready.clear()
                self._ready.extend(waiting)
        return reason


def _comes_true(network: Network, next_ones: Counter[Way], way: Way, likely: float) -> bool:
    if next_ones[way] > 0:
        next_ones[way] -= 1
        return True
    return likely > 0 and network.random.random() < likely
