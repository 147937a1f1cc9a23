"""Finding differences between what a leaf knows of an owner's servers and what the owner has, without a time window.

Both sides sum up (server, version, state) per bucket; only buckets that differ are compared server by server.
"""

import hashlib
from collections.abc import Iterable

from cells.codec import pack
from cells.model import InstanceState

BUCKETS = 64
_MASK = (1 << 63) - 1


def checksum(version: int, state: InstanceState) -> int:
    """63 bits over a version and the whole state at it."""
    return _number(pack((version, state)))


def bucket_of(server: bytes) -> int:
    """Which bucket a server falls in."""
    return _number(server) % BUCKETS


def buckets(servers: Iterable[tuple[bytes, int]]) -> tuple[int, ...]:
    """One number a bucket over (server, checksum), whatever their order."""
    sums = [0] * BUCKETS
    for server, check in servers:
        sums[bucket_of(server)] ^= _number(server + check.to_bytes(8, "big"))
    return tuple(sums)


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") & _MASK
