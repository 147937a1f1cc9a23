"""The guest agent's key exchange: how a password crosses xenstore. Nothing else of celltree may use this.

The protocol is fixed by the agents that are out there: Diffie-Hellman over a prime of 107 bits, then AES-128-CBC with a
key derived by MD5 without salt. That keeps passwords out of logs and out of sight of a glance; it does not withstand
someone who records the exchange and has a computer. xenstore itself is private to dom0 and the guest.

The only importer of `cryptography`'s ciphers.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from cells.errors import BadInput

PRIME = 162259276829213363391578010288127
BASE = 5
_BLOCK = 16
_MOST_DIGITS = len(str(PRIME))


class KeyExchange:
    """One side of one exchange. `public` goes to the other side as decimal text."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._private = 2 + int.from_bytes(random_bytes(_BLOCK), "big") % (PRIME - 4)
        self.public = str(pow(BASE, self._private, PRIME))

    def __repr__(self) -> str:
        return "KeyExchange()"

    def shared(self, public: str) -> "Shared":
        """The secret that both sides now have. BadInput when the other side's key is none."""
        # Its length first: a guest may send as many digits as it likes.
        number = int(public) if len(public) <= _MOST_DIGITS and public.isascii() and public.isdigit() else 0
        if not 1 < number < PRIME - 1:
            raise BadInput("the guest agent's public key is not a number of the protocol's group")
        return Shared(str(pow(number, self._private, PRIME)))


class Shared:
    """AES-128-CBC under a shared secret; texts are base64 on one line."""

    def __init__(self, secret: str) -> None:
        plain = secret.encode()
        key = hashlib.md5(plain, usedforsecurity=False).digest()
        self._key, self._iv = key, hashlib.md5(key + plain, usedforsecurity=False).digest()

    def __repr__(self) -> str:
        return "Shared()"

    def encrypt(self, text: str) -> str:
        padder = PKCS7(_BLOCK * 8).padder()
        padded = padder.update(text.encode()) + padder.finalize()
        encryptor = self._cipher().encryptor()
        return base64.b64encode(encryptor.update(padded) + encryptor.finalize()).decode()

    def decrypt(self, box: str) -> str:
        """BadInput when it was not encrypted under this secret."""
        try:
            decryptor = self._cipher().decryptor()
            padded = decryptor.update(base64.b64decode(box, validate=True)) + decryptor.finalize()
            unpadder = PKCS7(_BLOCK * 8).unpadder()
            return (unpadder.update(padded) + unpadder.finalize()).decode()
        except (ValueError, binascii.Error, UnicodeDecodeError):
            raise BadInput("the password was not encrypted under the key that was exchanged") from None

    def _cipher(self) -> Cipher[modes.CBC]:
        return Cipher(algorithms.AES128(self._key), modes.CBC(self._iv))
