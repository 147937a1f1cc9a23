"""Every door to a pool, for the suites that hold of all: light hosts, the simulator over HTTP and HTTPS, and a real
XAPI where the environment names one."""

import hashlib
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.xen_hosts import House
from xenapi_host.session import Access, Session, connect, in_process
from xenapi_host.simulator.full import FullPool
from xenapi_host.simulator.worlds import demo_pool

REAL = "CELLTREE_XENAPI_URL"
FACES = ["light", "http", "https", *(["real"] if REAL in os.environ else [])]


@pytest.fixture(params=FACES)
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Session]:
    if request.param == "light":
        session = in_process(House().pool.login())
        yield session
        session.close()
        return
    if request.param == "real":
        url, user, password = (os.environ[f"CELLTREE_XENAPI_{name}"] for name in ("URL", "USER", "PASSWORD"))
        session = connect(Access(url=url, user=user, password=password))
        yield session
        session.close()
        return
    pool = FullPool(tmp_path, demo_pool, https=request.param == "https")
    url, fingerprint = pool.start(), ""
    if request.param == "https":
        certificate = ssl.PEM_cert_to_DER_cert((tmp_path / "certificate.pem").read_text())
        fingerprint = hashlib.sha256(certificate).hexdigest()
    session = connect(Access(url=url, user="root", password="xen", fingerprint=fingerprint))
    yield session
    session.close()
    pool.stop()
