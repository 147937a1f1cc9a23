"""Each check sees what it is there for: one small world that is right, and one thing wrong in it at a time."""

from dataclasses import replace
from typing import Any

import pytest

from cells.audit import (
    Audit,
    CapacityFact,
    DiskFact,
    ImageFact,
    PlaceFact,
    PoolFacts,
    ServerFact,
    Standing,
    UsageFact,
    VmFact,
)
from cells.model import Flavor, InstanceState, PowerState, VmState
from cells.simulation.invariants import Memory, Rest, a_disk_remains, at_every_step, at_rest

SERVER = bytes(15) + b"\x01"
OTHER = bytes(15) + b"\x02"
STATE = InstanceState(
    vm_state=VmState.ACTIVE,
    power_state=PowerState.RUNNING,
    flavor=Flavor(id="1", name="m1.tiny", vcpus=1, ram_mib=512, disk_gib=1),
    launched_at=1,
)
FACT = ServerFact(
    server=SERVER,
    owner="api",
    leaf="leaf",
    name="vm",
    project="p",
    attempt=1,
    standing=Standing.HELD,
    phase="granted",
    status="ACTIVE",
    version=3,
    state=STATE,
    number=1,
)
CAPACITY = CapacityFact(leaf="leaf", hosts=1, free=(512, 3, 9), servers=1)
PLACE = PlaceFact(name="host", total=(1024, 4, 10), free=(512, 3, 9), claimed=(512, 1, 1))
USAGE = UsageFact(project="p", kept=(1, 1, 512), counted=(1, 1, 512))
API = Audit(cell="api", owned=(FACT,), capacity=(CAPACITY,), usage=(USAGE,))
LEAF = Audit(cell="leaf", held=(replace(FACT, status="active"),), places=(PLACE,), capacity=(CAPACITY,))
VM = VmFact(server=SERVER, attempt=1, uuid="vm-1", kept=False, power="Running", ram_mib=512, disks=(2**30,))
POOL = PoolFacts(vms=(VM,), loose=())


def rest(
    api: Audit = API,
    leaf: Audit = LEAF,
    pool: PoolFacts = POOL,
    parked: dict[str, tuple[str, ...]] | None = None,
    deleted: frozenset[bytes] = frozenset(),
    image: str = "active",
    restored: str = "",
) -> str:
    memory = Memory(accepted={SERVER: "api"}, deleted=set(deleted), restored={restored})
    found = Rest(
        audits={"api": api, "leaf": leaf},
        pools={"leaf": pool},
        memory=memory,
        reaches={"api": frozenset({"leaf"})},
        parked=parked or {},
        images={"api": (ImageFact(image="image-1", server=SERVER, status=image),)},
    )
    breach = at_rest(found)
    return breach.name if breach is not None else ""


def owned(**changes: Any) -> Audit:
    return replace(API, owned=(replace(FACT, **changes),))


def held(**changes: Any) -> Audit:
    return replace(LEAF, held=(replace(LEAF.held[0], **changes),))


def vms(*found: VmFact) -> PoolFacts:
    return PoolFacts(vms=found, loose=())


def test_a_world_that_is_right_passes() -> None:
    assert rest() == ""
    assert rest(image="error") == ""


def test_image_may_wait_where_the_wish_may_have_been_lost_with_its_database() -> None:
    assert rest(image="queued", restored="api") == ""
    assert rest(image="queued", restored="leaf") == "an image is whole or given up"


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"api": replace(API, owned=())}, "nothing asked is forgotten"),
        ({"api": replace(API, owned=(), gone=frozenset({SERVER}))}, "nothing goes unasked"),
        (
            {"api": replace(API, owned=(), gone=frozenset({SERVER})), "deleted": frozenset({SERVER})},
            "delete leaves nothing",
        ),
        ({"deleted": frozenset({SERVER})}, "deletes end"),
        ({"api": owned(standing=Standing.FAILED), "pool": vms()}, "failures say why"),
        ({"api": owned(standing=Standing.FAILED, fault="no room")}, "a failed build leaves nothing"),
        ({"pool": vms()}, "one VM for each server"),
        ({"pool": vms(VM, replace(VM, uuid="vm-2", power="Halted"))}, "one VM for each server"),
        ({"leaf": replace(LEAF, held=())}, "no VM without a row"),
        ({"leaf": held(standing=Standing.GONE)}, "no VM without a row"),
        ({"pool": vms(VM, replace(VM, server=OTHER))}, "no VM without a row"),
        ({"pool": replace(POOL, loose=(DiskFact(name="disk", server=None),))}, "no disk is left over"),
        ({"leaf": replace(LEAF, held=(*LEAF.held, replace(FACT, server=OTHER)))}, "no server without an owner"),
        ({"pool": vms(VM, replace(VM, kept=True))}, "as many VMs as the leaf says"),
        ({"pool": vms(replace(VM, power="Halted"))}, "power is as the leaf says"),
        ({"pool": vms(replace(VM, ram_mib=1024))}, "a server is as large as its flavor"),
        ({"pool": vms(replace(VM, disks=(2**30, 2**30)))}, "one disk, as large as its flavor"),
        ({"api": owned(leaf="")}, "every view has its truth"),
        ({"api": owned(version=2)}, "views equal the truth"),
        ({"api": owned(state=replace(STATE, host="elsewhere"))}, "views equal the truth"),
        ({"api": replace(API, capacity=(CAPACITY, CAPACITY))}, "capacity is counted once and exact"),
        ({"api": replace(API, capacity=())}, "capacity is counted once and exact"),
        ({"api": replace(API, usage=(replace(USAGE, kept=(2, 1, 512)),))}, "quota usage is what there is"),
        ({"parked": {"leaf": ("why",)}}, "nothing sound is parked"),
        ({"image": "queued"}, "an image is whole or given up"),
        ({"image": "saving"}, "an image is whole or given up"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_one_wrong_thing_is_seen(wrong: dict[str, Any], name: str) -> None:
    assert rest(**wrong) == name


def step(audit: Audit, memory: Memory, **others: Audit) -> str:
    breach = at_every_step(audit, {"leaf": LEAF, **others}, memory)
    return breach.name if breach is not None else ""


def test_steps_that_are_right_pass() -> None:
    memory = Memory(accepted={SERVER: "api"}, started={"leaf": ((SERVER, "vm-1"),)})
    assert step(LEAF, memory) == step(API, memory) == ""


def test_two_started_vms_are_seen_wherever_they_are() -> None:
    memory = Memory(started={"leaf": ((SERVER, "vm-1"),), "leaf-2": ((SERVER, "vm-2"),)})
    assert step(LEAF, memory) == "at most one VM of a server is started"


@pytest.mark.parametrize("free", [(513, 3, 9), (512, 2, 9), (512, 3, 10)])
def test_room_that_does_not_add_up_is_seen(free: tuple[int, int, int]) -> None:
    assert (
        step(replace(LEAF, places=(replace(PLACE, free=free),)), Memory()) == "free = total - claimed, never negative"
    )


def test_room_below_zero_is_seen() -> None:
    place = replace(PLACE, free=(-1, 3, 9), claimed=(1025, 1, 1))
    assert step(replace(LEAF, places=(place,)), Memory()) == "free = total - claimed, never negative"


def test_version_that_goes_back_is_seen() -> None:
    memory = Memory()
    assert step(API, memory) == ""
    assert step(owned(version=2), memory) == "versions only grow"


def test_view_ahead_of_its_leaf_is_seen() -> None:
    assert step(owned(version=4), Memory()) == "no view is ahead of the truth"


def test_command_that_is_over_and_waits_again_is_seen() -> None:
    assert step(held(number=3, open=(4,)), Memory()) == ""
    assert step(held(number=3, open=(3,)), Memory()) == "a command that is over does not begin again"


def test_what_was_asked_since_a_backup_may_be_lost_with_the_database_but_nothing_else() -> None:
    memory = Memory(accepted={SERVER: "api"})
    backup = memory.of("api")
    memory.accepted[OTHER] = "api"
    memory.deleted.add(SERVER)
    memory.put_back("api", backup)
    assert (memory.unsure, memory.deleted) == ({SERVER, OTHER}, set())
    memory = Memory(accepted={SERVER: "api"})
    memory.put_back("api", memory.of("api"))
    assert not memory.unsure


def test_what_is_gone_must_stay_gone() -> None:
    memory = Memory(accepted={SERVER: "api"})
    assert step(replace(API, owned=(), gone=frozenset({SERVER})), memory) == ""
    assert step(API, memory) == "delete wins"


def test_vm_that_runs_after_the_end_is_seen() -> None:
    memory = Memory(ended={SERVER}, started={"leaf": ((SERVER, "vm-1"),)})
    assert step(LEAF, memory) == "delete wins"


# --- disks ---


def remembered(leaf: Audit = LEAF, memory: Memory | None = None, *disks: str) -> Memory:
    memory = memory or Memory()
    memory.whole_are(leaf, lambda server: frozenset(disks))
    return memory


def lost(memory: Memory, *left: str, running: frozenset[bytes] = frozenset(), leaf: str = "leaf") -> bool:
    breach = a_disk_remains(leaf, frozenset(left), running, memory)
    assert breach is None or breach.name == "one complete disk at least"
    return breach is not None


def test_last_complete_disk_that_goes_is_seen() -> None:
    memory = remembered(LEAF, None, "old")
    assert not lost(memory, "old", "new")
    assert lost(memory, "new")
    assert lost(memory)
    assert not lost(memory, "new", leaf="other")


def test_disk_that_a_server_runs_on_is_complete() -> None:
    assert not lost(remembered(LEAF, None, "old"), "new", running=frozenset({SERVER}))


def test_what_a_leaf_is_at_work_on_does_not_count_as_complete_before_it_says_so() -> None:
    memory = remembered(LEAF, None, "old")
    remembered(held(standing=Standing.PENDING, version=4), memory, "old", "half")
    assert lost(memory, "half")
    remembered(held(version=5), memory, "old", "whole")
    assert not lost(memory, "whole")


def test_disks_may_go_of_what_is_deleted_or_unsure_or_was_on_a_host_that_is_gone() -> None:
    assert not lost(remembered(LEAF, Memory(deleted={SERVER}), "old"))
    assert not lost(remembered(LEAF, Memory(unsure={SERVER}), "old"))
    memory = remembered(LEAF, None, "old")
    remembered(held(standing=Standing.GONE), memory)
    assert not lost(memory)
    memory = remembered(LEAF, None, "old")
    memory.disks_are_lost("other")
    assert lost(memory)
    memory.disks_are_lost("leaf")
    assert not lost(memory)
