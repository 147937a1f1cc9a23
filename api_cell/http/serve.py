"""An app served from a thread of this process, by waitress: for the embedded shape and the lab. In production any WSGI
server takes the app itself."""

import logging
import threading
from typing import Any

from waitress.server import create_server

_THREADS = 8
# Beyond any image; the app has its own, smaller limits, and waitress spools large bodies to a file.
_LARGEST = 1 << 40


class Served:
    """A running server. `stop` returns when no request is under way any more."""

    def __init__(self, server: Any, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread
        self.port: int = server.socket.getsockname()[1]

    def stop(self) -> None:
        """Close the listener, let requests under way end, end the thread. Called twice, it does nothing more."""
        if not self._thread.is_alive():
            return
        self._server.close()
        self._server.trigger.pull_trigger()
        self._server.task_dispatcher.shutdown()
        self._thread.join(10)


def serve(app: Any, host: str = "127.0.0.1", port: int = 0) -> Served:
    """Serve on this address; port 0 takes a free one."""
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server = create_server(
        app, host=host, port=port, threads=_THREADS, ident="celltree", max_request_body_size=_LARGEST, map={}
    )
    thread = threading.Thread(target=server.run, name=f"rest-{port}", daemon=True)
    thread.start()
    return Served(server, thread)
