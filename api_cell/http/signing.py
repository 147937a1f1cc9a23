"""Tokens for the bytes of one image: a leaf's dom0 has no account here, so the command that sends it carries a token
that names the image, what may be done with it, and until when, signed with the cell's secret."""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from enum import StrEnum

from cells.names import SECOND, Instant
from cells.ports import Clock

_MARK = "celltree1"


class Purpose(StrEnum):
    """READ: fetch the record and the data. WRITE: fill a queued image, too."""

    READ = "read"
    WRITE = "write"


class ImageTokens:
    """Makes and checks the tokens. An empty secret makes none and accepts none."""

    def __init__(self, secret: bytes, clock: Clock, lifetime: int) -> None:
        self._secret = secret
        self._clock = clock
        self._lifetime = lifetime

    def token_for(self, image_id: str, purpose: Purpose) -> str:
        """A token to be sent as X-Auth-Token; empty when there is no secret."""
        if not self._secret:
            return ""
        until = self._clock() // SECOND + self._lifetime
        claim = f"{_MARK}.{image_id}.{purpose}.{until}"
        return f"{claim}.{self._sign(claim)}"

    def claim(self, token: str) -> tuple[str, Purpose] | None:
        """The image and purpose of a token that is ours and not expired."""
        claim, dot, signature = token.rpartition(".")
        words = claim.split(".")
        if not self._secret or not dot or len(words) != 4 or words[0] != _MARK:
            return None
        if not hmac.compare_digest(signature.encode(), self._sign(claim).encode()):
            return None
        until: Instant = int(words[3]) * SECOND
        return (words[1], Purpose(words[2])) if self._clock() < until else None

    def _sign(self, claim: str) -> str:
        digest = hmac.new(self._secret, claim.encode(), hashlib.sha256).digest()
        return urlsafe_b64encode(digest).rstrip(b"=").decode()
