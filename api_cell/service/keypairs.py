"""Key pairs: public keys of a user. Private keys are made by the user and never come here."""

import base64
import binascii
import hashlib

from api_cell.errors import Forbidden, Invalid, NotAllowedNow, NotFound
from api_cell.rows import KeyPairRow
from api_cell.service.api import Api
from cells.decision import Remove
from cells.ports import After, Unit, Where
from cells.rows import shard_of

_KINDS = ("ssh-rsa", "ssh-ed25519", "ecdsa-sha2-", "sk-ssh-ed25519@", "sk-ecdsa-sha2-")


def fingerprint_of(public_key: str) -> str:
    """MD5 of the key in hexadecimal pairs, as OpenStack shows it; Invalid when it is not an OpenSSH public key."""
    words = public_key.split()
    remedy = "give one line as in ~/.ssh/id_ed25519.pub"
    if len(words) < 2 or not words[0].startswith(_KINDS):
        raise Invalid(f"keypair.public_key: not an OpenSSH public key; {remedy}")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        raise Invalid(f"keypair.public_key: its second word is not base64; {remedy}") from None
    if len(blob) < 4 or blob[4 : 4 + int.from_bytes(blob[:4], "big")] != words[0].encode():
        raise Invalid(f"keypair.public_key: the key is not of the kind {words[0]} it says; {remedy}")
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digest[n : n + 2] for n in range(0, 32, 2))


def create(api: Api, user: str, name: str, public_key: str) -> KeyPairRow:
    """Keep a public key under a new name."""
    row = KeyPairRow(
        user=user,
        name=name,
        public_key=public_key.strip(),
        fingerprint=fingerprint_of(public_key),
        created=api.clock(),
    )

    def act(unit: Unit) -> KeyPairRow:
        # A counter's row is locked until the unit ends: what is counted below cannot grow meanwhile.
        unit.count_up(f"keypairs-{shard_of(user.encode())}")
        if unit.get(KeyPairRow, user, name) is not None:
            raise NotAllowedNow(f"Key pair '{name}' already exists; delete it first or choose another name")
        if unit.count(KeyPairRow, Where(column="user", op="=", value=user)) >= api.settings.most_keypairs:
            raise Forbidden(f"Quota exceeded: {api.settings.most_keypairs} key pairs; delete one first")
        unit.insert(row)
        return row

    return api.change(act)


def find(api: Api, user: str, *, marker: str = "", limit: int | None = None) -> tuple[KeyPairRow, ...]:
    """A user's key pairs by name, one page."""

    def act(unit: Unit) -> tuple[KeyPairRow, ...]:
        if marker and unit.get(KeyPairRow, user, marker) is None:
            raise Invalid(f"marker [{marker}] not found; begin again without a marker")
        return unit.find(
            KeyPairRow,
            Where(column="user", op="=", value=user),
            order=("name",),
            after=After(values=(marker,)) if marker else None,
            limit=limit,
        )

    return api.read(act)


def show(api: Api, user: str, name: str) -> KeyPairRow:
    """One key pair."""
    row = api.read(lambda unit: unit.get(KeyPairRow, user, name))
    if row is None:
        raise NotFound(f"Keypair {name} not found for user {user}")
    return row


def delete(api: Api, user: str, name: str) -> None:
    """Forget a key pair; servers built with it keep the key."""

    def act(unit: Unit) -> None:
        if unit.get(KeyPairRow, user, name) is None:
            raise NotFound(f"Keypair {name} not found for user {user}")
        unit.save(Remove(row=KeyPairRow, key=(user, name)))

    api.change(act)
