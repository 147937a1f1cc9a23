"""A TCP proxy on the loopback address that does to connections what networks do: refuse, reset, fall silent (both ways
or one), come late, come slowly, cut in the middle, flip bits. Random only by its seed."""

import contextlib
import random
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_CHUNK = 64 * 1024
_MOST_HELD = 1024 * 1024
_RESET_ON_CLOSE = b"\1\0\0\0\0\0\0\0"  # struct linger: on, 0 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What bytes of one direction meet. `silent`: nothing arrives and nobody is told; what was sent arrives when the
    way is clear again, as retransmission would have it. `latency`, `jitter`: seconds; the order stays. `rate`: bytes a
    second (0: no limit). `flips`: a bit is flipped in one of so many bytes (0: never). `cut_after`: a connection is
    reset after so many bytes (0: never)."""

    silent: bool = False
    latency: float = 0.0
    jitter: float = 0.0
    rate: int = 0
    flips: int = 0
    cut_after: int = 0


CLEAR = Way()
SILENT = Way(silent=True)


class _Side:
    """One end of a proxied connection, with what has come from it and is on its way to the other end."""

    def __init__(self, sock: socket.socket, *, client: bool) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.client = client
        self.other: _Side = self
        self.on_the_way: deque[tuple[float, bytes]] = deque()
        self.held = 0
        self.passed = 0
        self.ended = False

    def hold(self, chunk: bytes, way: Way, chance: random.Random) -> None:
        """Take up what came; it is due when the way says."""
        now = time.monotonic()
        before = self.on_the_way[-1][0] if self.on_the_way else now
        due = max(before, now + way.latency + way.jitter * chance.random())
        if way.rate:
            due = max(due, before + len(chunk) / way.rate)
        self.on_the_way.append((due, chunk))
        self.held += len(chunk)

    def due(self, now: float) -> bytes:
        return self.on_the_way[0][1] if self.on_the_way and self.on_the_way[0][0] <= now else b""

    def sent(self, count: int) -> None:
        due, chunk = self.on_the_way.popleft()
        if count < len(chunk):
            self.on_the_way.appendleft((due, chunk[count:]))
        self.held -= count
        self.passed += count


class TcpProxy:
    """Listens on a port of its own for one target. Use in a `with`; each change is in force on return. `overhear` is
    told what comes from clients, as it comes."""

    def __init__(
        self, target_port: int, *, seed: int = 0, overhear: Callable[[bytes], None] = lambda chunk: None
    ) -> None:
        self._overhear = overhear
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._there = self._back = CLEAR
        self._refusing = self._cutting = self._ending = False
        self._chance = random.Random(seed)
        self._sides: set[_Side] = set()
        self._asked: deque[threading.Event] = deque()
        self._hears, self._rings = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="tcp proxy", daemon=True)

    def __enter__(self) -> "TcpProxy":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ending = True
        with contextlib.suppress(OSError):  # the thread has ended by itself
            self._rings.send(b"\0")
        self._thread.join(10)
        self._rings.close()

    # --- what the network does ---

    def set(self, there: Way = CLEAR, back: Way = CLEAR) -> None:
        """From now on: `there` towards the target, `back` from it."""
        self._change(there, back, refusing=False)

    def heal(self) -> None:
        """Let everything pass at once."""
        self.set()

    def black_hole(self) -> None:
        """Connections stay and are made; nothing goes on."""
        self.set(SILENT, SILENT)

    def refuse(self) -> None:
        """Existing connections are reset, new ones refused."""
        self._change(CLEAR, CLEAR, refusing=True)

    def cut(self) -> None:
        """Reset what is connected now; new connections pass."""
        self._cutting = True
        self._change(self._there, self._back, refusing=self._refusing)

    def delay(self, seconds: float) -> None:
        """Everything takes so long, each way."""
        self.set(Way(latency=seconds), Way(latency=seconds))

    def _change(self, there: Way, back: Way, *, refusing: bool) -> None:
        in_force = threading.Event()
        self._there, self._back, self._refusing = there, back, refusing
        self._asked.append(in_force)
        self._rings.send(b"\0")
        assert in_force.wait(10), "the proxy's thread has died"

    # --- in the thread ---

    def _run(self) -> None:
        while not self._ending:
            with selectors.DefaultSelector() as ready:
                pause = self._register(ready)
                for key, events in ready.select(pause):
                    if key.fileobj is self._hears:
                        self._obey()
                    elif key.fileobj is self._listener:
                        self._accept()
                    elif events & selectors.EVENT_READ and key.data in self._sides:
                        self._read(key.data)
            self._deliver()
        self._reset_all()
        self._listener.close()
        self._hears.close()

    def _register(self, ready: selectors.BaseSelector) -> float | None:
        """What to look at now; gives how long nothing will be due."""
        ready.register(self._hears, selectors.EVENT_READ)
        if self._listener.fileno() >= 0:
            ready.register(self._listener, selectors.EVENT_READ)
        now = time.monotonic()
        dues = []
        for side in self._sides:
            silent = self._way(side).silent
            events = 0 if silent or side.ended or side.held >= _MOST_HELD else selectors.EVENT_READ
            if side.other.due(now) and not self._way(side.other).silent:
                events |= selectors.EVENT_WRITE
            if events:
                ready.register(side.sock, events, side)
            if side.on_the_way and not silent and side.on_the_way[0][0] > now:
                dues.append(side.on_the_way[0][0])
        return max(0.0, min(dues) - now) if dues else None

    def _way(self, side: _Side) -> Way:
        return self._there if side.client else self._back

    def _obey(self) -> None:
        self._hears.recv(1)
        if self._cutting or self._refusing:
            self._reset_all()
            self._cutting = False
        if self._refusing:
            self._listener.close()
        elif self._listener.fileno() < 0:
            self._listener = socket.create_server(("127.0.0.1", self.port))
        while self._asked:
            self._asked.popleft().set()

    def _accept(self) -> None:
        try:
            near = _Side(self._listener.accept()[0], client=True)
        except OSError:  # the client has gone meanwhile, or the proxy refuses now
            return
        try:
            far = _Side(socket.create_connection(self._target, 5), client=False)
        except OSError:
            self._reset(near)
            return
        near.other, far.other = far, near
        self._sides |= {near, far}

    def _read(self, side: _Side) -> None:
        way = self._way(side)
        most = min(_CHUNK, max(1, way.rate // 20)) if way.rate else _CHUNK
        try:
            chunk = side.sock.recv(most)
        except BlockingIOError:
            return
        except OSError:
            self._part(side)
            return
        if chunk:
            if side.client:
                self._overhear(chunk)
            side.hold(self._flipped(chunk, way.flips), way, self._chance)
        else:
            side.ended = True

    def _flipped(self, chunk: bytes, flips: int) -> bytes:
        if not flips:
            return chunk
        bent = bytearray(chunk)
        for place in range(len(bent)):
            if self._chance.randrange(flips) == 0:
                bent[place] ^= 1 << self._chance.randrange(8)
        return bytes(bent)

    def _deliver(self) -> None:
        now = time.monotonic()
        for side in list(self._sides):
            way = self._way(side)
            while side in self._sides and not way.silent and (chunk := side.due(now)):
                if way.cut_after and side.passed + len(chunk) > way.cut_after:
                    self._reset_pair(side)
                    break
                try:
                    side.sent(side.other.sock.send(chunk))
                except BlockingIOError:
                    break
                except OSError:
                    self._part(side)
            if side in self._sides and side.ended and not side.on_the_way and not way.silent:
                self._part(side)

    def _part(self, side: _Side) -> None:
        for one in (side, side.other):
            self._sides.discard(one)
            one.sock.close()

    def _reset_all(self) -> None:
        for side in self._sides:
            self._reset(side)
        self._sides.clear()

    def _reset_pair(self, side: _Side) -> None:
        for one in (side, side.other):
            self._sides.discard(one)
            self._reset(one)

    def _reset(self, side: _Side) -> None:
        with contextlib.suppress(OSError):
            side.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        side.sock.close()
