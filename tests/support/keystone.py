"""A real Keystone on a loopback port, with a database of its own in a folder."""

import os
import pwd
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

_SCRIPTS = Path(sys.executable).parent
_READY_SECONDS = 60.0
ADMIN = "keystone-admin-pw"
# Keystone takes the words of the command line for its own, so there must be none.
_SERVE = """
from keystone.wsgi.api import application
from waitress import serve
serve(application, host="127.0.0.1", port={port}, threads=4)
"""
_CONFIG = """
[database]
connection = sqlite:///{folder}/keystone.db
[fernet_tokens]
key_repository = {folder}/fernet
[credential]
key_repository = {folder}/credential
[DEFAULT]
log_file = {folder}/keystone.log
"""


@dataclass(kw_only=True)
class Keystone:
    """What tests do to it, as its administrator."""

    url: str
    token: str = ""

    def login(self, user: str, password: str, project: str | None) -> str:
        """A token, of a project unless that is None."""
        who = {"name": user, "domain": {"id": "default"}, "password": password}
        auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": who}}}
        auth["scope"] = "unscoped"
        if project is not None:
            auth["scope"] = {"project": {"name": project, "domain": {"id": "default"}}}
        answer = requests.post(f"{self.url}/auth/tokens", json={"auth": auth}, timeout=60)
        answer.raise_for_status()
        return answer.headers["X-Subject-Token"]

    def revoke(self, token: str) -> None:
        headers = {"X-Auth-Token": self.token, "X-Subject-Token": token}
        requests.delete(f"{self.url}/auth/tokens", headers=headers, timeout=60).raise_for_status()

    def make(self, kind: str, **fields: Any) -> str:
        """A thing of this kind (user, project, service, endpoint); its id."""
        headers = {"X-Auth-Token": self.token}
        answer = requests.post(f"{self.url}/{kind}s", json={kind: fields}, headers=headers, timeout=60)
        answer.raise_for_status()
        return str(answer.json()[kind]["id"])

    def grant(self, user: str, role: str, project: str) -> None:
        """A role, by its name, in a project."""
        headers = {"X-Auth-Token": self.token}
        (found,) = requests.get(f"{self.url}/roles?name={role}", headers=headers, timeout=60).json()["roles"]
        path = f"/projects/{project}/users/{user}/roles/{found['id']}"
        requests.put(self.url + path, headers=headers, timeout=60).raise_for_status()

    def project_named(self, name: str) -> str:
        headers = {"X-Auth-Token": self.token}
        (found,) = requests.get(f"{self.url}/projects?name={name}", headers=headers, timeout=60).json()["projects"]
        return str(found["id"])


@contextmanager
def a_keystone(folder: Path) -> Iterator[Keystone]:
    """Made, bootstrapped and served; ended and forgotten at the end."""
    (folder / "keystone.conf").write_text(_CONFIG.format(folder=folder))
    port = free_port()
    url = f"http://127.0.0.1:{port}/v3"
    owner = ("--keystone-user", _name(os.getuid()), "--keystone-group", _name(os.getuid()))
    _manage(folder, "db_sync")
    _manage(folder, "fernet_setup", *owner)
    _manage(folder, "credential_setup", *owner)
    urls = [word for kind in ("admin", "internal", "public") for word in (f"--bootstrap-{kind}-url", url)]
    _manage(folder, "bootstrap", "--bootstrap-password", ADMIN, "--bootstrap-region-id", "RegionOne", *urls)
    command = [sys.executable, "-c", _SERVE.format(port=port)]
    environment = {**os.environ, "OS_KEYSTONE_CONFIG_DIR": f"{folder}/", "PYTHONWARNINGS": "ignore"}
    with (folder / "served.log").open("wb") as log:
        served = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        keystone = Keystone(url=url)
        keystone.token = _first_token(keystone, served, folder)
        yield keystone
    finally:
        served.terminate()
        served.wait(30)


def _first_token(keystone: Keystone, served: "subprocess.Popen[bytes]", folder: Path) -> str:
    """The administrator's, as soon as Keystone answers."""
    until = time.monotonic() + _READY_SECONDS
    while True:
        try:
            return keystone.login("admin", ADMIN, "admin")
        except requests.RequestException:
            if served.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"Keystone does not answer:\n{(folder / 'served.log').read_text()}") from None
            time.sleep(0.2)


def _manage(folder: Path, *words: str) -> None:
    command = [str(_SCRIPTS / "keystone-manage"), "--config-file", str(folder / "keystone.conf"), *words]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr


def _name(uid: int) -> str:
    return pwd.getpwuid(uid).pw_name


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
