"""oslo.messaging over RabbitMQ, for what may be lost: the posting endpoint and notifications. Its only importer.

It acknowledges a message before it runs it and blocks without limit on a silent link, so nothing here is a carrier of
record, and every call into it that a caller waits for is made in a daemon thread of its own. Importing it loads
eventlet (README.md), so `rpc` and `notify` import this module only for amqp:// URLs.
"""

import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from oslo_config import cfg

from cells import errors
from cells.broker.options import AmqpOptions
from cells.errors import CelltreeError, Permanent, Refusal, Temporary
from cells.names import CellName

with warnings.catch_warnings():
    # Its imports load eventlet and warn about that; nothing is monkey-patched (tests/services/test_rpc.py).
    warnings.simplefilter("ignore")
    import oslo_messaging
    from oslo_messaging._metrics.client import oslo_messaging_metrics
    from oslo_messaging._tracing.client import oslo_messaging_tracing
    from oslo_messaging.opts import list_opts

log = logging.getLogger(__name__)

EXCHANGE = "celltree"
POSTING = "celltree.posting"
NOTIFICATIONS = "notifications"
CALLS_AT_ONCE = 8
STOP_SECONDS = 5.0
UNBOUND_WAIT_SECONDS = 0.1

Endpoint = Mapping[str, Callable[..., Any]]


def private_configuration(cell: CellName, options: AmqpOptions, *, secure: bool) -> cfg.ConfigOpts:
    """Options of one cell's endpoint. oslo.messaging registers two of its groups on the process-wide CONF only, and
    every call fails without them (18.3.1; tests/services/test_rpc.py sees to a third)."""
    conf = cfg.ConfigOpts()
    conf([], project="celltree", default_config_files=[], default_config_dirs=[])
    conf.register_opts(oslo_messaging_metrics, group="oslo_messaging_metrics")
    conf.register_opts(oslo_messaging_tracing, group="oslo_messaging_tracing")
    for group, known in list_opts():
        conf.register_opts(known, group=group)
    conf.set_override("control_exchange", EXCHANGE)
    conf.set_override("executor_thread_pool_size", CALLS_AT_ONCE)
    rabbit = {
        "heartbeat_timeout_threshold": max(2, int(2 * options.heartbeat)),
        "rabbit_interval_max": max(1, int(options.retry_most)),
        "kombu_missing_consumer_retry_timeout": max(1, int(options.time_limit)),
        # Reply queues are named after it: two daemons on a host must not share them.
        "processname": f"celltree-{cell}-{os.getpid()}",
        "ssl": secure,
        "ssl_ca_file": options.tls.authorities,
        "ssl_cert_file": options.tls.certificate,
        "ssl_key_file": options.tls.key,
        "rabbit_login_method": "EXTERNAL" if secure and options.tls.certificate else "AMQPLAIN",
    }
    for name, value in rabbit.items():
        conf.set_override(name, value, group="oslo_messaging_rabbit")
    return conf


def _rabbit_url(url: str) -> str:
    return urlsplit(url)._replace(scheme="rabbit").geturl()


class _Door:
    """What oslo.messaging looks for on an endpoint: methods by name, with a context first."""

    def __init__(self, endpoint: Endpoint) -> None:
        for name, method in endpoint.items():
            setattr(self, name, _answers(method))


def _answers(method: Callable[..., Any]) -> Callable[..., Any]:
    def answer(_context: Mapping[str, Any], **arguments: Any) -> Any:
        try:
            return method(**arguments)
        except Refusal as error:
            return _expected(Permanent(f"{error.code}: {error}"))
        except CelltreeError as error:
            return _expected(error)
        except Exception as error:
            # oslo.messaging would send the traceback, with what is in it, to the caller.
            log.exception("the posting endpoint failed")
            return _expected(Permanent(f"the cell failed ({type(error).__name__}); its log says why"))

    return answer


def _expected(error: CelltreeError) -> None:
    """Goes to the caller and not, with a traceback, into our log."""
    try:
        raise error
    except CelltreeError:
        raise oslo_messaging.ExpectedException() from None


class OsloServer:
    """Serves a cell's posting endpoint. Starting and stopping may wait for a broker: they do so in threads."""

    def __init__(self, url: str, cell: CellName, endpoint: Endpoint, options: AmqpOptions) -> None:
        conf = private_configuration(cell, options, secure=urlsplit(url).scheme == "amqps")
        self._transport = oslo_messaging.get_rpc_transport(conf, url=_rabbit_url(url))
        target = oslo_messaging.Target(topic=POSTING, server=cell)
        self._server = oslo_messaging.get_rpc_server(self._transport, target, [_Door(endpoint)])

    def start(self) -> None:
        threading.Thread(target=self._server.start, name="celltree posting", daemon=True).start()

    def stop(self) -> None:
        """Bounded in time; what a dead broker keeps waiting is left to die with the process."""
        thread = threading.Thread(target=self._end, name="celltree posting end", daemon=True)
        thread.start()
        thread.join(STOP_SECONDS)

    def _end(self) -> None:
        self._server.stop()
        self._server.wait()
        self._transport.cleanup()


class OsloClient:
    """Calls a cell's posting endpoint. At most CALLS_AT_ONCE calls are under way: on a silent link they end late."""

    def __init__(self, url: str, cell: CellName, options: AmqpOptions) -> None:
        self._cell = cell
        conf = private_configuration(cell, options, secure=urlsplit(url).scheme == "amqps")
        self._transport = oslo_messaging.get_rpc_transport(
            conf, url=_rabbit_url(url), allowed_remote_exmods=[errors.__name__]
        )
        # Mandatory: without it RabbitMQ drops, in silence, what comes between the server's exchange and its queue.
        self._client = oslo_messaging.get_rpc_client(
            self._transport,
            oslo_messaging.Target(topic=POSTING),
            transport_options=oslo_messaging.TransportOptions(at_least_once=True),
        )
        self._free = threading.BoundedSemaphore(CALLS_AT_ONCE)

    def call(self, method: str, timeout: float, **arguments: Any) -> Any:
        if not self._free.acquire(blocking=False):
            raise Temporary(f"{CALLS_AT_ONCE} calls to cell {self._cell} wait already: is its broker reachable?")
        answers: list[Any] = []
        failures: list[CelltreeError] = []

        def ask() -> None:
            try:
                answers.append(self._ask(method, time.monotonic() + timeout, arguments))
            except oslo_messaging.MessagingException as error:
                failures.append(_ours(error, self._cell))
            except CelltreeError as error:
                failures.append(_without_traceback(error))
            except Exception as error:
                failures.append(Permanent(f"calling cell {self._cell} failed: {type(error).__name__}: {error}"))
            finally:
                self._free.release()

        thread = threading.Thread(target=ask, name=f"celltree call {method}", daemon=True)
        thread.start()
        thread.join(timeout)
        if failures:
            raise failures[0]
        if not answers:
            raise Temporary(f"cell {self._cell} did not answer {method} within {timeout:g} s; ask again, same id")
        return answers[0]

    def _ask(self, method: str, deadline: float, arguments: Mapping[str, Any]) -> Any:
        while True:
            left = max(UNBOUND_WAIT_SECONDS, deadline - time.monotonic())
            try:
                return self._client.prepare(timeout=left).call({}, method, **arguments)
            except oslo_messaging.MessageUndeliverable:
                if left <= UNBOUND_WAIT_SECONDS:
                    raise Temporary(f"cell {self._cell} did not answer: nobody serves it; ask again, same id") from None
                time.sleep(UNBOUND_WAIT_SECONDS)

    def close(self) -> None:
        thread = threading.Thread(target=self._transport.cleanup, name="celltree client end", daemon=True)
        thread.start()
        thread.join(STOP_SECONDS)


def _ours(error: Exception, cell: CellName) -> CelltreeError:
    if isinstance(error, oslo_messaging.RemoteError):
        return Permanent(f"cell {cell} failed: {error.exc_type}: {error.value}")
    return Temporary(f"cell {cell} did not answer: {error}; ask again, same id")


def _without_traceback(error: CelltreeError) -> CelltreeError:
    """oslo.messaging gives a subclass of ours whose text is the remote traceback."""
    known = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    plain: CelltreeError = known(*error.args)
    return plain


class _Request:
    """A notification's context: oslo.messaging throws away one that is a dict, lest it holds a token."""

    def __init__(self, request: str) -> None:
        self._request = request

    def redacted_copy(self) -> "_Request":
        return self

    def to_dict(self) -> dict[str, str]:
        return {"request_id": self._request}


class OsloNotifier:
    """Emits notifications; `send` may block for as long as the broker is away."""

    def __init__(self, url: str, cell: CellName, publisher: str, options: AmqpOptions) -> None:
        conf = private_configuration(cell, options, secure=urlsplit(url).scheme == "amqps")
        self._transport = oslo_messaging.get_notification_transport(conf, url=_rabbit_url(url))
        self._notifier = oslo_messaging.Notifier(
            self._transport, publisher_id=publisher, driver="messagingv2", topics=[NOTIFICATIONS]
        )

    def send(self, request: str, event_type: str, payload: Mapping[str, Any]) -> None:
        self._notifier.info(_Request(request), event_type, dict(payload))

    def close(self) -> None:
        self._transport.cleanup()
