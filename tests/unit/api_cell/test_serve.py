"""The app on a real port of the loopback interface."""

import http.client
import json
import os
import threading
from pathlib import Path

from api_cell.http.serve import serve
from tests.support.api_house import ApiHouse


def test_a_served_app_answers_streams_and_stops(house: ApiHouse) -> None:
    server = serve(house.app)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.request("GET", "/v2.1")
        assert connection.getresponse().read()
        image = house.images.create(name="n", owner="local", disk_format="vhd", container_format="ovf")
        data = os.urandom(2_500_000)
        path = f"/image/v2/images/{image}/file"
        # In chunks of unknown total length, as clients stream.
        connection.request(
            "PUT",
            path,
            body=iter([data[:1_000_000], data[1_000_000:]]),
            headers={"Content-Type": "application/octet-stream"},
            encode_chunked=True,
        )
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (204, b"")
        connection.request("GET", path)
        assert connection.getresponse().read() == data
        connection.close()
    finally:
        server.stop()
    server.stop()
    try:
        http.client.HTTPConnection("127.0.0.1", server.port, timeout=20).request("GET", "/")
    except ConnectionRefusedError:
        return
    raise AssertionError("the port still answers")


def test_stopping_lets_a_request_under_way_end(tmp_path: Path) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def slow_app(environ, start_response):
        arrived.set()
        go_on.wait(20)
        start_response("200 OK", [("Content-Length", "4")])
        return [b"done"]

    server = serve(slow_app)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", "/")
    assert arrived.wait(20)
    stopper = threading.Thread(target=server.stop)
    stopper.start()
    go_on.set()
    assert connection.getresponse().read() == b"done"
    stopper.join(20)
    assert not stopper.is_alive()
    connection.close()


def test_many_clients_at_once_get_their_own_servers(house: ApiHouse) -> None:
    image = house.an_image()
    server = serve(house.app)
    codes: list[int] = []

    def ask(n: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        body = {"server": {"name": f"s{n}", "imageRef": image, "flavorRef": "1", "networks": "none"}}
        headers = {"Content-Type": "application/json", "OpenStack-API-Version": "compute 2.61"}
        connection.request("POST", "/v2.1/servers", body=json.dumps(body), headers=headers)
        codes.append(connection.getresponse().status)
        connection.close()

    try:
        threads = [threading.Thread(target=ask, args=(n,)) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        server.stop()
    assert codes == [202] * 20
    used = house.ask("GET", "/v2.1/limits").json["limits"]["absolute"]["totalInstancesUsed"]
    assert used == 20
