"""What is shown of a server, and which wishes its state allows: tables, looked at as tables."""

from dataclasses import replace

import pytest

from api_cell import allowed
from api_cell.errors import NotAllowedNow
from api_cell.quota import charge, held, room_for
from api_cell.rows import OpenIntent, Phase, QuotaRow, ServerRow, UsageRow
from api_cell.status import settle, shown
from cells.model import BuildSpec, Fault, Flavor, ImageRef, InstanceState, VmState

SMALL = Flavor(id="1", name="small", vcpus=1, ram_mib=512, disk_gib=1)
LARGE = Flavor(id="2", name="large", vcpus=4, ram_mib=4096, disk_gib=1)


def a_row(vm_state: VmState | None = VmState.ACTIVE, task: str = "", **fields: object) -> ServerRow:
    state = None if vm_state is None else InstanceState(vm_state=vm_state, task_state=task, flavor=SMALL)
    spec = BuildSpec(name="n", project="p", user="u", flavor=SMALL, image=ImageRef(id="i"))
    row = ServerRow(
        id=bytes(16),
        project="p",
        user="u",
        name="n",
        created=1,
        updated=1,
        request="r",
        status="",
        vm_state="",
        phase=Phase.GRANTED,
        leaf="leaf-1",
        spec=spec,
        state=state,
    )
    return settle(replace(row, **fields))


def a_wish(action: str, number: int = 2, detail: str = "") -> OpenIntent:
    return OpenIntent(number=number, action=action, at=1, request="r", detail=detail)


@pytest.mark.parametrize(
    ("row", "status", "task"),
    [
        (a_row(None, phase=Phase.PLACING, leaf=""), "BUILD", "scheduling"),
        (a_row(None, phase=Phase.OFFERED), "BUILD", "scheduling"),
        (a_row(None, phase=Phase.GRANTED), "BUILD", "spawning"),
        (a_row(VmState.BUILDING, "networking"), "BUILD", "networking"),
        (a_row(None, phase=Phase.FAILED, leaf="", fault_code=500, fault="no room"), "ERROR", ""),
        (a_row(), "ACTIVE", ""),
        (a_row(VmState.STOPPED), "SHUTOFF", ""),
        (a_row(VmState.RESIZED), "VERIFY_RESIZE", ""),
        (a_row(VmState.RESIZED, intents=(a_wish("server.revert_resize"),)), "REVERT_RESIZE", "resize_reverting"),
        (a_row(VmState.RESIZED, intents=(a_wish("server.confirm_resize"),)), "VERIFY_RESIZE", ""),
        (a_row(intents=(a_wish("server.resize"),)), "RESIZE", "resize_prep"),
        (a_row(VmState.STOPPED, "resize_migrating"), "RESIZE", "resize_migrating"),
        (a_row(intents=(a_wish("server.reboot"),)), "REBOOT", "rebooting"),
        (a_row(intents=(a_wish("server.reboot", detail="HARD"),)), "HARD_REBOOT", "rebooting_hard"),
        (a_row(intents=(a_wish("server.stop"), a_wish("server.delete", 3))), "ACTIVE", "powering-off"),
        (a_row(phase=Phase.DELETING, intents=(a_wish("server.delete"),)), "ACTIVE", "deleting"),
        (a_row(VmState.ERROR), "ERROR", ""),
    ],
)
def test_status_is_the_state_reported_plus_the_open_wishes(row: ServerRow, status: str, task: str) -> None:
    assert (shown(row).status, shown(row).task_state) == (status, task)
    assert (row.status, row.task_state) == (status, task)


def test_a_server_of_a_silent_leaf_is_unknown_only_once_it_is_held_there() -> None:
    assert shown(a_row(), silent=True).status == "UNKNOWN"
    assert shown(a_row(None, phase=Phase.PLACING), silent=True).status == "BUILD"


def test_settled_columns_follow_the_leaf() -> None:
    row = a_row()
    assert (row.flavor, row.image) == ("1", "i")
    assert row.state is not None
    bigger = settle(replace(row, state=replace(row.state, flavor=LARGE, fault=Fault(code=1, message="x", at=1))))
    assert bigger.flavor == "2"


def test_every_wish_has_a_state_in_which_it_may_be_uttered_and_one_in_which_not() -> None:
    for wish, rule in allowed.ALLOWED.items():
        allowed.check(a_row(rule.states[0]), wish)
        forbidden = next(state for state in VmState if state not in rule.states)
        with pytest.raises(NotAllowedNow, match=rule.states[0]):
            allowed.check(a_row(forbidden), wish)
        with pytest.raises(NotAllowedNow, match="deleting"):
            allowed.check(a_row(rule.states[0], phase=Phase.DELETING), wish)


def test_one_open_wish_keeps_the_next_one_out_even_where_it_shows_no_task() -> None:
    row = a_row(VmState.RESIZED, intents=(a_wish("server.confirm_resize"),))
    assert row.task_state == ""
    with pytest.raises(NotAllowedNow, match="confirm_resize"):
        allowed.check(row, "server.revert_resize")


def test_a_server_that_no_cell_holds_can_only_be_deleted() -> None:
    with pytest.raises(NotAllowedNow, match="delete it"):
        allowed.check(a_row(VmState.ERROR, leaf=""), "server.stop")


def test_usage_counts_the_larger_flavor_while_a_resize_is_open() -> None:
    usage = charge(UsageRow(project="p"), None, a_row())
    assert (usage.servers, usage.vcpus, usage.ram_mib) == (1, 1, 512)
    usage = charge(usage, a_row(), a_row(resize_to=LARGE))
    assert (usage.servers, usage.vcpus, usage.ram_mib) == (1, 4, 4096)
    assert held(a_row(resize_to=LARGE)).ram_mib == 4096
    usage = charge(usage, a_row(resize_to=LARGE), None)
    assert (usage.servers, usage.vcpus, usage.ram_mib) == (0, 0, 0)


def test_room_is_bounded_by_the_scarcest_quota_and_minus_one_is_no_bound() -> None:
    quota = QuotaRow(project="p", servers=-1, vcpus=10, ram_mib=-1)
    assert room_for(UsageRow(project="p", vcpus=3), quota, LARGE, 5) == 1
    assert room_for(UsageRow(project="p"), replace(quota, vcpus=-1), LARGE, 5) == 5
    assert room_for(UsageRow(project="p", vcpus=20), quota, LARGE, 5) == 0
