"""What a pool says of itself: hosts, storage, network. Made by driver.measure, read by plan and the leaf's claims."""

from dataclasses import dataclass

from cells.model import PowerState, Volume

GIB = 2**30
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageFacts:
    """A storage repository (SR). `virtual_bytes` is what its disks may grow to together. `hosts`: uuids of the
    hosts that it is plugged into."""

    uuid: str
    name: str
    type: str
    shared: bool
    size_bytes: int
    used_bytes: int
    virtual_bytes: int
    hosts: tuple[str, ...] = ()

    @property
    def free_bytes(self) -> int:
        return max(0, self.size_bytes - self.used_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """A host. `memory_total_mib` is what servers may have together: Xen's and the control domain's part is taken off.
    `storage` and `network` are the uuids of the SR and network that servers are built on there, empty
    where the host has none that fits. `traits` as placement understands them, such as hvm, pv, uefi. `fenced`: its
    pool's high availability has made sure that it is off."""

    uuid: str
    name: str
    address: str = ""
    enabled: bool = True
    live: bool = True
    memory_total_mib: int = 0
    memory_free_mib: int = 0
    cpus: int = 0
    product: str = ""
    version: str = ""
    traits: tuple[str, ...] = ()
    storage: str = ""
    network: str = ""
    fenced: bool = False

    @property
    def usable(self) -> bool:
        """Whether servers can be started here now."""
        return self.enabled and self.live and bool(self.storage) and bool(self.network)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFacts:
    """A pool, whole. A stand-alone host is a pool of one."""

    uuid: str
    name: str
    master: str
    hosts: tuple[HostFacts, ...] = ()
    storages: tuple[StorageFacts, ...] = ()

    def host(self, uuid: str) -> HostFacts | None:
        return next((host for host in self.hosts if host.uuid == uuid), None)

    def storage(self, uuid: str) -> StorageFacts | None:
        return next((storage for storage in self.storages if storage.uuid == uuid), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refound:
    """A server's VM. `host` (a uuid): where it runs, or the one host that its disk can be reached from; "" where there
    are several. `kept`, `kept_host`: the same of the original that a resize keeps, with the power it had. `volumes`:
    those that its tenant has attached."""

    vm_uuid: str
    power_state: PowerState
    host: str
    ram_mib: int
    kept: PowerState | None = None
    kept_host: str = ""
    volumes: tuple[Volume, ...] = ()
