"""What goes wrong in a pool without any client asking: hosts that die and return, guests that crash, sessions that end,
repositories that others fill, disks written from outside.

For tests and the control socket. Each takes the engine's lock itself and is seen at once by whoever waits for events.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from xenapi_host.simulator import chains, mastership
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.host_power import fall, rise
from xenapi_host.simulator.storage import BLOCK, NoRoom
from xenapi_host.simulator.vm import boot, halt

_PATTERN = b"\x5a" * 4096


def kill_host(engine: Engine, ref: str) -> None:
    """The host dies (`host_power.fall`)."""
    with engine.lock:
        fall(engine, engine.db.get("host", ref))
        engine.after_call()


def return_host(engine: Engine, ref: str) -> None:
    """The host has booted again."""
    with engine.lock:
        rise(engine, engine.db.get("host", ref))
        engine.after_call()


def crash_guest(engine: Engine, ref: str) -> None:
    """The guest crashes; what follows is the VM's actions_after_crash. ValueError for one that is not running."""
    with engine.lock:
        vm = engine.db.get("VM", ref)
        if vm["power_state"] not in ("Running", "Paused"):
            raise ValueError(f"the VM is {vm['power_state'].lower()}; only a running guest can crash")
        host = engine.db.get("host", vm["resident_on"])
        halt(engine, vm)
        if vm["actions_after_crash"] in ("restart", "coredump_and_restart"):
            boot(engine, vm, host, paused=False)
        engine.after_call()


def end_sessions(engine: Engine, originator: str = "*") -> int:
    """Sessions are forgotten, as after a restart of the toolstack; who waits is told. How many there were."""
    with engine.lock:
        return mastership.end_sessions(engine, lambda session: fnmatchcase(session["originator"], originator))


def fill_sr(engine: Engine, ref: str, free: int | None) -> None:
    """Others leave only so many bytes free in the repository; None: they have gone."""
    with engine.lock:
        sr = engine.db.get("SR", ref)
        storage = engine.storage_of(sr)
        storage.occupy(sr["uuid"], 0)
        if free is not None:
            space = storage.space(sr["uuid"])
            storage.occupy(sr["uuid"], max(space.total - space.used - free, 0))
        engine.db.touch(sr)
        engine.after_call()


def write_disk(engine: Engine, ref: str, offset: int, data: bytes) -> None:
    """Bytes come into a disk as if its guest had written them. ValueError where there is no room for them."""
    with engine.lock:
        vdi = engine.db.get("VDI", ref)
        if offset < 0 or offset + len(data) > vdi.number("virtual_size"):
            raise ValueError(f"{len(data)} bytes at {offset} do not fit into {vdi['virtual_size']}")
        with engine.exclusive("SR", vdi["SR"]):
            _write(engine, vdi, offset, data)


def write_every_block(engine: Engine, ref: str) -> None:
    """Every block of a disk is written to, so that its file has them all."""
    with engine.lock:
        vdi = engine.db.get("VDI", ref)
        with engine.exclusive("SR", vdi["SR"]):
            for offset in range(0, vdi.number("virtual_size"), BLOCK):
                _write(engine, vdi, offset, _PATTERN)


def _write(engine: Engine, vdi: Row, offset: int, data: bytes) -> None:
    sr = engine.db.get("SR", vdi["SR"])
    try:
        engine.storage_of(sr).write(sr["uuid"], vdi["uuid"], offset, data)
    except NoRoom as refused:
        raise ValueError("; ".join(chains.no_room(refused).details)) from refused
