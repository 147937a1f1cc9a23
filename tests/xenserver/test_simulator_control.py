"""The control socket and its command: faults by name, chance and number, full repositories, crashes, disks written."""

import base64
import http.client
import json
import threading
from urllib.parse import urlsplit

import pytest

from cells.cli.main import main
from tests.xenserver.simulated import a_disk, a_pool, a_vm, failure_of, logged_in
from xenapi_host import vhd
from xenapi_host.simulator.control import Refused, obey, obey_file
from xenapi_host.simulator.control_client import Unreachable, ask
from xenapi_host.simulator.light import LightPool

MIB = 2**20


@pytest.fixture
def light():
    return LightPool(hosts=2, seed=1)


def do(pool, **request):
    """A request that is done."""
    answer = obey(pool.engine, json.dumps(request))
    assert answer.pop("ok"), answer
    return answer


def why_not(pool, **request):
    """The reason for which a request is refused."""
    answer = obey(pool.engine, json.dumps(request))
    assert not answer["ok"]
    return answer["error"]


# -- rules --


def test_a_glob_strikes_every_method_it_covers_and_no_other(light):
    session = light.login()
    do(light, do="fault", method="VDI.get_*", error=["INTERNAL_ERROR", "x"], times=0)
    assert failure_of(session.call, "VDI.get_all") == ["INTERNAL_ERROR", "x"]
    assert failure_of(session.call, "VDI.get_all_records") == ["INTERNAL_ERROR", "x"]
    assert session.call("SR.get_all")


def test_the_work_of_a_task_is_struck_by_its_methods_name_and_its_beginning_by_async(light):
    session = light.login()
    vm = session.call("VM.create", a_vm())
    do(light, do="fault", method="VM.start", error=["SR_FULL", "1", "0"])
    task = session.call("Async.VM.start", vm, False, False)
    assert session.call("task.get_error_info", task) == ["SR_FULL", "1", "0"]
    do(light, do="fault", method="Async.VM.*", error=["INTERNAL_ERROR", "y"])
    assert failure_of(session.call, "Async.VM.start", vm, False, False) == ["INTERNAL_ERROR", "y"]
    assert session.call("VM.start", vm, False, False) == ""


def test_chance_is_drawn_from_the_seed_and_so_repeats(light):
    session = light.login()

    def struck(seed):
        light.engine.faults.seed = seed
        light.engine.faults._count = 0
        do(light, do="fault", method="VM.get_all", error=["INTERNAL_ERROR", ""], times=0, probability=0.5)
        found = []
        for number in range(40):
            try:
                session.call("VM.get_all")
            except Exception:
                found.append(number)
        do(light, do="clear")
        return found

    first = struck(1)
    assert struck(1) == first != struck(2)
    assert 10 < len(first) < 30


def test_nth_and_times_bound_what_chance_may_strike(light):
    session = light.login()
    do(light, do="fault", method="VM.get_all", error=["X"], nth=3, times=2)
    outcomes = []
    for _ in range(6):
        try:
            outcomes.append(session.call("VM.get_all") is not None)
        except Exception as error:
            outcomes.append(error.details)
    assert outcomes == [True, True, ["X"], ["X"], True, True]


def test_what_hangs_goes_on_when_its_fault_is_cleared(light):
    session, done = light.login(), []
    vm = session.call("VM.create", a_vm())
    number = do(light, do="fault", method="VM.start", when="during", hang=True)["fault"]
    thread = threading.Thread(target=lambda: done.append(session.call("VM.start", vm, False, False)))
    thread.start()
    with light.engine.lock:
        while not light.engine.waiting:
            light.engine.wakeup.wait(0.01)
    assert not done
    assert list(light.login().call("VM.get_current_operations", vm).values()) == ["start"]
    do(light, do="clear", fault=number)
    thread.join(30)
    assert done == [""]
    assert session.call("VM.get_power_state", vm) == "Running"


@pytest.mark.parametrize(("when", "made"), [("before", 0), ("after", 1)])
@pytest.mark.parametrize("method", ["network.create", "Async.network.create"])
def test_a_dropped_connection_leaves_no_answer_and_the_effect_only_after(tmp_path, when, made, method):
    with a_pool(tmp_path) as pool, logged_in(pool) as session:
        do(pool, do="fault", method="network.create", drop=True, when=when)
        record = {"name_label": "dropped", "name_description": "", "MTU": "1500", "other_config": {}, "tags": []}
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": [session._session, record], "id": 1})
        connection = http.client.HTTPConnection(urlsplit(pool.url).netloc, timeout=30)
        connection.request("POST", "/jsonrpc", body)
        with pytest.raises(http.client.RemoteDisconnected):
            connection.getresponse()
        connection.close()
        pool.workers.join()
        assert len(session.xenapi.network.get_by_name_label("dropped")) == made


def test_stopping_a_pool_ends_what_hangs(tmp_path):
    with a_pool(tmp_path) as pool, logged_in(pool) as session:
        vm = session.xenapi.VM.create(a_vm())
        do(pool, do="fault", method="VM.start", when="during", hang=True)
        session.xenapi_request("Async.VM.start", (vm, False, False))
    assert not pool.workers._threads


def test_a_transfer_over_http_is_refused_or_dropped_by_its_path(tmp_path):
    with a_pool(tmp_path) as pool, logged_in(pool) as session:
        disk = session.xenapi.VDI.create(a_disk(session.xenapi.SR.get_all()[0]))

        def export():
            connection = http.client.HTTPConnection(urlsplit(pool.url).netloc, timeout=30)
            try:
                connection.request("GET", f"/export_raw_vdi?vdi={disk}&session_id={session._session}")
                return connection.getresponse().status
            finally:
                connection.close()

        do(pool, do="fault", method="GET /export_raw_vdi", error=["VDI_IO_ERROR", "x"])
        assert export() == 500
        do(pool, do="fault", method="GET /export_raw_vdi", drop=True)
        with pytest.raises(http.client.RemoteDisconnected):
            export()
        assert export() == 200


# -- what is full, crashed, written --


def test_a_repository_is_full_until_it_is_let_go(tmp_path):
    with a_pool(tmp_path) as pool, logged_in(pool) as session:
        sr = session.xenapi.SR.get_all()[0]
        uuid = session.xenapi.SR.get_uuid(sr)
        do(pool, do="fill_sr", sr=uuid, free=MIB)
        size, used = (int(session.xenapi_request(f"SR.get_physical_{w}", (sr,))) for w in ("size", "utilisation"))
        assert size - used == MIB
        assert failure_of(session.xenapi.VDI.create, a_disk(sr))[0] == "SR_FULL"
        do(pool, do="fill_sr", sr=uuid, free=None)
        assert session.xenapi.VDI.create(a_disk(sr))


def test_a_copy_that_finds_no_room_leaves_nothing(tmp_path):
    with a_pool(tmp_path, hosts=2) as pool, logged_in(pool) as session:
        here, there = session.xenapi.SR.get_all()
        disk = session.xenapi.VDI.create(a_disk(here, 16 * MIB))
        content = base64.b64encode(b"x" * 6 * MIB).decode()
        do(pool, do="write_disk", vdi=session.xenapi.VDI.get_uuid(disk), data=content)
        folder = pool.storage.folder(session.xenapi.SR.get_uuid(there))
        do(pool, do="fill_sr", sr=session.xenapi.SR.get_uuid(there), free=5 * MIB)
        assert failure_of(session.xenapi.VDI.copy, disk, there)[0] == "SR_FULL"
        assert not list(folder.glob("*.vhd"))
        session.xenapi.SR.scan(there)
        assert session.xenapi.SR.get_VDIs(there) == []


def test_bytes_come_into_a_disk_from_outside(tmp_path):
    with a_pool(tmp_path) as pool, logged_in(pool) as session:
        sr = session.xenapi.SR.get_all()[0]
        disk = session.xenapi.VDI.get_uuid(session.xenapi.VDI.create(a_disk(sr)))
        do(pool, do="write_disk", vdi=disk, offset=5 * MIB, data=base64.b64encode(b"hello").decode())
        with vhd.Disk.open(pool.storage.path(session.xenapi.SR.get_uuid(sr), disk)) as written:
            assert written.pread(5 * MIB - 1, 7) == b"\0hello\0"
        assert "do not fit" in why_not(pool, do="write_disk", vdi=disk, offset=16 * MIB - 2, data="aGVsbG8=")


def test_hosts_and_guests_crash_and_return_by_name(light):
    session = light.login()
    host = session.call("host.get_all")[1]
    vm = session.call("VM.create", a_vm(name_label="fragile"))
    session.call("VM.start_on", vm, host, False, False)
    do(light, do="crash_vm", vm="fragile")
    assert session.call("VM.get_power_state", vm) == "Halted"
    name = session.call("host.get_name_label", host)
    do(light, do="crash_host", host=name)
    assert failure_of(session.call, "VM.start_on", vm, host, False, False) == ["HOST_OFFLINE", host]
    assert [h["down"] for h in do(light, do="show")["hosts"]] == [False, True]
    do(light, do="return_host", host=name)
    assert session.call("VM.start_on", vm, host, False, False) == ""


def test_sessions_of_one_originator_expire(light):
    mine, other = light.login("mine"), light.login("other")
    assert do(light, do="expire_sessions", originator="mi*") == {"expired": 1}
    assert failure_of(mine.call, "VM.get_all") == ["SESSION_INVALID", mine.ref]
    assert other.call("VM.get_all")


# -- requests that cannot be done --


@pytest.mark.parametrize(
    ("request_", "remedy"),
    [
        ({}, 'a request is an object as {"do": "show"}'),
        ({"do": "explode"}, '"do" must be one of fault, clear, show'),
        ({"do": "fault", "method": "VM.start"}, 'give it "error", "delay", "hang" or "drop"'),
        ({"do": "fault", "method": "VM.fly", "hang": True}, 'XenAPI has no method "VM.fly"'),
        ({"do": "fault", "method": "VM.start", "hang": 1}, '"hang" must be true or false'),
        ({"do": "fault", "method": "VM.start", "hang": True, "when": "soon"}, "before, during, after"),
        ({"do": "fault", "method": "VM.start", "drop": True, "when": "during"}, "crash its host"),
        ({"do": "fault", "method": "VM.start", "hang": True, "color": 3}, '"color" means nothing here'),
        ({"do": "fault", "method": "VM.start", "hang": True, "probability": 2}, "between 0 and 1"),
        ({"do": "clear", "fault": 9}, 'there is no fault 9; "show" has their numbers'),
        ({"do": "fill_sr", "sr": "nowhere", "free": 0}, 'no SR has the uuid or name "nowhere"'),
        ({"do": "return_host", "host": "light-host2"}, "the host is up"),
        ({"do": "write_disk", "vdi": "x", "data": "?"}, '"data" must be base64'),
        ({"do": "write_disk", "vdi": "x"}, 'give either "data" in base64 or "every_block": true'),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_remedy(light, request_, remedy):
    assert remedy in why_not(light, **request_)


def test_a_crashed_vm_must_run_first(light):
    light.login().call("VM.create", a_vm(name_label="idle"))
    assert "only a running guest can crash" in why_not(light, do="crash_vm", vm="idle")


def test_lines_that_are_no_json_are_answered_and_the_conversation_goes_on(light):
    assert obey(light.engine, b"\xff\n")["error"].startswith("not JSON")
    assert obey(light.engine, "[1")["error"].startswith("not JSON")
    assert obey(light.engine, '{"do": "show"}')["ok"]


def test_a_file_sets_faults_and_names_the_line_that_cannot_be_done(light):
    obey_file(light.engine, ["# slow storage", "", '{"do": "fault", "method": "SR.scan", "delay": 2}'])
    assert [rule.delay for rule in light.engine.faults.rules] == [2.0]
    with pytest.raises(Refused, match=r"line 2 of the faults: .*VM\.fly"):
        obey_file(light.engine, ['{"do": "show"}', '{"do": "fault", "method": "VM.fly", "hang": true}'])


# -- the command --


def test_the_command_speaks_to_the_socket(tmp_path, capsys):
    socket = tmp_path / "control"

    def control(*words):
        assert main(["xenserver", "control", str(socket), *words]) == 0
        return json.loads(capsys.readouterr().out)

    with a_pool(tmp_path / "pool", control=socket) as pool, logged_in(pool) as session:
        assert socket.stat().st_mode & 0o777 == 0o600
        assert control("fail", "VM.get_all", "SR_FULL", "1", "0", "--nth", "2") == {"fault": 1}
        session.xenapi.VM.get_all()
        assert failure_of(session.xenapi.VM.get_all) == ["SR_FULL", "1", "0"]
        shown = control("show")
        assert [(rule["method"], rule["seen"], rule["struck"]) for rule in shown["faults"]] == [("VM.get_all", 2, 1)]
        disk = session.xenapi.VDI.get_uuid(session.xenapi.VDI.create(a_disk(session.xenapi.SR.get_all()[0])))
        assert control("write-disk", disk, "--text", "hello") == {}
        assert control("fill-sr", shown["repositories"][0]["uuid"], "0") == {}
        assert control("hang", "VM.start", "--when", "during") == {"fault": 2}
        assert control("clear") == {"cleared": 2}
        assert control("expire-sessions", "--originator", "test") == {"expired": 1}
        assert main(["xenserver", "control", str(socket), "crash-vm", "nobody"]) == 1
        assert 'no VM has the uuid or name "nobody"' in capsys.readouterr().err
        session.login_with_password("root", "xen", "2.21", "test")
    assert not socket.exists()
    with pytest.raises(Unreachable, match="start the pool with celltree xenserver --control"):
        ask(socket, {"do": "show"})
