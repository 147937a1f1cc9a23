"""Every operation, struck before and after each of its XenAPI calls, then asked again: one end, no orphan.

The points are counted by running the operation once, so a new call is covered on the day it is written.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from cells.errors import Temporary
from cells.model import ClassicGuest, Flavor, ImageRef, Incremental
from cells.ports import Journal
from tests.support.xen_hosts import (
    FULL,
    FULLER,
    LINUX,
    OTHER_SERVER,
    RESCUE_IMAGE,
    SERVER,
    SMALL,
    SNAPSHOT,
    TINY,
    FaultyDoor,
    House,
    KeptJournal,
    Killed,
    a_spec,
    answer_lost,
)
from xenapi_host import driver, tags
from xenapi_host.leftovers import Age, Held
from xenapi_host.plan import BuildPlan, plan_rescue
from xenapi_host.session import InProcess, Session
from xenapi_host.simulator.mishaps import kill_host, return_host

Setup = Callable[[House], None]
Work = Callable[[House, Session, Journal], object]


def _nothing(house: House) -> None:
    return None


def _built(house: House) -> None:
    house.built()


def _stopped(house: House) -> None:
    house.built()
    driver.stop(house.session, SERVER)


def _prepared(house: House) -> None:
    driver.prepare_build(house.session, house.plan(), KeptJournal())


def _cached(house: House) -> None:
    house.built(house.plan(server=bytes(16)))


def _full(house: House) -> BuildPlan:
    return house.plan(flavor=FULL, config_drive=True, auto_disk_config=True)


def _built_full(house: House) -> None:
    house.built(_full(house))


def _build_full(house: House, session: Session, journal: Journal) -> object:
    plan = _full(house)
    driver.prepare_build(session, plan, journal)
    return driver.start_build(session, SERVER, 1, plan.host).power_state


def _built_larger(house: House) -> None:
    house.built(house.plan(flavor=SMALL, auto_disk_config=True))


def _resized_full(host: int) -> Setup:
    def setup(house: House) -> None:
        _built_full(house)
        _resize_full(host)(house, house.session, KeptJournal())

    return setup


def _resize_full(host: int, flavor: Flavor = FULLER) -> Work:
    def work(house: House, session: Session, journal: Journal) -> object:
        plan = house.plan(flavor=flavor, serial=7, host=host, config_drive=True, auto_disk_config=True)
        return driver.resize(session, plan, journal).power_state

    return work


def _rescue(house: House, session: Session, journal: Journal) -> object:
    host = driver.measure(house.session).hosts[0]
    plan = plan_rescue(a_spec(image=RESCUE_IMAGE), server=SERVER, attempt=1, host=host, serial=9)
    return driver.rescue(session, plan, journal).power_state


def _rescued(house: House) -> None:
    house.built()
    _rescue(house, house.session, KeptJournal())


def _unrescue(house: House, session: Session, journal: Journal) -> object:
    return driver.unrescue(session, SERVER, house.plan().host).power_state


def _rebuild(house: House, session: Session, journal: Journal) -> object:
    plan = house.plan(flavor=FULL, serial=9, image=RESCUE_IMAGE, config_drive=True, auto_disk_config=True)
    return driver.rebuild(session, plan, journal).power_state


def _paused(house: House) -> None:
    house.built()
    driver.pause(house.session, SERVER)


def _suspended(house: House) -> None:
    house.built()
    driver.suspend(house.session, SERVER)


def _resized(host: int) -> Setup:
    def setup(house: House) -> None:
        house.built()
        driver.resize(house.session, house.plan(flavor=SMALL, serial=7, host=host), KeptJournal())

    return setup


def _build(house: House, session: Session, journal: Journal) -> object:
    plan = house.plan()
    driver.prepare_build(session, plan, journal)
    return driver.start_build(session, SERVER, 1, plan.host).power_state


def _resize(host: int) -> Work:
    def work(house: House, session: Session, journal: Journal) -> object:
        return driver.resize(session, house.plan(flavor=SMALL, serial=7, host=host), journal).power_state

    return work


def _migrate(house: House, session: Session, journal: Journal) -> object:
    return driver.migrate(session, SERVER, house.facts().hosts[1], journal).power_state


def _volume(house: House) -> str:
    """The uuid of the one volume there is."""
    (uuid,) = [vdi["uuid"] for vdi in house.records("VDI").values() if tags.PROJECT in vdi["other_config"]]
    return str(uuid)


def _with_volume(setup: Setup) -> Setup:
    """After `setup`, a volume that the server has."""

    def set_up(house: House) -> None:
        setup(house)
        house.a_volume()
        _attach(house, house.session, KeptJournal())

    return set_up


def _attach(house: House, session: Session, journal: Journal) -> object:
    place = driver.Place(device=8, host=house.facts().hosts[0].uuid)
    return driver.attach_volume(session, SERVER, _volume(house), "p", place)


def _detach(house: House, session: Session, journal: Journal) -> object:
    return driver.detach_volume(session, SERVER, _volume(house))


def _snapshot_left(house: House) -> None:
    """As an upload that was given up leaves it."""
    _built(house)
    (root,) = [ref for ref, vdi in house.disks().items() if vdi["VBDs"]]
    house.session.call("VDI.snapshot", root, {})


def _take_host_snapshot(house: House, session: Session, journal: Journal) -> object:
    return driver.take_host_snapshot(session, SERVER, 9, "before the upgrade").name


def _host_snapshot(house: House) -> None:
    _built_full(house)
    _take_host_snapshot(house, house.session, KeptJournal())


def _drop_host_snapshot(house: House, session: Session, journal: Journal) -> object:
    kept = [vm["uuid"] for vm in house.records("VM").values() if "-snapshot-" in vm["name_label"]]
    return [driver.drop_host_snapshot(session, SERVER, uuid) for uuid in kept]


def _resized_with_snapshot(house: House) -> None:
    _host_snapshot(house)
    _resize_full(0)(house, house.session, KeptJournal())


def _share(house: House, session: Session, journal: Journal) -> object:
    vcpus, disks = {"weight": "64", "cap": "50"}, {"sched": "best-effort", "class": "7"}
    driver.set_shares(session, SERVER, {"weight": "512", "cap": "0", "mask": "0"}, {"sched": "idle"})
    return driver.set_shares(session, SERVER, vcpus, disks)


def _resized_with_volume(house: House) -> None:
    _with_volume(_built)(house)
    _resize(0)(house, house.session, KeptJournal())


def _volume_there(house: House) -> None:
    _built(house)
    house.a_volume()


def _volume_there_and_off(house: House) -> None:
    _stopped(house)
    house.a_volume()


def _backup(name: str, *bases: str) -> Work:
    def work(house: House, session: Session, journal: Journal) -> object:
        image = ImageRef(id=name, url=SNAPSHOT.url)
        return driver.backup(session, SERVER, image, Incremental(bases=bases), journal)

    return work


def _backed_up(house: House) -> None:
    house.built()
    _backup("snap")(house, house.session, KeptJournal())


def _classic_plan(house: House) -> BuildPlan:
    kit = replace(LINUX, properties={"classic_kit": "true"})
    return house.plan(image=kit, classic=ClassicGuest(source="old", name="web1"), config_drive=True)


def _prepare_classic(house: House, session: Session, journal: Journal) -> object:
    return driver.prepare_classic(session, _classic_plan(house), journal, source=_SOURCE, guest="web1").note


def _finish_classic(house: House, session: Session, journal: Journal) -> object:
    running, _ = driver.finish_classic(session, _classic_plan(house), journal, source=_SOURCE, guest="web1")
    return running.power_state


_SOURCE = driver.ClassicSource(name="old", command=("source",))


def _left_over(house: House) -> None:
    """A server with a second VM of its own, and a clone that nobody has claimed."""
    plan = house.built()
    house.session.call("VM.create", dict(plan.vm))
    image = house.session.call("VDI.get_by_name_label", tags.image_name(plan.image.id))[0]
    house.session.call("VDI.clone", image, {})


def _sweep(house: House, session: Session, journal: Journal) -> object:
    """Three looks, an hour apart, and what the leaf answers to the last. A look cut short loses time at most."""
    for hour in range(3):
        age = Age(now=hour * 3600, longer_than=3600, gap=7200)
        driver.find_leftovers(session, age)
    driver.tidy(session, SERVER, Held.HERE, age)
    return None


def _host_lost(house: House) -> None:
    """A server on the host that is not the master; then the host dies with the server's disks."""
    house.built(house.plan(flavor=FULL, host=1))
    engine = house.pool.engine
    kill_host(engine, house.session.call("host.get_by_uuid", house.facts().hosts[1].uuid))


def _replace(house: House, session: Session, journal: Journal) -> object:
    facts = house.facts()
    driver.set_aside(session, SERVER, 9, dead=facts.hosts[1].uuid)
    plan = house.plan(flavor=FULL, serial=9)
    return driver.replace_lost(session, plan, journal, start=True).power_state


def _replaced(house: House) -> None:
    _host_lost(house)
    _replace(house, house.session, KeptJournal())


def _remove_copy(house: House, session: Session, journal: Journal) -> object:
    return driver.remove_copy(session, SERVER, 9)


def _replaced_and_back(house: House) -> None:
    _replaced(house)
    (dead,) = [ref for ref, host in house.records("host").items() if host["uuid"] == house.facts().hosts[1].uuid]
    return_host(house.pool.engine, dead)


def _set_aside(house: House, session: Session, journal: Journal) -> object:
    return driver.set_aside(session, SERVER, 9)


def _image_unused(house: House) -> None:
    """A cached image that no server has used since the first look, beside one that a server uses."""
    house.built(house.plan(image=RESCUE_IMAGE))
    house.built(house.plan(server=OTHER_SERVER))
    driver.destroy(house.session, SERVER)
    driver.clear_cache(house.session, now=0, unused_for=10)


def _clear_cache(house: House, session: Session, journal: Journal) -> object:
    return driver.clear_cache(session, now=20, unused_for=10)


def _allow(house: House, session: Session, journal: Journal) -> object:
    return driver.allow_volume(session, _data_disk(house), "p")


def _withdraw(house: House, session: Session, journal: Journal) -> object:
    return driver.withdraw_volume(session, _data_disk(house))


def _data_disk(house: House) -> str:
    (uuid,) = [vdi["uuid"] for vdi in house.records("VDI").values() if vdi["name_label"] == "data"]
    return str(uuid)


OPERATIONS: dict[str, tuple[Setup, Work]] = {
    "build": (_nothing, _build),
    "copy a classic guest": (_nothing, _prepare_classic),
    "finish a classic guest": (
        lambda house: _prepare_classic(house, house.session, KeptJournal()) and None,
        _finish_classic,
    ),
    "build from the cache": (_cached, _build),
    "start": (_stopped, lambda house, session, journal: driver.start(session, SERVER).power_state),
    "stop": (_built, lambda house, session, journal: driver.stop(session, SERVER)),
    "stop by force": (_built, lambda house, session, journal: driver.stop(session, SERVER, clean_seconds=0)),
    "reboot": (_built, lambda house, session, journal: driver.reboot(session, SERVER, journal)),
    "hard reboot": (_built, lambda house, session, journal: driver.reboot(session, SERVER, journal, hard=True)),
    "pause": (_built, lambda house, session, journal: driver.pause(session, SERVER)),
    "unpause": (_paused, lambda house, session, journal: driver.unpause(session, SERVER)),
    "suspend": (_built, lambda house, session, journal: driver.suspend(session, SERVER)),
    "resume": (_suspended, lambda house, session, journal: driver.resume(session, SERVER)),
    "start while suspended": (_suspended, lambda house, session, journal: driver.start(session, SERVER).power_state),
    "reboot while paused": (_paused, lambda house, session, journal: driver.reboot(session, SERVER, journal)),
    "stop while suspended": (_suspended, lambda house, session, journal: driver.stop(session, SERVER)),
    "resize while suspended": (_suspended, _resize(1)),
    "delete while suspended": (_suspended, lambda house, session, journal: driver.destroy(session, SERVER)),
    "snapshot": (_built, lambda house, session, journal: driver.snapshot(session, SERVER, SNAPSHOT, journal)),
    "undo a snapshot": (_snapshot_left, lambda house, session, journal: driver.undo_snapshot(session, SERVER)),
    "first backup": (_built, _backup("snap")),
    "incremental backup": (_backed_up, _backup("next", "snap")),
    "backup whose base image is gone": (_backed_up, _backup("next")),
    "snapshot beside a base": (
        _backed_up,
        lambda house, session, journal: driver.snapshot(session, SERVER, SNAPSHOT, journal),
    ),
    "delete with a base": (_backed_up, lambda house, session, journal: driver.destroy(session, SERVER)),
    "resize with a base": (_backed_up, _resize(1)),
    "move with a base": (_backed_up, _migrate),
    "sweep": (_left_over, _sweep),
    "make anew what a dead host had": (_host_lost, _replace),
    "make anew no more": (_replaced, _remove_copy),
    "make anew, the host is back": (_replaced_and_back, _set_aside),
    "sweep the image cache": (_image_unused, _clear_cache),
    "allow a volume": (lambda house: house.a_volume(project="") and None, _allow),
    "withdraw a volume": (lambda house: house.a_volume() and None, _withdraw),
    "resize here": (_built, _resize(0)),
    "resize to another host": (_built, _resize(1)),
    "resize while off": (_stopped, _resize(1)),
    "confirm": (_resized(1), lambda house, session, journal: driver.confirm_resize(session, SERVER)),
    "revert": (_resized(1), lambda house, session, journal: driver.revert_resize(session, SERVER)),
    "revert here": (_resized(0), lambda house, session, journal: driver.revert_resize(session, SERVER)),
    "delete": (_built, lambda house, session, journal: driver.destroy(session, SERVER)),
    "delete while resized": (_resized(1), lambda house, session, journal: driver.destroy(session, SERVER)),
    "build with every kind of disk": (_nothing, _build_full),
    "resize with every kind of disk": (_built_full, _resize_full(0)),
    "resize with every kind of disk to another host": (_built_full, _resize_full(1)),
    "resize to a smaller disk": (_built_larger, _resize_full(0, TINY)),
    "resize to a smaller disk on another host": (_built_larger, _resize_full(1, TINY)),
    "confirm with every kind of disk": (
        _resized_full(1),
        lambda house, session, journal: driver.confirm_resize(session, SERVER),
    ),
    "revert with every kind of disk": (
        _resized_full(0),
        lambda house, session, journal: driver.revert_resize(session, SERVER),
    ),
    "delete with every kind of disk": (
        _resized_full(0),
        lambda house, session, journal: driver.destroy(session, SERVER),
    ),
    "move with its disk": (_built, _migrate),
    "move with every kind of disk": (_built_full, _migrate),
    "rescue": (_built, _rescue),
    "rescue while off": (_stopped, _rescue),
    "unrescue": (_rescued, _unrescue),
    "delete while rescued": (_rescued, lambda house, session, journal: driver.destroy(session, SERVER)),
    "rebuild": (_built_full, _rebuild),
    "rebuild while off": (_stopped, _rebuild),
    "attach a volume": (_volume_there, _attach),
    "attach a volume while off": (_volume_there_and_off, _attach),
    "detach a volume": (_with_volume(_built), _detach),
    "detach a volume while off": (_with_volume(_stopped), _detach),
    "hard reboot with a volume": (
        _with_volume(_built),
        lambda house, session, journal: driver.reboot(session, SERVER, journal, hard=True),
    ),
    "resize with a volume": (_with_volume(_built), _resize(0)),
    "confirm with a volume": (
        _resized_with_volume,
        lambda house, session, journal: driver.confirm_resize(session, SERVER),
    ),
    "revert with a volume": (
        _resized_with_volume,
        lambda house, session, journal: driver.revert_resize(session, SERVER),
    ),
    "rebuild with a volume": (_with_volume(_built_full), _rebuild),
    "rescue with a volume": (_with_volume(_built), _rescue),
    "delete with a volume": (_with_volume(_built), lambda house, session, journal: driver.destroy(session, SERVER)),
    "take a snapshot on the host": (_with_volume(_built_full), _take_host_snapshot),
    "drop a snapshot on the host": (_host_snapshot, _drop_host_snapshot),
    "confirm where the old has a snapshot": (
        _resized_with_snapshot,
        lambda house, session, journal: driver.confirm_resize(session, SERVER),
    ),
    "delete with a snapshot on the host": (
        _host_snapshot,
        lambda house, session, journal: driver.destroy(session, SERVER),
    ),
    "give other shares": (_with_volume(_built_full), _share),
    "rename": (_rescued, lambda house, session, journal: driver.rename(session, SERVER, "web-2")),
    "discard": (_prepared, lambda house, session, journal: driver.destroy(session, SERVER, attempt=1)),
}


def _volumes(house: House) -> list[str]:
    """The uuids of the volumes there are; attached to a server or not."""
    return [vdi["uuid"] for vdi in house.records("VDI").values() if tags.PROJECT in vdi["other_config"]]


def _door() -> FaultyDoor:
    return FaultyDoor(door=InProcess(face=House(hosts=1).pool.login()))


def _undisturbed(setup: Setup, work: Work) -> tuple[list[str], dict[str, object]]:
    """The calls an operation makes, and the pool after it."""
    house, door = House(), _door()
    setup(house)
    work(house, house.connect(door), KeptJournal())
    return list(door.seen), house.picture()


@pytest.mark.parametrize("error", [Killed, answer_lost], ids=["killed", "answer lost"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_struck_at_any_call_comes_to_the_same_end(
    name: str, error: Callable[[], BaseException], record_property: Callable[[str, object], None]
) -> None:
    setup, work = OPERATIONS[name]
    calls, wanted = _undisturbed(setup, work)
    assert len(calls) > 1
    record_property(f"steps of {name}", len(calls))
    for at in range(len(calls)):
        for after in (False, True):
            house, door, journal = House(), _door(), KeptJournal()
            setup(house)
            door.at, door.after, door.error = at, after, error
            with suppress(Killed, Temporary):
                work(house, house.connect(door), journal)
            for _ in range(3):
                try:
                    work(house, house.connect(), journal)
                    break
                except Temporary:
                    continue
            else:
                pytest.fail(f"{name} does not get past call {at}, {calls[at]}")
            where = f"{name}, struck {'after' if after else 'before'} call {at}, {calls[at]}"
            assert house.picture() == wanted, where
            assert house.orphans() == [], where


# What these are about is not a server's own, or out of reach of a delete until the host is declared dead.
_NOT_DELETED = ("confirm", "revert", "sweep", "make anew", "allow", "withdraw")


@pytest.mark.parametrize("name", [name for name in OPERATIONS if not name.startswith(_NOT_DELETED)])
def test_delete_after_an_operation_struck_at_any_call_leaves_nothing(name: str) -> None:
    setup, work = OPERATIONS[name]
    calls, _ = _undisturbed(setup, work)
    for at in range(len(calls)):
        for after in (False, True):
            house, door = House(), _door()
            setup(house)
            kept = _volumes(house)
            door.at, door.after = at, after
            with suppress(Killed):
                work(house, house.connect(door), KeptJournal())
            driver.destroy(house.connect(), SERVER)
            where = f"{name}, struck {'after' if after else 'before'} call {at}, {calls[at]}"
            assert house.vms_of(SERVER) == [], where
            assert house.orphans() == [], where
            assert _volumes(house) == kept, where


@pytest.mark.parametrize("host", [0, 1])
def test_revert_after_a_resize_struck_at_any_call_brings_the_server_back(host: int) -> None:
    calls, _ = _undisturbed(_built, _resize(host))
    house = House()
    _built(house)
    wanted = house.picture()
    for at in range(len(calls)):
        for after in (False, True):
            house, door = House(), _door()
            _built(house)
            door.at, door.after = at, after
            with suppress(Killed):
                _resize(host)(house, house.connect(door), KeptJournal())
            driver.revert_resize(house.connect(), SERVER)
            where = f"struck {'after' if after else 'before'} call {at}, {calls[at]}"
            assert house.picture() == wanted, where
            assert house.orphans() == [], where


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_asked_twice_has_its_effect_once(name: str) -> None:
    setup, work = OPERATIONS[name]
    _, wanted = _undisturbed(setup, work)
    house, journal = House(), KeptJournal()
    setup(house)
    work(house, house.connect(), journal)
    work(house, house.connect(), journal)
    assert house.picture() == wanted
    assert house.orphans() == []
