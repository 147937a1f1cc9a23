"""Ends another thread's wait on a socket, from any thread."""

import contextlib
import socket


class Wake:
    """A pair of sockets to itself. Ringing it twice is ringing it once; after `close` ringing does nothing."""

    def __init__(self) -> None:
        self._hears, self._rings = socket.socketpair()
        self._hears.setblocking(False)
        self._rings.setblocking(False)
        self.fd = self._hears.fileno()

    def ring(self) -> None:
        with contextlib.suppress(OSError):
            self._rings.send(b"\0")

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._hears.recv(4096)

    def close(self) -> None:
        self._rings.close()
        self._hears.close()
