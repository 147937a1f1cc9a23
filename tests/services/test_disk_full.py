"""A database whose disk is full and then has room again: units that fail say try again, what was committed stays."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cells.errors import Temporary
from cells.lab.mariadb import MariaServer
from cells.lab.programs import mariadb_programs
from cells.store.sql import SqlStore
from tests.support.servers import needed, session_folder
from tests.support.things import THINGS, Thing, thing

SMALL, LARGER = "size=130m", "size=400m"
AT_ONCE = 20
MOST = 200


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of its own, in memory. Only root may mount one."""
    needed(mariadb_programs)
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    # Named as private servers are, so that one a killed session left is ended with it.
    folder = session_folder() / f"disk-{secrets.token_hex(4)}"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", SMALL, "none", folder], capture_output=True, check=False)
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)
    folder.rmdir()


@pytest.mark.services
def test_what_was_committed_before_the_disk_was_full_is_there_when_it_has_room_again(small_disk: Path):
    server = MariaServer(small_disk / "mariadb", options=("--innodb-log-file-size=8M",))
    try:
        server.start()
        server.wait_ready()
        server.create_schema("t", "t", "word")
        store = SqlStore(server.url("t", "t", "word"), THINGS)
        store.create_all()
        committed = 0
        with pytest.raises(Temporary):
            while committed < MOST * AT_ONCE:
                with store.unit() as unit:
                    unit.save(*(thing(committed + number, data=os.urandom(50_000)) for number in range(AT_ONCE)))
                committed += AT_ONCE
        assert committed
        subprocess.run(["mount", "-o", f"remount,{LARGER}", small_disk], check=True)
        server.start()  # MariaDB may have given up
        server.wait_ready()
        with store.unit() as unit:
            # Nobody knows of the last unit; it is there whole or not at all.
            assert unit.count(Thing) in (committed, committed + AT_ONCE)
            unit.save(thing(MOST * AT_ONCE + 1))
        store.close()
    finally:
        server.remove()
