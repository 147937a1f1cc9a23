"""What a tenant sees of a server: the state the leaf reported plus the wishes that have not had their effect yet.

Pure. `settle` is called by whoever changes a server's row, last thing before saving it, so that the columns that lists
filter by (status, vm_state, task_state, flavor) are always as shown.
"""

from dataclasses import dataclass, replace

from api_cell.rows import OpenIntent, Phase, ServerRow
from cells.model import Fault, Flavor, PowerState, VmState


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A server's three states in OpenStack's words."""

    status: str
    vm_state: str
    task_state: str = ""


UNKNOWN = "UNKNOWN"

STATUS: dict[str, str] = {
    VmState.BUILDING: "BUILD",
    VmState.ACTIVE: "ACTIVE",
    VmState.STOPPED: "SHUTOFF",
    VmState.PAUSED: "PAUSED",
    VmState.SUSPENDED: "SUSPENDED",
    VmState.RESCUED: "RESCUE",
    VmState.RESIZED: "VERIFY_RESIZE",
    VmState.ERROR: "ERROR",
    VmState.DELETED: "DELETED",
}

_RESIZING = dict.fromkeys(("resize_prep", "resize_migrating", "resize_migrated", "resize_finish"), "RESIZE")
_REBUILDING = dict.fromkeys(("rebuilding", "rebuild_block_device_mapping", "rebuild_spawning"), "REBUILD")

# Where a task shows in the status, by vm_state; any other task leaves the status as it is.
STATUS_OF_TASK: dict[str, dict[str, str]] = {
    VmState.ACTIVE: {
        **dict.fromkeys(("rebooting", "reboot_pending", "reboot_started"), "REBOOT"),
        **dict.fromkeys(("rebooting_hard", "reboot_pending_hard", "reboot_started_hard"), "HARD_REBOOT"),
        "updating_password": "PASSWORD",
        "migrating": "MIGRATING",
        **_RESIZING,
        **_REBUILDING,
    },
    VmState.STOPPED: {**_RESIZING, **_REBUILDING},
    VmState.RESIZED: {"resize_reverting": "REVERT_RESIZE"},
    VmState.ERROR: {**_REBUILDING},
}

# The task a wish shows from the moment it is asked until the leaf reports its own task. Confirming has none in
# OpenStack: the server stays VERIFY_RESIZE until it is over.
TASK_OF_WISH: dict[str, str] = {
    "place": "scheduling",
    "server.start": "powering-on",
    "server.stop": "powering-off",
    "server.reboot": "rebooting",
    "server.pause": "pausing",
    "server.unpause": "unpausing",
    "server.suspend": "suspending",
    "server.resume": "resuming",
    "server.rebuild": "rebuilding",
    "server.rescue": "rescuing",
    "server.unrescue": "unrescuing",
    "server.snapshot": "image_snapshot_pending",
    "server.set_password": "updating_password",
    "server.resize": "resize_prep",
    "server.migrate": "resize_prep",
    "server.live_migrate": "migrating",
    "server.evacuate": "rebuilding",
    "server.confirm_resize": "",
    "server.revert_resize": "resize_reverting",
    "server.delete": "deleting",
}

# Wishes that go on beside everything else and show no task.
QUIET = (
    "place",
    "server.set_metadata",
    "server.rename",
    "server.set_shares",
    "server.attach_volume",
    "server.detach_volume",
    "server.take_host_snapshot",
    "server.drop_host_snapshot",
)

POWER_STATE: dict[str, int] = {
    PowerState.UNKNOWN: 0,
    PowerState.RUNNING: 1,
    PowerState.PAUSED: 3,
    PowerState.HALTED: 4,
    PowerState.SUSPENDED: 7,
}


def wish_task(wish: OpenIntent) -> str:
    """The task a wish shows before its leaf has taken it up."""
    if wish.action == "server.reboot" and wish.detail == "HARD":
        return "rebooting_hard"
    if wish.backup is not None:
        return "image_backup"
    return TASK_OF_WISH.get(wish.action, "")


def shown(row: ServerRow, *, silent: bool = False) -> Shown:
    """`silent`: the leaf that holds the server is not heard any more, so what it last said may no longer be so."""
    vm_state = _vm_state(row)
    task_state = _task_state(row)
    if silent and row.phase is Phase.GRANTED:
        return Shown(status=UNKNOWN, vm_state=vm_state, task_state=task_state)
    status = STATUS_OF_TASK.get(vm_state, {}).get(task_state) or STATUS[vm_state]
    return Shown(status=status, vm_state=vm_state, task_state=task_state)


def _vm_state(row: ServerRow) -> str:
    if row.phase is Phase.FAILED:
        return VmState.ERROR
    if row.state is None:
        return VmState.ERROR if row.fault_code and row.phase is Phase.DELETING else VmState.BUILDING
    return row.state.vm_state


def _task_state(row: ServerRow) -> str:
    if row.phase is Phase.DELETING:
        return "deleting"
    if row.phase is Phase.FAILED:
        return ""
    if row.state is not None and row.state.task_state:
        return row.state.task_state
    # Wishes run in order, so the oldest open one is what goes on.
    waiting = [wish for wish in row.intents if wish.action not in QUIET]
    if waiting:
        return wish_task(min(waiting, key=lambda wish: wish.number))
    if row.state is None:
        return "spawning" if row.phase is Phase.GRANTED else "scheduling"
    return ""


def flavor_of(row: ServerRow) -> Flavor:
    """The flavor a server has now: what its leaf says, else what was asked."""
    return row.state.flavor if row.state is not None else row.spec.flavor


def fault_of(row: ServerRow) -> Fault | None:
    """Why a server is in ERROR: placing's reason, or what its leaf said."""
    if row.fault_code:
        return Fault(code=row.fault_code, message=row.fault, at=row.fault_at)
    return row.state.fault if row.state is not None else None


def settle(row: ServerRow, *, silent: bool = False) -> ServerRow:
    """The row with the columns that are derived from the rest of it made true again."""
    now = shown(row, silent=silent)
    return replace(
        row,
        status=now.status,
        vm_state=now.vm_state,
        task_state=now.task_state,
        flavor=flavor_of(row).id,
        image=row.spec.image.id,
    )
