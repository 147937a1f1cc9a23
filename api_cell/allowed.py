"""Which wish may be uttered in which state, as a table, and a pure check of it that says what would be allowed."""

from dataclasses import dataclass

from api_cell.errors import NotAllowedNow
from api_cell.rows import Phase, ServerRow
from api_cell.status import QUIET
from cells.model import VmState
from cells.names import id_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`name` is the action as OpenStack calls it; `tasks`: task states in which it may be uttered, besides none."""

    name: str
    states: tuple[VmState, ...]
    tasks: tuple[str, ...] = ()


_AT_REST = (VmState.ACTIVE, VmState.STOPPED, VmState.PAUSED, VmState.SUSPENDED)

ALLOWED: dict[str, Rule] = {
    "server.snapshot": Rule(name="createImage", states=_AT_REST),
    "server.resize": Rule(name="resize", states=(VmState.ACTIVE, VmState.STOPPED)),
    "server.migrate": Rule(name="migrate", states=(VmState.ACTIVE, VmState.STOPPED)),
    "server.live_migrate": Rule(name="os-migrateLive", states=(VmState.ACTIVE,)),
    "server.evacuate": Rule(name="evacuate", states=(VmState.ACTIVE, VmState.STOPPED, VmState.ERROR)),
    "server.confirm_resize": Rule(name="confirmResize", states=(VmState.RESIZED,)),
    "server.revert_resize": Rule(name="revertResize", states=(VmState.RESIZED,)),
    "server.stop": Rule(name="os-stop", states=(VmState.ACTIVE, VmState.ERROR)),
    "server.start": Rule(name="os-start", states=(VmState.STOPPED,)),
    "server.reboot": Rule(name="reboot", states=(VmState.ACTIVE,)),
    "server.reboot.hard": Rule(
        name="reboot",
        states=(*_AT_REST, VmState.ERROR),
        tasks=(
            "rebooting",
            "reboot_pending",
            "reboot_started",
            "rebooting_hard",
            "reboot_pending_hard",
            "reboot_started_hard",
            "pausing",
            "resuming",
        ),
    ),
    "server.pause": Rule(name="pause", states=(VmState.ACTIVE,)),
    "server.unpause": Rule(name="unpause", states=(VmState.PAUSED,)),
    "server.suspend": Rule(name="suspend", states=(VmState.ACTIVE,)),
    "server.resume": Rule(name="resume", states=(VmState.SUSPENDED,)),
    "server.rebuild": Rule(name="rebuild", states=(VmState.ACTIVE, VmState.STOPPED, VmState.ERROR)),
    "server.rescue": Rule(name="rescue", states=(VmState.ACTIVE, VmState.STOPPED, VmState.ERROR)),
    "server.unrescue": Rule(name="unrescue", states=(VmState.RESCUED,)),
    "server.set_password": Rule(name="changePassword", states=(VmState.ACTIVE,)),
    "server.reset_network": Rule(name="resetNetwork", states=(VmState.ACTIVE,)),
    "server.inject_network": Rule(name="injectNetworkInfo", states=(VmState.ACTIVE, VmState.PAUSED, VmState.STOPPED)),
    "server.attach_volume": Rule(name="attach_volume", states=(VmState.ACTIVE, VmState.STOPPED)),
    "server.detach_volume": Rule(name="detach_volume", states=(VmState.ACTIVE, VmState.STOPPED)),
    "server.set_shares": Rule(name="celltree-setShares", states=_AT_REST),
    "server.take_host_snapshot": Rule(name="celltree-createHostSnapshot", states=_AT_REST),
    "server.drop_host_snapshot": Rule(name="celltree-deleteHostSnapshot", states=_AT_REST),
    "server.ask": Rule(name="query", states=(*_AT_REST, VmState.RESIZED, VmState.RESCUED), tasks=("*",)),
    "metadata": Rule(name="metadata", states=_AT_REST, tasks=("*",)),
}


def check(row: ServerRow, wish: str) -> None:
    """Pass, or NotAllowedNow. Any wish may be uttered of a server only where a cell holds it."""
    rule = ALLOWED[wish]
    server = id_text(row.id)
    if row.phase is Phase.DELETING:
        raise NotAllowedNow(f"Cannot '{rule.name}' instance {server} while it is in task_state deleting")
    if row.vm_state not in rule.states:
        raise NotAllowedNow(
            f"Cannot '{rule.name}' instance {server} while it is in vm_state {row.vm_state}; "
            f"it is allowed in: {', '.join(rule.states)}"
        )
    if rule.tasks == ("*",):
        return
    if row.task_state and row.task_state not in rule.tasks:
        raise NotAllowedNow(
            f"Cannot '{rule.name}' instance {server} while it is in task_state {row.task_state}; "
            "wait until that is over"
        )
    # Confirming shows no task, and a report may lag behind the wish: what is still open counts as well.
    for wait in row.intents:
        if wait.action in QUIET or (rule.tasks and wait.action == "server.reboot"):
            continue
        raise NotAllowedNow(
            f"Cannot '{rule.name}' instance {server} while an earlier request for it is open ({wait.action}); "
            "wait until that is over"
        )
    if not row.leaf:
        raise NotAllowedNow(f"Cannot '{rule.name}' instance {server}: no cell holds it; delete it and create another")
