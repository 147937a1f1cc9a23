"""A small loopback Glance: serves and takes image bytes, and misbehaves when told to."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(slots=True, kw_only=True)
class Image:
    """One image and how it is served; `stall_after` = silent after so many bytes, until the end of the test."""

    data: bytes = b""
    status: int = 200
    checksum: str | None = None
    cut_after: int | None = None
    stall_after: int | None = None
    chunked: bool = False
    location: str = ""


@dataclass(slots=True, kw_only=True)
class Glance:
    """What the server holds and has seen. `requests` are (method, path, token)."""

    url: str = ""
    images: dict[str, Image] = field(default_factory=dict)
    taken: dict[str, bytes] = field(default_factory=dict)
    described: dict[str, dict[str, str]] = field(default_factory=dict)
    upload_status: int = 204
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def file_url(self, image: str) -> str:
        return f"{self.url}/v2/images/{image}/file"


@contextmanager
def serve_glance() -> Iterator[Glance]:
    glance = Glance()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def _image(self) -> str:
            glance.requests.append((self.command, self.path, self.headers.get("X-Auth-Token")))
            return self.path.split("/")[3]

        def do_GET(self) -> None:
            image = glance.images.get(self._image(), Image(status=404))
            self.close_connection = True
            self.send_response(image.status)
            if image.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", str(len(image.data)))
            if image.location:
                self.send_header("Location", image.location)
            if image.status == 200:
                self.send_header("Content-MD5", image.checksum or hashlib.md5(image.data).hexdigest())
            self.end_headers()
            body = image.data[: image.cut_after]
            if image.stall_after is not None:
                self.wfile.write(body[: image.stall_after])
                glance.stalled.set()
                glance.released.wait()
                return
            if not image.chunked:
                self.wfile.write(body)
                return
            for start in range(0, len(body), 100_000):
                piece = body[start : start + 100_000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if image.cut_after is None:
                self.wfile.write(b"0\r\n\r\n")

        def do_PUT(self) -> None:
            image = self._image()
            self.close_connection = True
            if glance.upload_status in (401, 413):
                # Refuses before the body is read, as a proxy does.
                self._reply(glance.upload_status)
                return
            body = b""
            while length := int(self.rfile.readline(), 16):
                body += self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
            glance.taken[image] = body
            self._reply(glance.upload_status)

        def do_PATCH(self) -> None:
            image = self._image()
            self.close_connection = True
            changes = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.headers["Content-Type"] == "application/openstack-images-v2.1-json-patch"
            told = glance.described.setdefault(image, {})
            told.update({change["path"][1:]: change["value"] for change in changes if change["op"] == "add"})
            self._reply(200)

        def _reply(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = False
        glance.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield glance
        finally:
            glance.released.set()
            server.shutdown()
            thread.join()
