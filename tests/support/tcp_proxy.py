"""A TCP proxy on the loopback address that does to a connection what networks do: refuse, black hole, cut, delay."""

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from enum import Enum

_CHUNK = 64 * 1024


class Mode(Enum):
    PASS = "what comes goes on"
    BLACK_HOLE = "connections stay and are made, nothing goes on, nobody is told"
    REFUSE = "existing connections are reset, new ones refused"


class _Side:
    """One end of a proxied connection, and what is on its way to the other end: (due, bytes)."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.other: _Side = self
        self.on_the_way: deque[tuple[float, bytes]] = deque()


class TcpProxy:
    """Listens on a port of its own for one target. Use in a `with`; each change of mode is in force on return."""

    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._mode = Mode.PASS
        self._latency = 0.0
        self._sides: set[_Side] = set()
        self._asked: deque[threading.Event] = deque()
        self._cut = False
        self._ending = False
        self._hears, self._rings = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="tcp proxy", daemon=True)

    def __enter__(self) -> "TcpProxy":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ending = True
        self._rings.send(b"\0")
        self._thread.join(10)
        self._rings.close()

    # --- what the network does ---

    def heal(self) -> None:
        """Let everything pass, at once. What a black hole swallowed is gone with its connections."""
        self._latency = 0.0
        self._cut = self._mode is Mode.BLACK_HOLE
        self._change(Mode.PASS)

    def black_hole(self) -> None:
        self._change(Mode.BLACK_HOLE)

    def refuse(self) -> None:
        self._change(Mode.REFUSE)

    def cut(self) -> None:
        """Reset what is connected now; new connections pass."""
        self._cut = True
        self._change(self._mode)

    def delay(self, seconds: float) -> None:
        """Everything takes so long, each way."""
        self._latency = seconds
        self._change(Mode.PASS)

    def _change(self, mode: Mode) -> None:
        in_force = threading.Event()
        self._mode = mode
        self._asked.append(in_force)
        self._rings.send(b"\0")
        assert in_force.wait(10), "the proxy's thread has died"

    # --- in the thread ---

    def _run(self) -> None:
        while not self._ending:
            with selectors.DefaultSelector() as ready:
                ready.register(self._hears, selectors.EVENT_READ)
                if self._listener.fileno() >= 0:
                    ready.register(self._listener, selectors.EVENT_READ)
                if self._mode is Mode.PASS:
                    for side in self._sides:
                        ready.register(side.sock, selectors.EVENT_READ, side)
                dues = [side.on_the_way[0][0] for side in self._sides if side.on_the_way]
                pause = max(0.0, min(dues) - time.monotonic()) if dues else None
                for key, _ in ready.select(pause):
                    if key.fileobj is self._hears:
                        self._obey()
                    elif key.fileobj is self._listener:
                        self._accept()
                    elif key.data in self._sides:
                        self._read(key.data)
            self._deliver()
        self._reset_all()
        self._listener.close()
        self._hears.close()

    def _obey(self) -> None:
        self._hears.recv(1)
        if self._cut or self._mode is Mode.REFUSE:
            self._reset_all()
            self._cut = False
        if self._mode is Mode.REFUSE:
            self._listener.close()
        elif self._listener.fileno() < 0:
            self._listener = socket.create_server(("127.0.0.1", self.port))
        while self._asked:
            self._asked.popleft().set()

    def _accept(self) -> None:
        near = _Side(self._listener.accept()[0])
        try:
            far = _Side(socket.create_connection(self._target, 5))
        except OSError:
            self._reset(near)
            return
        near.other, far.other = far, near
        self._sides |= {near, far}

    def _read(self, side: _Side) -> None:
        try:
            chunk = side.sock.recv(_CHUNK)
        except OSError:
            chunk = b""
        if chunk:
            side.on_the_way.append((time.monotonic() + self._latency, chunk))
        else:
            self._part(side)

    def _deliver(self) -> None:
        now = time.monotonic()
        for side in list(self._sides):
            while side in self._sides and side.on_the_way and side.on_the_way[0][0] <= now:
                _, chunk = side.on_the_way.popleft()
                try:
                    side.other.sock.sendall(chunk)
                except OSError:
                    self._part(side)

    def _part(self, side: _Side) -> None:
        for one in (side, side.other):
            self._sides.discard(one)
            one.sock.close()

    def _reset_all(self) -> None:
        for side in self._sides:
            self._reset(side)
        self._sides.clear()

    def _reset(self, side: _Side) -> None:
        with contextlib.suppress(OSError):
            side.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        side.sock.close()
