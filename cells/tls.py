"""The certificates a cell's configuration names, for its brokers (amqp: tls) and in its database URL (ssl_ca, ssl_cert,
ssl_key, as SQLAlchemy reads them): their paths, and whether they can be used.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

from cells.broker.options import AmqpOptions
from cells.errors import BadInput
from cells.names import Instant

if TYPE_CHECKING:
    from cells.config import CellConfig

_DATABASE_FILES = {"ssl_ca": "authorities", "ssl_cert": "certificate", "ssl_key": "key"}


def with_whole_paths(config: "CellConfig", folder: Path) -> "CellConfig":
    """The configuration with the paths of certificates as seen from `folder`, where it was read."""
    tls = config.amqp.tls
    authorities, certificate, key = (_whole(path, folder) for path in (tls.authorities, tls.certificate, tls.key))
    tls = replace(tls, authorities=authorities, certificate=certificate, key=key)
    parts = urlsplit(config.database)
    words = parse_qsl(parts.query, keep_blank_values=True)
    database = config.database
    if any(name in _DATABASE_FILES for name, _ in words):
        query = [(name, _whole(value, folder) if name in _DATABASE_FILES else value) for name, value in words]
        database = parts._replace(query=urlencode(query, safe="/")).geturl()
    return replace(config, amqp=replace(config.amqp, tls=tls), database=database)


def check(config: "CellConfig", now: Instant) -> None:
    """BadInput, with the remedy, unless the certificates named can be used now."""
    check_broker(config.broker, config.amqp, now)
    words = dict(parse_qsl(urlsplit(config.database).query))
    files = {name: words.get(word, "") for word, name in _DATABASE_FILES.items()}
    if not any(files.values()):
        return
    if not files["authorities"]:
        raise BadInput(
            "database: the URL names ssl_cert or ssl_key but no ssl_ca, so the server's certificate would not be "
            "checked; add ssl_ca=FILE"
        )
    # Here, because a cell that names no certificate need not load a large library.
    from cells import certificates

    certificates.check("database", now, **files)


def check_broker(url: str, options: AmqpOptions, now: Instant) -> None:
    """The same for one broker URL."""
    tls, parts = options.tls, urlsplit(url)
    if parts.scheme == "amqps" and not parts.password and not tls.certificate:
        raise BadInput(
            "broker: the URL has no password and there is no certificate to log in with; write "
            "amqps://USER:PASSWORD@..., or name amqp: tls: certificate and key"
        )
    if not (tls.authorities or tls.certificate or tls.key):
        return
    from cells import certificates

    certificates.check("amqp: tls", now, authorities=tls.authorities, certificate=tls.certificate, key=tls.key)


def _whole(path: str, folder: Path) -> str:
    return str(folder / path) if path else ""
