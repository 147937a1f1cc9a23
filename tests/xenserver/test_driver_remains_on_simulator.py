"""What is left behind, on the simulator over HTTP with real VHD files and plugins: swept; and a server whose host died
with its disks, made anew."""

import uuid

import pytest

from cells.errors import Permanent
from cells.model import ImageRef, PowerState
from tests.support.xen_hosts import SERVER, KeptJournal, a_spec
from tests.xenserver.simulated import TINY
from xenapi_host import driver, tags
from xenapi_host.leftovers import Age, Held
from xenapi_host.plan import BuildPlan, plan_build
from xenapi_host.session import Session, XenFailure
from xenapi_host.simulator.full import FullPool
from xenapi_host.simulator.mishaps import kill_host, return_host

MIB = 2**20
HOUR = 3600


def _plan(session: Session, image: ImageRef, *, host: int, serial: int = 0) -> BuildPlan:
    facts = driver.measure(session)
    return plan_build(a_spec(flavor=TINY, image=image), server=SERVER, attempt=1, host=facts.hosts[host], serial=serial)


def _build(session: Session, image: ImageRef, *, host: int) -> BuildPlan:
    plan = _plan(session, image, host=host)
    driver.prepare_build(session, plan, KeptJournal())
    driver.start_build(session, SERVER, 1, plan.host)
    return plan


def _managed(session: Session) -> list[str]:
    return sorted(vdi["name_label"] for vdi in session.call("VDI.get_all_records").values() if vdi["managed"])


def _look(session: Session, hours: int, start: int = 0) -> driver.Swept:
    for hour in range(start, start + hours):
        found = driver.find_leftovers(session, Age(now=hour * HOUR, longer_than=2 * HOUR, gap=2 * HOUR))
    return found


def test_clone_second_vm_snapshot_and_staging_folder_are_swept(
    pool: FullPool, session: Session, image: ImageRef
) -> None:
    plan = _build(session, image, host=0)
    before = _managed(session)
    cached = session.call("VDI.get_by_name_label", tags.image_name("demo"))[0]
    root = session.call("VDI.get_by_name_label", f"{plan.name} root")[0]
    session.call("VDI.clone", cached, {})
    session.call("VDI.snapshot", root, {})
    session.call("VM.create", dict(plan.vm))
    storage = next((pool.data / "sr").rglob(f"{session.call('VDI.get_uuid', root)}.vhd")).parent
    staging = storage / f".celltree-staging-{uuid.uuid4()}"
    staging.mkdir()
    (staging / "0.vhd").write_bytes(b"half of an image")

    assert _look(session, 1).servers == ()
    assert not staging.exists()
    assert _look(session, 2, start=1) == driver.Swept(removed=(tags.image_name("demo"),), servers=(SERVER,))
    removed = driver.tidy(session, SERVER, Held.HERE, Age(now=2 * HOUR, longer_than=2 * HOUR, gap=2 * HOUR))
    assert sorted(removed) == [plan.name, f"{plan.name} root"]
    assert _managed(session) == before
    assert driver.power_states(session)[SERVER].power_state is PowerState.RUNNING
    driver.stop(session, SERVER, clean_seconds=0)
    assert driver.start(session, SERVER, host=plan.host).power_state is PowerState.RUNNING


def test_server_whose_disks_are_lost_is_made_anew_and_never_runs_twice(
    pool: FullPool, session: Session, image: ImageRef
) -> None:
    plan = _build(session, image, host=1)
    dead = driver.measure(session).hosts[1].uuid
    with pytest.raises(Permanent, match="still answers"):
        driver.set_aside(session, SERVER, 9, dead=dead)
    kill_host(pool.engine, session.call("host.get_by_uuid", dead))
    assert driver.set_aside(session, SERVER, 9, dead=dead) == 1
    made = driver.replace_lost(session, _plan(session, image, host=0, serial=9), KeptJournal(), start=True)
    assert made.power_state is PowerState.RUNNING
    state = driver.find(session, SERVER)
    assert state is not None and state.vm_uuid == made.vm_uuid
    (old,) = session.call("VM.get_by_name_label", f"{plan.name}-lost")
    assert session.call("VM.get_power_state", old) == "Halted"

    return_host(pool.engine, session.call("host.get_by_uuid", dead))
    assert driver.set_aside(session, SERVER, 9) == 0
    with pytest.raises(XenFailure, match="OPERATION_BLOCKED"):
        session.call("VM.start", old, False, False)
    assert _look(session, 3).servers == (SERVER,)
    driver.tidy(session, SERVER, Held.HERE, Age(now=2 * HOUR, longer_than=2 * HOUR, gap=2 * HOUR))
    assert session.call("VM.get_by_name_label", f"{plan.name}-lost") == []
    assert _managed(session).count(f"{plan.name} root") == 1
