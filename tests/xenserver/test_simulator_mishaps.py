"""Hosts that die and return, guests that crash, sessions that end, plugins cut short."""

import threading

import pytest

from tests.xenserver.simulated import a_pool, a_vm, failure_of, logged_in
from xenapi_host.simulator import mishaps
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.light import LightPool


@pytest.fixture
def pool():
    return LightPool(hosts=2, seed=1)


def running_vm(session, host, **fields):
    vm = session.call("VM.create", a_vm(**fields))
    session.call("VM.start_on", vm, host, False, False)
    return vm


def test_a_dead_hosts_vms_show_running_but_nothing_can_be_done_to_them(pool):
    session = pool.login()
    host, other = session.call("host.get_all")
    vm = running_vm(session, other)
    mishaps.kill_host(pool.engine, other)
    assert session.call("VM.get_power_state", vm) == "Running"
    for method in ("VM.clean_shutdown", "VM.hard_reboot", "VM.pause"):
        with pytest.raises(Failure) as refused:
            session.call(method, vm)
        assert refused.value.details == ["HOST_OFFLINE", other]
    halted = session.call("VM.create", a_vm())
    with pytest.raises(Failure) as refused:
        session.call("VM.start_on", halted, other, False, False)
    assert refused.value.details == ["HOST_OFFLINE", other]
    session.call("VM.start", halted, False, False)
    assert session.call("VM.get_resident_on", halted) == host


def test_a_host_that_returns_has_its_vms_halted_and_its_memory_free(pool):
    session = pool.login()
    host = session.call("host.get_all")[1]
    free = session.call("host.compute_free_memory", host)
    vm = running_vm(session, host)
    mishaps.kill_host(pool.engine, host)
    mishaps.return_host(pool.engine, host)
    assert session.call("VM.get_power_state", vm) == "Halted"
    assert session.call("host.compute_free_memory", host) == free


def test_a_host_is_shut_down_or_rebooted_only_when_it_is_disabled_and_empty(pool):
    session = pool.login()
    host = session.call("host.get_all")[1]
    vm = running_vm(session, host)
    assert failure_of(session.call, "host.reboot", host) == ["HOST_NOT_DISABLED"]
    session.call("host.disable", host)
    assert failure_of(session.call, "host.shutdown", host) == ["HOST_IN_USE", host, "vm", vm]
    session.call("VM.hard_shutdown", vm)
    session.call("host.reboot", host)
    assert session.call("host.get_enabled", host) is True
    session.call("host.disable", host)
    session.call("host.shutdown", host)
    assert session.call("host_metrics.get_live", session.call("host.get_metrics", host)) is False
    assert failure_of(session.call, "host.shutdown", host) == ["HOST_OFFLINE", host]


def test_a_master_that_reboots_has_forgotten_its_sessions(pool):
    session = pool.login()
    master = session.call("host.get_all")[0]
    session.call("host.disable", master)
    session.call("host.reboot", master)
    assert failure_of(session.call, "VM.get_all") == ["SESSION_INVALID", session.ref]
    assert pool.login().call("host.get_enabled", master) is True


@pytest.mark.parametrize(("action", "power_state"), [("destroy", "Halted"), ("restart", "Running")])
def test_a_crashed_guest_does_what_its_vm_says(pool, action, power_state):
    session = pool.login()
    vm = running_vm(session, session.call("host.get_all")[0], actions_after_crash=action)
    before = session.call("VM.get_domid", vm)
    mishaps.crash_guest(pool.engine, vm)
    assert session.call("VM.get_power_state", vm) == power_state
    assert session.call("VM.get_domid", vm) != before


def test_ended_sessions_are_told_and_a_new_one_works(pool):
    session = pool.login()
    mishaps.end_sessions(pool.engine)
    with pytest.raises(Failure) as refused:
        session.call("VM.get_all")
    assert refused.value.details == ["SESSION_INVALID", session.ref]
    assert pool.login().call("host.get_all")


def test_stopping_a_pool_ends_its_running_plugins(tmp_path):
    ended = threading.Event()
    with a_pool(tmp_path) as pool, logged_in(pool) as session:
        started = tmp_path / "started"
        script = f"#!/bin/sh\ntouch {started}.new\nmv {started}.new {started}\nexec sleep 600\n"
        pool.dom0().install("long", script)
        host = session.xenapi.host.get_all()[0]
        session.xenapi_request("Async.host.call_plugin", (host, "long", "main", {}))
        while not started.exists():
            ended.wait(0.01)
    assert not any(script for dom0 in pool.engine.dom0s.values() for script in dom0._running)
