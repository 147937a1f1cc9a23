"""The driver against the simulator over HTTP, with the SDK, real VHD files and the real plugin as child processes."""

import threading
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cells.errors import Temporary
from cells.model import Flavor, ImageRef, PowerState
from tests.support.xen_hosts import SERVER, SMALL, KeptJournal, Killed, a_spec
from tests.xenserver.glance_twin import Glance
from tests.xenserver.simulated import TINY, a_disk, a_pool, connected
from xenapi_host import driver, tags, vhd
from xenapi_host.image_maker import read_file
from xenapi_host.plan import BuildPlan, plan_build
from xenapi_host.session import Access, Session, connect
from xenapi_host.simulator.full import FullPool

MIB = 2**20


def _plan(session: Session, image: ImageRef, *, host: int = 0, flavor: Flavor = TINY, serial: int = 0) -> BuildPlan:
    facts = driver.measure(session)
    spec = a_spec(flavor=flavor, image=image)
    return plan_build(spec, server=SERVER, attempt=1, host=facts.hosts[host], serial=serial)


def _built(session: Session, image: ImageRef) -> BuildPlan:
    plan = _plan(session, image)
    driver.prepare_build(session, plan, KeptJournal(), headers={"X-Auth-Token": "t"})
    driver.start_build(session, SERVER, 1, plan.host)
    return plan


def _snapshot(session: Session, glance: Glance, tmp_path: Path, name: str) -> Path:
    """Take a snapshot; the uploaded image's root disk."""
    driver.snapshot(session, SERVER, ImageRef(id=name, url=glance.url), KeptJournal(), headers={"X-Auth-Token": "t"})
    folder = tmp_path / name
    folder.mkdir()
    archive = folder / "image.tar.gz"
    archive.write_bytes(glance.taken[name])
    return archive


def test_server_lives_from_a_real_image_to_nothing(
    pool: FullPool, session: Session, glance: Glance, image: ImageRef, tmp_path: Path
) -> None:
    _built(session, image)
    assert driver.power_states(session)[SERVER].power_state is PowerState.RUNNING

    archive = _snapshot(session, glance, tmp_path, "snap")
    assert read_file(archive, "/motd") == b"made for a test\n"

    resized = driver.resize(session, _plan(session, image, host=1, flavor=SMALL, serial=5), KeptJournal())
    assert resized.power_state is PowerState.RUNNING
    vm = session.call("VM.get_record", session.call("VM.get_by_uuid", resized.vm_uuid))
    assert vm["memory_static_max"] == str(SMALL.ram_mib * MIB)
    driver.confirm_resize(session, SERVER)
    archive = _snapshot(session, glance, tmp_path, "after-resize")
    assert read_file(archive, "/motd") == b"made for a test\n"

    driver.destroy(session, SERVER)
    driver.destroy(session, SERVER)
    assert driver.find(session, SERVER) is None
    assert session.call("VDI.get_by_name_label", f"{tags.vm_name(SERVER)} root") == []
    kept = [vdi["name_label"] for vdi in session.call("VDI.get_all_records").values() if vdi["managed"]]
    assert kept == [tags.image_name("demo")]
    assert list((pool.data / "sr").rglob(".celltree-staging-*")) == []


def test_reverted_resize_leaves_the_first_disk_untouched(
    pool: FullPool, session: Session, glance: Glance, image: ImageRef, tmp_path: Path
) -> None:
    _built(session, image)
    before = driver.find(session, SERVER)
    driver.resize(session, _plan(session, image, host=0, flavor=SMALL, serial=5), KeptJournal())
    driver.revert_resize(session, SERVER)
    after = driver.find(session, SERVER)
    assert before is not None
    assert after is not None
    assert (after.vm_uuid, after.power_state) == (before.vm_uuid, PowerState.RUNNING)
    assert read_file(_snapshot(session, glance, tmp_path, "snap"), "/motd") == b"made for a test\n"


def test_root_disk_is_grown_to_the_flavor_and_the_image_is_fetched_once(
    pool: FullPool, session: Session, glance: Glance, image: ImageRef
) -> None:
    plan = _built(session, image)
    root = session.call("VDI.get_record", session.call("VDI.get_by_name_label", f"{plan.name} root")[0])
    assert root["virtual_size"] == str(2**30)
    assert vhd.info(next((pool.data / "sr").rglob(f"{root['uuid']}.vhd"))).virtual_size == 2**30
    again = plan_build(
        a_spec(flavor=TINY, image=image), server=uuid.uuid4().bytes, attempt=1, host=driver.measure(session).hosts[0]
    )
    driver.prepare_build(session, again, KeptJournal())
    assert [request[0] for request in glance.requests] == ["GET"]


def test_stop_start_and_reboot_change_the_domain(session: Session, image: ImageRef) -> None:
    plan = _built(session, image)
    first = driver.find(session, SERVER)
    driver.stop(session, SERVER, clean_seconds=10)
    off = driver.find(session, SERVER)
    assert off is not None
    assert off.power_state is PowerState.HALTED
    driver.start(session, SERVER, host=plan.host)
    on = driver.reboot(session, SERVER, KeptJournal(), hard=True)
    assert first is not None
    assert on.domid > first.domid


def test_slaves_address_leads_to_the_master(pool: FullPool) -> None:
    session = connect(Access(url=pool.server.urls[1], user="root", password="xen"))
    facts = driver.measure(session)
    assert len(facts.hosts) == 2
    session.close()


POINTS = [
    ("Async.host.call_plugin", True),
    ("VDI.introduce", False),
    ("VDI.introduce", True),
    ("VM.create", True),
    ("VDI.clone", True),
    ("VBD.create", True),
    ("Async.VM.start_on", True),
    ("VDI.snapshot", True),
    ("SR.scan", False),
    ("VDI.create", True),
    ("Async.VDI.copy", True),
    ("VM.destroy", False),
]


@pytest.mark.parametrize(("method", "after"), POINTS, ids=[f"{m}{'+' if a else '-'}" for m, a in POINTS])
def test_server_whose_daemon_died_on_the_way_loses_nothing(
    pool: FullPool, session: Session, glance: Glance, image: ImageRef, tmp_path: Path, method: str, after: bool
) -> None:
    inner = connected(pool)
    dying = Session(DyingAt(door=inner, method=method, after=after))
    here, there = _plan(session, image), _plan(session, image, host=1, flavor=SMALL, serial=5)
    queued = ImageRef(id="snap", url=glance.url)
    works: list[Callable[[Session, KeptJournal], object]] = [
        lambda at, journal: driver.prepare_build(at, here, journal),
        lambda at, journal: driver.start_build(at, SERVER, 1, here.host),
        lambda at, journal: driver.snapshot(at, SERVER, queued, journal),
        lambda at, journal: driver.resize(at, there, journal),
        lambda at, journal: driver.confirm_resize(at, SERVER),
    ]
    deaths = 0
    for work in works:
        journal = KeptJournal()
        try:
            work(dying, journal)
        except Killed:
            deaths += 1
            _until_done(partial(work, session, journal))
    assert deaths == 1
    inner.close()
    (tmp_path / "snap.tar.gz").write_bytes(glance.taken["snap"])
    assert read_file(tmp_path / "snap.tar.gz", "/motd") == b"made for a test\n"
    assert driver.power_states(session)[SERVER].power_state is PowerState.RUNNING
    names = sorted(vdi["name_label"] for vdi in session.call("VDI.get_all_records").values() if vdi["managed"])
    assert names == [tags.image_name("demo"), f"{here.name} root"]
    assert list((pool.data / "sr").rglob(".celltree-staging-*")) == []


class DyingJournal(KeptJournal):
    """Its daemon dies when it has noted that a task was begun."""

    def put(self, step: str, value: Any) -> None:
        super().put(step, value)
        if isinstance(value, dict) and "task" in value:
            raise Killed


def test_upload_and_copy_that_a_dead_daemon_began_are_waited_for(
    session: Session, glance: Glance, image: ImageRef, tmp_path: Path
) -> None:
    _built(session, image)
    queued, there = ImageRef(id="snap", url=glance.url), _plan(session, image, host=1, flavor=SMALL, serial=5)
    works: list[Callable[[KeptJournal], object]] = [
        lambda journal: driver.snapshot(session, SERVER, queued, journal),
        lambda journal: driver.resize(session, there, journal),
    ]
    for work in works:
        dying, taken_over = DyingJournal(), KeptJournal()
        with pytest.raises(Killed):
            work(dying)
        before = set(session.call("VDI.get_all"))
        taken_over.steps = dying.steps
        _until_done(partial(work, taken_over))
        assert set(session.call("VDI.get_all")) <= before, "no second disk was begun"
    assert [request[0] for request in glance.requests] == ["GET", "PUT"]
    driver.confirm_resize(session, SERVER)
    assert read_file(_snapshot(session, glance, tmp_path, "after"), "/motd") == b"made for a test\n"


def _until_done(work: Callable[[], object]) -> None:
    """What a job runner does: try again after Temporary. The task that the dead daemon began goes on by itself."""
    for _ in range(200):
        try:
            work()
            return
        except Temporary:
            threading.Event().wait(0.05)
    pytest.fail("the operation does not come to an end")


@dataclass(slots=True)
class DyingAt:
    """A door at which the daemon dies once, before or after the first call of a method."""

    door: Session
    method: str
    after: bool
    died: bool = False

    def call(self, method: str, params: tuple[Any, ...]) -> Any:
        strikes = method == self.method and not self.died
        if strikes and not self.after:
            self.died = True
            raise Killed
        answer = self.door.call(method, *params)
        if strikes:
            self.died = True
            raise Killed
        return answer

    def close(self) -> None:
        self.door.close()


def test_a_running_server_takes_its_bytes_along_to_another_host_and_into_another_pool(
    pool: FullPool, session: Session, glance: Glance, image: ImageRef, tmp_path: Path
) -> None:
    _built(session, image)
    to = driver.measure(session).hosts[1]
    assert driver.migrate(session, SERVER, to, KeptJournal()).power_state is PowerState.RUNNING
    state = driver.find(session, SERVER)
    assert state is not None and state.host == to.uuid
    assert read_file(_snapshot(session, glance, tmp_path, "moved"), "/motd") == b"made for a test\n"

    with a_pool(tmp_path / "second", hosts=2) as second, closing(connected(second)) as away:
        driver.migrate_to_pool(session, away, SERVER, driver.measure(away).hosts[0], KeptJournal())
        assert driver.find(session, SERVER) is None
        assert session.call("VDI.get_by_name_label", f"{tags.vm_name(SERVER)} root") == []
        assert read_file(_snapshot(away, glance, tmp_path, "away"), "/motd") == b"made for a test\n"
        driver.destroy(away, SERVER)
        assert [vdi for vdi in away.call("VDI.get_all_records").values() if tags.CLAIM in vdi["other_config"]] == []


def test_volume_keeps_its_bytes_through_snapshot_resize_and_the_servers_end(
    pool: FullPool, session: Session, glance: Glance, image: ImageRef, tmp_path: Path
) -> None:
    plan = _built(session, image)
    storage = session.call("SR.get_by_uuid", plan.storage)
    volume = session.call("VDI.get_uuid", session.call("VDI.create", a_disk(storage, size=64 * MIB)))
    driver.allow_volume(session, volume, "p")
    driver.attach_volume(session, SERVER, volume, "p", driver.Place(device=8, host=plan.host))
    (vbd,) = [vbd for vbd in session.call("VBD.get_all_records").values() if tags.VOLUME in vbd["other_config"]]
    assert (vbd["currently_attached"], vbd["device"]) == (True, "xvdi")
    pool.engine.storage.write(plan.storage, volume, 4 * MIB, b"kept")

    kept = driver.take_host_snapshot(session, SERVER, 3, "before")
    driver.set_shares(session, SERVER, {"weight": "64", "cap": "0"}, {"sched": "idle"})
    archive = _snapshot(session, glance, tmp_path, "snap")
    assert read_file(archive, "/motd") == b"made for a test\n"
    assert [each.id for each in driver.host_snapshots(session, SERVER)] == [kept.id]
    driver.resize(session, _plan(session, image, flavor=SMALL, serial=5), KeptJournal())
    driver.confirm_resize(session, SERVER)
    usage = driver.disk_usage(session).servers[SERVER]
    assert usage.virtual == SMALL.disk_gib * 2**30
    assert 0 < usage.own + usage.shared < 64 * MIB

    driver.destroy(session, SERVER)
    left = [vdi["uuid"] for vdi in session.call("VDI.get_all_records").values() if vdi["managed"]]
    assert sorted(left) == sorted([volume, tags.image_uuids(plan.storage, image.id, 1)[0]])
    with vhd.Disk.open(next((pool.data / "sr").rglob(f"{volume}.vhd"))) as disk:
        assert disk.pread(4 * MIB, 4) == b"kept"
