"""X.509 certificates for TLS: looking at those an operator brings, and a small authority for a lab. They say who is at
the other end of a connection; who has written a record is told by cells.identity, which trusts none of these.

The only importer of `cryptography` here. Imported only where a configuration names certificates: it is large.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cells.errors import BadInput
from cells.names import SECOND, Instant

AUTHORITY_DAYS = 3650
DAYS = 365
_BEFORE = timedelta(hours=1)
"""Certificates begin a little earlier, for clocks that lag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a certificate says: whose it is (common name), for which hosts, until when, and the SHA-256 of it."""

    name: str
    hosts: tuple[str, ...]
    begins: Instant
    ends: Instant
    fingerprint: str


class Authority:
    """A certificate authority with its private key, for the machines of one lab."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        self.certificate = certificate
        self.key = key
        self._subject = x509.load_pem_x509_certificate(certificate).subject
        signer = serialization.load_pem_private_key(key, None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        self._signer = signer

    @classmethod
    def create(cls, name: str, now: Instant) -> "Authority":
        """A new one, signed by itself."""
        signer = ec.generate_private_key(ec.SECP256R1())
        subject = _named(name)
        made = (
            _draft(subject, subject, signer.public_key(), now, AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(signer, hashes.SHA256())
        )
        return cls(made.public_bytes(serialization.Encoding.PEM), _pem(signer))

    def issue(self, name: str, now: Instant, *, hosts: Sequence[str] = (), days: int = DAYS) -> tuple[bytes, bytes]:
        """A certificate and its new private key, both PEM: of a server at these hosts, or without hosts of a client
        that logs in by this name."""
        key = ec.generate_private_key(ec.SECP256R1())
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        draft = (
            _draft(_named(name), self._subject, key.public_key(), now, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        )
        if hosts:
            draft = draft.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        made = draft.sign(self._signer, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM), _pem(key)


def look(file: Path) -> Seen:
    """The first certificate in a PEM file; BadInput when there is none."""
    try:
        found = x509.load_pem_x509_certificate(file.read_bytes())
    except OSError as error:
        raise BadInput(f"certificate {file} cannot be read: {error.strerror}; name one that is there") from None
    except ValueError:
        raise BadInput(f"{file} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)") from None
    names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    try:
        others = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = tuple(str(other.value) for other in others)
    except x509.ExtensionNotFound:
        hosts = ()
    return Seen(
        name=str(names[0].value) if names else "",
        hosts=hosts,
        begins=_instant(found.not_valid_before_utc),
        ends=_instant(found.not_valid_after_utc),
        fingerprint=found.fingerprint(hashes.SHA256()).hex(),
    )


def check(where: str, now: Instant, *, authorities: str = "", certificate: str = "", key: str = "") -> None:
    """BadInput, with the remedy, unless these files can be used now: there, PEM, within their time, key and certificate
    of one pair. Empty paths are left out."""
    for name, path in (("authorities", authorities), ("certificate", certificate)):
        if path:
            _in_time(f"{where}: {name} {path}", look(Path(path)), now)
    if bool(certificate) != bool(key):
        given, missing = ("certificate", "key") if certificate else ("key", "certificate")
        raise BadInput(f"{where}: there is a {given} but no {missing}; name both or none")
    if certificate and not _is_pair(Path(certificate), Path(key), where):
        raise BadInput(f"{where}: key {key} does not belong to certificate {certificate}; name the two made together")


def _in_time(what: str, seen: Seen, now: Instant) -> None:
    if now > seen.ends:
        raise BadInput(f"{what} has expired on {_day(seen.ends)}; replace it, and restart the daemon")
    if now < seen.begins:
        raise BadInput(f"{what} is not valid before {_day(seen.begins)}; is this machine's clock right?")


def _is_pair(certificate: Path, key: Path, where: str) -> bool:
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), None)
    except OSError as error:
        raise BadInput(f"{where}: key {key} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadInput(f"{where}: {key} holds no private key in PEM form without a passphrase") from None
    public = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.public_key().public_bytes(*form) == public.public_bytes(*form)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _draft(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: Instant, days: int
) -> x509.CertificateBuilder:
    begins = datetime.fromtimestamp(now // SECOND, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins - _BEFORE)
        .not_valid_after(begins + timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def _instant(at: datetime) -> Instant:
    return int(at.timestamp()) * SECOND


def _day(at: Instant) -> str:
    return datetime.fromtimestamp(at // SECOND, UTC).strftime("%Y-%m-%d")
