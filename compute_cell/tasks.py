"""Arguments and results of the jobs of a compute cell, as they lie in the jobs table. What each does: work.py."""

from dataclasses import dataclass

from cells.model import Flavor, ImageRef


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareTask:
    """Image, disks and VM record of a build attempt, on the host claimed for it; not started."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTask:
    """Start the prepared VM of a granted attempt."""

    attempt: int
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyTask:
    """Remove every object of a server from its pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerTask:
    """start, stop, reboot or hard_reboot."""

    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotTask:
    """Upload the root disk's chain as this image."""

    image: ImageRef


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeTask:
    """Make the server anew with this flavor on this host (XenServer uuid), keeping the old one until confirmed."""

    flavor: Flavor
    host: str
    was_running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmTask:
    """Remove the old copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevertTask:
    """Remove the new copy, bring the old one back."""

    was_running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureTask:
    """Ask a pool for its hosts and storage."""

    pool: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredHost:
    """A host as its pool describes it. Sizes: all there is for guests, before reserve."""

    uuid: str
    name: str
    live: bool
    enabled: bool
    ram_mib: int
    vcpus: int
    disk_gib: int
    sr: str
    shared_sr: str
    network: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a pool said."""

    pool: str
    hosts: tuple[MeasuredHost, ...]
