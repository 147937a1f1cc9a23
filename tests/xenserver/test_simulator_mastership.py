"""Masters that change, slaves that answer for themselves, hosts that die under their clients, sessions that age."""

import http.client
import threading
from xmlrpc.client import ProtocolError

import pytest
import XenAPI

from cells.errors import Temporary
from tests.xenserver.simulated import a_pool, a_vm, connected, failure_of
from xenapi_host.session import in_process
from xenapi_host.simulator.light import LightPool
from xenapi_host.simulator.mishaps import kill_host, return_host

ROOT = ("root", "xen", "2.21", "test")
LOST = (http.client.HTTPException, ConnectionError, ProtocolError)


class Clock:
    def __init__(self):
        self.now = 1_790_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def light(clock):
    return LightPool(hosts=2, seed=1, clock=clock)


@pytest.fixture
def pool(tmp_path):
    with a_pool(tmp_path, hosts=3) as made:
        yield made


@pytest.fixture
def door(pool):
    """Opens sessions on the pool's hosts by number."""
    opened = []

    def at(number, *, local=False):
        session = XenAPI.Session(pool.server.urls[number])
        opened.append(session)
        if local:
            session.slave_local_login_with_password("root", "xen")
        else:
            session.login_with_password(*ROOT)
        return session

    yield at
    for session in opened:
        session("close")()


def hosts_of(pool):
    return pool.engine.db.refs("host")


def sent_to(door, number):
    """Whither a host sends who wants to log in; nothing where it is master."""
    try:
        door(number)
    except XenAPI.Failure as failure:
        code, address = failure.details
        assert code == "HOST_IS_SLAVE"
        return address
    return None


def test_a_designated_master_takes_over_and_the_old_one_sends_callers_to_it(pool, door):
    session = door(0)
    vm = session.xenapi.VM.create(a_vm())
    hosts = session.xenapi.host.get_all()
    session.xenapi.pool.designate_new_master(hosts[1])
    assert [sent_to(door, number) for number in range(3)] == ["127.0.0.2", None, "127.0.0.2"]
    after = door(1)
    assert after.xenapi.VM.get_all_records()[vm]["name_label"] == "vm"
    assert after.xenapi.pool.get_master(after.xenapi.pool.get_all()[0]) == hosts[1]
    assert failure_of(after.xenapi.session.get_uuid, session._session)[0] == "HANDLE_INVALID"


def test_a_client_that_waits_for_events_is_told_that_its_session_has_gone(light):
    session, watcher = light.login(), light.login()
    token = watcher.call("event.from", ["vm"], "", 0.0)["token"]
    outcome = []
    thread = threading.Thread(
        target=lambda: outcome.append(failure_of(watcher.call, "event.from", ["vm"], token, 30.0))
    )
    thread.start()
    with light.engine.lock:
        while not light.engine.waiting:
            light.engine.wakeup.wait(0.01)
    session.call("pool.designate_new_master", session.call("host.get_all")[1])
    thread.join(30)
    assert outcome == [["SESSION_INVALID", watcher.ref]]


def test_every_member_must_agree_to_a_new_master(light):
    session = light.login()
    first, second = session.call("host.get_all")
    assert session.call("pool.designate_new_master", first) == ""
    assert session.call("pool.get_all")
    kill_host(light.engine, second)
    assert failure_of(session.call, "pool.designate_new_master", second) == ["HOST_OFFLINE", second]


def test_our_own_session_follows_the_master(pool):
    session = connected(pool)
    hosts = session.call("host.get_all")
    session.call("pool.designate_new_master", hosts[2])
    assert session.call("pool.get_all_records").popitem()[1]["master"] == hosts[2]
    session.close()


def test_a_slave_is_made_master_when_the_master_has_died(pool, door):
    session = door(0)
    kill_host(pool.engine, hosts_of(pool)[0])
    with pytest.raises(LOST):
        session.xenapi.VM.get_all()
    slave = door(1, local=True)
    assert slave.xenapi.host.is_in_emergency_mode() is True
    assert slave.xenapi.pool.is_slave(hosts_of(pool)[1]) is True
    assert failure_of(slave.xenapi.VM.get_all) == ["HOST_IS_SLAVE", "127.0.0.1"]
    slave.xenapi.pool.emergency_transition_to_master()
    master = door(1)
    assert sent_to(door, 2) == "127.0.0.1"
    assert master.xenapi.pool.recover_slaves() == [hosts_of(pool)[2]]
    assert sent_to(door, 2) == "127.0.0.2"
    return_host(pool.engine, hosts_of(pool)[0])
    assert sent_to(door, 0) == "127.0.0.2"


def test_a_slave_is_told_by_hand_where_its_master_is(pool, door):
    kill_host(pool.engine, hosts_of(pool)[0])
    door(1, local=True).xenapi.pool.emergency_transition_to_master()
    slave = door(2, local=True)
    assert failure_of(slave.xenapi.pool.emergency_reset_master, "10.9.9.9") == ["HOST_UNKNOWN_TO_MASTER", "10.9.9.9"]
    slave.xenapi.pool.emergency_reset_master("127.0.0.2")
    assert slave.xenapi.host.is_in_emergency_mode() is False
    assert sent_to(door, 2) == "127.0.0.2"
    slave.xenapi.session.local_logout()
    assert slave._session not in pool.engine.local_sessions


def test_a_slave_lets_only_those_in_who_know_the_password(pool):
    slave = XenAPI.Session(pool.server.urls[1])
    refused = failure_of(slave.slave_local_login_with_password, "root", "wrong")
    assert refused[:2] == ["SESSION_AUTHENTICATION_FAILED", "root"]
    slave("close")()


def test_light_hosts_whose_master_has_died_do_not_answer(light):
    session = in_process(light.login())
    kill_host(light.engine, light.engine.pool["master"])
    with pytest.raises(Temporary):
        session.call("VM.get_all")


# -- sessions --


def test_light_hosts_log_in_again_as_the_sdk_does_when_their_session_has_ended(light, clock):
    session = in_process(light.login())
    clock.now += 25 * 3600
    assert session.call("VM.get_all")


def test_a_session_ends_when_nobody_has_used_it_for_a_day(light, clock):
    session = light.login()
    for _ in range(3):
        clock.now += 23 * 3600
        assert session.call("VM.get_all")
    clock.now += 25 * 3600
    assert failure_of(session.call, "VM.get_all") == ["SESSION_INVALID", session.ref]
    other = light.login()
    assert other.call("session.get_all_subject_identifiers") == []
    assert light.engine.db.refs("session") == [other.ref]


def test_of_501_sessions_of_one_originator_the_longest_unused_ends(light, clock):
    other = light.login("somebody else")
    sessions = []
    for _ in range(500):
        clock.now += 1
        sessions.append(light.login("many"))
    clock.now += 1
    sessions[0].call("VM.get_all")
    light.login("many")
    assert failure_of(sessions[1].call, "VM.get_all")[0] == "SESSION_INVALID"
    assert sessions[0].call("VM.get_all") and other.call("VM.get_all")
