"""What an operator may set about RabbitMQ, with units and when to change it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """For amqps:// URLs; paths of PEM files. `authorities`: who signs brokers' certificates (empty: the system's).
    `certificate` and `key`: ours, if brokers ask for one; it is also our login (SASL EXTERNAL) where the URL names a
    user without a password, and its common name is then that user. `verify_host`: the broker's certificate must name
    the URL's host."""

    authorities: str = ""
    certificate: str = ""
    key: str = ""
    verify_host: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AmqpOptions:
    """prefetch: unacknowledged deliveries a daemon may hold; lower it when bundles are large and memory is short.
    window: messages a link may have unconfirmed; backlog: messages it holds besides. time_limit: seconds until an
    unconfirmed message counts as failed, and for every answer of a broker. heartbeat: seconds; a silent connection is
    given up after twice that. retry_first, retry_most: seconds between attempts to connect. max_length,
    max_length_bytes: of our inbox queue; over it publishers are refused."""

    prefetch: int = 200
    window: int = 128
    backlog: int = 128
    time_limit: float = 2.0
    heartbeat: float = 10.0
    retry_first: float = 0.1
    retry_most: float = 5.0
    max_length: int = 50_000
    max_length_bytes: int = 1024**3
    tls: Tls = Tls()
