"""What the driver asks of guests: on light hosts struck at each call, and on the simulator with real plugins."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cells.errors import Permanent, Temporary
from cells.model import Flavor, ImageRef
from tests.support.xen_hosts import (
    LINUX,
    SERVER,
    FaultyDoor,
    House,
    KeptJournal,
    Killed,
    a_spec,
    answer_lost,
)
from tests.xenserver.glance_twin import Glance, Image
from tests.xenserver.simulated import connected
from xenapi_host import driver
from xenapi_host.driver.agent import FIRST_TRIES, Wishes
from xenapi_host.driver.plugins import compare, ours
from xenapi_host.image_maker import make_image, read_file_of_disk
from xenapi_host.plan import plan_build
from xenapi_host.session import InProcess, Session
from xenapi_host.simulator.full import FullPool
from xenapi_host.simulator.guest_agent import PROGRAM

MIB = 2**20
AGENT = replace(LINUX, properties={"xenapi_use_agent": "true"})
WISHES = Wishes(password="open sesame", files={"/etc/motd": b"hello\n"})

Work = Callable[[Session, KeptJournal], object]

OPERATIONS: dict[str, Work] = {
    "set password": lambda session, journal: driver.set_password(session, SERVER, "open sesame"),
    "inject file": lambda session, journal: driver.inject_file(session, SERVER, "/etc/motd", b"hello\n"),
    "reset network": lambda session, journal: driver.reset_network(session, SERVER),
    "update agent": lambda session, journal: driver.update_agent(session, SERVER, "http://127.0.0.1/a", "0" * 32),
    "activate system": lambda session, journal: driver.activate_system(session, SERVER, "kms.example.com"),
    "write into xenstore": lambda session, journal: driver.write_live(session, SERVER, "vm-data/mark", "one"),
    "put metadata": lambda session, journal: driver.put_metadata(session, SERVER, {"a": "1", "b c": "2"}),
    "put network": lambda session, journal: driver.put_network(session, SERVER),
    "first boot": lambda session, journal: driver.first_boot(session, SERVER, WISHES, journal),
    "console log": lambda session, journal: driver.console_log(session, SERVER),
    "console URL": lambda session, journal: driver.console_url(session, SERVER),
    "diagnostics": lambda session, journal: driver.diagnostics(session, SERVER),
}


def _house() -> House:
    house = House()
    house.built(house.plan(image=AGENT, metadata={"a": "0", "old": "x"}))
    return house


def _told(house: House) -> object:
    """All that the guest and its next start know."""
    vm = next(iter(house.servers().values()))
    guests = house.guests
    live = [sorted(records.items()) for records in guests.live.values()]
    return sorted(vm["xenstore_data"].items()), live, guests.files, guests.passwords, bool(guests.network_resets)


@pytest.mark.parametrize("error", [Killed, answer_lost], ids=["killed", "answer lost"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_asked_of_a_guest_and_struck_at_any_call_it_comes_to_the_same_end(
    name: str, error: Callable[[], BaseException], record_property: Callable[[str, object], None]
) -> None:
    work = OPERATIONS[name]
    house, door = _house(), FaultyDoor(door=InProcess(face=House(hosts=1).pool.login()))
    session = house.connect(door)
    work(session, KeptJournal())
    calls, wanted = list(door.seen), _told(house)
    assert len(calls) > 1
    record_property(f"steps of {name}", len(calls))
    for at in range(len(calls)):
        for after in (False, True):
            house, journal = _house(), KeptJournal()
            door = FaultyDoor(door=door.door, at=at, after=after, error=error)
            with suppress(Killed, Temporary):
                work(house.connect(door), journal)
            for _ in range(3):
                with suppress(Temporary):
                    work(house.connect(), journal)
                    break
            where = f"{name}, struck {'after' if after else 'before'} call {at}, {calls[at]}"
            assert _told(house) == wanted, where
            assert house.orphans() == [], where


def test_silent_agent_fails_a_tenants_wish_and_no_build() -> None:
    house, journal = _house(), KeptJournal()
    house.guests.everybody_silent = True
    with pytest.raises(Permanent, match="guest agent does not answer"):
        driver.set_password(house.session, SERVER, "x")
    assert driver.agent_version(house.session, SERVER) == ""
    for _ in range(FIRST_TRIES - 1):
        with pytest.raises(Temporary):
            driver.first_boot(house.session, SERVER, WISHES, journal)
    note = driver.first_boot(house.session, SERVER, WISHES, journal)
    assert "does not answer" in note
    assert "/etc/motd" in note
    assert "sesame" not in note + repr(WISHES)


def test_nothing_is_asked_of_a_server_that_is_off() -> None:
    house = _house()
    driver.stop(house.session, SERVER)
    with pytest.raises(Permanent, match="not running"):
        driver.set_password(house.session, SERVER, "x")
    driver.put_metadata(house.session, SERVER, {"a": "later"})
    vm = next(iter(house.servers().values()))
    assert json.loads(vm["xenstore_data"]["vm-data/user-metadata/a"]) == "later"
    assert driver.diagnostics(house.session, SERVER).uptime is None


def test_plugins_that_are_missing_or_other_are_named() -> None:
    house = House()
    assert driver.plugins_wrong(house.session) == ""
    del house.pool.engine.plugin_twins["celltree_version.py", "scripts"]
    assert driver.plugins_wrong(house.session) == "", "looked at a moment ago"
    assert "none installed" in driver.plugins_wrong(house.session, again=True)
    found = {name: dict(script) for name, script in ours().items() if name != "celltree_agent.py"}
    found["celltree_image.py"]["version"] = "0.9"
    found["celltree_tar.py"]["digest"] = "0" * 16
    assert compare(found, ours()) == "missing celltree_agent.py, older celltree_image.py, changed celltree_tar.py"


# --- the simulator: real plugins, real xenstore, a real disk ---


@pytest.fixture
def session(pool: FullPool, tmp_path: Path, glance: Glance) -> Iterator[Session]:
    """A session, with the server built on the pool from an image that has an agent."""
    files = tmp_path / "files"
    (files / PROGRAM[1:]).parent.mkdir(parents=True)
    (files / PROGRAM[1:]).write_text("#!/bin/sh\n")
    made = make_image(files, tmp_path / "image.tar.gz", size=32 * MIB)
    with closing(connected(pool)) as session:
        glance.images["agent"] = Image(data=made.path.read_bytes())
        image = ImageRef(id="agent", name="agent", url=glance.url, properties=AGENT.properties)
        spec = replace(a_spec(flavor=Flavor(id="1", name="t", vcpus=1, ram_mib=512, disk_gib=0), image=image))
        spec = replace(spec, metadata={"color": "blue"})
        plan = plan_build(spec, server=SERVER, attempt=1, host=driver.measure(session).hosts[0])
        driver.prepare_build(session, plan, KeptJournal(), headers={})
        driver.start_build(session, SERVER, 1, plan.host)
        yield session
    session.close()


def _file(pool: FullPool, session: Session, path: str) -> bytes:
    (ref,) = [r for r, v in session.call("VDI.get_all_records").items() if v["name_label"].endswith(" root")]
    uuid = session.call("VDI.get_uuid", ref)
    return read_file_of_disk(next((pool.data / "sr").rglob(f"{uuid}.vhd")), path)


def test_guest_is_configured_through_real_plugins(pool: FullPool, session: Session) -> None:
    assert driver.plugins_wrong(session) == ""
    note = driver.first_boot(session, SERVER, WISHES, KeptJournal())
    assert note == ""
    assert _file(pool, session, "/etc/motd") == b"hello\n"
    crypted = _file(pool, session, "/etc/shadow").decode().split(":")[1]
    command = ["openssl", "passwd", "-6", "-salt", crypted.split("$")[2], "-stdin"]
    said = subprocess.run(command, input="open sesame\n", capture_output=True, text=True, check=True)
    assert said.stdout.strip() == crypted
    assert b"inet dhcp" in _file(pool, session, "/etc/network/interfaces")
    assert _file(pool, session, "/etc/hostname") == b"web-1\n"
    with pytest.raises(Permanent, match="too long"):
        driver.inject_file(session, SERVER, "/etc/big", bytes(4000))

    driver.put_metadata(session, SERVER, {"color": "red", "a b": "c"})
    assert driver.read_live(session, SERVER, "vm-data/user-metadata/color") == '"red"'
    assert driver.read_live(session, SERVER, "vm-data/user-metadata/a_b") == '"c"'
    driver.write_live(session, SERVER, "vm-data/mark", "-one")
    assert driver.read_live(session, SERVER, "vm-data/mark") == "-one"
    driver.reboot(session, SERVER, KeptJournal(), clean_seconds=10)
    assert driver.read_live(session, SERVER, "vm-data/mark") is None
    assert driver.read_live(session, SERVER, "vm-data/user-metadata/color") == '"red"'
    assert driver.read_live(session, SERVER, "vm-data/hostname") is None

    assert b"login: " in driver.console_log(session, SERVER)
    url = driver.console_url(session, SERVER)
    assert "/console?ref=" in url
    assert "session_id" not in url
    measured = driver.diagnostics(session, SERVER)
    assert (len(measured.disks), len(measured.interfaces), measured.cpus) == (1, 1, (0.0,))
    assert measured.uptime is not None


def test_agent_that_is_not_there_is_waited_for_and_its_request_taken_back(pool: FullPool, session: Session) -> None:
    domid = str(max(int(vm["domid"]) for vm in session.call("VM.get_all_records").values()))
    dom0 = next(dom0 for dom0 in pool.engine.dom0s.values() if dom0.xenstore.exists(f"/local/domain/{domid}"))
    pool.agents.stop()
    with pytest.raises(Permanent, match="does not answer"):
        driver.set_password(session, SERVER, "x", timeout=1)
    assert dom0.xenstore.children(f"/local/domain/{domid}/data/host") in ([], None)


def test_missing_plugins_of_one_host_are_named(pool: FullPool, session: Session) -> None:
    (pool.dom0().root / "etc/xapi.d/plugins/celltree_agent.py").unlink()
    assert "missing celltree_agent.py" in driver.plugins_wrong(session, again=True)
