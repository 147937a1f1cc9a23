"""`python -m xenapi_host.simulator` as a program: starts, answers, ends on SIGTERM, loses nothing on SIGKILL."""

import http.client
import signal
import ssl
import subprocess
import sys
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
import XenAPI

from tests.xenserver.simulated import a_vm
from xenapi_host.simulator.control_client import ask


@contextmanager
def running(folder, *arguments):
    command = [sys.executable, "-m", "xenapi_host.simulator", "--port", "0", "--data", str(folder), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()


@contextmanager
def session_on(url, user="root", password="xen"):
    session = XenAPI.Session(url)
    session.login_with_password(user, password, "2.21", "test")
    try:
        yield session
    finally:
        session("close")()


def test_command_serves_a_pool_and_ends_on_sigterm(tmp_path):
    (tmp_path / "password").write_text("secret\n")
    options = ("--hosts", "3", "--user", "admin", "--password-file", str(tmp_path / "password"), "--ram-mib", "4096")
    options += ("--sr", "nfs")
    with running(tmp_path, *options) as (process, url):
        with session_on(url, "admin", "secret") as session:
            assert len(session.xenapi.host.get_all()) == 3
            assert [sr["shared"] for sr in session.xenapi.SR.get_all_records().values()] == [True]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_command_serves_https_with_a_certificate_of_its_own(tmp_path):
    with running(tmp_path, "--https", "--listen", "127.0.0.1") as (_, url):
        assert url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
        connection = http.client.HTTPSConnection("127.0.0.1", urlsplit(url).port, context=context, timeout=30)
        body = '{"method": "system.listMethods", "params": [], "id": 1}'
        connection.request("POST", "/jsonrpc", body, {"Content-Type": "application/json"})
        assert b'"VM.start"' in connection.getresponse().read()
        connection.close()


def test_slaves_listen_and_send_callers_to_the_master(tmp_path):
    with running(tmp_path, "--hosts", "2") as (_, url):
        parts = urlsplit(url)
        slave = XenAPI.Session(f"http://127.0.0.2:{parts.port}")
        with pytest.raises(XenAPI.Failure) as refused:
            slave.login_with_password("root", "xen", "2.21", "test")
        assert refused.value.details == ["HOST_IS_SLAVE", "127.0.0.1"]
        slave("close")()


def test_a_killed_simulator_comes_back_with_everything_it_had_answered_for(tmp_path):
    with running(tmp_path) as (process, url), session_on(url) as session:
        vm = session.xenapi.VM.create(a_vm(name_label="kept"))
        session.xenapi.VM.start(vm, False, False)
        process.kill()
        process.wait(30)
    with running(tmp_path) as (_, url), session_on(url) as session:
        assert session.xenapi.VM.get_by_name_label("kept") == [vm]
        assert session.xenapi.VM.get_power_state(vm) == "Running"


def test_a_taken_port_is_told_with_a_remedy(tmp_path):
    with running(tmp_path / "one") as (_, url):
        command = [sys.executable, "-m", "xenapi_host.simulator", "--port", str(urlsplit(url).port)]
        ended = subprocess.run([*command, "--data", str(tmp_path / "two")], capture_output=True, text=True, timeout=60)
        assert ended.returncode == 1
        assert "choose another --port" in ended.stderr


def test_faults_of_a_file_are_set_at_the_start_and_the_control_socket_shows_them(tmp_path):
    faults, control = tmp_path / "faults", tmp_path / "control"
    faults.write_text('{"do": "fault", "method": "VM.get_all", "error": ["SR_FULL", "1", "0"], "times": 0}\n')
    options = ("--faults", str(faults), "--control", str(control), "--session-idle", "3600", "--seed", "7")
    with running(tmp_path / "pool", *options) as (_, url), session_on(url) as session:
        with pytest.raises(XenAPI.Failure) as struck:
            session.xenapi.VM.get_all()
        assert struck.value.details == ["SR_FULL", "1", "0"]
        shown = ask(control, {"do": "show"})
        assert (shown["seed"], shown["faults"][0]["struck"], shown["sessions"]) == (7, 1, 1)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ('{"do": "fault", "method": "VM.fly", "hang": true}', 'line 1 of the faults: XenAPI has no method "VM.fly"'),
        ("", "put requests of the control socket, one a line, there"),
    ],
)
def test_faults_that_cannot_be_set_stop_the_start(tmp_path, text, remedy):
    (tmp_path / "faults").write_text(text)
    command = [sys.executable, "-m", "xenapi_host.simulator", "--port", "0", "--data", str(tmp_path / "pool")]
    ended = subprocess.run([*command, "--faults", str(tmp_path / "faults")], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert remedy in ended.stderr


def test_a_file_that_is_no_socket_is_not_taken_for_the_control_socket(tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("precious")
    command = [sys.executable, "-m", "xenapi_host.simulator", "--port", "0", "--data", str(tmp_path / "pool")]
    ended = subprocess.run([*command, "--control", str(mine)], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, mine.read_text()) == (1, "precious")
    assert "choose another --control" in ended.stderr
