"""What the driver says when the pool refuses, and what is left then; what it leaves alone."""

import threading
from dataclasses import replace

import pytest

from cells.errors import Permanent, Refusal, Temporary
from cells.messages import RefusalCode
from cells.model import PowerState
from tests.support.xen_hosts import LINUX, OTHER_SERVER, SERVER, SMALL, SNAPSHOT, TINY, FaultyDoor, House, KeptJournal
from xenapi_host import driver, tags
from xenapi_host.driver.errors import told
from xenapi_host.session import InProcess, XenFailure
from xenapi_host.simulator.faults import Fault
from xenapi_host.simulator.worlds import HostShape


def test_no_room_for_memory_is_a_refusal_and_the_build_can_be_taken_away() -> None:
    house = House()
    plan = house.plan(flavor=replace(TINY, ram_mib=64 * 1024))
    driver.prepare_build(house.session, plan, KeptJournal())
    with pytest.raises(Refusal) as refused:
        driver.start_build(house.session, SERVER, 1, plan.host)
    assert refused.value.code == RefusalCode.NO_ROOM
    driver.destroy(house.session, SERVER)
    assert (house.servers(), house.orphans()) == ({}, [])


def test_full_storage_is_a_refusal() -> None:
    house = House(shape=HostShape(cpu_objects=False, disk_bytes=1024))
    with pytest.raises(Refusal) as refused:
        driver.prepare_build(house.session, house.plan(), KeptJournal())
    assert refused.value.code == RefusalCode.NO_ROOM
    assert (house.servers(), house.orphans()) == ({}, [])


def test_image_larger_than_the_flavor_is_permanent_and_names_the_remedy() -> None:
    house = House()
    with pytest.raises(Permanent, match="has a disk of 1 GiB") as said:
        plan = replace(house.plan(), root_bytes=2**20)
        driver.prepare_build(house.session, plan, KeptJournal())
    assert "larger flavor" in str(said.value)
    assert house.servers() == {}


def test_smaller_disk_is_refused_before_anything_changes() -> None:
    house = House()
    house.built()
    before = house.picture()
    with pytest.raises(Permanent, match=r"m1\.nano has a smaller disk \(1 GiB\) than the server has \(2 GiB\)"):
        nano = replace(TINY, name="m1.nano", disk_gib=1)
        driver.resize(house.session, house.plan(flavor=nano, serial=3, host=1), KeptJournal())
    assert house.picture() == before


@pytest.mark.parametrize("method", ["VM.create", "VDI.copy", "VBD.create", "VIF.create", "VM.start_on"])
def test_resize_that_fails_for_good_leaves_the_server_as_it_was(method: str) -> None:
    house = House()
    house.built()
    before = house.picture()
    house.pool.engine.faults.add(Fault(method=method, error=("SR_FULL", "1", "0"), times=1))
    with pytest.raises(Refusal):
        driver.resize(house.session, house.plan(flavor=SMALL, serial=3, host=1), KeptJournal())
    house.pool.engine.faults.clear()
    assert house.picture() == before
    assert house.orphans() == []


def test_second_resize_is_refused_while_one_waits() -> None:
    house = House()
    house.built()
    driver.resize(house.session, house.plan(flavor=SMALL, serial=3, host=1), KeptJournal())
    before = house.picture()
    with pytest.raises(Permanent, match="confirm or revert"):
        driver.resize(house.session, house.plan(flavor=TINY, serial=4), KeptJournal())
    assert house.picture() == before


def test_resize_that_is_told_to_stop_leaves_the_rest_to_the_delete() -> None:
    class Stopping(KeptJournal):
        checks = 0

        def check(self) -> None:
            self.checks += 1
            if self.checks == 3:
                raise Refusal(RefusalCode.DELETED, "the server was deleted")

    house = House()
    house.built()
    with pytest.raises(Refusal, match="deleted"):
        driver.resize(house.session, house.plan(flavor=SMALL, serial=3, host=1), Stopping())
    assert all(vm["power_state"] == "Halted" for vm in house.servers().values())
    driver.destroy(house.session, SERVER)
    assert (house.servers(), house.disks()) == ({}, {})


def test_upload_that_fails_for_good_leaves_no_snapshot() -> None:
    house = House()
    house.built()
    before = house.picture()
    text = "Glance refused the upload with status 409"
    house.pool.engine.faults.add(
        Fault(method="host.call_plugin", error=("XENAPI_PLUGIN_FAILURE", "upload", "PermanentError", text))
    )
    with pytest.raises(Permanent, match="409"):
        driver.snapshot(house.session, SERVER, SNAPSHOT, KeptJournal())
    assert house.picture() == before


def test_confirm_is_refused_while_the_new_server_is_not_whole() -> None:
    house = House()
    house.built()
    house.pool.engine.faults.add(Fault(method="VDI.copy", error=("INTERNAL_ERROR", "x")))
    with pytest.raises(Temporary):
        driver.resize(house.session, house.plan(flavor=SMALL, serial=3, host=1), KeptJournal())
    with pytest.raises(Permanent, match="revert"):
        driver.confirm_resize(house.session, SERVER)
    driver.revert_resize(house.session, SERVER)
    found = driver.find(house.session, SERVER)
    assert found is not None
    assert found.power_state is PowerState.RUNNING


def test_operations_on_a_server_that_is_gone_say_so() -> None:
    house = House()
    for work in (
        lambda: driver.start(house.session, SERVER),
        lambda: driver.stop(house.session, SERVER),
        lambda: driver.reboot(house.session, SERVER, KeptJournal()),
        lambda: driver.snapshot(house.session, SERVER, SNAPSHOT, KeptJournal()),
        lambda: driver.start_build(house.session, SERVER, 1, house.facts().master),
    ):
        with pytest.raises(Permanent, match="not on its host any more"):
            work()


def test_delete_touches_nothing_of_others() -> None:
    house = House()
    house.built()
    house.built(house.plan(server=OTHER_SERVER))
    driver.destroy(house.session, SERVER)
    assert house.vms_of(SERVER) == []
    assert len(house.vms_of(OTHER_SERVER)) == 1
    assert len(house.disks()) == 1


def test_delete_leaves_a_volume_and_an_administrators_copy_alone() -> None:
    house = House()
    house.built()
    session = house.session
    vm = session.call("VM.get_by_name_label", tags.vm_name(SERVER))[0]
    driver.stop(session, SERVER)
    session.call("VM.clone", vm, "kept by the administrator")
    storage = session.handle("SR", house.facts().hosts[0].storage)
    volume = {"name_label": "volume", "SR": storage, "virtual_size": "1048576", "type": "user", "other_config": {}}
    ref = session.call("VDI.create", {**volume, "sharable": False, "read_only": False})
    session.call(
        "VBD.create",
        {
            "VM": vm,
            "VDI": ref,
            "userdevice": "2",
            "bootable": False,
            "mode": "RW",
            "type": "Disk",
            "empty": False,
            "other_config": {},
            "qos_algorithm_type": "",
            "qos_algorithm_params": {},
        },
    )
    driver.destroy(session, SERVER)
    assert [name for name in house.vms_of(SERVER)] == ["kept by the administrator"]
    assert session.call("VDI.get_name_label", ref) == "volume"
    copy = session.call("VM.get_by_name_label", "kept by the administrator")[0]
    assert session.call("VM.get_VBDs", copy) != []
    assert driver.power_states(session) == {}


def test_delete_works_though_the_storage_was_taken_away() -> None:
    house = House()
    plan = house.plan()
    house.session.call("VM.create", dict(plan.vm))
    storage = house.session.handle("SR", plan.storage)
    for pbd in house.session.call("SR.get_PBDs", storage):
        house.session.call("PBD.unplug", pbd)
    house.session.call("SR.forget", storage)
    driver.destroy(house.connect(), SERVER)
    assert house.vms_of(SERVER) == []


def test_one_attempt_is_discarded_and_the_other_stays() -> None:
    house = House()
    for attempt in (1, 2):
        driver.prepare_build(house.session, house.plan(attempt=attempt), KeptJournal())
    driver.destroy(house.session, SERVER, attempt=1)
    found = driver.find(house.session, SERVER)
    assert found is not None
    assert found.attempt == 2
    assert len(house.disks()) == 1
    assert house.orphans() == []


def test_journal_that_says_stop_stops_the_build_before_the_next_step() -> None:
    class Stopping(KeptJournal):
        def check(self) -> None:
            raise Refusal("deleted", "the server was deleted")

    house, door = House(), FaultyDoor(door=InProcess(face=House().pool.login()))
    plan = house.plan()
    with pytest.raises(Refusal, match="deleted"):
        driver.prepare_build(house.connect(door), plan, Stopping())
    assert door.seen == []


def test_many_builds_at_once_share_one_download_and_lose_no_disk() -> None:
    house = House(shape=HostShape(cpu_objects=False, ram_mib=64 * 1024))
    servers = [bytes([number]) * 16 for number in range(24)]
    plans = [house.plan(server=server) for server in servers]
    daemons = [house.connect(), house.connect(), house.connect()]
    failed: list[BaseException] = []

    def build(number: int) -> None:
        session = daemons[number % len(daemons)]
        try:
            driver.prepare_build(session, plans[number], KeptJournal())
            driver.start_build(session, servers[number], 1, plans[number].host)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=build, args=(number,)) for number in range(len(servers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(driver.power_states(house.session)) == servers
    assert len(house.disks()) == len(servers)
    assert house.orphans() == []


def test_build_whose_clone_was_adopted_makes_another() -> None:
    house, other = House(), KeptJournal()
    house.built(house.plan(server=OTHER_SERVER))
    door = FaultyDoor(door=InProcess(face=house.pool.login()))
    plan = house.plan()

    class Thief(FaultyDoor):
        """Claims the clone in the instant after it was made."""

        def call(self, method: str, params: tuple[object, ...]) -> object:
            answer = self.door.call(method, params)
            if method == "VDI.clone" and "VDI.clone" not in self.seen:
                house.session.call("VDI.add_to_other_config", answer, tags.CLAIM, "somebody else")
            self.seen.append(method)
            return answer

    thief = Thief(door=door.door)
    driver.prepare_build(house.connect(thief), plan, other)
    assert thief.seen.count("VDI.clone") == 2
    mine = [vdi for vdi in house.disks().values() if vdi["other_config"].get(tags.CLAIM) == plan.root_claim]
    assert len(mine) == 1


def test_cached_image_that_was_cleared_away_is_fetched_again() -> None:
    house = House()
    house.built()
    cached = tags.image_uuids(house.facts().hosts[0].storage, LINUX.id, 1)[0]
    house.session.call("VDI.destroy", house.session.call("VDI.get_by_uuid", cached))
    house.built(house.plan(server=OTHER_SERVER))
    assert len(house.disks()) == 2


def test_build_from_a_cached_image_takes_few_calls() -> None:
    house = House()
    house.built()
    door = FaultyDoor(door=InProcess(face=house.pool.login()))
    session = house.connect(door)
    session.known.update(house.session.known)
    plan = house.plan(server=OTHER_SERVER)
    driver.prepare_build(session, plan, KeptJournal())
    driver.start_build(session, OTHER_SERVER, 1, plan.host)
    assert len(door.seen) <= 15


def test_duplicate_vm_of_a_lost_answer_is_removed() -> None:
    house = House()
    plan = house.plan()
    house.session.call("VM.create", dict(plan.vm))
    house.session.call("VM.create", dict(plan.vm))
    driver.prepare_build(house.session, plan, KeptJournal())
    assert len(house.vms_of(SERVER)) == 1
    assert house.orphans() == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("SR_BACKEND_FAILURE_40", Temporary),
        ("OTHER_OPERATION_IN_PROGRESS", Temporary),
        ("HOST_OFFLINE", Temporary),
        ("HOST_NOT_ENOUGH_FREE_MEMORY", Refusal),
        ("SR_FULL", Refusal),
        ("VM_BAD_POWER_STATE", Permanent),
        ("SOMETHING_NEW", Permanent),
    ],
)
def test_codes_of_the_pool_become_what_to_do_next(code: str, kind: type[Exception]) -> None:
    said = told("build the server", XenFailure(code, "OpaqueRef:secret", "/var/run/sr-mount/x"))
    assert type(said) is kind
    assert str(said).startswith("could not build the server: ")
    assert "OpaqueRef" not in str(said)
    assert "/var" not in str(said)
