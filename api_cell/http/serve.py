"""An app served from a thread of this process, by waitress: for the embedded shape and the lab. In production any WSGI
server takes the app itself."""

import logging
import threading
from typing import Any

from waitress import wasyncore
from waitress.server import create_server

_THREADS = 8
# Beyond any image; the app has its own, smaller limits, and waitress spools large bodies to a file.
_LARGEST = 1 << 40
# Requests that are under way when the server stops have this long, in tenths of a second.
_LAST_TENTHS = 50


class Served:
    """A running server. The loop's own thread closes everything: waitress's sockets belong to it."""

    def __init__(self, server: Any, sockets: dict[int, Any], name: str) -> None:
        self.port: int = server.socket.getsockname()[1]
        self._server = server
        self._sockets = sockets
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests, let those under way end, end the thread. Called twice, it does nothing more."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._server.pull_trigger()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            wasyncore.loop(timeout=1, map=self._sockets, count=1)
        self._server.del_channel(self._sockets)
        self._server.socket.close()
        for _ in range(_LAST_TENTHS):
            if not any(channel.requests or channel.total_outbufs_len for channel in self._channels()):
                break
            wasyncore.loop(timeout=0.1, map=self._sockets, count=1)
        self._server.task_dispatcher.shutdown()
        wasyncore.close_all(self._sockets, ignore_all=True)

    def _channels(self) -> list[Any]:
        return list(self._server.active_channels.values())


def serve(app: Any, host: str = "127.0.0.1", port: int = 0) -> Served:
    """Serve on this address; port 0 takes a free one. OSError when the address is taken."""
    # It warns of every request that waits for a thread; that is what the queue is for.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    sockets: dict[int, Any] = {}
    server = create_server(
        app, map=sockets, host=host, port=port, threads=_THREADS, ident="celltree", max_request_body_size=_LARGEST
    )
    return Served(server, sockets, f"rest-{port}")
