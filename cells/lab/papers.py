"""A lab's own certificate authority and what it has issued: PEM files in one folder, each made when it is first asked
for. On real machines operators bring certificates of their own authority.
"""

import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path

from cells.house import system_clock
from cells.lab.ports import LOOPBACK
from cells.lab.processes import write_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Papers:
    """Paths of PEM files: who signs, a certificate signed by them, and its key."""

    authorities: Path
    certificate: Path
    key: Path

    @property
    def fingerprint(self) -> str:
        """The certificate's SHA-256, as a pool's is given."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).hexdigest()


class PaperMill:
    """The authority that lives in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def server(self, name: str) -> Papers:
        """For a server on the loopback address."""
        return self._papers(name, (LOOPBACK, "localhost"))

    def client(self, name: str) -> Papers:
        """For whoever logs in by this name."""
        return self._papers(name, ())

    def _papers(self, name: str, hosts: tuple[str, ...]) -> Papers:
        # Here, because a lab without certificates need not load a large library.
        from cells.certificates import Authority

        kind = "server" if hosts else "client"
        papers = Papers(
            authorities=self._folder / "authority.pem",
            certificate=self._folder / f"{kind}-{name}.pem",
            key=self._folder / f"{kind}-{name}.key",
        )
        if papers.certificate.exists():
            return papers
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        signing_key, now = self._folder / "authority.key", system_clock()
        if signing_key.exists():
            authority = Authority(papers.authorities.read_bytes(), signing_key.read_bytes())
        else:
            authority = Authority.create("celltree lab", now)
            write_whole(papers.authorities, authority.certificate.decode())
            write_whole(signing_key, authority.key.decode())
        certificate, key = authority.issue(name, now, hosts=hosts)
        write_whole(papers.key, key.decode())
        write_whole(papers.certificate, certificate.decode())
        return papers
