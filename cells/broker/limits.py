"""What both brokers agree on: the name of an inbox queue, the size of a message, how a URL is shown."""

from urllib.parse import urlsplit

from cells.errors import BadInput
from cells.record import MAX_BUNDLE

INBOX = "celltree.inbox"
QUEUE_FULL = "queue is full"


def refuse_oversized(data: bytes) -> None:
    """BadInput for a body no neighbour would take (a broker would, up to 128 MiB, and choke on it)."""
    if len(data) > MAX_BUNDLE:
        raise BadInput(f"message of {len(data)} bytes is over the limit of {MAX_BUNDLE}: split the bundle")


def redacted(url: str) -> str:
    """The URL without its login, for logs and errors."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
