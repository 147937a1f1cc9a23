"""One suite for every door to a pool: light hosts, the simulator over HTTP and HTTPS, and a real XAPI where
CELLTREE_XENAPI_URL, CELLTREE_XENAPI_USER and CELLTREE_XENAPI_PASSWORD name one. It reads, and makes and
removes one network; test_session_calls.py makes and removes a VM with a disk of 64 MiB, too."""

import threading
from pathlib import Path

import pytest

from cells.errors import Temporary
from xenapi_host import driver
from xenapi_host.session import Access, Session, XenFailure, connect, run_task
from xenapi_host.simulator.full import FullPool
from xenapi_host.simulator.worlds import demo_pool

WAIT = 60.0


def test_answers_are_what_the_data_model_says(session: Session) -> None:
    pools = session.call("pool.get_all_records")
    assert len(pools) == 1
    (pool,) = pools.values()
    hosts = session.call("host.get_all")
    assert pool["master"] in hosts
    metrics = session.call("host_metrics.get_all_records")
    assert all(record["memory_total"].isdigit() for record in metrics.values())


def test_refusal_comes_with_its_code_and_parameters_but_tells_the_code_alone(session: Session) -> None:
    with pytest.raises(XenFailure) as refused:
        session.call("VM.get_record", "OpaqueRef:deaddead-0000-4000-8000-000000000001")
    assert refused.value.code == "HANDLE_INVALID"
    assert refused.value.parameters == ("VM", "OpaqueRef:deaddead-0000-4000-8000-000000000001")
    assert str(refused.value) == "HANDLE_INVALID"


def test_unknown_method_is_refused(session: Session) -> None:
    with pytest.raises(XenFailure) as refused:
        session.call("VM.fly")
    assert refused.value.code == "MESSAGE_METHOD_UNKNOWN"


def test_name_that_nobody_has_finds_nothing(session: Session) -> None:
    assert session.call("VM.get_by_name_label", "no such virtual machine, surely") == []


def test_task_gives_a_reference_a_number_a_list_and_nothing(session: Session) -> None:
    host = session.call("pool.get_master", session.call("pool.get_all")[0])
    assert run_task(session, "Async.host.compute_free_memory", host, limit=WAIT).isdigit()
    network = session.call("host.get_all_records")[host]
    assert network["uuid"] == session.call("host.get_uuid", host)
    record = {"name_label": "celltree contract", "name_description": "", "MTU": "1500", "other_config": {}, "tags": []}
    made = run_task(session, "Async.network.create", record, limit=WAIT)
    assert session.call("network.get_name_label", made) == "celltree contract"
    assert run_task(session, "Async.network.destroy", made, limit=WAIT) == ""


def test_task_that_fails_raises_its_error(session: Session) -> None:
    host = session.call("host.get_all")[0]
    with pytest.raises(XenFailure) as refused:
        run_task(session, "Async.host.call_plugin", host, "no_such_plugin.py", "f", {}, limit=WAIT)
    assert (refused.value.code, refused.value.parameters) == ("XENAPI_MISSING_PLUGIN", ("no_such_plugin.py",))


def test_handle_is_asked_once(session: Session) -> None:
    uuid = next(iter(session.call("host.get_all_records").values()))["uuid"]
    assert session.handle("host", uuid) == session.handle("host", uuid) == session.call("host.get_by_uuid", uuid)


def test_many_threads_may_use_one_session(session: Session) -> None:
    wanted = session.call("host.get_all")
    seen: list[object] = []

    def ask() -> None:
        for _ in range(5):
            seen.append(session.call("host.get_all"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [wanted] * 40


def test_one_at_a_time_for_one_thing(session: Session) -> None:
    inside, most = 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with session.exclusively("thing"):
                with guard:
                    inside += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_certificate_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    pool = FullPool(tmp_path, demo_pool, https=True)
    url = pool.start()
    for wrong in (
        Access(url=url, user="root", password="xen", fingerprint="00" * 32),
        Access(url=url, user="root", password="xen"),
    ):
        session = connect(wrong)
        with pytest.raises(Temporary):
            session.call("host.get_all")
        session.close()
    pool.stop()


def test_pool_can_be_measured(session: Session) -> None:
    facts = driver.measure(session)
    assert facts.host(facts.master) is not None
    assert all(host.memory_total_mib > 0 and host.cpus > 0 for host in facts.hosts)
    assert isinstance(driver.power_states(session), dict)
