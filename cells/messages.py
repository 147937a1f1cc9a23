"""Every record cells exchange, as frozen dataclasses in a closed registry: kind, version, direction, and whether the
destination's application must acknowledge it (then the origin keeps it in its outbox until it does).

Adding a kind: a dataclass here with @record, and a line in the role that takes it. Relays need nothing: they never
look inside. Fields may be added with a default (older cells ignore them); a changed meaning is a new version.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from cells.model import BuildSpec, Flavor, ImageRef, Incremental, InstanceState
from cells.names import CellName, Instant


class Direction(StrEnum):
    """Who may send a kind. DOWN: an API cell to a cell below it. UP: a cell to an API cell above it.
    BESIDE: a neighbour to its neighbour. ANY: any cell that a record travels to or from. LOCAL: never on the wire."""

    DOWN = "down"
    UP = "up"
    BESIDE = "beside"
    ANY = "any"
    LOCAL = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One line of the registry. `of_server`: each record of this kind is about one server."""

    name: str
    version: int
    direction: Direction
    acknowledged: bool
    of_server: bool
    body: type


REGISTRY: dict[str, Kind] = {}
_KIND_OF: dict[type, Kind] = {}
_B = TypeVar("_B", bound=type)


def record(
    name: str, *, direction: Direction, acknowledged: bool = False, of_server: bool = False, version: int = 1
) -> Callable[[_B], _B]:
    """Register a frozen dataclass as the body of a record kind."""

    def register(body: _B) -> _B:
        kind = Kind(
            name=name,
            version=version,
            direction=direction,
            acknowledged=acknowledged,
            of_server=of_server,
            body=body,
        )
        REGISTRY[name] = kind
        _KIND_OF[body] = kind
        return body

    return register


def kind_of(body: Any) -> Kind:
    """The registry line of a body."""
    return _KIND_OF[type(body)]


class RefusalCode(StrEnum):
    """Why a leaf says no. Stable: other cells act on these."""

    NO_ROOM = "no_room"
    DRAINING = "draining"
    EXPIRED = "expired"
    DELETED = "deleted"
    UNSUPPORTED = "unsupported"


# --- commands, owner to leaf ---


@record("server.build", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class BuildServer:
    """Claim a host and prepare; start only when granted. `attempt` counts the owner's tries to place this server.
    `lease` (seconds): how long the leaf may hold the prepared build without a grant before it discards it. `proof`: the
    owner's signature on having asked for it; a leaf keeps it, so that an owner whose database was put back to a backup
    can be shown its own word."""

    attempt: int
    spec: BuildSpec
    lease: int = 600
    proof: bytes = b""


@record("server.grant", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The owner's yes to an acceptance: this attempt alone may start its VM."""

    attempt: int


@record("server.discard", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class Discard:
    """The owner's no to an acceptance: undo this attempt, never start it."""

    attempt: int


@record("server.delete", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteServer:
    """Overtakes whatever goes on. Unknown server: a tombstone stays until `build_deadline` has passed."""

    build_deadline: Instant


@record("server.start", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class StartServer:
    """Power on."""


@record("server.stop", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class StopServer:
    """Power off: clean shutdown first, hard after a while."""


@record("server.reboot", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class RebootServer:
    """Reboot; `hard` cuts the power."""

    hard: bool = False


@record("server.pause", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class PauseServer:
    """Stop its processors; memory stays on the host."""


@record("server.unpause", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class UnpauseServer:
    """Let a paused server go on."""


@record("server.suspend", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class SuspendServer:
    """Save its memory on disk."""


@record("server.resume", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeServer:
    """Let a suspended server go on."""


@record("server.snapshot", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotServer:
    """Upload the root disk's chain as the bytes of an image that already exists in the queued state; with
    `incremental` only what changed since an earlier one, where that is possible. `sealed` as in model.BuildSpec."""

    image: ImageRef
    sealed: bytes = b""
    incremental: Incremental | None = None


@record("server.rebuild", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildServer:
    """Make the server anew from this image, with its id, flavor and addresses. Empty name and metadata None: as they
    are. `sealed` as in model.BuildSpec. `config_drive`: it gets one though it had none; `keep_config`: the one that it
    has goes along as it is."""

    image: ImageRef
    name: str = ""
    metadata: dict[str, str] | None = None
    auto_disk_config: bool = False
    sealed: bytes = b""
    config_drive: bool = False
    keep_config: bool = True


@record("server.rescue", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class RescueServer:
    """Run a VM of this image in the server's place, with the server's disk as its second. `sealed` as in
    model.BuildSpec."""

    image: ImageRef
    sealed: bytes = b""


@record("server.unrescue", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class UnrescueServer:
    """Remove the rescue VM and start the server again."""


@record("server.resize", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeServer:
    """Give the server this flavor, on any host of the leaf; then wait for confirm or revert. `auto_disk_config`: as in
    model.BuildSpec, from now on; None leaves it as it is."""

    flavor: Flavor
    auto_disk_config: bool | None = None


@record("server.confirm_resize", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmResize:
    """Keep the new, remove the old."""


@record("server.revert_resize", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class RevertResize:
    """Remove the new, bring back the old."""


@record("server.live_migrate", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class LiveMigrateServer:
    """Move the running server to another host of the leaf, this one (by name or uuid) if one is named. `block`: whether
    its disks are copied with it; None: where they must be."""

    host: str = ""
    block: bool | None = None


@record("server.migrate", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateServer:
    """Make the server anew, as it is, on another host of its pool, then wait for confirm or revert as a resize does."""

    host: str = ""


@record("server.evacuate", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class EvacuateServer:
    """Bring the server up on another host of the leaf; refused unless its own host is confirmed dead. One whose disks
    are lost is made anew from its image. `sealed` as in model.BuildSpec."""

    host: str = ""
    sealed: bytes = b""


@record("server.set_password", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class SetPassword:
    """Let the guest's agent set its administrator's password. `sealed` as in model.BuildSpec."""

    sealed: bytes


@record("server.set_metadata", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class SetMetadata:
    """Let the guest find all this metadata, and no other."""

    metadata: dict[str, str]


@record("server.rename", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class RenameServer:
    """Let the host show this name."""

    name: str


@record("server.set_shares", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class SetShares:
    """Give the server these shares of its host's processors and disks, named as a flavor's extra specs name them
    (quota:...), in place of those of its flavor."""

    shares: dict[str, str]


@record("server.attach_volume", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class AttachVolume:
    """Give the server this volume (the uuid of a VDI) as its disk number `device`. The volume stays its
    administrator's."""

    volume: str
    device: int


@record("server.detach_volume", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class DetachVolume:
    """Take this volume from the server."""

    volume: str


@record("server.take_host_snapshot", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class TakeHostSnapshot:
    """Keep the server's disks as they are now, on its host."""

    name: str


@record("server.drop_host_snapshot", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class DropHostSnapshot:
    """Remove what was kept: `snapshot` is its uuid."""

    snapshot: str


@record("server.reset_network", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class ResetNetwork:
    """Let the guest's agent configure its network as xenstore says."""


@record("server.inject_network", direction=Direction.DOWN, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class InjectNetwork:
    """Write into xenstore how the guest's interfaces are to be configured."""


class Question(StrEnum):
    """What a leaf is asked of a server while a tenant waits. The answers: the console's text (UTF-8); a JSON object;
    a URL; JSON of a volume that the server's project may attach, or null; a JSON list."""

    CONSOLE_LOG = "console_log"
    DIAGNOSTICS = "diagnostics"
    CONSOLE_URL = "console_url"
    VOLUME = "volume"
    HOST_SNAPSHOTS = "host_snapshots"


@record("server.ask", direction=Direction.DOWN, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question that somebody waits for: neither it nor its answer is sent again, loss is a time-out there. `about`:
    the uuid of the volume."""

    question: bytes
    kind: Question
    about: str = ""


# --- replies and reports, leaf to owner ---


@record("server.answer", direction=Direction.UP, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the leaf says to a question: `body` as compressed by zlib, or why it cannot say."""

    question: bytes
    body: bytes = b""
    error: str = ""


@record("server.accepted", direction=Direction.UP, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The build has a host. (`epoch`, `sequence`): the first capacity generation in which its claim is counted.
    `trail`: the cells the command came through, as (cell, instant)."""

    attempt: int
    host: str
    epoch: int
    sequence: int
    trail: tuple[tuple[CellName, int], ...] = ()


@record("server.refused", direction=Direction.UP, acknowledged=True, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The leaf takes no part in this attempt, now or later. `undone`: it had accepted it, and has undone what it
    prepared without starting it. From a leaf that was granted the attempt only that counts: one that knows nothing of
    it may have forgotten it."""

    attempt: int
    code: RefusalCode
    reason: str
    undone: bool = False
    trail: tuple[tuple[CellName, int], ...] = ()


@record("server.report", direction=Direction.UP, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceReport:
    """The whole state of a server, at a version that only grows. Sent again until the owner has seen that version.
    `number`: the newest command of the owner that had its effect or failed; `failed`: (number, why) of the newest
    one that failed."""

    attempt: int
    version: int
    state: InstanceState
    number: int = 0
    failed: tuple[int, str] | None = None


@record("server.digest", direction=Direction.UP)
@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """A checksum over (server, version, state) for each bucket of servers a leaf holds for one owner; a server's
    bucket is the first byte of the BLAKE2 hash of its id, modulo the number of buckets. `answer`: say so if all agrees,
    too."""

    buckets: tuple[int, ...]
    answer: bool = False


@record("server.compare", direction=Direction.DOWN)
@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """The owner's side of a bucket whose digest differs: (server, version, checksum) of each server it has
    there. The leaf raises the version of what differs and reports it again."""

    bucket: int
    servers: tuple[tuple[bytes, int, int], ...]


# --- after a database was put back to a backup ---


@record("server.recall", direction=Direction.UP, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class RecallServer:
    """The leaf does not know this server, or knows it from an old backup only: its owner is asked for what it knows.
    `attempt`: the one that the leaf knows, 0 for none; `on_host`: it was seen on a host, and the leaf knows no more.
    Asked again until answered."""

    attempt: int = 0
    on_host: bool = False


@record("server.remember", direction=Direction.DOWN, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class RememberServer:
    """What the owner knows of a server it has granted to the leaf: what it asked for, and what it was told last. The
    leaf looks for it on its hosts. `number`: the newest command that is over."""

    attempt: int
    spec: BuildSpec
    proof: bytes
    version: int
    number: int
    state: InstanceState | None = None


@record("server.inquire", direction=Direction.DOWN, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class InquireServer:
    """The owner, put back to an old backup, asks whether a leaf holds a server of its. Asked again until answered."""


@record("server.held", direction=Direction.UP, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class HeldServer:
    """The answer: attempt 0 where the leaf has nothing of it and will have nothing. Else the attempt with the owner's
    own `proof` of it, whether it was granted, and all that the owner needs for a row."""

    attempt: int = 0
    granted: bool = False
    spec: BuildSpec | None = None
    proof: bytes = b""
    version: int = 0
    number: int = 0
    state: InstanceState | None = None
    request: str = ""


@record("server.agreed", direction=Direction.DOWN)
@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """A digest that asked for an answer is as the owner's own: leaf and owner know the same servers."""


# --- between neighbours, and of the machinery ---


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCellRecord:
    """A cell's own words about itself: `payload` is the wire form of model.CellRecord, signed by the cell whose
    certificate stands beside it."""

    certificate: bytes
    payload: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Above:
    """One cell above the sender: how far, and whether it is an API cell."""

    name: CellName
    hops: int
    api: bool


@record("cell.hello_up", direction=Direction.BESIDE)
@dataclass(frozen=True, slots=True, kw_only=True)
class HelloUp:
    """Child to parent, each tick: its own cell record and those of its descendants that are news on this edge. `yours`:
    what the parent once said of itself, where it now says older things: its database was put back to a backup.
    `asks`: the child has started and wants an answer at once, with `yours` where its words are older than those that
    the parent keeps; `answers`: what the parent has asked."""

    records: tuple[SignedCellRecord, ...]
    yours: SignedCellRecord | None = None
    answers: bytes = b""
    asks: bytes = b""


@record("cell.hello_down", direction=Direction.BESIDE)
@dataclass(frozen=True, slots=True, kw_only=True)
class HelloDown:
    """Parent to child, each tick: every cell above (the parent itself at 0 hops), and a checksum of what the parent
    knows of the child's subtree, so that the child can tell when it must send all again. `own`: an API cell's record of
    itself, which the child keeps for it; `yours`, `asks` and `answers` as in HelloUp."""

    above: tuple[Above, ...]
    known: int = 0
    own: SignedCellRecord | None = None
    yours: SignedCellRecord | None = None
    asks: bytes = b""
    answers: bytes = b""


@record("cell.withdrawn", direction=Direction.BESIDE)
@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatesWithdrawn:
    """Which certificates count no longer. `number`: of the list that the sender knows, told each tick where there is
    one; `signed`: the list as the root signed it, for a neighbour that has said it knows an older one."""

    number: int
    signed: bytes = b""


@record("node.ack", direction=Direction.ANY)
@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """Received and committed: `ids` of records; `seen`: (server, version) of reports. Never acknowledged itself."""

    ids: tuple[bytes, ...] = ()
    seen: tuple[tuple[bytes, int], ...] = ()


@record("node.not_forwarded", direction=Direction.ANY)
@dataclass(frozen=True, slots=True, kw_only=True)
class NotForwarded:
    """A relay could hand a packet to no next hop. `serial`: the origin's number of the packet; `reason` for people."""

    serial: int
    destination: CellName
    reason: str


# --- local: things a cell tells itself ---


@record("local.started", direction=Direction.LOCAL)
@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """This daemon has started, and its role is not sure yet that its database is the newest; told again each second
    until it is."""


@record("local.tick", direction=Direction.LOCAL)
@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """The report interval has passed; told to the daemon that holds shard 0. `taken_over`: it has only now come to hold
    it, and does not know what another daemon has done before."""

    taken_over: bool = False


@record("local.intent", direction=Direction.LOCAL, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A tenant's wish, saved by the API cell's front door as a wake that is due at once. `number` orders the wishes for
    one server; `action` is the registered kind of the command, its fields in `body` (wire form), or 'place'."""

    action: str
    number: int
    body: bytes = b""


@record("local.attempt_due", direction=Direction.LOCAL, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptDue:
    """It is time to look after a placement attempt; at `until` it has had its time to be answered."""

    attempt: int
    until: Instant = 0


@record("local.grant_due", direction=Direction.LOCAL, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class GrantDue:
    """A prepared build has waited its lease for a grant."""

    attempt: int


@record("local.destroy_due", direction=Direction.LOCAL, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class DestroyDue:
    """Removing a server from its host failed; it is time to try again."""


@record("local.reports_due", direction=Direction.LOCAL)
@dataclass(frozen=True, slots=True, kw_only=True)
class ReportsDue:
    """Reports have had their time to be seen by their owners."""


@record("local.forget", direction=Direction.LOCAL, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """A tombstone has served its time."""


@record("local.go_on", direction=Direction.LOCAL, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class GoOn:
    """What kept a server's commands waiting is over."""


@record("local.expired", direction=Direction.LOCAL)
@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """An acknowledged kind was never acknowledged before its deadline; the record as it was."""

    id: bytes
    kind: str
    destination: CellName
    server: bytes
    body: bytes
    number: int = 0


@record("local.job_ended", direction=Direction.LOCAL, of_server=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnded:
    """The end of slow work. `error` is empty on success; `result` is what the job's kind promises (wire form)."""

    job: bytes
    kind: str
    lane: str = ""
    result: bytes = b""
    error: str = ""
    permanent: bool = True
