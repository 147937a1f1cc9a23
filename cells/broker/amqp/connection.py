"""One connection and channel to a RabbitMQ, for one thread. The only importer of kombu and py-amqp.

kombu makes the connection, py-amqp the handshake and every rare call; publishing, deliveries, confirms and
acknowledgements go through `frames`. Every wait is bounded: by the socket's time-out, or by `wait`'s. Whatever goes
wrong is a Lost, after which only a new connection helps.
"""

import select
import ssl
import struct
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from amqp import spec
from amqp.exceptions import AMQPError, PreconditionFailed
from kombu.connection import Connection as KombuConnection

from cells.broker.amqp.frames import (
    BEAT,
    CONNECTION_CLOSE_OK,
    HEARTBEAT,
    Frame,
    FrameReader,
    Malformed,
    PublishForm,
)
from cells.broker.amqp.wake import Wake
from cells.broker.limits import INBOX, redacted
from cells.broker.options import AmqpOptions
from cells.errors import BadInput, Temporary

SCHEMES = ("amqp", "amqps")
CLOSE_SECONDS = 1.0
_RECEIVE = 256 * 1024
_FOREIGN = (AMQPError, OSError, struct.error, LookupError, AttributeError, Malformed)


class Lost(Temporary):
    """The connection is gone or of no use; the text says why."""


def check_url(url: str) -> None:
    """BadInput for a URL that is not amqp:// or amqps:// with a host."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise BadInput(
            f"{redacted(url)!r} is not the URL of a RabbitMQ: write amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps://"
        )


class AmqpConnection:
    """Open, or Lost is raised. Use from one thread."""

    def __init__(self, url: str, options: AmqpOptions, name: str, wake: Wake) -> None:
        self._options = options
        self._wake = wake
        self._user = unquote(urlsplit(url).username or "")
        self._amqp = _translated(lambda: _establish(url, options, name))
        try:
            self._socket: Any = self._amqp.transport.sock
            self._socket.settimeout(options.time_limit)
            self._channel: Any = _translated(self._amqp.channel)
            self._reader = FrameReader(self._amqp.frame_max)
            self._poll = select.poll()
            self._poll.register(self._socket, select.POLLIN)
            self._poll.register(wake.fd, select.POLLIN)
            self._sent = self._heard = time.monotonic()
        except BaseException:
            self._amqp.collect()
            raise

    # --- rare calls, before the first `receive` ---

    def declare_inbox(self) -> str:
        """Declare the exchange and queue that neighbours publish to. When the queue is there with other limits it is
        kept as it is, and the text says so."""
        return str(_translated(self._declare_inbox))

    def _declare_inbox(self) -> str:
        channel, note = self._channel, ""
        limits = {
            "x-overflow": "reject-publish",
            "x-max-length": self._options.max_length,
            "x-max-length-bytes": self._options.max_length_bytes,
        }
        try:
            channel.queue_declare(INBOX, durable=True, auto_delete=False, arguments=limits)
        except PreconditionFailed as error:
            note = f"the queue exists with other settings and is kept ({error.reply_text})"
            channel.queue_declare(INBOX, passive=True, auto_delete=False)
        channel.exchange_declare(INBOX, "fanout", durable=True, auto_delete=False)
        channel.queue_bind(INBOX, INBOX)
        return note

    def consume(self) -> None:
        """Begin to receive deliveries, to be acknowledged by hand."""

        def begin() -> None:
            self._channel.basic_qos(0, self._options.prefetch, False)
            self._channel.basic_consume(INBOX)

        _translated(begin)

    def publish_form(self) -> PublishForm:
        """Begin to publish with confirms; numbers count from 1."""
        _translated(self._channel.confirm_select)
        return PublishForm(self.channel, INBOX, self._user, self._amqp.frame_max)

    # --- the hot path ---

    @property
    def channel(self) -> int:
        return int(self._channel.channel_id)

    def send(self, data: bytes) -> None:
        # Not py-amqp's write: over TLS that copies what is left after every record.
        _translated(lambda: self._socket.sendall(data))
        self._sent = time.monotonic()

    def wait(self, seconds: float) -> bool:
        """Until something can be received, the wake is rung or the time is over; whether something can be received."""
        if self._amqp.ssl and self._socket.pending():
            return True
        ready = dict(self._poll.poll(max(0.0, seconds) * 1000))
        if self._wake.fd in ready:
            self._wake.clear()
        return self._socket.fileno() in ready

    def receive(self) -> list[Frame]:
        """The frames that have come."""
        chunk = _translated(self._receive)
        if chunk:
            self._heard = time.monotonic()
        return list(_translated(lambda: self._reader.feed(chunk)))

    def _receive(self) -> bytes:
        chunk = self._receive_tls() if self._amqp.ssl else bytes(self._socket.recv(_RECEIVE))
        if chunk is None:
            return b""
        if not chunk:
            raise Lost("the broker closed the connection")
        return chunk

    def _receive_tls(self) -> bytes | None:
        """Some TLS records, 16 KiB each; None when none is whole. A record may hold no data for us, or half of one may
        have come: never wait for the rest."""
        self._socket.setblocking(False)
        parts: list[bytes] = []
        try:
            while sum(map(len, parts)) < _RECEIVE:
                parts.append(self._socket.recv(_RECEIVE))
                if not parts[-1]:
                    break
        except ssl.SSLWantReadError:
            if not parts:
                return None
        finally:
            self._socket.settimeout(self._options.time_limit)
        return b"".join(parts)

    def pass_on(self, received: Frame) -> None:
        """Let py-amqp see to a rare frame: a channel or connection error becomes a Lost with the broker's words."""
        if received[0] != BEAT:
            _translated(lambda: self._amqp.on_inbound_frame(received))

    def tick(self) -> float:
        """Send a heartbeat when it is time; gives the seconds until to call again. Lost when the broker is silent."""
        beat = float(self._amqp.heartbeat)
        if not beat:
            return 60.0
        now = time.monotonic()
        if now - self._heard > 2 * beat:
            raise Lost(f"nothing heard from the broker for {2 * beat:g} s")
        if now - self._sent >= beat / 2:
            self.send(HEARTBEAT)
        return min(self._sent + beat / 2, self._heard + 2 * beat) - now

    # --- the end ---

    def close(self) -> None:
        """Close in order, so that the broker has read all we sent; bounded in time."""
        limit = time.monotonic() + CLOSE_SECONDS
        try:
            arguments = (0, "", 0, 0)
            _translated(lambda: self._amqp.send_method(spec.Connection.Close, "BsBB", arguments))
            while (left := limit - time.monotonic()) > 0:
                if not self.wait(left):
                    continue
                if any(payload[:4] == CONNECTION_CLOSE_OK for _, channel, payload in self.receive() if not channel):
                    break
        except Lost:
            pass
        self.abort()

    def abort(self) -> None:
        """Let go of the socket at once."""
        self._amqp.collect()


def _establish(url: str, options: AmqpOptions, name: str) -> Any:
    parts = urlsplit(url)
    secure: Any = False
    if parts.scheme == "amqps":
        secure = {
            "ca_certs": options.tls.authorities or None,
            "certfile": options.tls.certificate or None,
            "keyfile": options.tls.key or None,
            "cert_reqs": ssl.CERT_REQUIRED,
            # py-amqp compares the certificate's hosts with this one, if it is given.
            **({"server_hostname": parts.hostname} if options.tls.verify_host else {}),
        }
    external = bool(secure and options.tls.certificate and not parts.password)
    kombu: Any = KombuConnection  # only partly typed
    connection = kombu(
        f"amqp://{parts.netloc}{parts.path}",
        ssl=secure,
        login_method="EXTERNAL" if external else "PLAIN",
        heartbeat=options.heartbeat,
        connect_timeout=options.time_limit,
        transport_options={
            # py-amqp makes the socket blocking for the TLS handshake: these bound it.
            "read_timeout": options.time_limit,
            "write_timeout": options.time_limit,
            "client_properties": {"connection_name": name},
        },
    )
    return connection.transport.establish_connection()


def _alert(error: ssl.SSLError) -> str:
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if "alert" in reason:
        return f"the broker says {reason}; check amqp: tls: certificate and key, and whom the broker trusts"
    # A broker that refuses a certificate may close before its alert is read.
    return f"{reason}; does a broker with TLS listen at this port, and take amqp: tls: certificate and key?"


def _translated(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except TimeoutError:
        raise Lost("the broker does not answer in time") from None
    except ssl.SSLCertVerificationError as error:
        raise Lost(
            f"the broker's certificate does not hold: {error.verify_message}; check amqp: tls: authorities, and that "
            "the certificate names the URL's host"
        ) from None
    except ssl.SSLError as error:
        raise Lost(f"TLS fails: {_alert(error)}") from None
    except AMQPError as error:
        unroutable = "unroutable: " if error.reply_code == 404 else ""
        raise Lost(f"{unroutable}{error.reply_code or ''} {error.reply_text or error}".strip()) from error
    except _FOREIGN as error:
        raise Lost(str(error) or type(error).__name__) from error
