"""Image bytes over loopback, as Glance's v2 API moves them, and how many went each way. What is uploaded is counted and
dropped."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path
from threading import Thread

_PIECE = 1 << 20


@dataclass(slots=True)
class Images:
    """One image, whatever id is asked for. `sent` and `taken` are bytes."""

    path: Path
    url: str = ""
    sent: int = 0
    taken: int = 0


@contextmanager
def serve(path: Path) -> Iterator[Images]:
    images = Images(path)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            with open(path, "rb") as file:
                while piece := file.read(_PIECE):
                    self.wfile.write(piece)
                    images.sent += len(piece)

        def do_PUT(self) -> None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                images.taken += _chunks(self.rfile)
            else:
                images.taken += _drop(self.rfile, int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def do_PATCH(self) -> None:
            _drop(self.rfile, int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    images.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, name="images")
    thread.start()
    try:
        yield images
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _chunks(stream: BufferedIOBase) -> int:
    taken = 0
    while length := int(stream.readline().split(b";")[0], 16):
        taken += _drop(stream, length)
        stream.readline()
    stream.readline()
    return taken


def _drop(stream: BufferedIOBase, length: int) -> int:
    left = length
    while left and (piece := stream.read(min(left, _PIECE))):
        left -= len(piece)
    return length - left
