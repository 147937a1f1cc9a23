"""Events, sessions, tasks and faults of the engine, where several clients are at work."""

import threading

import pytest

from tests.xenserver.simulated import a_disk, a_vm
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.faults import Fault
from xenapi_host.simulator.light import LightPool, LightSession
from xenapi_host.simulator.worlds import demo_pool


@pytest.fixture
def pool():
    return LightPool(hosts=2, seed=1)


def in_background(work):
    """Runs `work` in a thread; the result, or what it raised, is in the list when the thread has ended."""
    outcome = []

    def run():
        try:
            outcome.append(work())
        except Failure as failure:
            outcome.append(failure.details)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def waits(pool):
    """Returns when some client waits for a change."""
    for _ in range(10_000_000):
        with pool.engine.lock:
            if pool.engine.waiting:
                return
    raise AssertionError("nobody waits")


def test_a_change_wakes_who_waits_for_it_with_the_whole_new_record(pool):
    watcher, writer = pool.login(), pool.login()
    vm = writer.call("VM.create", a_vm())
    token = watcher.call("event.from", ["vm"], "", 0.0)["token"]
    thread, outcome = in_background(lambda: watcher.call("event.from", ["vm"], token, 30.0))
    waits(pool)
    writer.call("VM.set_name_label", vm, "new")
    thread.join(30)
    (event,) = outcome[0]["events"]
    assert (event["class"], event["operation"], event["snapshot"]["name_label"]) == ("vm", "mod", "new")


def test_events_told_one_after_the_other_rebuild_the_pool_exactly(pool):
    watcher, writer = pool.login(), pool.login()
    token, seen = "", {}
    vms = [writer.call("VM.create", a_vm(name_label=str(n))) for n in range(5)]
    for round_ in range(3):
        writer.call("VM.start", vms[round_], False, False)
        writer.call("VM.destroy", vms[round_ + 2]) if round_ == 2 else None
        batch = watcher.call("event.from", ["*"], token, 0.0)
        token = batch["token"]
        for event in batch["events"]:
            if event["operation"] == "del":
                seen.pop(event["ref"], None)
            else:
                seen[event["ref"]] = event["snapshot"]
    now = watcher.call("VM.get_all_records")
    assert {ref: seen[ref] for ref in now} == now
    assert {ref for ref, record in seen.items() if "power_state" in record} == set(now)


def test_the_old_queue_tells_of_single_objects_as_they_were_registered(pool):
    watcher, writer = pool.login(), pool.login()
    vms = [writer.call("VM.create", a_vm()) for _ in range(2)]
    watcher.call("event.register", [f"VM/{vms[0]}", "host"])
    for vm in vms:
        writer.call("VM.set_name_label", vm, "renamed")
    assert [event["ref"] for event in watcher.call("event.next")] == [vms[0]]
    watcher.call("event.unregister", [f"vm/{vms[0]}", "host"])
    thread, outcome = in_background(lambda: watcher.call("event.next"))
    waits(pool)  # registered for nothing is registered
    watcher.close()
    thread.join(30)
    assert outcome[0][0] == "SESSION_INVALID"


def test_logging_out_wakes_a_waiting_call_with_session_invalid(pool):
    session = pool.login()
    token = session.call("event.from", ["vm"], "", 0.0)["token"]
    thread, outcome = in_background(lambda: session.call("event.from", ["vm"], token, 30.0))
    waits(pool)
    session.close()
    thread.join(30)
    assert outcome == [["SESSION_INVALID", session.ref]]


def test_an_operation_under_way_is_seen_and_refuses_the_next():
    engine = Engine(seed=1)
    demo_pool(engine, hosts=1)
    client, other = LightSession(engine, "root", "xen"), LightSession(engine, "root", "xen")
    vm = client.call("VM.create", a_vm())
    going, release = threading.Event(), threading.Event()

    def hold(seconds):
        going.set()
        release.wait(30)

    engine.sleep = hold
    engine.faults.add(Fault(method="VM.start", when="during", delay=1.0))
    thread, outcome = in_background(lambda: client.call("VM.start", vm, False, False))
    assert going.wait(30)
    assert list(other.call("VM.get_current_operations", vm).values()) == ["start"]
    with pytest.raises(Failure) as refused:
        other.call("VM.start", vm, False, False)
    assert refused.value.details[:4] == ["OTHER_OPERATION_IN_PROGRESS", "VM", vm, "start"]
    release.set()
    thread.join(30)
    assert outcome == [""]
    assert other.call("VM.get_power_state", vm) == "Running"
    assert other.call("VM.get_current_operations", vm) == {}


@pytest.mark.parametrize(("when", "power_state"), [("before", "Halted"), ("after", "Running")])
def test_the_nth_call_fails_before_or_after_its_effect(pool, when, power_state):
    session = pool.login()
    first, second = (session.call("VM.create", a_vm()) for _ in range(2))
    pool.engine.faults.add(Fault(method="VM.start", when=when, error=("SR_BACKEND_FAILURE_46", "", "x"), nth=2))
    session.call("VM.start", first, False, False)
    with pytest.raises(Failure) as struck:
        session.call("VM.start", second, False, False)
    assert struck.value.details == ["SR_BACKEND_FAILURE_46", "", "x"]
    assert session.call("VM.get_power_state", second) == power_state
    session.call("VM.hard_shutdown", first)
    session.call("VM.start", first, False, False)


def test_memory_is_counted_so_that_a_host_is_never_overfilled(pool):
    session = pool.login()
    host = session.call("host.get_all")[0]
    started = 0
    with pytest.raises(Failure) as refused:
        while True:
            vm = session.call("VM.create", a_vm())
            session.call("VM.start_on", vm, host, False, False)
            started += 1
    assert refused.value.details[0] == "HOST_NOT_ENOUGH_FREE_MEMORY"
    free = int(session.call("host.compute_free_memory", host))
    assert 0 <= free < int(refused.value.details[1])
    assert started == (16 * 1024 - 1024) // 520


def test_many_clients_at_once_lose_nothing(pool):
    def work():
        session = pool.login()
        sr = session.call("pool.get_default_SR", session.call("pool.get_all")[0])
        for _ in range(20):
            disk = session.call("VDI.create", a_disk(sr))
            snapshot = session.call("VDI.snapshot", disk)
            session.call("SR.scan", sr)
            session.call("VDI.destroy", snapshot)
            session.call("VDI.destroy", disk)
        session.close()
        return "done"

    threads = [in_background(work) for _ in range(6)]
    for thread, outcome in threads:
        thread.join(60)
        assert outcome == ["done"]
    session = pool.login()
    assert session.call("VDI.get_all") == []
    for sr in session.call("SR.get_all"):
        assert session.call("SR.get_physical_utilisation", sr) == "0"
