"""Who a cell is, and how others know. One offline root key per tree certifies (name, uuid, public key, role) of every
cell; a cell signs its packets and its cell record with its own key; every reader checks against the root, so a cell in
the middle can neither forge a neighbour nor vouch for a false key. Secrets for a leaf are sealed to its key.

The only importer of PyNaCl (Ed25519 signatures, X25519 sealed boxes, BLAKE2b). All functions raise BadInput for a
signature or a certificate that does not hold, naming what was wrong.
"""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from nacl.exceptions import BadSignatureError, CryptoError
from nacl.public import PrivateKey, SealedBox
from nacl.secret import SecretBox
from nacl.signing import SigningKey, VerifyKey

from cells.codec import pack, unpack
from cells.errors import BadInput
from cells.messages import SignedCellRecord
from cells.model import CellRecord, believable
from cells.names import CellName, Id, Instant, cell_name
from cells.record import Hop, Packet

_CERTIFICATE = b"celltree certificate 1\0"
_PACKET = b"celltree packet 1\0"
_CELL_RECORD = b"celltree cell record 1\0"
_PROOF = b"celltree proof 1\0"
_WITHDRAWN = b"celltree withdrawn certificates 1\0"
_SEALED = b"celltree sealed"
_KEPT = b"celltree kept"
_MARK_LENGTH = 8
_CACHED_CERTIFICATES = 10_000
_CACHED_WORDS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What the root key says of a cell. `key` is its Ed25519 public key, from which the key to seal for it follows."""

    name: CellName
    uuid: Id
    role: str
    key: bytes
    issued: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """Which certificates count no longer, though the root has signed them: of each of these cells those issued before
    an instant. A cell that was removed, or a key that was replaced. Of two lists the one with the larger number holds;
    it names all that the other names."""

    number: Instant = 0
    before: Mapping[CellName, Instant] = field(default_factory=dict)


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

    def withdraw(self, known: Withdrawn, before: Mapping[CellName, Instant], now: Instant) -> bytes:
        """The list with these cells added, in its wire form."""
        merged = {**known.before, **{name: max(at, known.before.get(name, 0)) for name, at in before.items()}}
        payload = pack(Withdrawn(number=max(now, known.number + 1), before=merged))
        return pack((payload, self._key.sign(_WITHDRAWN + payload).signature))


class Trust:
    """What may be believed in a tree, given its root's public key. Certificates that held once are remembered."""

    def __init__(self, root_public: bytes) -> None:
        self.root_public = root_public
        self.withdrawn = Withdrawn()
        self._root = VerifyKey(root_public)
        self._known: dict[bytes, tuple[Certificate, VerifyKey]] = {}
        self._words: dict[SignedCellRecord, CellRecord] = {}

    def certificate(self, wire: bytes) -> Certificate:
        """The certificate, if the root signed it."""
        return self._open(wire)[0]

    def _open(self, wire: bytes) -> tuple[Certificate, VerifyKey]:
        found = self._known.get(wire)
        if found is None:
            certificate = unpack(Certificate, self._signed(_CERTIFICATE, wire, "certificate"))
            if len(self._known) >= _CACHED_CERTIFICATES:
                self._known.clear()
            found = self._known[wire] = (certificate, VerifyKey(certificate.key))
        certificate = found[0]
        if certificate.issued < self.withdrawn.before.get(certificate.name, 0):
            raise BadInput(
                f"this certificate of {certificate.name!r} was withdrawn: the cell was removed or has a newer one"
            )
        return found

    def _signed(self, prefix: bytes, wire: bytes, what: str) -> bytes:
        payload, signature = unpack(tuple[bytes, bytes], wire)
        try:
            self._root.verify(prefix + payload, signature)
        except (BadSignatureError, ValueError):
            raise BadInput(f"{what} is not signed by this tree's root key") from None
        return bytes(payload)

    def read_withdrawn(self, wire: bytes) -> Withdrawn:
        """A list of withdrawn certificates, if the root signed it."""
        found: Withdrawn = unpack(Withdrawn, self._signed(_WITHDRAWN, wire, "list of withdrawn certificates"))
        return found

    def take_withdrawn(self, found: Withdrawn) -> None:
        """Believe what it names no longer, from now on."""
        if found.number > self.withdrawn.number:
            self.withdrawn = found

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
        known = self._words.get(signed)
        if known is not None:
            return known
        try:
            key.verify(_CELL_RECORD + signed.payload, signed.signature)
        except (BadSignatureError, ValueError):
            raise BadInput(f"cell record of {certificate.name!r} is not signed by it") from None
        record: CellRecord = unpack(CellRecord, signed.payload)
        if (record.name, record.uuid, record.role) != (certificate.name, certificate.uuid, certificate.role):
            raise BadInput(f"cell record says {record.name!r}, its certificate says {certificate.name!r}")
        if not believable(record):
            raise BadInput(f"cell record of {record.name!r} claims more than any cell has")
        if len(self._words) >= _CACHED_WORDS:
            self._words.clear()
        self._words[signed] = record  # it comes again from every parent it went through
        return record


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The keys of one cell. `seed`: of the key it signs with. `former`: seeds of keys it had before, which open what
    was sealed with them. `public`: public keys of those it had before that; they tell what it has signed itself, and
    open nothing."""

    seed: bytes = field(repr=False)
    former: tuple[bytes, ...] = field(default=(), repr=False)
    public: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class _Held:
    """What a cell has of its own at one time. The newest key signs; what was sealed with a former one still opens.
    `openers` and `boxes` are by the mark that what they open begins with, the newest key's first."""

    key: SigningKey
    certificate: bytes
    says: Certificate
    provers: tuple[VerifyKey, ...]
    openers: Mapping[bytes, SealedBox[PrivateKey]]
    boxes: Mapping[bytes, SecretBox]


class Identity:
    """A cell's own key, with its certificate. Safe from any thread, also while it is renewed."""

    def __init__(self, keys: "Keys", certificate: bytes, trust: Trust) -> None:
        self.trust = trust
        self._held = _hold(keys, certificate, trust)

    def renew(self, keys: "Keys", certificate: bytes) -> None:
        """Sign with another key from now on; BadInput when it is not one of this cell."""
        held = _hold(keys, certificate, self.trust)
        if (held.says.name, held.says.uuid, held.says.role) != (self.says.name, self.says.uuid, self.says.role):
            raise BadInput(f"the new certificate is of another cell: {held.says.name!r}, this one is {self.name!r}")
        self._held = held

    @property
    def says(self) -> Certificate:
        return self._held.says

    @property
    def certificate(self) -> bytes:
        return self._held.certificate

    @property
    def name(self) -> CellName:
        return self._held.says.name

    def packet(
        self, destination: CellName, serial: int, deadline: Instant, records: tuple[bytes, ...], now: Instant
    ) -> Packet:
        """These records (wire form) as a signed packet that begins its way here."""
        held = self._held
        return Packet(
            origin=self.name,
            destination=destination,
            serial=serial,
            deadline=deadline,
            records=records,
            signature=held.key.sign(_digest(self.name, destination, serial, records)).signature,
            certificate=held.certificate,
            trail=(Hop(cell=self.name, at=now),),
        )

    def cell_record(self, record: CellRecord) -> SignedCellRecord:
        """Our own cell record, signed."""
        held, payload = self._held, pack(record)
        signature = held.key.sign(_CELL_RECORD + payload).signature
        return SignedCellRecord(certificate=held.certificate, payload=payload, signature=signature)

    def prove(self, what: bytes) -> bytes:
        """Our signature on having said something, for ourselves: should we forget, others can show it to us."""
        return self._held.key.sign(_PROOF + what).signature

    def proved(self, what: bytes, signature: bytes) -> bool:
        """Whether `prove` gave this, with the key we have or one we had."""
        for key in self._held.provers:
            with suppress(BadSignatureError, ValueError):
                key.verify(_PROOF + what, signature)
                return True
        return False

    @property
    def former_keeps(self) -> tuple[bytes, ...]:
        """What `keep` put before a secret with each of the keys this cell had before."""
        return tuple(self._held.boxes)[1:]

    @property
    def former_marks(self) -> tuple[bytes, ...]:
        """What everything begins with that only a key opens which this cell had before."""
        return (*self.former_keeps, *tuple(self._held.openers)[1:])

    def unseal(self, box: bytes) -> bytes:
        """Open what others sealed for us."""
        opener = self._held.openers.get(box[:_MARK_LENGTH])
        with suppress(CryptoError):
            if opener is not None:
                return opener.decrypt(box[_MARK_LENGTH:])
        raise BadInput("a sealed value was not sealed for this cell, or was changed")

    def keep(self, secret: bytes, random_bytes: Callable[[int], bytes]) -> bytes:
        """A secret as it may lie in our own database."""
        mark, own = next(iter(self._held.boxes.items()))
        return mark + bytes(own.encrypt(secret, random_bytes(SecretBox.NONCE_SIZE)))

    def kept(self, box: bytes) -> bytes:
        """Open what `keep` gave."""
        own = self._held.boxes.get(box[:_MARK_LENGTH])
        with suppress(CryptoError):
            if own is not None:
                return own.decrypt(box[_MARK_LENGTH:])
        raise BadInput(
            "a kept secret cannot be opened with this cell's key; was the key file replaced? register it again"
        )


def _hold(keys: Keys, certificate: bytes, trust: Trust) -> _Held:
    key, says = SigningKey(keys.seed), trust.certificate(certificate)
    if says.key != bytes(key.verify_key):
        raise BadInput(f"the private key does not belong to the certificate of {says.name!r}")
    pairs = [key, *(SigningKey(seed) for seed in keys.former)]
    return _Held(
        key=key,
        certificate=certificate,
        says=says,
        provers=(*(pair.verify_key for pair in pairs), *(VerifyKey(public) for public in keys.public)),
        openers={_mark(_SEALED, bytes(pair.verify_key)): SealedBox(pair.to_curve25519_private_key()) for pair in pairs},
        boxes={
            _mark(_KEPT, bytes(pair.verify_key)): SecretBox(
                hashlib.blake2b(bytes(pair), digest_size=32, person=b"celltree own box").digest()
            )
            for pair in pairs
        },
    )


def _mark(kind: bytes, public: bytes) -> bytes:
    """Says which key opens what follows, so that nothing has to be opened to find out."""
    return hashlib.blake2b(public, digest_size=_MARK_LENGTH, person=kind).digest()


def public_of(seed: bytes) -> bytes:
    """The public key that belongs to a private one."""
    return bytes(SigningKey(seed).verify_key)


def new_key(random_bytes: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    """A fresh (private seed, public key)."""
    seed = random_bytes(32)
    return seed, public_of(seed)


def fingerprint(key: bytes) -> str:
    """A public key in a few characters, for people to compare."""
    return hashlib.blake2b(key, digest_size=8).hexdigest()


def seal(secret: bytes, key: bytes) -> bytes:
    """A secret that only the cell with this public key can open."""
    return _mark(_SEALED, key) + bytes(SealedBox(VerifyKey(key).to_curve25519_public_key()).encrypt(secret))


def _digest(origin: CellName, destination: CellName, serial: int, records: tuple[bytes, ...]) -> bytes:
    # A record's own hash is enough to prove it later together with the hashes of the others it travelled with.
    hashes = b"".join(hashlib.blake2b(record, digest_size=32).digest() for record in records)
    return _PACKET + pack((origin, destination, serial)) + hashes
