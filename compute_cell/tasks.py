"""Arguments and results of the jobs of a compute cell, as they lie in the jobs table. What each does: work.py."""

from dataclasses import dataclass, field

from cells.messages import Question
from cells.model import BuildSpec, ImageRef, Incremental, PowerState
from cells.names import CellName, Instant
from xenapi_host.facts import HostFacts, Refound
from xenapi_host.leftovers import Age, Held


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareTask:
    """Image, disks and VM record of a build attempt, on the host claimed for it; not started."""

    pool: str
    owner: CellName
    attempt: int
    spec: BuildSpec
    on: HostFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTask:
    """Start the prepared VM of a granted attempt on this host (a uuid). `agent`: the image has a guest agent, which is
    then told what is in `sealed`. `classic`: how it was prepared, where a classic guest has to be finished first."""

    pool: str
    attempt: int
    host: str
    agent: bool = False
    sealed: bytes = b""
    classic: PrepareTask | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyTask:
    """Remove every object of a server from its pool, and from `also` where it may have moved to; without a pool, from
    all: what a leaf has forgotten may be on any. `attempt`: only what was made for this one; 0: everything. Nothing of
    another owner's goes."""

    pool: str
    owner: CellName
    also: str = ""
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveTask:
    """Move the running server to this host, in its own pool or another."""

    pool: str
    to_pool: str
    on: HostFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerTask:
    """start, stop, reboot, hard_reboot, pause, unpause, suspend or resume; `host` (a uuid) is where it is to start."""

    pool: str
    action: str
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotTask:
    """Upload the root disk's chain as this image; with `incremental` what changed since an earlier one, if possible."""

    pool: str
    image: ImageRef
    sealed: bytes
    incremental: Incremental | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoSnapshotTask:
    """Remove what an upload that was given up has left of its disk."""

    pool: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeTask:
    """Make the server anew, as `spec` with its new flavor says, on this host, keeping the old one until confirmed.
    `number`: the command's, which names the new copy."""

    pool: str
    owner: CellName
    attempt: int
    number: int
    spec: BuildSpec
    on: HostFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class RemakeTask:
    """Rebuild the server as `spec` says, or run a rescue VM of its image; on the server's host. `number`: the
    command's, which names the new VM's disks. `keep_config`: a config drive goes along as it is. `agent`: the image has
    a guest agent, which is then told what is in `spec.sealed`."""

    pool: str
    owner: CellName
    attempt: int
    number: int
    spec: BuildSpec
    on: HostFacts
    keep_config: bool = True
    agent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UnrescueTask:
    """Remove the rescue VM, start the server on its host (a uuid)."""

    pool: str
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a job that makes a VM found out: the power state it ends in (None: as expected), and what the tenant
    should know."""

    power_state: PowerState | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestTask:
    """Tell a server's guest something: set_password, set_metadata, reset_network, inject_network; its host: rename."""

    pool: str
    action: str
    name: str = ""
    sealed: bytes = b""
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachTask:
    """Attach a volume of this project as this disk; `host` (a uuid) is where the server is or starts. `shares`: of the
    storage's time (guests.disk_shares)."""

    pool: str
    volume: str
    project: str
    device: int
    host: str
    shares: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachTask:
    """Take a volume from the server."""

    pool: str
    volume: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SharesTask:
    """Give the server these shares of its host's processors (VM.VCPUs_params) and storage (VBD's parameters)."""

    pool: str
    vcpus: dict[str, str]
    disks: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSnapshotTask:
    """Take (`name` and the command's number) or drop (`snapshot`, a uuid) a snapshot that the host keeps."""

    pool: str
    number: int = 0
    name: str = ""
    snapshot: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskTask:
    """Find out what the owner asked, at once or not at all. `about`, `project`: of a volume."""

    pool: str
    question: bytes
    kind: Question
    about: str = ""
    project: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The answer to a question, or why there is none."""

    question: bytes
    body: bytes = b""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmTask:
    """Remove the old copy."""

    pool: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RevertTask:
    """Remove the new copy, bring the old one back, running if it ran."""

    pool: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EvacuateTask:
    """Bring a server of the host `dead` (a uuid) up on this host, started if `start`."""

    pool: str
    dead: str
    on: HostFacts
    start: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceTask:
    """Make a server of the host `dead` (a uuid), whose disks are lost, anew as `spec` says on this host; what is left
    of it in `old_pool` is set aside. `serial` names the new VM."""

    pool: str
    owner: CellName
    old_pool: str
    dead: str
    attempt: int
    serial: int
    spec: BuildSpec
    on: HostFacts
    start: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoReplaceTask:
    """Remove what there is of the VM of this serial."""

    pool: str
    serial: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAsideTask:
    """Put every VM of a server on this pool out of use but the one of `serial`: its host has returned."""

    pool: str
    serial: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchTask:
    """Wait at most `wait` seconds for an event since `token`, then look at the pool's VMs. `began`: when it was asked
    for; `whole`: whether every server is to be compared."""

    pool: str
    token: str
    wait: float
    began: Instant
    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenServer:
    """A server's VM; `host` (a uuid) is empty where it is off. `attempt`: which attempt made it."""

    server: bytes
    power_state: PowerState
    host: str
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenForeign:
    """What runs on a host without being ours."""

    host: str
    count: int
    memory_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What a look saw. `quiet`: nothing has happened."""

    pool: str
    token: str
    began: Instant
    whole: bool
    quiet: bool
    servers: tuple[SeenServer, ...] = ()
    foreign: tuple[SeenForeign, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FindTask:
    """Look for a server on these pools. If it never ran, as far as its owner knows, what is there of it goes, unless it
    runs. One of another owner's is not taken for it."""

    pools: tuple[str, ...]
    owner: CellName
    ran: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """What is so on the hosts of a server that was looked for, or was to go. `others`: there is one of its id, and
    another API cell owns it; it was left alone."""

    seen: Refound | None = None
    others: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearCacheTask:
    """Remove the cached images of a pool that no server has used for some seconds. `at`: Unix seconds."""

    pool: str
    at: int
    unused_for: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepTask:
    """Look over a pool for what nobody has used for long enough; remove what belongs to no server."""

    pool: str
    age: Age


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What such a look found: the names of what is gone now, the servers that have something more."""

    removed: tuple[str, ...]
    servers: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TidyTask:
    """Remove what a server has on a pool without using it; of a server that the leaf knows, if it is its owner's."""

    pool: str
    age: Age
    held: Held
    owner: CellName | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureTask:
    """Ask a pool for its hosts and storage."""

    pool: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredHost:
    """A host as placing counts it: after reserve and overcommit. `fenced`: its pool has made sure that it is off."""

    uuid: str
    name: str
    ready: bool
    ram_mib: int
    physical_mib: int
    vcpus: int
    disk_gib: int
    sr: str
    group: str
    network: str
    version: str
    traits: tuple[str, ...]
    fenced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a pool said. `trouble`: what its operator should put right, though it works."""

    pool: str
    hosts: tuple[MeasuredHost, ...]
    trouble: str = ""
