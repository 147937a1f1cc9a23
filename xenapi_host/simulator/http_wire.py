"""HTTP/1.1 by hand: requests read with limits, answers written in one piece, connections kept.

http.server writes header and body apart, which costs 40 ms a call with Nagle's algorithm and delayed acknowledgement.
"""

from __future__ import annotations

import base64
import binascii
import html
import socket
import socketserver
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, unquote

LONGEST_LINE = 16 * 1024
MOST_HEADERS = 100
LARGEST_BODY = 64 * 1024 * 1024
KEPT_SECONDS = 300.0
REASONS = {
    200: "OK",
    302: "Found",
    400: "Bad Request",
    401: "Unauthorised",
    403: "Forbidden",
    404: "Not Found",
    413: "Request Entity Too Large",
    500: "Internal Error",
    501: "Method not implemented",
}
_TROUBLE = (
    "<h1>HTTP 500 internal server error</h1>An unexpected error occurred; please wait a while and try again. If the "
    "problem persists, please contact your support representative.<h1> Additional information </h1>"
)


class Refused(Exception):
    """The connection cannot go on: a line too long, a body too large, an end in the middle."""


@dataclass(slots=True, kw_only=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    reader: BinaryIO
    target: str = ""  # path and query as they came

    @property
    def length(self) -> int | None:
        text = self.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() else None

    def parameter(self, name: str, default: str = "") -> str:
        """From the query, or else from a cookie: XAPI's handlers take both."""
        if name in self.query:
            return self.query[name]
        for cookie in self.headers.get("cookie", "").replace(",", ";").split(";"):
            key, _, value = cookie.strip().partition("=")
            if key == name:
                return unquote(value)
        return default

    def body(self) -> bytes:
        length = self.length
        if length is None:
            return b""
        if length > LARGEST_BODY:
            raise Refused("the body is too large")
        data = self.reader.read(length)
        if len(data) < length:
            raise Refused("the body ended early")
        return data

    def credentials(self) -> tuple[str, str] | None:
        """User and password of a basic Authorization header; ValueError when it is none."""
        text = self.headers.get("authorization")
        if text is None:
            return None
        scheme, _, rest = text.partition(" ")
        if scheme.lower() != "basic":
            raise ValueError(text)
        try:
            user, colon, password = base64.b64decode(rest, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError(text) from None
        if not colon:
            raise ValueError(text)
        return user, password


class Sink:
    """Where a streamed body goes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def write(self, data: bytes, /) -> None:
        self._connection.sendall(data)


@dataclass(slots=True, kw_only=True)
class Response:
    status: int = 200
    body: bytes = b""
    content_type: str = "text/xml"
    headers: list[tuple[str, str]] = field(default_factory=list)
    close: bool = False
    version: str = "HTTP/1.1"
    stream: Callable[[Sink], None] | None = None  # writes the body itself; the connection closes after it
    take: Callable[[BinaryIO], None] | None = None  # reads the request's body after the head has been sent
    held: ExitStack = field(default_factory=ExitStack)  # what stream and take need; let go whatever becomes of them

    def head(self) -> bytes:
        lines = [f"{self.version} {self.status} {REASONS[self.status]}"]
        streams = self.stream is not None or self.take is not None
        if not streams:
            lines.append(f"content-length: {len(self.body)}")
        closing = self.close or streams
        if self.status == 200:
            lines += [f"connection: {'close' if closing else 'keep-alive'}", "cache-control: no-cache, no-store"]
            if self.content_type and not streams:
                lines.append(f"content-type: {self.content_type}")
        else:
            lines += [f"content-type: {self.content_type}", "connection: close", "cache-control: no-cache, no-store"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def page(status: int, text: str, *headers: tuple[str, str]) -> Response:
    body = f"<html><body>{text}</body></html>".encode()
    return Response(status=status, body=body, content_type="text/html", headers=list(headers), close=True)


def trouble(why: str) -> Response:
    return page(500, _TROUBLE + html.escape(why).replace("&#x27;", "&apos;"))


def forbidden() -> Response:
    return page(403, "<h1>HTTP 403 forbidden</h1>Access to the requested resource is forbidden.")


def unauthorised(realm: str) -> Response:
    text = "<h1>HTTP 401 unauthorised</h1>Please check your credentials and retry."
    return page(401, text, ("WWW-Authenticate", f'Basic realm="{realm}"'))


def redirect(url: str, request: Request) -> Response:
    """To the same path at another host."""
    response = page(302, "<h1>HTTP 302 redirect</h1>Redirected.")
    response.headers.append(("Location", url + request.target))
    return response


def unsupported(method: str) -> Response:
    name = html.escape(method)
    return page(501, f"<h1>HTTP 501 Method Not Implemented</h1><p>Unknown {name} not supported.<br /></p>")


def _line(reader: BinaryIO) -> str:
    line = reader.readline(LONGEST_LINE + 1)
    if len(line) > LONGEST_LINE:
        raise Refused("a line is too long")
    return line.decode("latin-1").rstrip("\r\n")


def read_request(reader: BinaryIO) -> Request | None:
    """The next request of a connection; None when the other side has closed it."""
    first = _line(reader)
    if not first:
        return None
    parts = first.split(" ")
    if len(parts) != 3:
        raise Refused("no HTTP request line")
    headers: dict[str, str] = {}
    while line := _line(reader):
        name, colon, value = line.partition(":")
        if not colon or len(headers) >= MOST_HEADERS:
            raise Refused("headers are not in order")
        headers[name.strip().lower()] = value.strip()
    path, _, query = parts[1].partition("?")
    return Request(
        method=parts[0],
        path=path,
        query=dict(parse_qsl(query, keep_blank_values=True)),
        headers=headers,
        reader=reader,
        target=parts[1],
    )


Answer = Callable[[Request], Response]


def serve_connection(connection: socket.socket, answer: Answer) -> None:
    """Answer one connection's requests until it ends."""
    with connection.makefile("rb") as reader:
        try:
            while (request := read_request(reader)) is not None:
                response = answer(request)
                if request.headers.get("connection", "").lower() == "close":
                    response.close = True
                with response.held:
                    connection.sendall(response.head() + response.body)
                    if response.stream is not None:
                        response.stream(Sink(connection))
                    if response.take is not None:
                        response.take(reader)
                if response.close or response.status != 200 or response.stream or response.take:
                    return
        except Refused as refused:
            response = trouble(f'Failure("{refused}")')
            connection.sendall(response.head() + response.body)
        except (ConnectionError, TimeoutError, OSError):
            return  # the other side has gone; nothing is left to say


class Listener(socketserver.ThreadingTCPServer):
    """One address of the pool. Each connection has a thread of its own."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], answer: Answer, tls: Any = None) -> None:
        self.answer = answer
        self.tls = tls
        self.connections: set[socket.socket] = set()
        super().__init__(address, _Connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A broken connection is the client's affair; socketserver would print it."""

    def drop_connections(self) -> None:
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


class UnixListener(Listener):
    """The socket that dom0's scripts call back on."""

    address_family = socket.AF_UNIX

    def __init__(self, path: str, answer: Answer) -> None:
        super().__init__(path, answer)  # type: ignore[arg-type]  # typeshed knows TCP addresses only


class _Connection(socketserver.BaseRequestHandler):
    server: Listener

    def handle(self) -> None:
        connection: socket.socket = self.request
        connection.settimeout(KEPT_SECONDS)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.server.tls is not None:
            connection = self.server.tls.wrap_socket(connection, server_side=True)
        self.server.connections.add(connection)
        try:
            serve_connection(connection, self.server.answer)
        finally:
            self.server.connections.discard(connection)
            connection.close()
