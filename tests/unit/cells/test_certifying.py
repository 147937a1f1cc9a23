"""Changing whom a tree believes, with nothing running: SQLite files, and brokers that are only named."""

from dataclasses import replace
from pathlib import Path

import pytest

from cells.certifying import finish_rotation, remove, rotate
from cells.codec import pack_record
from cells.config import CellConfig, identity, keys
from cells.decision import Remove
from cells.errors import BadInput, Permanent, Temporary
from cells.house import House
from cells.identity import fingerprint, seal
from cells.messages import BuildServer
from cells.model import BuildSpec
from cells.names import SECOND
from cells.record import Record
from cells.registering import open_store
from cells.rows import DaemonRow, OutboxRow, SettingRow, WakeRow
from cells.withdrawing import WITHDRAWN
from tests.support.embedded import IMAGE, START, TINY, SeededBytes
from tests.unit.cells.test_registering import Yard
from tests.unit.routing.trees import a_record

LATER = START + 100 * SECOND
SPEC = BuildSpec(name="vm", project="p", user="u", flavor=TINY, image=IMAGE)


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


def let_run(config: CellConfig) -> None:
    """A daemon of the cell has its first tick, and ends."""
    house = House(clock=lambda: LATER)
    house.open(config).node.step()
    house.close()


def test_rotation_gives_a_new_key_that_opens_what_the_former_one_kept(yard: Yard) -> None:
    former = keys(yard.folder.config("dfw")).seed
    before = identity(yard.folder.config("dfw"))
    kept = before.keep(b"word", SeededBytes("x"))
    config = rotate(yard.folder, "dfw", SeededBytes("new"), LATER)
    after = identity(config)
    assert (after.says.uuid, after.says.role) == (before.says.uuid, before.says.role)
    assert after.says.key != before.says.key
    assert after.says.issued == LATER
    assert keys(config).former == (former,)
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
    with pytest.raises(
        Permanent, match=r"dfw itself: 1 rows of edges \(sealed anew at the next tick of a running daemon\)"
    ):
        finish_rotation(yard.folder, "dfw", LATER)
    assert told(yard, "dfw") == {}
    let_run(config)
    assert finish_rotation(yard.folder, "dfw", LATER) == ()
    held = keys(yard.folder.config("dfw"))
    assert (held.former, held.public) == ((), (old.says.key,))
    assert identity(yard.folder.config("dfw")).says.key == new.says.key
    assert finish_rotation(yard.folder, "dfw", LATER) == ()
    assert told(yard, "east") == told(yard, "dfw") == {"dfw": LATER}
    trust = new.trust
    trust.take_withdrawn(yard.folder.withdrawn()[1])
    trust.certificate(new.certificate)
    with pytest.raises(BadInput, match="was withdrawn"):
        trust.certificate(old.certificate)


def test_former_keys_stay_while_an_api_cell_would_seal_for_them_or_has(yard: Yard) -> None:
    old = identity(yard.folder.config("dfw"))
    yard.hear("east", a_record("dfw", uuid=old.says.uuid))
    config = rotate(yard.folder, "dfw", SeededBytes("new"), LATER)
    let_run(config)
    with pytest.raises(Permanent, match="east still knows dfw by a former certificate"):
        finish_rotation(yard.folder, "dfw", LATER)
    yard.hear("east", a_record("dfw", uuid=old.says.uuid))

    build = BuildServer(attempt=1, spec=replace(SPEC, sealed=seal(b"secret", old.says.key)))
    record = Record(id=b"r" * 16, body=build, origin="east", destination="dfw", deadline=LATER)
    row = OutboxRow(
        id=record.id, shard=0, destination="dfw", next_try=0, attempts=0, deadline=LATER, data=pack_record(record)
    )
    save(yard, "east", row)
    with pytest.raises(Permanent, match=r"at east: 1 rows of outbox \(commands on their way to it\)"):
        finish_rotation(yard.folder, "dfw", LATER)
    save(yard, "east", Remove(row=OutboxRow, key=(record.id,)))

    # It has arrived, and waits there for what is before it.
    wake = WakeRow(id=record.id, shard=0, due=LATER, data=pack_record(record))
    save(yard, "dfw", wake)
    with pytest.raises(Permanent, match=r"at dfw itself: 1 rows of wakes \(what is to be decided soon\)"):
        finish_rotation(yard.folder, "dfw", LATER)
    save(yard, "dfw", Remove(row=WakeRow, key=(wake.id,)))
    assert len(keys(yard.folder.config("dfw")).former) == 1

    # What was sealed for others, or for the newest key, is in nobody's way.
    fresh = replace(record, body=replace(build, spec=replace(SPEC, sealed=seal(b"secret", identity(config).says.key))))
    save(yard, "east", replace(row, data=pack_record(fresh)))
    finish_rotation(yard.folder, "dfw", LATER)
    assert keys(yard.folder.config("dfw")).former == ()


def test_former_keys_stay_while_an_api_cell_cannot_be_asked(yard: Yard) -> None:
    let_run(rotate(yard.folder, "dfw", SeededBytes("new"), LATER))
    (yard.path / "east.sqlite").unlink()
    (yard.path / "east.sqlite").mkdir()
    with pytest.raises(Temporary, match="cell east"):
        finish_rotation(yard.folder, "dfw", LATER)
    assert len(keys(yard.folder.config("dfw")).former) == 1


def save(yard: Yard, name: str, *rows: object) -> None:
    with open_store(yard.folder.config(name)) as store, store.unit() as unit:
        unit.save(*rows)


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
