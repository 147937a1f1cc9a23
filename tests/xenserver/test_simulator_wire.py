"""The HTTP face: both encodings share sessions, connections are kept, garbage harms nobody."""

import http.client
import json
import socket
import threading

import pytest

from tests.xenserver.simulated import a_pool, a_vm, logged_in


@pytest.fixture
def pool(tmp_path):
    with a_pool(tmp_path) as made:
        yield made


@pytest.fixture
def session(pool):
    with logged_in(pool) as made:
        yield made


def exchange(pool, data):
    """Send raw bytes, say that no more comes, and read until the other side closes."""
    with socket.create_connection(("127.0.0.1", pool.server.port), timeout=30) as connection:
        found = b""
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                found += part
        except OSError:  # closed on us before all was sent or read
            pass
        return found


def json_call(pool, method, *params, version=2):
    connection = http.client.HTTPConnection("127.0.0.1", pool.server.port, timeout=30)
    request = {"method": method, "params": list(params), "id": 1, **({"jsonrpc": "2.0"} if version == 2 else {})}
    connection.request("POST", "/jsonrpc", json.dumps(request), {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def test_a_session_of_one_encoding_is_good_in_the_other(pool, session):
    vm = json_call(pool, "VM.create", session.handle, a_vm(memory_static_max=2**29))["result"]
    assert session.xenapi.VM.get_memory_static_max(vm) == str(2**29)
    record = json_call(pool, "VM.get_record", session.handle, vm)["result"]
    assert (record["memory_static_max"], record["domid"]) == (2**29, -1)
    other = json_call(pool, "session.login_with_password", "root", "xen")["result"]
    assert json_call(pool, "session.logout", other, version=1) == {"result": "", "error": None, "id": 1}
    assert json_call(pool, "VM.get_all", other)["error"]["message"] == "SESSION_INVALID"


def test_an_event_batch_in_json_has_numbers_where_the_model_has_them(pool, session):
    batch = json_call(pool, "event.from", session.handle, ["vm"], "", 0.0)["result"]
    snapshot = batch["events"][0]["snapshot"]
    assert isinstance(snapshot["VCPUs_max"], int)
    assert isinstance(batch["valid_ref_counts"]["vm"], int)


def test_one_connection_serves_many_calls(pool, session):
    body = f'{{"method": "host.get_all", "params": ["{session.handle}"], "id": 1}}'
    connection = http.client.HTTPConnection("127.0.0.1", pool.server.port, timeout=30)
    connection.connect()
    first = connection.sock
    for _ in range(50):
        connection.request("POST", "/jsonrpc", body)
        response = connection.getresponse()
        assert response.status == 200
        response.read()
        assert connection.sock is first
    connection.close()


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\r\n\r\n",
        b"\x00\xff" * 5000,
        b"GET / HTTP/1.1 and more\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 50\r\n\r\nshort",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n\xff\xfe\xfd",
        b"A" * 40000,
    ],
)
def test_garbage_gets_an_error_page_or_nothing_and_the_pool_lives_on(pool, session, garbage):
    answer = exchange(pool, garbage)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 500", b"HTTP/1.1 403"))
    assert session.xenapi.host.get_all()


def test_a_body_with_a_document_type_is_refused(pool):
    kind = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]>'
    body = kind + b"<methodCall><methodName>&a;</methodName><params/></methodCall>"
    head = f"POST / HTTP/1.1\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    assert exchange(pool, head + body).startswith(b"HTTP/1.1 500")


def test_texts_travel_unchanged_through_both_encodings(pool, session):
    text = "ü <&> 中 \"q\" 'a' ]]> \\ / {$ref:x} \t end"
    vm = session.xenapi.VM.create(a_vm(name_label=text, other_config={text: text}))
    assert session.xenapi.VM.get_name_label(vm) == text
    assert session.xenapi.VM.get_other_config(vm)[text] == text
    assert json_call(pool, "VM.get_name_label", session.handle, vm)["result"] == text


def test_a_control_character_from_json_does_not_break_answers_in_xml(pool, session):
    vm = json_call(pool, "VM.create", session.handle, a_vm(name_label="a\u0001b"))["result"]
    assert session.xenapi.VM.get_name_label(vm) == "a?b"


def test_many_connections_at_once_get_their_own_answers(pool, session):
    vms = [session.xenapi.VM.create(a_vm(name_label=f"vm{n}")) for n in range(8)]
    wrong = []

    def ask(number):
        with logged_in(pool) as mine:
            for _ in range(40):
                if mine.xenapi.VM.get_name_label(vms[number]) != f"vm{number}":
                    wrong.append(number)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


_DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc": "2.0", "method": "pool.get_all", "id": 1, "params": ' + _DEEP + b"}",
        b'{"jsonrpc": "2.0", "method": "\\ud800", "id": 1, "params": ["x"]}',
        b'{"jsonrpc": "2.0", "method": "VM.get_by_name_label", "id": 1, "params": ["x", "\\udc00"]}',
        b'{"jsonrpc": "2.0", "method": 5, "id": 1, "params": []}',
    ],
    ids=["too deep", "half a character as a method", "half a character", "a number as a method"],
)
def test_json_that_no_answer_could_hold_gets_an_error_page(pool, session, body):
    head = f"POST /jsonrpc HTTP/1.1\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    assert exchange(pool, head + body).startswith(b"HTTP/1.1 500")
    assert session.xenapi.host.get_all()


def xml_call(pool, method, *values, after=""):
    params = "".join(f"<param><value>{value}</value></param>" for value in values)
    call = f"<methodCall><methodName>{method}</methodName><params>{params}</params></methodCall>{after}"
    connection = http.client.HTTPConnection("127.0.0.1", pool.server.port, timeout=30)
    connection.request("POST", "/", call.encode())
    answer = connection.getresponse().read().decode()
    connection.close()
    return answer


def test_a_boolean_of_xml_is_true_where_it_says_1_and_else_false(pool, session):
    vm = session.xenapi.VM.create(a_vm())
    for text, value in (("1", True), ("true", False), ("0", False)):
        answer = xml_call(pool, "VM.set_ha_always_run", session.handle, vm, f"<boolean>{text}</boolean>")
        assert "Success" in answer
        assert session.xenapi.VM.get_ha_always_run(vm) is value


def test_what_follows_a_call_is_left(pool, session):
    assert "Success" in xml_call(pool, "pool.get_all", session.handle, after="\n<more>")


def test_a_value_in_thousands_of_arrays_is_refused_in_few_words(pool, session):
    value = "<array><data><value>" * 3000 + "</value></data></array>" * 3000
    answer = xml_call(pool, "VM.set_name_label", session.handle, "x", value)
    assert "INTERNAL_ERROR" in answer
    assert "Expected string, got &apos;[[" in answer or "Expected string, got '[[" in answer
    assert len(answer) < 2000
