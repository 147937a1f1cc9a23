"""Changing whom a tree believes, with nothing running: SQLite files, and brokers that are only named."""

from pathlib import Path

import pytest

from cells.certifying import finish_rotation, remove, rotate
from cells.config import identity, keys
from cells.errors import BadInput, Permanent
from cells.identity import fingerprint
from cells.names import SECOND
from cells.registering import open_store
from cells.rows import DaemonRow, SettingRow
from cells.withdrawing import WITHDRAWN
from tests.support.embedded import START, SeededBytes
from tests.unit.cells.test_registering import Yard

LATER = START + 100 * SECOND


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    yard = Yard(tmp_path)
    yard.register("east")
    yard.register("dfw", "east")
    return yard


def told(yard: Yard, name: str) -> dict[str, int]:
    """What a cell's own database says is believed no longer."""
    config = yard.folder.config(name)
    with open_store(config) as store, store.unit(lock=False) as unit:
        row = unit.get(SettingRow, WITHDRAWN)
    return dict(identity(config).trust.read_withdrawn(bytes.fromhex(row.value)).before) if row else {}


def test_rotation_gives_a_new_key_that_opens_what_the_former_one_kept(yard: Yard) -> None:
    before = identity(yard.folder.config("dfw"))
    kept = before.keep(b"word", SeededBytes("x"))
    config = rotate(yard.folder, "dfw", SeededBytes("new"), LATER)
    after = identity(config)
    assert (after.says.uuid, after.says.role) == (before.says.uuid, before.says.role)
    assert after.says.key != before.says.key
    assert after.says.issued == LATER
    assert len(keys(config)) == 2
    assert after.kept(kept) == b"word"
    assert after.trust.certificate(before.certificate).name == "dfw"
    assert told(yard, "east") == {}


def test_rotation_ends_when_every_living_daemon_signs_with_the_new_key(yard: Yard) -> None:
    old = identity(yard.folder.config("dfw"))
    config = rotate(yard.folder, "dfw", SeededBytes("new"), LATER)
    new = identity(config)
    rows = [DaemonRow(name=name, seen=LATER, signer=fingerprint(old.says.key)) for name in ("main", "second")]
    rows.append(DaemonRow(name="gone long ago", seen=START - 900 * SECOND, signer=fingerprint(old.says.key)))
    with open_store(config) as store, store.unit() as unit:
        unit.save(*rows)
    with pytest.raises(Permanent, match="daemon main, second still signs with another key"):
        finish_rotation(yard.folder, "dfw", LATER)
    with open_store(config) as store, store.unit() as unit:
        unit.save(*(DaemonRow(name=row.name, seen=LATER, signer=fingerprint(new.says.key)) for row in rows[:2]))
    assert finish_rotation(yard.folder, "dfw", LATER) == ()
    assert told(yard, "east") == told(yard, "dfw") == {"dfw": LATER}
    trust = new.trust
    trust.take_withdrawn(yard.folder.withdrawn()[1])
    trust.certificate(new.certificate)
    with pytest.raises(BadInput, match="was withdrawn"):
        trust.certificate(old.certificate)


def test_removed_cell_is_believed_no_longer_and_its_name_can_be_used_again(yard: Yard) -> None:
    gone = identity(yard.folder.config("dfw"))
    with pytest.raises(Permanent, match="still has edges to east; celltree cell detach comes first"):
        remove(yard.folder, "dfw", LATER)
    yard.registrar.detach("dfw", "east")
    assert remove(yard.folder, "dfw", LATER) == ()
    assert yard.folder.names() == ("east",)
    assert told(yard, "east") == {"dfw": LATER}

    # By a clock that has not come as far as the one that withdrew.
    again = identity(yard.register("dfw", "east", database=f"sqlite:///{yard.path / 'dfw-again'}.sqlite"))
    again.trust.take_withdrawn(yard.folder.withdrawn()[1])
    assert again.trust.certificate(again.certificate).uuid > gone.says.uuid
    assert told(yard, "dfw") == {"dfw": LATER}
    with pytest.raises(BadInput, match="was withdrawn"):
        again.trust.certificate(gone.certificate)


def test_cell_that_cannot_be_reached_is_removed_by_force_with_its_edges(yard: Yard) -> None:
    yard.register("ord", "east")
    (yard.path / "dfw.sqlite").unlink()
    (yard.path / "dfw.sqlite").mkdir()
    remove(yard.folder, "dfw", LATER, force=True)
    assert yard.edges("east") == {("ord", False)}
    assert told(yard, "ord") == told(yard, "east") == {"dfw": LATER}


def test_keys_are_readable_by_their_owner_only(yard: Yard) -> None:
    rotate(yard.folder, "dfw", SeededBytes("new"), LATER)
    assert (yard.folder.cells / "dfw.key").stat().st_mode & 0o077 == 0
