"""Light pools, plans, journals and doors that fail, for tests of the driver."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from cells.errors import Temporary
from cells.model import BuildSpec, Flavor, ImageRef
from cells.names import id_text
from xenapi_host import driver, tags
from xenapi_host.facts import GIB, PoolFacts
from xenapi_host.light_images import give_images
from xenapi_host.plan import BuildPlan, plan_build
from xenapi_host.session import Door, InProcess, Session
from xenapi_host.simulator.light import LightPool
from xenapi_host.simulator.worlds import HostShape

SERVER = bytes(range(16))
OTHER_SERVER = bytes(range(16, 32))
TINY = Flavor(id="1", name="m1.tiny", vcpus=1, ram_mib=512, disk_gib=2)
FULL = Flavor(id="3", name="m1.full", vcpus=1, ram_mib=512, disk_gib=2, ephemeral_gib=3, swap_mib=256)
FULLER = Flavor(id="4", name="m1.fuller", vcpus=1, ram_mib=1024, disk_gib=4, ephemeral_gib=5, swap_mib=512)
SMALL = Flavor(id="2", name="m1.small", vcpus=1, ram_mib=1024, disk_gib=4)
LINUX = ImageRef(id="6f1c1e3e-0000-4000-8000-000000000001", name="demo-linux", url="http://127.0.0.1:9292")
RESCUE_IMAGE = ImageRef(id="6f1c1e3e-0000-4000-8000-000000000003", name="rescue", url="http://127.0.0.1:9292")
SNAPSHOT = ImageRef(id="6f1c1e3e-0000-4000-8000-000000000002", name="snap", url="http://127.0.0.1:9292")


class Killed(BaseException):
    """The daemon died here."""


class KeptJournal:
    """A journal in memory that outlives the tries of a job."""

    def __init__(self) -> None:
        self.steps: dict[str, Any] = {}

    def get(self, step: str) -> Any:
        return self.steps.get(step)

    def put(self, step: str, value: Any) -> None:
        self.steps[step] = value

    def check(self) -> None:
        return None


@dataclass(slots=True)
class FaultyDoor:
    """A door that raises once, before or after the effect of its n-th call (from 0); counts every call."""

    door: Door
    at: int = -1
    after: bool = False
    error: Callable[[], BaseException] = Killed
    seen: list[str] = field(default_factory=list)

    def call(self, method: str, params: tuple[Any, ...]) -> Any:
        strikes = len(self.seen) == self.at
        self.seen.append(method)
        if strikes and not self.after:
            raise self.error()
        answer = self.door.call(method, params)
        if strikes:
            raise self.error()
        return answer

    def close(self) -> None:
        self.door.close()


def answer_lost() -> Temporary:
    """What a session raises when the connection breaks."""
    return Temporary("the pool does not answer (test)")


class House:
    """A light pool of two hosts with images, and what a test asks of it."""

    def __init__(self, *, hosts: int = 2, shape: HostShape | None = None, seed: int = 1) -> None:
        self.pool = LightPool(hosts=hosts, shape=shape or HostShape(cpu_objects=False), seed=seed)
        self.guests = give_images(self.pool, virtual_size=GIB)
        self.session = self.connect()
        self.volumes: set[str] = set()

    def connect(self, door: FaultyDoor | None = None) -> Session:
        """A new session, as a daemon that has just started has it; never really waits."""
        inner = InProcess(face=self.pool.login())
        if door is None:
            return Session(inner, sleep=_no_wait)
        door.door = inner
        return Session(door, sleep=_no_wait)

    def facts(self) -> PoolFacts:
        return driver.measure(self.session)

    def plan(
        self,
        *,
        server: bytes = SERVER,
        attempt: int = 1,
        host: int = 0,
        flavor: Flavor = TINY,
        serial: int = 0,
        image: ImageRef = LINUX,
        **more: Any,
    ) -> BuildPlan:
        return plan_build(
            replace(a_spec(flavor=flavor, image=image), **more),
            server=server,
            attempt=attempt,
            host=self.facts().hosts[host],
            serial=serial,
        )

    def built(self, plan: BuildPlan | None = None) -> BuildPlan:
        """Build and start a server."""
        plan = plan or self.plan()
        driver.prepare_build(self.session, plan, KeptJournal())
        driver.start_build(self.session, plan.server, plan.attempt, plan.host)
        return plan

    def a_volume(self, *, project: str = "p", host: int = 0, name: str = "data", **fields: Any) -> str:
        """A disk that an administrator has made for a project; its uuid."""
        record = {
            "name_label": name,
            "name_description": "",
            "SR": self.session.call("SR.get_by_uuid", self.facts().hosts[host].storage),
            "virtual_size": str(GIB),
            "type": "user",
            "sharable": False,
            "read_only": False,
            "other_config": {tags.PROJECT: project} if project else {},
            "xenstore_data": {},
            "sm_config": {},
            "tags": [],
        }
        uuid = str(self.session.call("VDI.get_uuid", self.session.call("VDI.create", {**record, **fields})))
        self.volumes.add(uuid)
        return uuid

    def records(self, class_name: str) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.session.call(f"{class_name}.get_all_records")
        return found

    def servers(self) -> dict[str, dict[str, Any]]:
        return {ref: vm for ref, vm in self.records("VM").items() if tags.SERVER in vm["other_config"]}

    def vms_of(self, server: bytes) -> list[str]:
        """The names of a server's VMs."""
        wanted = id_text(server)
        return [vm["name_label"] for vm in self.servers().values() if vm["other_config"][tags.SERVER] == wanted]

    def disks(self) -> dict[str, dict[str, Any]]:
        """Every disk a client manages but cached images."""
        storages = self.records("SR").values()
        cached = {tags.image_uuids(sr["uuid"], image.id, 1)[0] for sr in storages for image in (LINUX, RESCUE_IMAGE)}
        return {ref: vdi for ref, vdi in self.records("VDI").items() if vdi["managed"] and vdi["uuid"] not in cached}

    def picture(self) -> dict[str, Any]:
        """All that is on the pool but references and uuids, so that two ways to one end can be compared."""
        vms, disks = self.servers(), self.disks()
        vifs, vbds = self.records("VIF"), self.records("VBD")
        return {
            "vms": sorted(
                (
                    vm["name_label"],
                    vm["power_state"],
                    vm["memory_static_max"],
                    sorted(
                        (k, v) for k, v in vm["other_config"].items() if k.startswith("celltree_") and k != tags.SOURCE
                    ),
                    sorted(vifs[ref]["MAC"] for ref in vm["VIFs"]),
                    sorted(self._attachment(vbds[ref]) for ref in vm["VBDs"]),
                )
                for vm in vms.values()
            ),
            "disks": sorted(
                (
                    vdi["name_label"],
                    vdi["virtual_size"],
                    vdi["other_config"].get(tags.CLAIM, ""),
                    len(vdi["VBDs"]),
                    vdi["other_config"].get(tags.PROJECT, ""),
                    _sent_as(vdi),
                )
                for vdi in disks.values()
            ),
            "interfaces": len(vifs),
            "attachments": len(vbds),
        }

    def _attachment(self, vbd: dict[str, Any]) -> tuple[Any, ...]:
        name = str(self.session.call("VDI.get_name_label", vbd["VDI"]))
        return vbd["userdevice"], name, vbd["currently_attached"], sorted(vbd["qos_algorithm_params"].items())

    def _is_base(self, vdi: dict[str, Any]) -> bool:
        """Whether a disk is kept for the backups of a disk that is in use."""
        disk = self.records("VDI").get(vdi["snapshot_of"])
        return tags.BACKUP in vdi["other_config"] and disk is not None and bool(disk["VBDs"])

    def orphans(self) -> list[str]:
        """Disks that no VM has, and devices of no VM, or left on a control domain."""
        vms = {ref: vm for ref, vm in self.records("VM").items() if not vm["is_control_domain"]}
        memories = {vm["suspend_VDI"] for vm in vms.values()}
        loose = [
            vdi["name_label"]
            for ref, vdi in self.disks().items()
            if not vdi["VBDs"] and ref not in memories and vdi["uuid"] not in self.volumes and not self._is_base(vdi)
        ]
        devices = [ref for kind in ("VBD", "VIF") for ref, row in self.records(kind).items() if row["VM"] not in vms]
        return loose + devices


def _sent_as(vdi: dict[str, Any]) -> list[str]:
    """What a kept snapshot says of itself but for the identity of its disk."""
    image, _, disks, deltas = vdi["other_config"].get(tags.BACKUP, "- - - -").split()
    return [image, disks, deltas]


def _no_wait(seconds: float) -> None:
    return None


def a_spec(*, flavor: Flavor = TINY, image: ImageRef = LINUX, name: str = "web-1") -> BuildSpec:
    return BuildSpec(name=name, project="p", user="u", flavor=flavor, image=image)
