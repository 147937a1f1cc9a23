"""A tree of cells in one process for tests: SQLite in memory, memory brokers, light hosts, and a clock that only moves
when told to. The demo's tree unless another is given. Cells can be killed and started again, frozen, and doubled."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from api_cell import quota, restored
from api_cell.role import ApiRole
from api_cell.rows import OpenIntent, Phase, ServerRow
from api_cell.status import settle
from cells import codec
from cells.config import CellConfig
from cells.decision import Decision, Remove
from cells.house import Cell, House
from cells.identity import Identity, RootKey, new_key
from cells.messages import Intent, kind_of
from cells.model import BuildSpec, Flavor, Generation, ImageRef
from cells.names import SECOND, Instant
from cells.node import Node
from cells.ports import Broker
from cells.record import NO_SERVER, Received, Record
from cells.rows import SettingRow, WakeRow, key_of, shard_of
from cells.store.sql import SqlStore
from compute_cell.role import ComputeRole
from compute_cell.rows import InstanceRow, PoolRow
from tests.support.faults import Face, Killed, Steps, WatchedBroker, WatchedStore
from tests.support.network import Network
from xenapi_host.facts import GIB
from xenapi_host.light_dom0 import LightGuests
from xenapi_host.light_images import give_images
from xenapi_host.session import Session, in_process
from xenapi_host.simulator.light import LightPool
from xenapi_host.simulator.worlds import HostShape

R = TypeVar("R")
START = 1_750_000_000 * SECOND
TINY = Flavor(id="1", name="m1.tiny", vcpus=1, ram_mib=512, disk_gib=1)
SMALL = Flavor(id="2", name="m1.small", vcpus=1, ram_mib=1024, disk_gib=2)
IMAGE = ImageRef(id="11111111-1111-1111-1111-111111111111", name="demo-linux", url="http://127.0.0.1:9/image", size=1)

DEMO: Mapping[str, Sequence[str]] = {
    "east": (),
    "west": (),
    "dfw": ("east", "west"),
    "ord": ("east", "west"),
    "dfw-1": ("dfw",),
    "ord-1": ("ord",),
    "shared-1": ("dfw", "ord"),
}


class SeededBytes:
    """A stream of bytes that looks random and is the same for the same seed."""

    def __init__(self, seed: str) -> None:
        self._seed = seed.encode()
        self._count = 0

    def __call__(self, length: int) -> bytes:
        out = b""
        while len(out) < length:
            self._count += 1
            out += hashlib.blake2b(self._seed + self._count.to_bytes(8, "big")).digest()
        return out[:length]


@dataclass
class ManualClock:
    now: Instant = START

    def __call__(self) -> Instant:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)


@dataclass
class Tree:
    """The running tree and what tests do to it."""

    house: House
    clock: ManualClock
    pools: dict[str, LightPool]
    root: RootKey
    network: Network
    configs: dict[str, CellConfig] = field(default_factory=dict)
    faces: dict[str, Callable[[], Session]] = field(default_factory=dict)
    stores: dict[str, WatchedStore] = field(default_factory=dict)
    steps: dict[str, Steps] = field(default_factory=dict)
    frozen: dict[str, Cell] = field(default_factory=dict)
    guests: dict[str, LightGuests] = field(default_factory=dict)
    trace: Callable[..., None] | None = None
    turn: str = ""  # whose step is under way

    def __getitem__(self, name: str) -> Cell:
        return self.house.cells[name]

    def settle(self, most: int = 20_000) -> None:
        """Step every cell until none has anything to do. One that a fault kills is gone from then on."""
        for _ in range(most):
            busy = [self._step(name) for name in list(self.house.cells)]
            if not any(busy):
                return
        raise AssertionError(f"the tree did not come to rest in {most} rounds")

    def _step(self, name: str) -> bool:
        cell = self.house.cells.get(name)
        if cell is None:
            return False
        before, self.turn = self.turn, name
        try:
            return cell.node.step()
        except Killed:
            self.crash(name)
            return True
        finally:
            self.turn = before

    def run(self, seconds: float, step: float = 0.25) -> None:
        """Let time pass in small steps, everything that comes due being done."""
        for _ in range(max(1, int(seconds / step))):
            self.settle()
            self.clock.advance(step)
        self.settle()

    def run_until_quiet(self, most: float) -> None:
        """Let time pass until no cell has anything under way, for so many seconds at most."""
        for _ in range(int(most)):
            self.run(1)
            if all(cell.node.quiet for cell in self.house.cells.values()):
                return

    def close(self) -> None:
        self.house.cells.update(self.frozen)
        self.house.close()
        for store in self.stores.values():
            store.close()

    # --- what may happen to cells ---

    def open(self, name: str, daemon: str = "main") -> Cell:
        """Start a daemon of a cell over the cell's store."""
        config = self.configs[name]
        if daemon != "main":
            config = replace(config, daemon=daemon)
        cell = self.house.open(config, store=self.stores[name], faces=self.faces)  # type: ignore[arg-type]
        cell.node.deciding.trace = self.trace
        return cell

    def crash(self, name: str) -> None:
        """kill -9 of a daemon (CELL, or CELL/DAEMON)."""
        self.house.kill(name)

    def restart(self, name: str) -> Cell:
        if name in self.house.cells:
            self.crash(name)
        self.steps[name.partition("/")[0]].act = None
        return self.open(*name.split("/"))

    def back_up(self, name: str) -> tuple[Any, ...]:
        """Every row of a cell's database."""
        return tuple(row for kind in self[name].role.rows for row in self.rows(name, kind))

    def put_back(self, name: str, backup: tuple[Any, ...], *, told: bool = True) -> Cell:
        """A cell's database becomes what it was, and its daemon starts; an API cell's is `told` so first."""
        kinds = self[name].role.rows
        self.crash(name)
        with self.stores[name].inner.unit() as unit:
            unit.save(*(Remove(row=type(row), key=key_of(row)) for kind in kinds for row in unit.find(kind)))
            unit.save(*backup)
        if told and self.configs[name].role == "api":
            with self.stores[name].inner.unit() as unit:
                unit.save(*restored.put_back(unit, Generation(), self.clock()).save)
        return self.restart(name) if name in self.house.cells else self.open(name)

    def freeze(self, name: str) -> None:
        """The daemon does not get a turn until it is thawed; its process and its connections stay."""
        self.frozen[name] = self.house.cells.pop(name)

    def thaw(self, name: str) -> None:
        self.house.cells[name] = self.frozen.pop(name)

    def set(self, cell: str, setting: str, value: str) -> None:
        with self.stores[cell].unit() as unit:
            unit.save(SettingRow(name=setting, value=value))

    # --- one decision at a time ---

    def record(self, origin: str, to: str, body: Any, server: bytes = NO_SERVER, **more: Any) -> Record:
        return Record(id=self.house.new_id(), body=body, origin=origin, destination=to, server=server, **more)

    def decide(self, cell: str, record: Record) -> Decision:
        """Let a cell's role decide on a record and save its rows; nothing is sent or started."""
        with self.stores[cell].inner.unit() as unit:
            received = Received(record=record, neighbour=record.origin if record.origin != cell else "")
            decision = self[cell].role.decide(unit, received, self.clock())
            unit.save(*decision.save)
        return decision

    # --- what a front door would do ---

    def build(self, api: str, name: str = "vm", flavor: Flavor = TINY, image: ImageRef = IMAGE, **more: Any) -> bytes:
        now = self.clock()
        wish = OpenIntent(number=1, action="place", at=now, request=f"req-{name}")
        row = settle(
            ServerRow(
                id=self.house.new_id(),
                project="demo",
                user="demo",
                name=name,
                created=now,
                updated=now,
                request=wish.request,
                status="",
                vm_state="",
                number=1,
                deadline=now + 600 * SECOND,
                spec=BuildSpec(name=name, project="demo", user="demo", flavor=flavor, image=image, **more),
                intents=(wish,),
            )
        )
        self._save(api, row, wish, b"")
        return row.id

    def ask(self, api: str, server: bytes, command: Any) -> None:
        row = self.server(api, server)
        action = kind_of(command).name
        with self.stores[api].inner.unit(lock=False) as unit:
            number = restored.next_number(unit, row)
        body = codec.pack(command)
        wish = OpenIntent(number=number, action=action, at=self.clock(), request=f"req-{action}", body=body)
        phase = Phase.DELETING if action == "server.delete" else row.phase
        row = settle(replace(row, number=wish.number, intents=(*row.intents, wish), phase=phase))
        self._save(api, row, wish, body)

    def _save(self, api: str, row: ServerRow, wish: OpenIntent, body: bytes) -> None:
        record = Record(
            id=self.house.new_id(),
            body=Intent(action=wish.action, number=wish.number, body=body),
            origin=api,
            destination=api,
            server=row.id,
            request=wish.request,
        )
        with self.stores[api].inner.unit() as unit:
            wake = WakeRow(
                id=record.id, shard=shard_of(row.id), due=wish.at, server=row.id, data=codec.pack_record(record)
            )
            usage = quota.charge(quota.usage_of(unit, row.project), unit.get(ServerRow, row.id), row)
            unit.save(row, wake, usage)
        if api in self.house.cells:
            self[api].node.poke()

    # --- what can be seen ---

    def server(self, api: str, server: bytes) -> ServerRow:
        found = self.find_server(api, server)
        assert found is not None, "the server is gone"
        return found

    def find_server(self, api: str, server: bytes) -> ServerRow | None:
        return self.row(api, ServerRow, server)

    def instance(self, leaf: str, server: bytes) -> InstanceRow | None:
        return self.row(leaf, InstanceRow, server)

    def row(self, cell: str, row: type[R], *key: Any) -> R | None:
        """A row of a cell's database, whether the cell runs or not."""
        with self.stores[cell].inner.unit(lock=False) as unit:
            found: R | None = unit.get(row, *key)
            return found

    def rows(self, cell: str, row: type[R]) -> tuple[R, ...]:
        with self.stores[cell].inner.unit(lock=False) as unit:
            found: tuple[R, ...] = unit.find(row)
            return found

    @property
    def apis(self) -> list[str]:
        return [name for name, config in self.configs.items() if config.role == "api"]

    def vms(self, leaf: str) -> list[dict[str, Any]]:
        """Every VM of ours on a leaf's hosts, as XenAPI records."""
        return [
            record
            for record in self.objects(leaf, "VM")
            if not record["is_a_template"] and not record["is_control_domain"]
        ]

    def objects(self, leaf: str, class_name: str) -> list[dict[str, Any]]:
        session = self.pools[leaf].login()
        records: dict[str, dict[str, Any]] = session.call(f"{class_name}.get_all_records")
        session.close()
        return list(records.values())


def _face(pool: LightPool, clock: ManualClock, steps: Steps) -> Callable[[], Session]:
    return lambda: in_process(Face(pool.login(), steps), clock=lambda: clock() / SECOND, sleep=lambda _: None)


def _watched(steps_of: Callable[[str], Steps]) -> type[Node]:
    """Nodes whose broker's steps can be struck."""

    class WatchedNode(Node):
        def __init__(self, *, broker: Broker, identity: Identity, **more: Any) -> None:
            super().__init__(broker=WatchedBroker(broker, steps_of(identity.name)), identity=identity, **more)

    return WatchedNode


def make_tree(
    shape: Mapping[str, Sequence[str]] = DEMO,
    *,
    seed: str = "tree",
    hosts: int = 2,
    host: HostShape | None = None,
    leaves: Sequence[str] | None = None,
    start: bool = True,
    trace: Callable[..., None] | None = None,
    **settings: Any,
) -> Tree:
    """The tree, certified, joined, its pools measured and its capacity known at the top."""
    clock = ManualClock()
    random_bytes = SeededBytes(seed)
    house = House(clock=clock, random_bytes=random_bytes)
    house.exchanges = network = Network()
    house.node_class = _watched(lambda name: tree.steps[name])
    root = RootKey(random_bytes(32))
    parents = {parent for above in shape.values() for parent in above}
    if leaves is None:
        leaves = [name for name, above in shape.items() if above and name not in parents]
    tree = Tree(house=house, clock=clock, pools={}, root=root, network=network, trace=trace)
    for name, above in shape.items():
        role = "compute" if above else "api"
        seed_bytes, public = new_key(random_bytes)
        certificate = root.certify(name, house.new_id(), role, public, clock())
        own: dict[str, Any] = {"mute_after": 12.0}
        if role == "compute":
            own |= {"measure_every": 30.0, "digest_every": 10.0, "clean_seconds": 0.0, "watch_every": 0.0}
        config = CellConfig(
            cell=name,
            role=role,
            database="sqlite://",
            broker=f"memory://{name}",
            key=seed_bytes.hex(),
            certificate=certificate.hex(),
            root=root.public.hex(),
            tick=1.0,
            threads=0,
            settings=own | settings.get(role, {}),
        )
        tree.configs[name] = config
        steps = tree.steps[name] = Steps()
        if name in leaves:
            shape_of_host = host or HostShape(cpu_objects=False)
            pool = LightPool(
                hosts=hosts, shape=shape_of_host, name=name, seed=len(tree.pools), clock=lambda: clock() / SECOND
            )
            tree.guests[name] = give_images(pool, virtual_size=GIB)
            tree.pools[name] = pool
            tree.faces[name] = _face(pool, clock, steps)
        store = SqlStore("sqlite://", (ApiRole if role == "api" else ComputeRole).rows)
        store.create_all()
        tree.stores[name] = WatchedStore(store, steps)
        cell = tree.open(name)
        if name in leaves:
            with cell.store.unit() as unit:
                unit.save(PoolRow(name=name, url=f"light:{name}", user="root", secret=b""))
    for name, above in shape.items():
        for parent in above:
            house.join(parent, name)
    if start:
        tree.run(6)
    return tree
