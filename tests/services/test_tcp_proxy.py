"""The proxy that stands for a bad network: what it says it does it does, to what is connected, and to nothing else."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.tcp_proxy import CLEAR, SILENT, TcpProxy, Way

PATIENCE = 5.0
SHORT = 0.1


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                while chunk := connection.recv(65536):
                    connection.sendall(chunk)
            except OSError:
                return  # reset

    def serve() -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return  # the test is over
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(PATIENCE)


@pytest.fixture
def proxy(echo: int) -> Iterator[TcpProxy]:
    with TcpProxy(echo, seed=1) as proxy:
        yield proxy


@contextmanager
def connected(proxy: TcpProxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as sock:
        yield sock


def exchange(sock: socket.socket, data: bytes) -> bytes:
    """Send it, and read as much again."""
    sock.sendall(data)
    return read(sock, len(data))


def read(sock: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        chunk = sock.recv(count - len(found))
        if not chunk:
            raise ConnectionResetError("ended early")
        found += chunk
    return found


def hears_nothing(sock: socket.socket) -> bool:
    sock.settimeout(SHORT)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(PATIENCE)
    return False


def test_what_comes_goes_on_whole_and_in_order_also_a_megabyte(proxy: TcpProxy):
    data = bytes(range(256)) * 4096
    with connected(proxy) as sock:
        writer = threading.Thread(target=sock.sendall, args=(data,))
        writer.start()
        assert read(sock, len(data)) == data
        writer.join(PATIENCE)


def test_a_refusing_network_resets_what_is_connected_and_refuses_what_is_new(proxy: TcpProxy):
    with connected(proxy) as sock:
        assert exchange(sock, b"before") == b"before"
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            exchange(sock, b"after")
    with pytest.raises(ConnectionRefusedError), connected(proxy):
        pass
    proxy.heal()
    with connected(proxy) as sock:
        assert exchange(sock, b"again") == b"again"


def test_a_cut_resets_what_is_connected_now_only(proxy: TcpProxy):
    with connected(proxy) as sock:
        assert exchange(sock, b"before") == b"before"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            exchange(sock, b"after")
    with connected(proxy) as sock:
        assert exchange(sock, b"again") == b"again"


def test_a_black_hole_says_nothing_and_gives_late_what_it_was_given_when_it_heals(proxy: TcpProxy):
    with connected(proxy) as sock:
        assert exchange(sock, b"before") == b"before"
        proxy.black_hole()
        sock.sendall(b"late")
        assert hears_nothing(sock)
        with connected(proxy) as new:
            new.sendall(b"x")
            assert hears_nothing(new)
        proxy.heal()
        assert read(sock, 4) == b"late"


@pytest.mark.parametrize(("there", "back"), [(SILENT, CLEAR), (CLEAR, SILENT)], ids=["there", "back"])
def test_one_way_may_be_silent_alone(proxy: TcpProxy, there: Way, back: Way):
    with connected(proxy) as sock:
        proxy.set(CLEAR, SILENT)
        sock.sendall(b"first")
        assert hears_nothing(sock)  # it has reached the echo, the answer waits
        proxy.set(there, back)
        sock.sendall(b"second")
        if back.silent:
            assert hears_nothing(sock)
        else:
            assert read(sock, 5) == b"first"
            assert hears_nothing(sock)
        proxy.heal()
        assert read(sock, 11 if back.silent else 6).endswith(b"second")


def test_latency_and_jitter_delay_and_keep_the_order(proxy: TcpProxy):
    proxy.set(Way(latency=0.05, jitter=0.05), Way(latency=0.05))
    with connected(proxy) as sock:
        began = time.monotonic()
        for number in range(20):
            sock.sendall(bytes([number]) * 100)
        assert read(sock, 2000) == b"".join(bytes([number]) * 100 for number in range(20))
        assert time.monotonic() - began >= 0.1


def test_a_slow_network_takes_its_time_by_the_byte(proxy: TcpProxy):
    proxy.set(Way(rate=50_000))
    with connected(proxy) as sock:
        began = time.monotonic()
        assert exchange(sock, bytes(10_000)) == bytes(10_000)
        assert 0.15 <= time.monotonic() - began < PATIENCE


def test_a_connection_is_cut_after_so_many_bytes(proxy: TcpProxy):
    proxy.set(Way(cut_after=1000))
    with connected(proxy) as sock:
        assert exchange(sock, bytes(800)) == bytes(800)
        with pytest.raises(ConnectionResetError):
            exchange(sock, bytes(800))


def test_bits_are_flipped_about_as_often_as_asked_and_by_the_seed(echo: int):
    def bent() -> bytes:
        with TcpProxy(echo, seed=7) as proxy:
            proxy.set(back=Way(flips=1000))
            with connected(proxy) as sock:
                return exchange(sock, bytes(20_000))

    flipped = [byte for byte in bent() if byte]
    assert 5 <= len(flipped) <= 60
    assert all(byte.bit_count() == 1 for byte in flipped)


def test_the_end_of_one_side_reaches_the_other_after_all_it_sent(proxy: TcpProxy):
    proxy.delay(0.05)
    with connected(proxy) as sock:
        sock.sendall(b"all of it")
        assert read(sock, 9) == b"all of it"
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
