"""The pool's objects survive on disk: every change, cut short or not, and the file does not grow without end."""

import pytest

from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.journal import Journal
from xenapi_host.simulator.light import LightSession
from xenapi_host.simulator.worlds import demo_pool


@pytest.fixture
def path(tmp_path):
    return tmp_path / "database.jsonl"


@pytest.fixture
def followed(path):
    engine = Engine(seed=1)
    demo_pool(engine)
    kept = Journal(engine, path, longest_tail=100)
    kept.follow()
    yield engine
    kept.close()


@pytest.fixture
def session(followed):
    return LightSession(followed, "root", "xen")


def restored(path):
    engine = Engine(seed=2)
    assert Journal(engine, path).restore()
    return LightSession(engine, "root", "xen")


def test_every_answered_change_is_there_after_a_restart(path, session):
    network = session.call("network.get_all")[0]
    session.call("network.set_name_label", network, "renamed")
    session.call("network.add_to_other_config", network, "k", "v")
    gone = session.call("secret.create", {"value": "x", "other_config": {}})
    session.call("secret.destroy", gone)
    again = restored(path)
    assert again.call("network.get_record", network) == session.call("network.get_record", network)
    assert again.call("secret.get_all") == []
    assert again.call("network.get_by_name_label", "renamed") == [network]


def test_a_line_cut_short_by_a_crash_is_left_out(path, session):
    network = session.call("network.get_all")[0]
    session.call("network.set_name_label", network, "one")
    whole = path.read_bytes()
    session.call("network.set_name_label", network, "two")
    path.write_bytes(path.read_bytes()[: len(whole) + 10])
    assert restored(path).call("network.get_name_label", network) == "one"


def test_the_file_is_made_fresh_when_it_has_grown(path, session, followed):
    network = session.call("network.get_all")[0]
    for number in range(2000):
        session.call("network.set_name_label", network, str(number))
    assert len(path.read_text(encoding="utf-8").splitlines()) < 100 + 6 * len(followed.db.rows)
    assert restored(path).call("network.get_name_label", network) == "1999"
