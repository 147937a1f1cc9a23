"""VMs and disks on the move: between pools that are processes of their own, and between repositories of one pool."""

import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import XenAPI

from cells.model import PowerState
from cells.names import id_text
from tests.support.xen_hosts import SERVER, KeptJournal
from tests.xenserver.simulated import MIB, a_disk, a_pool, a_vbd, a_vif, a_vm, failure_of
from tests.xenserver.test_simulator_disks import a_house
from xenapi_host import driver, tags, vhd
from xenapi_host.session import Access, connect
from xenapi_host.simulator.faults import Fault

GUEST = 256 * MIB


class Pool:
    """A simulator in a process of its own, with a session on it."""

    def __init__(self, folder, url):
        self.folder, self.url = folder, url
        self.session = XenAPI.Session(url, ignore_ssl=True)
        self.session.login_with_password("root", "xen", "2.21", "test")
        self.api = self.session.xenapi
        self.host = self.api.host.get_all()[0]
        self.sr = self.api.pool.get_default_SR(self.api.pool.get_all()[0])
        self.network = self.api.network.get_all()[0]

    def path(self, vdi):
        return self.folder / "sr" / self.api.SR.get_uuid(self.api.VDI.get_SR(vdi)) / f"{self.api.VDI.get_uuid(vdi)}.vhd"

    def receive(self):
        return self.api.host.migrate_receive(self.host, self.network, {})

    def guests(self):
        return [ref for ref, vm in self.api.VM.get_all_records().items() if not _fixture(vm)]

    def disks(self):
        return self.api.VDI.get_all()


def _fixture(vm):
    return vm["is_control_domain"] or vm["is_a_template"]


@contextmanager
def _pool(folder, *options):
    command = [sys.executable, "-m", "xenapi_host.simulator", "--hosts", "1", "--port", "0", "--data", str(folder)]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    try:
        pool = Pool(folder, process.stdout.readline().strip())
        yield pool
        pool.session("close")()
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    """Two pools, the second on HTTPS and small."""
    folder = tmp_path_factory.mktemp("pools")
    with _pool(folder / "here") as here, _pool(folder / "there", "--https", "--ram-mib", "2048") as there:
        yield here, there


class Guest:
    """A running VM with a disk on a chain, an empty CD drive and a network card."""

    def __init__(self, pool, **fields):
        self.pool, api = pool, pool.api
        sized = {key: str(GUEST) for key in ("memory_static_max", "memory_dynamic_max", "memory_dynamic_min")}
        self.ref = api.VM.create(a_vm(**{"name_label": "moving", **sized, **fields}))
        self.uuid = api.VM.get_uuid(self.ref)
        self.disk = api.VDI.create(a_disk(pool.sr, other_config={"kept": "yes"}))
        self._write(0, b"low")
        snapshot = api.VDI.snapshot(self.disk)
        self._write(9 * MIB, b"high")
        api.VDI.destroy(snapshot)
        api.VBD.create(a_vbd(self.ref, self.disk))
        api.VBD.create(a_vbd(self.ref, "OpaqueRef:NULL", type="CD", mode="RO", empty=True, userdevice="3"))
        self.card = api.VIF.create(a_vif(self.ref, pool.network, MAC="02:11:22:33:44:55"))
        api.VM.start(self.ref, False, False)

    def _write(self, offset, data):
        with vhd.Disk.open(self.pool.path(self.disk), writable=True) as disk:
            disk.pwrite(offset, data)

    def maps(self, target):
        return {self.disk: target.sr}, {self.card: target.network}

    def gone(self):
        self.pool.api.VM.hard_shutdown(self.ref)
        self.pool.api.VDI.destroy(self.disk)
        self.pool.api.VM.destroy(self.ref)


@pytest.fixture
def guest(pools):
    made = Guest(pools[0])
    yield made
    if made.ref in pools[0].guests():
        made.gone()


def _swept(pool):
    for ref in pool.guests():
        if pool.api.VM.get_power_state(ref) != "Halted":
            pool.api.VM.hard_shutdown(ref)
        pool.api.VM.destroy(ref)
    for ref in pool.disks():
        if pool.api.VDI.get_managed(ref):
            pool.api.VDI.destroy(ref)


def _ended(pool, task):
    """How a task ends, waited for by events."""
    token, deadline = "", time.monotonic() + 60
    while (status := pool.api.task.get_status(task)) == "pending" and time.monotonic() < deadline:
        token = getattr(pool.api.event, "from")([f"task/{task}"], token, 5.0)["token"]
    return status


@pytest.mark.parametrize("state", ["Running", "Suspended", "Halted"])
def test_a_vm_goes_to_a_pool_in_another_process_with_its_disks_cards_and_state(pools, guest, state):
    here, there = pools
    if state == "Suspended":
        here.api.VM.suspend(guest.ref)
    elif state == "Halted":
        here.api.VM.hard_shutdown(guest.ref)
    dest, maps = there.receive(), guest.maps(there)
    here.api.VM.assert_can_migrate(guest.ref, dest, True, *maps, {})
    new = here.api.VM.migrate_send(guest.ref, dest, True, *maps, {})
    vm = there.api.VM.get_record(new)
    assert (vm["uuid"], vm["name_label"], vm["power_state"]) == (guest.uuid, "moving", state)
    (card,) = vm["VIFs"]
    assert there.api.VIF.get_MAC(card) == "02:11:22:33:44:55"
    assert there.api.VIF.get_network(card) == there.network
    drives = {vbd["userdevice"]: vbd for vbd in map(there.api.VBD.get_record, vm["VBDs"])}
    assert drives["3"]["empty"]
    disk = drives["0"]["VDI"]
    assert there.api.VDI.get_other_config(disk) == {"kept": "yes"}
    with vhd.Disk.open(there.path(disk)) as opened:
        assert (opened.pread(0, 3), opened.pread(9 * MIB, 4)) == (b"low", b"high")
    assert (here.guests(), [ref for ref in here.disks() if here.api.VDI.get_managed(ref)]) == ([], [])
    if state == "Suspended":
        there.api.VM.resume(new, False, False)
    _swept(there)


def test_what_the_other_pool_cannot_take_is_refused_and_nothing_is_left_there(pools, guest):
    here, there = pools
    dest, (vdi_map, vif_map) = there.receive(), guest.maps(there)
    nowhere = "OpaqueRef:deaddead-0000-4000-8000-000000000001"

    def refused(dest=dest, vdi_map=vdi_map, vif_map=vif_map):
        asked = failure_of(here.api.VM.assert_can_migrate, guest.ref, dest, True, vdi_map, vif_map, {})
        assert failure_of(here.api.VM.migrate_send, guest.ref, dest, True, vdi_map, vif_map, {}) == asked
        return asked

    assert refused(vdi_map={}) == ["VDI_NOT_IN_MAP", guest.disk]
    assert refused(vif_map={}) == ["VIF_NOT_IN_MAP", guest.card]
    assert refused(vdi_map={guest.disk: nowhere}) == ["HANDLE_INVALID", "SR", nowhere]
    assert refused(vif_map={guest.card: nowhere}) == ["HANDLE_INVALID", "network", nowhere]
    assert refused(dest={**dest, "host": nowhere}) == ["HANDLE_INVALID", "host", nowhere]
    assert refused(dest={**dest, "session_id": nowhere})[0] == "CANNOT_CONTACT_HOST"
    assert refused(dest={**dest, "master": "http://127.0.0.1:9/"})[0] == "CANNOT_CONTACT_HOST"
    there.api.host.disable(there.host)
    assert refused() == ["HOST_DISABLED", there.host]
    there.api.host.enable(there.host)
    filler = there.api.VM.create(a_vm(name_label="filler", **dict.fromkeys(_MEMORY, str(900 * MIB))))
    there.api.VM.start(filler, False, False)
    assert refused()[0] == "HOST_NOT_ENOUGH_FREE_MEMORY"
    _swept(there)
    here.api.VDI.enable_cbt(guest.disk)
    assert refused() == ["VDI_CBT_ENABLED", guest.disk]
    here.api.VDI.disable_cbt(guest.disk)
    assert (there.guests(), there.disks()) == ([], [])
    assert here.api.VM.get_power_state(guest.ref) == "Running"


_MEMORY = ("memory_static_max", "memory_dynamic_max", "memory_dynamic_min")


def test_a_vm_that_the_other_pool_refuses_in_the_end_goes_on_here_and_its_copies_are_taken_away(pools, guest):
    here, there = pools
    seed = here.api.VM.get_other_config(guest.ref)["mac_seed"]
    twin = there.api.VM.create(a_vm(name_label="twin", other_config={"mac_seed": seed}))
    error = failure_of(here.api.VM.migrate_send, guest.ref, there.receive(), True, *guest.maps(there), {})
    assert error == ["DUPLICATE_MAC_SEED", seed]
    assert (there.guests(), there.disks()) == ([twin], [])
    assert here.api.VM.get_power_state(guest.ref) == "Running"
    assert guest.disk in here.disks()
    _swept(there)


def test_two_pools_send_each_other_vms_at_the_same_time(pools):
    guests = [Guest(pool, name_label="crossing") for pool in pools for _ in range(2)]
    moves = []
    for guest in guests:
        here, there = guest.pool, next(pool for pool in pools if pool is not guest.pool)
        dest = there.receive()
        moves.append((here, here.api.Async.VM.migrate_send(guest.ref, dest, True, *guest.maps(there), {})))
    for pool, task in moves:
        assert _ended(pool, task) == "success", pool.api.task.get_error_info(task)
    for pool in pools:
        assert len(pool.guests()) == 2
        _swept(pool)


@pytest.mark.parametrize(
    ("nth", "times", "here_left", "there_left"),
    [
        (1, 0, ["Running"], []),  # never heard of over there: it goes on here
        (1, 1, ["Running"], []),
        (2, 1, [], ["Running"]),  # asked again
        (2, 0, [], ["Halted"]),  # let go here, and never started over there: in one place all the same
    ],
)
def test_a_vm_is_in_one_place_and_runs_at_most_once_whenever_the_connection_breaks(
    tmp_path, nth, times, here_left, there_left
):
    with a_pool(tmp_path / "here") as here, a_pool(tmp_path / "there") as there:
        source, target = Pool(here.data, here.url), Pool(there.data, there.url)
        guest = Guest(source)
        maps = guest.maps(target)
        there.engine.faults.add(Fault(method="PUT /services/xenops", drop=True, nth=nth, times=times))
        if there_left == ["Running"]:
            source.api.VM.migrate_send(guest.ref, target.receive(), True, *maps, {})
        else:
            error = failure_of(source.api.VM.migrate_send, guest.ref, target.receive(), True, *maps, {})
            assert error[0] == "CANNOT_CONTACT_HOST"
        here.settle()
        for pool, left in ((source, here_left), (target, there_left)):
            assert [pool.api.VM.get_power_state(ref) for ref in pool.guests()] == left
            assert len(pool.disks()) == len(left)
            pool.session("close")()


def test_the_driver_moves_a_server_between_processes(pools):
    here, there = pools
    claim = tags.claim(SERVER, 1, 0)
    kept = {tags.SERVER: id_text(SERVER), tags.ATTEMPT: "1", tags.SERIAL: "0"}
    made = Guest(here, name_label=tags.vm_name(SERVER), other_config=kept)
    here.api.VDI.add_to_other_config(made.disk, tags.CLAIM, claim)
    source = connect(Access(url=here.url, user="root", password="xen"))
    certificate = str(there.folder / "certificate.pem")
    target = connect(Access(url=there.url, user="root", password="xen", ca_file=certificate))
    try:
        to = driver.measure(target).hosts[0]
        facts = driver.migrate_to_pool(source, target, SERVER, to, KeptJournal())
        assert facts.power_state is PowerState.RUNNING
        assert driver.find(source, SERVER) is None
        found = driver.find(target, SERVER)
        assert (found.host, found.power_state) == (to.uuid, "Running")
        (disk,) = there.disks()
        assert there.api.VDI.get_other_config(disk)[tags.CLAIM] == claim
        driver.destroy(target, SERVER)
        assert (there.disks(), there.guests()) == ([], [])
    finally:
        source.close()
        target.close()


def test_a_pool_that_is_reached_by_another_name_says_so(tmp_path):
    with _pool(tmp_path, "--listen", "127.0.0.1", "--reached", "https://pool-2.example") as pool:
        dest = pool.receive()
        assert dest["master"] == "https://pool-2.example/"
        assert dest["xenops"].startswith("https://pool-2.example/services/xenops?session_id=OpaqueRef:")


def test_a_running_vms_disk_moves_to_another_repository_of_its_pool(tmp_path):
    with a_house(tmp_path) as house:
        api = house.api
        (host,) = api.host.get_all()
        other = api.SR.create(host, {}, str(10 * 2**30), "second", "", "ext", "user", False, {})
        disk = api.VDI.create(a_disk(house.sr))
        house.write(disk, 5 * MIB, b"data")
        assert failure_of(api.VDI.pool_migrate, disk, other, {}) == ["VDI_NEEDS_VM_FOR_MIGRATE", disk]
        vm = api.VM.create(a_vm())
        api.VBD.create(a_vbd(vm, disk))
        api.VM.start(vm, False, False)
        assert api.VDI.pool_migrate(disk, house.sr, {}) == disk
        moved = api.VDI.pool_migrate(disk, other, {})
        assert failure_of(api.VDI.get_record, disk)[0] == "HANDLE_INVALID"
        assert api.VDI.get_SR(moved) == other
        (vbd,) = api.VM.get_VBDs(vm)
        assert (api.VBD.get_VDI(vbd), api.VBD.get_currently_attached(vbd)) == (moved, True)
        with vhd.Disk.open(house.pool.storage.path(api.SR.get_uuid(other), api.VDI.get_uuid(moved))) as opened:
            assert opened.pread(5 * MIB, 4) == b"data"
        assert house.names() == set()
        api.VDI.enable_cbt(moved)
        assert failure_of(api.VDI.pool_migrate, moved, house.sr, {}) == ["VDI_CBT_ENABLED", moved]
