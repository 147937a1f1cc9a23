"""The rows of an API cell: servers as their tenants see them, quotas, flavors, key pairs.

One writer a fact: the front door writes what the tenant asked (name, metadata, open intents), the role writes
what the leaf reported (`state`, `version`) and how placing goes. What is shown is derived from both (api_cell.status).
"""

from dataclasses import dataclass, field
from enum import StrEnum

from cells.model import BuildSpec, Flavor, InstanceState
from cells.names import CellName, Id, Instant
from cells.rows import Text, row

BUILD_NUMBER = 1
"""The number of a server's first command, its build; every other command, a delete too, has a higher one."""


class Phase(StrEnum):
    """How far placing has come. PLACING: no leaf has it. OFFERED: a leaf was asked. GRANTED: that leaf holds it for
    good. FAILED: no leaf takes it. DELETING: the tenant wants it gone. INQUIRING: the row is from an old backup, where
    no leaf had it for good yet: all are asked whether one has it now."""

    INQUIRING = "inquiring"
    PLACING = "placing"
    OFFERED = "offered"
    GRANTED = "granted"
    FAILED = "failed"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenIntent:
    """A wish that has not had its effect yet: the status shown is the state reported plus these. `detail` is what the
    status and the role need to know beyond the action: HARD of a reboot, the image of a snapshot.
    `backup`: kind and how many of it are kept, of a snapshot that is a backup. `body`: the command (wire form), for a
    leaf that has lost it."""

    number: int
    action: str
    at: Instant
    request: str
    detail: str = ""
    backup: tuple[str, int] | None = None
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A leaf that was asked and said no, or did not answer."""

    leaf: CellName
    code: str
    reason: str


@row(
    "servers",
    key=("id",),
    indexes=(
        ("project", "created", "id"),
        ("project", "updated", "id"),
        ("created", "id"),
        ("leaf", "id"),
        ("phase", "project"),
    ),
)
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRow:
    """A server of this API cell. `number` is the last number given to a wish; `finished` the last one that is over.
    `status`, `vm_state`, `task_state`, `image` and `flavor` (ids) are kept as shown, for filters, by
    api_cell.status.settle. `updated` never goes back. `resize_to` is the flavor of a resize that is neither confirmed
    nor reverted: its room is charged to the quota too. `access_ipv4` and `access_ipv6` are what its tenant says.
    `secret`: what its tenant gave for the first start is still kept, as a SecretRow.
    `before_rebuild` is what `spec` was before a rebuild that is not
    over: it comes back when that fails. `told`: while INQUIRING, the leaves that have said that they do not have it."""

    id: Id
    project: str
    user: str
    name: str
    created: Instant
    updated: Instant
    request: str
    status: str
    vm_state: str
    task_state: str = ""
    phase: Phase = Phase.PLACING
    leaf: CellName = ""
    attempt: int = 0
    version: int = 0
    number: int = 0
    finished: int = 0
    deadline: Instant = 0
    spec: BuildSpec
    state: InstanceState | None = None
    intents: tuple[OpenIntent, ...] = ()
    tried: tuple[Tried, ...] = ()
    fault_code: int = 0
    fault: Text = ""
    fault_at: Instant = 0
    heard: Instant = 0
    locked: bool = False
    description: Text = ""
    image: str = ""
    flavor: str = ""
    tags: tuple[str, ...] = ()
    access_ipv4: str = ""
    access_ipv6: str = ""
    resize_to: Flavor | None = None
    secret: bool = False
    before_rebuild: BuildSpec | None = None
    told: tuple[CellName, ...] = ()


@row("servers_gone", key=("id",), indexes=(("project", "updated", "id"), ("updated",)))
@dataclass(frozen=True, slots=True, kw_only=True)
class GoneServerRow:
    """A deleted server, as it last was, kept 30 days for changes-since."""

    id: Id
    project: str
    updated: Instant
    server: ServerRow


@row("secrets", key=("server",))
@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRow:
    """What a tenant gave for a server's first start (model.Secrets), sealed with the cell's own key, because which leaf
    will have the server is not known yet. Sealed anew for each leaf it is offered to; gone when the server runs."""

    server: Id
    box: bytes = field(repr=False)


@row("questions", key=("id",), indexes=(("at",),))
@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionRow:
    """What a leaf was asked while a client waits, and its answer; removed when the client has it, or soon after."""

    id: Id
    server: Id
    leaf: CellName
    at: Instant
    done: bool = False
    body: bytes = b""
    error: Text = ""


@row("flavors", key=("id",), indexes=(("name",),))
@dataclass(frozen=True, slots=True, kw_only=True)
class FlavorRow:
    """A flavor offered by this API cell. One that is not public is for the `projects` named and for administrators.
    `rxtx_factor` is shown as it was given, and nothing else: networks are not this API's."""

    id: str
    name: str
    public: bool = True
    projects: tuple[str, ...] = ()
    flavor: Flavor
    description: Text = ""
    rxtx_factor: float = 1.0


@row("usage", key=("project",))
@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """What a project has now; changed in the same unit as the servers counted."""

    project: str
    servers: int = 0
    vcpus: int = 0
    ram_mib: int = 0


@row("quotas", key=("project",))
@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaRow:
    """What a project may have; -1 is no limit. The project '' is everybody's default."""

    project: str
    servers: int = 1000
    vcpus: int = 4000
    ram_mib: int = 8 * 1024 * 1024


@row("requests", key=("id",), indexes=(("at",),))
@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRow:
    """A client-chosen request id and the server it made, so that asking twice is asking once. `id` is
    project/request."""

    id: str
    server: Id
    at: Instant


@row("keypairs", key=("user", "name"))
@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPairRow:
    """A user's public SSH key."""

    user: str
    name: str
    public_key: Text
    fingerprint: str
    created: Instant
    kind: str = field(default="ssh")


ROWS: tuple[type, ...] = (
    ServerRow,
    GoneServerRow,
    FlavorRow,
    UsageRow,
    QuotaRow,
    RequestRow,
    KeyPairRow,
    SecretRow,
    QuestionRow,
)
