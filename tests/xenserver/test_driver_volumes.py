"""Volumes on a pool: whose they are, what they refuse, and what servers take of their storage beside them."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from cells.cli.main import main
from cells.errors import Permanent
from cells.model import Volume
from tests.support.xen_hosts import OTHER_SERVER, SERVER, SMALL, House, KeptJournal
from tests.xenserver.simulated import a_disk, a_pool, logged_in
from xenapi_host import driver, tags
from xenapi_host.driver.refind import refind
from xenapi_host.simulator.faults import Fault
from xenapi_host.simulator.worlds import HostShape


def _at(house: House, host: int = 0, device: int = 8) -> driver.Place:
    return driver.Place(device=device, host=house.facts().hosts[host].uuid)


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    house.built()
    yield house


def _holders(house: House, volume: str) -> list[str]:
    vdi = house.session.call("VDI.get_by_uuid", volume)
    vbds = [house.records("VBD")[ref] for ref in house.session.call("VDI.get_VBDs", vdi)]
    return [house.records("VM")[vbd["VM"]]["name_label"] for vbd in vbds]


def test_volume_of_another_project_or_of_nobody_is_not_there(house: House) -> None:
    for volume in (house.a_volume(project="q"), house.a_volume(project=""), "no such uuid"):
        assert driver.find_volume(house.session, volume, "p") is None
        with pytest.raises(Permanent, match="no such volume"):
            driver.attach_volume(house.session, SERVER, volume, "p", _at(house))
    assert driver.find_volume(house.session, house.a_volume(project=""), "") is None, "no project is nobody's"


def test_disk_of_ours_is_no_volume_whatever_its_tags_say(house: House) -> None:
    (root,) = [vdi for vdi in house.disks().values() if vdi["VBDs"]]
    ref = house.session.call("VDI.get_by_uuid", root["uuid"])
    with pytest.raises(Permanent, match="no disk that could be a volume"):
        driver.allow_volume(house.session, root["uuid"], "p")
    house.session.call("VDI.add_to_other_config", ref, tags.PROJECT, "p")
    assert driver.find_volume(house.session, root["uuid"], "p") is None


def test_volume_in_use_goes_to_no_second_server(house: House) -> None:
    house.built(house.plan(server=OTHER_SERVER))
    volume = house.a_volume()
    driver.attach_volume(house.session, SERVER, volume, "p", _at(house))
    with pytest.raises(Permanent, match="in use"):
        driver.attach_volume(house.session, OTHER_SERVER, volume, "p", _at(house))
    assert _holders(house, volume) == [tags.vm_name(SERVER)]


def test_volume_out_of_the_hosts_reach_is_refused_and_so_is_a_way_from_it(house: House) -> None:
    far = house.a_volume(host=1)
    with pytest.raises(Permanent, match="out of the host's reach"):
        driver.attach_volume(house.session, SERVER, far, "p", _at(house))
    assert _holders(house, far) == []
    near = house.a_volume()
    driver.attach_volume(house.session, SERVER, near, "p", _at(house))
    before = house.picture()
    with pytest.raises(Permanent, match="out of the host's reach"):
        driver.migrate(house.session, SERVER, house.facts().hosts[1], KeptJournal())
    with pytest.raises(Permanent, match="out of the host's reach"):
        driver.resize(house.session, house.plan(flavor=SMALL, serial=7, host=1), KeptJournal())
    assert house.picture() == before, "the server is as it was"


def test_volume_goes_along_where_storage_is_shared() -> None:
    house = House(shape=HostShape(cpu_objects=False, sr_type="nfs"))
    house.built()
    volume = house.a_volume()
    driver.attach_volume(house.session, SERVER, volume, "p", _at(house))
    driver.migrate(house.session, SERVER, house.facts().hosts[1], KeptJournal())
    driver.resize(house.session, house.plan(flavor=SMALL, serial=7, host=1), KeptJournal())
    driver.confirm_resize(house.session, SERVER)
    assert _holders(house, volume) == [tags.vm_name(SERVER)]
    (vbd,) = [vbd for vbd in house.records("VBD").values() if tags.VOLUME in vbd["other_config"]]
    assert (vbd["userdevice"], vbd["currently_attached"]) == ("8", True)


def test_server_that_is_found_again_has_its_volumes(house: House) -> None:
    first, second = house.a_volume(), house.a_volume()
    driver.attach_volume(house.session, SERVER, first, "p", _at(house, device=10))
    driver.attach_volume(house.session, SERVER, second, "p", _at(house, device=9))
    found = refind(house.session, SERVER, "east")
    assert found is not None
    assert found.volumes == (Volume(id=second, device=9), Volume(id=first, device=10))


def test_disk_that_cannot_be_plugged_is_not_attached(house: House) -> None:
    volume = house.a_volume()
    house.pool.engine.faults.add(Fault(method="VBD.plug", error=("SR_BACKEND_FAILURE_79", "", "", "")))
    with pytest.raises(Permanent):
        driver.attach_volume(house.session, SERVER, volume, "p", _at(house))
    assert _holders(house, volume) == []


def test_snapshot_on_the_host_leaves_volumes_out(house: House) -> None:
    volume = house.a_volume()
    driver.attach_volume(house.session, SERVER, volume, "p", _at(house))
    taken = driver.take_host_snapshot(house.session, SERVER, 5, "before")
    assert [(each.id, each.name) for each in driver.host_snapshots(house.session, SERVER)] == [(taken.id, "before")]
    assert [vdi["uuid"] for vdi in house.records("VDI").values() if tags.PROJECT in vdi["other_config"]] == [volume]
    with pytest.raises(Permanent, match="no such snapshot"):
        driver.drop_host_snapshot(house.session, OTHER_SERVER, taken.id)
    driver.drop_host_snapshot(house.session, SERVER, taken.id)
    driver.drop_host_snapshot(house.session, SERVER, taken.id)
    assert driver.host_snapshots(house.session, SERVER) == ()


def test_second_snapshot_of_a_number_is_shown_with_the_first_and_goes_with_it(house: House) -> None:
    """A daemon that was frozen in its call has made it."""
    vm = next(iter(house.servers()))
    house.session.call("VM.snapshot", vm, f"{tags.vm_name(SERVER)}-snapshot-5")
    driver.take_host_snapshot(house.session, SERVER, 5, "before")
    house.session.call("VM.snapshot", vm, f"{tags.vm_name(SERVER)}-snapshot-5")
    (shown,) = driver.host_snapshots(house.session, SERVER)
    assert shown.name == "before"
    driver.drop_host_snapshot(house.session, SERVER, shown.id)
    assert [vm for vm in house.records("VM").values() if vm["is_a_snapshot"]] == []


def test_administrator_gives_takes_and_lists_volumes(house: House) -> None:
    volume = house.a_volume(project="")
    driver.allow_volume(house.session, volume, "p")
    driver.allow_volume(house.session, volume, "p")
    driver.attach_volume(house.session, SERVER, volume, "p", _at(house))
    (listed,) = driver.volumes_of_pool(house.session)
    assert (listed.facts.id, listed.project, listed.servers) == (volume, "p", (tags.vm_name(SERVER),))
    with pytest.raises(Permanent, match="detach it first"):
        driver.allow_volume(house.session, volume, "q")
    with pytest.raises(Permanent, match="detach it first"):
        driver.withdraw_volume(house.session, volume)
    driver.detach_volume(house.session, SERVER, volume)
    driver.withdraw_volume(house.session, volume)
    assert driver.volumes_of_pool(house.session) == ()


def test_usage_counts_an_image_once_and_no_volumes(house: House) -> None:
    house.built(house.plan(server=OTHER_SERVER))
    driver.attach_volume(house.session, SERVER, house.a_volume(), "p", _at(house))
    found = driver.disk_usage(house.session)
    one, other = found.servers[SERVER], found.servers[OTHER_SERVER]
    assert one.virtual == other.virtual == 2 * 2**30
    assert one.shared == other.shared > 0
    assert found.total == one.own + other.own + one.shared
    (disk, volume) = driver.diagnostics(house.session, SERVER).disks
    assert (disk.virtual_size, disk.physical_size) == (2 * 2**30, one.own + one.shared)
    assert volume.virtual_size == 2**30


@pytest.fixture
def quiet_log() -> Iterator[None]:
    """The command sets the log up; other tests have it as it was."""
    root, own = logging.getLogger(), logging.getLogger("celltree")
    before = list(root.handlers), root.level, own.level
    yield
    root.handlers[:], root.level = before[0], before[1]
    own.setLevel(before[2])


@pytest.mark.usefixtures("quiet_log")
def test_commands_list_allow_and_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with a_pool(tmp_path / "pool") as served:
        tree, password = tmp_path / "tree", tmp_path / "password"
        password.write_text("xen\n")
        assert main(["tree", "init", str(tree)]) == 0
        for name, role, parent in (("east", "api", []), ("leaf", "compute", ["--parent", "east"])):
            words = ["--database", f"sqlite:///{tmp_path}/{name}.sqlite", "--broker", f"memory://{name}"]
            assert main(["cell", "register", name, "--role", role, *words, *parent, "--tree", str(tree)]) == 0
        where = ["--cell", "leaf", "--tree", str(tree)]
        assert main(["host", "register", "p", "--url", served.url, "--password-file", str(password), *where]) == 0
        with logged_in(served) as session:
            (storage, *_) = session.xenapi.SR.get_all_records_where('field "type" = "ext"')
            volume = session.xenapi.VDI.get_uuid(session.xenapi.VDI.create(a_disk(storage)))
        capsys.readouterr()
        assert main(["volume", "allow", "p", volume, "shop", *where]) == 0
        capsys.readouterr()
        assert main(["volume", "list", "p", *where]) == 0
        listed = capsys.readouterr().out
        assert volume in listed
        assert "shop" in listed
        assert main(["host", "usage", "p", *where]) == 0
        assert "together" in capsys.readouterr().out
        assert main(["volume", "withdraw", "p", volume, *where]) == 0
        assert main(["volume", "allow", "p", "no-uuid", "shop", *where]) == 1
        assert main(["volume", "list", "q", *where]) == 1
        assert "registered with no leaf" in capsys.readouterr().err
