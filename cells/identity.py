"""Who a cell is, and how others know. One offline root key per tree certifies (name, uuid, public key, role) of every
cell; a cell signs its packets and its cell record with its own key; every reader checks against the root, so a cell in
the middle can neither forge a neighbour nor vouch for a false key. Secrets for a leaf are sealed to its key.

The only importer of PyNaCl (Ed25519 signatures, X25519 sealed boxes, BLAKE2b). All functions raise BadInput for a
signature or a certificate that does not hold, naming what was wrong.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from nacl.exceptions import BadSignatureError, CryptoError
from nacl.public import SealedBox
from nacl.secret import SecretBox
from nacl.signing import SigningKey, VerifyKey

from cells.codec import pack, unpack
from cells.errors import BadInput
from cells.messages import SignedCellRecord
from cells.model import CellRecord
from cells.names import CellName, Id, Instant, cell_name
from cells.record import Hop, Packet

_CERTIFICATE = b"celltree certificate 1\0"
_PACKET = b"celltree packet 1\0"
_CELL_RECORD = b"celltree cell record 1\0"
_PROOF = b"celltree proof 1\0"
_CACHED_CERTIFICATES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What the root key says of a cell. `key` is its Ed25519 public key, from which the key to seal for it follows."""

    name: CellName
    uuid: Id
    role: str
    key: bytes
    issued: Instant


class RootKey:
    """The private key of a tree. Kept offline; used by `celltree tree init` and `celltree cell register` only."""

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)
        self.seed = seed
        self.public = bytes(self._key.verify_key)

    def certify(self, name: CellName, uuid: bytes, role: str, key: bytes, now: Instant) -> bytes:
        """A certificate in its wire form."""
        payload = pack(Certificate(name=cell_name(name), uuid=uuid, role=role, key=key, issued=now))
        return pack((payload, self._key.sign(_CERTIFICATE + payload).signature))


class Trust:
    """What may be believed in a tree, given its root's public key. Certificates that held once are remembered."""

    def __init__(self, root_public: bytes) -> None:
        self.root_public = root_public
        self._root = VerifyKey(root_public)
        self._known: dict[bytes, tuple[Certificate, VerifyKey]] = {}

    def certificate(self, wire: bytes) -> Certificate:
        """The certificate, if the root signed it."""
        return self._open(wire)[0]

    def _open(self, wire: bytes) -> tuple[Certificate, VerifyKey]:
        found = self._known.get(wire)
        if found is not None:
            return found
        payload, signature = unpack(tuple[bytes, bytes], wire)
        try:
            self._root.verify(_CERTIFICATE + payload, signature)
        except (BadSignatureError, ValueError):
            raise BadInput("certificate is not signed by this tree's root key") from None
        certificate = unpack(Certificate, payload)
        if len(self._known) >= _CACHED_CERTIFICATES:
            self._known.clear()
        found = self._known[wire] = (certificate, VerifyKey(certificate.key))
        return found

    def packet(self, packet: Packet) -> Certificate:
        """The certificate of a packet's origin, if the origin signed it for this destination."""
        certificate, key = self._open(packet.certificate)
        if certificate.name != packet.origin:
            raise BadInput(f"packet of {packet.origin!r} comes with the certificate of {certificate.name!r}")
        try:
            key.verify(_digest(packet.origin, packet.destination, packet.serial, packet.records), packet.signature)
        except (BadSignatureError, ValueError):
            raise BadInput(f"packet of {packet.origin!r} is not signed by it") from None
        return certificate

    def cell_record(self, signed: SignedCellRecord) -> CellRecord:
        """What a cell says of itself, if it was that cell."""
        certificate, key = self._open(signed.certificate)
        try:
            key.verify(_CELL_RECORD + signed.payload, signed.signature)
        except (BadSignatureError, ValueError):
            raise BadInput(f"cell record of {certificate.name!r} is not signed by it") from None
        record: CellRecord = unpack(CellRecord, signed.payload)
        if (record.name, record.uuid, record.role) != (certificate.name, certificate.uuid, certificate.role):
            raise BadInput(f"cell record says {record.name!r}, its certificate says {certificate.name!r}")
        return record


class Identity:
    """A cell's own key, with its certificate."""

    def __init__(self, seed: bytes, certificate: bytes, trust: Trust) -> None:
        self._key = SigningKey(seed)
        self.certificate = certificate
        self.trust = trust
        self.says = trust.certificate(certificate)
        if self.says.key != bytes(self._key.verify_key):
            raise BadInput(f"the private key does not belong to the certificate of {self.says.name!r}")
        self._own = SecretBox(hashlib.blake2b(seed, digest_size=32, person=b"celltree own box").digest())

    @property
    def name(self) -> CellName:
        return self.says.name

    def packet(
        self, destination: CellName, serial: int, deadline: Instant, records: tuple[bytes, ...], now: Instant
    ) -> Packet:
        """These records (wire form) as a signed packet that begins its way here."""
        return Packet(
            origin=self.name,
            destination=destination,
            serial=serial,
            deadline=deadline,
            records=records,
            signature=self._key.sign(_digest(self.name, destination, serial, records)).signature,
            certificate=self.certificate,
            trail=(Hop(cell=self.name, at=now),),
        )

    def cell_record(self, record: CellRecord) -> SignedCellRecord:
        """Our own cell record, signed."""
        payload = pack(record)
        signature = self._key.sign(_CELL_RECORD + payload).signature
        return SignedCellRecord(certificate=self.certificate, payload=payload, signature=signature)

    def prove(self, what: bytes) -> bytes:
        """Our signature on having said something, for ourselves: should we forget, others can show it to us."""
        return self._key.sign(_PROOF + what).signature

    def proved(self, what: bytes, signature: bytes) -> bool:
        """Whether `prove` gave this."""
        try:
            self._key.verify_key.verify(_PROOF + what, signature)
        except (BadSignatureError, ValueError):
            return False
        return True

    def unseal(self, box: bytes) -> bytes:
        """Open what others sealed for us."""
        try:
            return SealedBox(self._key.to_curve25519_private_key()).decrypt(box)
        except CryptoError:
            raise BadInput("a sealed value was not sealed for this cell, or was changed") from None

    def keep(self, secret: bytes, random_bytes: Callable[[int], bytes]) -> bytes:
        """A secret as it may lie in our own database."""
        return bytes(self._own.encrypt(secret, random_bytes(SecretBox.NONCE_SIZE)))

    def kept(self, box: bytes) -> bytes:
        """Open what `keep` gave."""
        try:
            return self._own.decrypt(box)
        except CryptoError:
            raise BadInput(
                "a kept secret cannot be opened with this cell's key; was the key file replaced? register it again"
            ) from None


def new_key(random_bytes: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    """A fresh (private seed, public key)."""
    seed = random_bytes(32)
    return seed, bytes(SigningKey(seed).verify_key)


def seal(secret: bytes, key: bytes) -> bytes:
    """A secret that only the cell with this public key can open."""
    return bytes(SealedBox(VerifyKey(key).to_curve25519_public_key()).encrypt(secret))


def _digest(origin: CellName, destination: CellName, serial: int, records: tuple[bytes, ...]) -> bytes:
    # A record's own hash is enough to prove it later together with the hashes of the others it travelled with.
    hashes = b"".join(hashlib.blake2b(record, digest_size=32).digest() for record in records)
    return _PACKET + pack((origin, destination, serial)) + hashes
