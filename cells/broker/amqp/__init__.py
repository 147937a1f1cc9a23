"""A cell's RabbitMQ brokers: its own, where its inbox queue lives, and its neighbours', where it publishes."""

import time
from collections.abc import Callable

from cells.broker.amqp.connection import check_url
from cells.broker.amqp.inbox import AmqpInbox
from cells.broker.amqp.link import AmqpLink
from cells.broker.options import AmqpOptions, Tls
from cells.names import CellName

__all__ = ["AmqpBroker", "AmqpOptions", "Tls"]

CLOSE_SECONDS = 5.0


class AmqpBroker:
    """One daemon's inbox and links. `url` is our own broker, with a user that may configure, write and read there."""

    def __init__(self, url: str, cell: CellName, bell: Callable[[], None], options: AmqpOptions | None = None) -> None:
        check_url(url)
        self._url = url
        self._cell = cell
        self._bell = bell
        self._options = options or AmqpOptions()
        self._inbox: AmqpInbox | None = None
        self._links: list[AmqpLink] = []

    def inbox(self) -> AmqpInbox:
        if self._inbox is None:
            self._inbox = AmqpInbox(cell=self._cell, url=self._url, bell=self._bell, options=self._options)
        return self._inbox

    def link(self, neighbour: CellName, url: str) -> AmqpLink:
        check_url(url)
        link = AmqpLink(cell=self._cell, neighbour=neighbour, url=url, bell=self._bell, options=self._options)
        self._links = [*(one for one in self._links if one.alive), link]
        return link

    def close(self) -> None:
        """Ends every thread, together within CLOSE_SECONDS."""
        parts: list[AmqpLink | AmqpInbox] = [*self._links, *([self._inbox] if self._inbox else [])]
        for part in parts:
            part.close()
        limit = time.monotonic() + CLOSE_SECONDS
        for part in parts:
            part.join(max(0.0, limit - time.monotonic()))
