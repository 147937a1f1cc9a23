"""A pool of light hosts for simulations: sessions whose every call can fail, take (virtual) time or be the last thing
its process does, and the pool's truth in neutral facts.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from cells.audit import DiskFact, PoolFacts, VmFact
from cells.errors import Temporary
from cells.names import id_from_text
from xenapi_host import tags
from xenapi_host.facts import GIB
from xenapi_host.light_images import give_images
from xenapi_host.session import Door, InProcess, Session
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.light import LightPool, LightSession
from xenapi_host.simulator.mishaps import kill_host, return_host
from xenapi_host.simulator.worlds import HostShape

Around = Callable[[str], AbstractContextManager[None]]
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watched:
    """A logged-in client whose calls happen `around`."""

    inner: LightSession
    around: Around
    blind: Callable[[str], bool]

    def call(self, method: str, *params: Any) -> Any:
        with self.around(method):
            if self.blind(method):
                return []
            return self.inner.call(method, *params)

    def log_in_again(self) -> None:
        self.inner.log_in_again()

    def close(self) -> None:
        self.inner.close()


class TurnSession(Session):
    """A session of a process whose threads take turns: who waits for another lets virtual time pass."""

    def __init__(self, door: Door, *, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        super().__init__(door, clock=clock, sleep=sleep)
        self._held: set[str] = set()

    @contextmanager
    def exclusively(self, what: str) -> Iterator[None]:
        while what in self._held:
            self.sleep(0.05)
        self._held.add(what)
        try:
            yield
        finally:
            self._held.discard(what)


class SimulatedPool:
    """Light hosts with a clock that is given. `uploaded`: told the id of an image whose data has been sent, answers as
    an image service would (204)."""

    def __init__(self, name: str, hosts: int, seed: int, clock: Callable[[], float], shared: bool = False) -> None:
        shape = HostShape(cpu_objects=False, sr_type="nfs" if shared else "ext", ram_mib=8 * 1024, disk_bytes=60 * GIB)
        self.name = name
        self._clock = clock
        self._pool = LightPool(hosts=hosts, shape=shape, name=name, seed=seed, clock=clock, sleep=lambda _: None)
        self.uploaded: Callable[[str], int] = lambda image: 204
        give_images(self._pool, virtual_size=GIB, uploaded=lambda url: self.uploaded(url.split("/")[-2]))

    def session(
        self, around: Around, sleep: Callable[[float], None], blind: Callable[[str], bool] = lambda method: False
    ) -> Session:
        """A session of one process. `around(method)` surrounds each call, and may raise before or after it; of those
        that are `blind` the answer is an empty list."""
        face = _Watched(inner=self._pool.login(), around=around, blind=blind)
        return TurnSession(InProcess(face=face), clock=self._clock, sleep=sleep)

    def kill(self, number: int) -> str:
        """The host of this number dies: its uuid. Empty where it is the pool's master, which is spared, or dead."""
        engine = self._pool.engine
        refs = engine.db.refs("host")
        ref = refs[number % len(refs)]
        if ref == engine.pool["master"] or ref in engine.down:
            return ""
        kill_host(engine, ref)
        return str(engine.db.get("host", ref)["uuid"])

    def bring_back(self, uuid: str) -> None:
        """The host is there again, with its VMs halted."""
        engine = self._pool.engine
        for ref in sorted(engine.down):
            if engine.db.get("host", ref)["uuid"] == uuid:
                return_host(engine, ref)

    def bring_all_back(self) -> tuple[str, ...]:
        """Every host that is dead: their uuids."""
        engine = self._pool.engine
        dead = tuple(str(engine.db.get("host", ref)["uuid"]) for ref in sorted(engine.down))
        for uuid in dead:
            self.bring_back(uuid)
        return dead

    @staticmethod
    def unreachable() -> Exception:
        """What a call raises when its pool does not answer; it may have had its effect."""
        return Temporary("the pool does not answer (simulated)", retry_after=2.0)

    def started(self) -> tuple[tuple[bytes, str], ...]:
        """(server, uuid) of every VM of ours that is not halted."""
        return tuple(
            (server, str(vm["uuid"])) for server, vm in self._ours() if vm["power_state"] not in ("Halted", "Suspended")
        )

    def disks_of(self, server: bytes) -> frozenset[str]:
        """The uuids of the disks that hang on VMs of a server."""
        db = self._pool.engine.db
        vbds = (db.get("VBD", ref) for owner, vm in self._ours() if owner == server for ref in vm["VBDs"])
        return frozenset(str(db.get("VDI", vbd["VDI"])["uuid"]) for vbd in vbds if vbd["type"] == "Disk")

    def disks(self) -> frozenset[str]:
        """The uuids of all disks there are."""
        return frozenset(str(vdi["uuid"]) for vdi in self._pool.engine.db.all("VDI"))

    def facts(self) -> PoolFacts:
        """The whole truth."""
        db = self._pool.engine.db
        vms = []
        attached: set[str] = set()
        for server, vm in self._ours():
            vbds = [db.get("VBD", ref) for ref in vm["VBDs"]]
            disks = [db.get("VDI", vbd["VDI"]) for vbd in vbds if vbd["type"] == "Disk"]
            attached.update(str(disk["uuid"]) for disk in disks)
            vms.append(
                VmFact(
                    server=server,
                    attempt=int(vm["other_config"].get(tags.ATTEMPT, "0")),
                    uuid=str(vm["uuid"]),
                    kept=str(vm["name_label"]).endswith(tags.ORIGINAL_SUFFIX),
                    power=str(vm["power_state"]),
                    ram_mib=int(vm["memory_static_max"]) // MIB,
                    disks=tuple(int(disk["virtual_size"]) for disk in disks),
                )
            )
        loose = (fact for vdi in db.all("VDI") if str(vdi["uuid"]) not in attached and (fact := self._loose(vdi)))
        return PoolFacts(vms=tuple(vms), loose=tuple(loose))

    def _ours(self) -> Iterator[tuple[bytes, Row]]:
        for vm in self._pool.engine.db.all("VM"):
            server = tags.server_of(vm["other_config"])
            if server is not None and not vm["is_a_template"] and not vm["is_a_snapshot"]:
                yield server, vm

    def _loose(self, vdi: Row) -> DiskFact | None:
        """A disk that should not be: no VM has it, and it is no image kept for the next build."""
        name, claim = str(vdi["name_label"]), vdi["other_config"].get(tags.CLAIM, "")
        if not vdi["managed"]:
            return None  # a base copy, of which the storage itself takes care
        if claim:
            return DiskFact(name=name, server=id_from_text(claim.split()[0], "claim"))
        if vdi["is_a_snapshot"]:
            return DiskFact(name=f"snapshot {name}", server=None)
        if name.startswith(tags.image_name("")):
            storage = str(self._pool.engine.db.get("SR", vdi["SR"])["uuid"])
            cached = tags.image_uuids(storage, name.removeprefix(tags.image_name("")), 1)
            return None if str(vdi["uuid"]) in cached else DiskFact(name=f"clone {name}", server=None)
        return None


def open_light_pool(name: str, hosts: int, seed: int, clock: Callable[[], float], shared: bool) -> SimulatedPool:
    """A pool of so many light hosts; `shared`: on one storage repository."""
    return SimulatedPool(name, hosts, seed, clock, shared)
