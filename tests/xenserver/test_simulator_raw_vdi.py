"""/import_raw_vdi and /export_raw_vdi as XAPI's clients use them: formats, chunks, tasks, redirects, refusals."""

import http.client
import random
import socket
import struct
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from tests.xenserver.simulated import MIB, a_disk, failure_of
from tests.xenserver.test_simulator_disks import a_house, house
from xenapi_host import vhd

__all__ = ["house"]

DATA = random.Random(5).randbytes(3 * MIB) + bytes(13 * MIB)


def _send(house, method, path, body=None, headers=None, host="127.0.0.1"):
    connection = http.client.HTTPConnection(host, house.pool.server.port, timeout=30)
    given = {"Cookie": f"session_id={house.session.handle}", **(headers or {})}
    if body is not None:
        given.setdefault("Content-Length", str(len(body)))
    connection.putrequest(method, path)
    for name, value in given.items():
        connection.putheader(name, value)
    connection.endheaders()
    try:
        with suppress(ConnectionError):
            connection.send(body or b"")
        response = connection.getresponse()
        return response, response.read()
    except ConnectionError:  # the pool stops reading as soon as it knows, and then its answer may be lost
        return None, b""
    finally:
        connection.close()


def _put(house, disk, body, *, query="", **options):
    """PUT a body into a disk; the status of the answer, and how the task ended."""
    task = house.api.task.create("import", "")
    response, _ = _send(house, "PUT", f"/import_raw_vdi?vdi={disk}&task_id={task}{query}", body, **options)
    status = response.status if response is not None else 200
    assert response is None or status != 200 or response.getheader("task-id") == task
    record = house.api.task.get_record(task)
    return status, record["status"], record["error_info"]


@pytest.fixture
def disk(house):
    return house.api.VDI.create(a_disk(house.sr))


def test_a_raw_disk_goes_in_and_out_in_every_format(house, disk):
    assert _put(house, disk, DATA, query="&format=raw") == (200, "success", [])
    response, raw = _send(house, "GET", f"/export_raw_vdi?vdi={house.api.VDI.get_uuid(disk)}")
    assert raw == DATA
    assert response.getheader("content-type") == "application/octet-stream"
    task = response.getheader("task-id")
    assert house.api.task.get_status(task) == "success"
    response, stream = _send(house, "GET", f"/export_raw_vdi?vdi={disk}&format=vhd")
    assert response.getheader("content-type") == "application/vhd"
    assert response.getheader("content-disposition") == f'attachment; filename="{house.api.VDI.get_uuid(disk)}.vhd"'
    assert len(stream) < 5 * MIB  # holes are not sent
    copy = house.api.VDI.create(a_disk(house.sr))
    assert _put(house, copy, stream, query="&format=vhd") == (200, "success", [])
    assert house.read(copy) == DATA


def test_chunks_go_where_they_say_and_end_with_an_empty_one(house, disk):
    house.write(disk, 5 * MIB, b"stays")
    chunks = [(0, b"start"), (16 * MIB - 3, b"end"), (3 * MIB, bytes([7]) * MIB)]
    body = b"".join(struct.pack("<qi", at, len(data)) + data for at, data in chunks) + struct.pack("<qi", 0, 0)
    assert _put(house, disk, body, query="&chunked=true") == (200, "success", [])
    data = house.read(disk)
    for at, written in [*chunks, (5 * MIB, b"stays")]:
        assert data[at : at + len(written)] == written
    outside = struct.pack("<qi", 16 * MIB - 1, 2) + b"!!"
    assert _put(house, disk, outside, query="&chunked=true")[2][:2] == ["VDI_TOO_SMALL", disk]
    assert _put(house, disk, body[:-4], query="&chunked=true")[1] == "failure"


def test_a_differencing_vhd_overwrites_its_blocks_and_nothing_else(house, disk):
    _put(house, disk, DATA)
    base = house.api.VDI.snapshot(disk)
    house.write(disk, 7 * MIB, b"delta")
    _, delta = _send(house, "GET", f"/export_raw_vdi?vdi={disk}&format=vhd&base={base}")
    assert len(delta) < 3 * MIB
    other = house.api.VDI.create(a_disk(house.sr))
    house.write(other, 0, b"other")
    assert _put(house, other, delta, query="&format=vhd") == (200, "success", [])
    data = house.read(other)
    assert (data[:5], data[7 * MIB : 7 * MIB + 5]) == (b"other", b"delta")
    assert data.replace(b"other", bytes(5)).replace(b"delta", bytes(5)) == bytes(16 * MIB)
    response, _ = _send(house, "GET", f"/export_raw_vdi?vdi={disk}&format=vhd&base=nothing")
    assert response.status == 500


@pytest.mark.parametrize(
    ("query", "headers", "why"),
    [
        ("&format=qcow3", {}, "Unknown format qcow3"),
        ("&format=vhd&chunked=true", {}, "unable to import a .vhd using chunked encoding"),
        ("", {"Transfer-Encoding": "chunked"}, "import code cannot handle encoding"),
        ("&format=vhd", {"Content-Length": "x"}, "a Content-Length is needed"),
    ],
)
def test_a_request_that_is_no_good_is_404_and_a_failed_task(house, disk, query, headers, why):
    assert _put(house, disk, b"", query=query, headers=headers) == (404, "failure", ["INTERNAL_ERROR", why])


def test_what_does_not_fit_or_is_no_vhd_fails_in_the_task_after_the_200(house, disk):
    status, outcome, error = _put(house, disk, bytes(17 * MIB))
    assert (status, outcome, error[:2]) == (200, "failure", ["VDI_TOO_SMALL", disk])
    larger = house.api.VDI.create(a_disk(house.sr, size=32 * MIB))
    _, stream = _send(house, "GET", f"/export_raw_vdi?vdi={larger}&format=vhd")
    assert _put(house, disk, stream, query="&format=vhd")[2][:2] == ["VDI_TOO_SMALL", disk]
    house.write(disk, 0, b"block")
    _, stream = _send(house, "GET", f"/export_raw_vdi?vdi={disk}&format=vhd")
    for body in (b"no vhd at all" * 100, stream[:1000], stream[: 2 * MIB]):
        status, outcome, error = _put(house, disk, body, query="&format=vhd")
        assert (status, outcome, error[0]) == (200, "failure", "VDI_IO_ERROR")


def test_an_import_that_fills_its_repository_stops_there(house):
    (host,) = house.api.host.get_all()
    small = house.api.SR.create(host, {}, str(6 * MIB), "small", "", "ext", "user", False, {})
    disk = house.api.VDI.create(a_disk(small))
    assert _put(house, disk, random.Random(2).randbytes(16 * MIB))[2][0] == "SR_FULL"
    assert int(house.api.SR.get_physical_utilisation(small)) < 12 * MIB


def test_a_disk_that_is_being_written_waits_with_snapshots_and_refuses_to_be_destroyed(house, disk):
    connection = socket.create_connection(("127.0.0.1", house.pool.server.port), timeout=30)
    head = f"PUT /import_raw_vdi?vdi={disk}&session_id={house.session.handle} HTTP/1.1\r\nContent-Length: 8\r\n\r\n"
    connection.sendall(head.encode())
    assert b"200 OK" in connection.recv(4096)
    connection.sendall(b"half")
    assert failure_of(house.api.VDI.destroy, disk) == ["VDI_IN_USE", disk, "destroy"]
    task = house.api.Async.VDI.snapshot(disk)
    assert house.api.task.get_status(task) == "pending"
    connection.sendall(b"half")
    assert connection.recv(1) == b""
    connection.close()
    house.pool.settle()
    assert house.api.task.get_status(task) == "success"
    (snapshot,) = house.api.VDI.get_snapshots(disk)
    assert house.read(snapshot)[:8] == b"halfhalf"


@pytest.mark.parametrize("kind", ["raw", "vhd"])
def test_an_export_gives_the_disk_as_it_was_though_storage_merges_its_layers_meanwhile(house, tmp_path, kind):
    disk = house.api.VDI.create(a_disk(house.sr, size=64 * MIB))
    data = random.Random(1).randbytes(48 * MIB)
    house.write(disk, 0, data)
    snapshot = house.api.VDI.snapshot(disk)
    house.write(disk, 40 * MIB, b"newer")
    connection = socket.create_connection(("127.0.0.1", house.pool.server.port), timeout=30)
    with connection, connection.makefile("rb") as reader:
        query = f"vdi={disk}&session_id={house.session.handle}&format={kind}"
        connection.sendall(f"GET /export_raw_vdi?{query} HTTP/1.1\r\n\r\n".encode())
        while reader.readline().strip():
            continue
        start = reader.read(MIB)
        house.api.VDI.destroy(snapshot)
        house.settle()
        assert len(vhd.chain(house.path(disk))) == 1
        whole = start + reader.read()
    if kind == "vhd":
        (tmp_path / "out.vhd").write_bytes(whole)
        with vhd.Disk.open(tmp_path / "out.vhd") as sent:
            whole = sent.pread(0, sent.size)
    assert whole == data[: 40 * MIB] + b"newer" + data[40 * MIB + 5 :] + bytes(16 * MIB)


def test_a_host_that_does_not_see_the_repository_names_one_that_does(tmp_path):
    with a_house(tmp_path, hosts=2) as house:
        disk = house.api.VDI.create(a_disk(house.sr))  # on the first host's own storage
        for method, path in (("GET", "/export_raw_vdi"), ("PUT", "/import_raw_vdi")):
            response, _ = _send(house, method, f"{path}?vdi={disk}&format=raw", b"", host="127.0.0.2")
            assert response.status == 302
            there = urlsplit(response.getheader("Location"))
            assert (there.hostname, there.path, there.query) == ("127.0.0.1", path, f"vdi={disk}&format=raw")
        response, data = _send(house, "GET", f"{there.path}?{there.query}".replace("import", "export"))
        assert (response.status, len(data)) == (200, 16 * MIB)
