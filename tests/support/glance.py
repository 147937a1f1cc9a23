"""A real Glance on a loopback port, with a database and a folder of images of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.support.keystone import Keystone, free_port

_READY_SECONDS = 60.0
PASSWORD = "glance-pw"
_PASTE = Path(sys.prefix) / "etc" / "glance" / "glance-api-paste.ini"
# Glance takes the words of the command line for its own, so there must be none.
_SERVE = """
from glance.wsgi.api import application
from waitress import serve
serve(application, host="127.0.0.1", port={port}, threads=4)
"""
_CONFIG = """
[DEFAULT]
log_file = {folder}/glance.log
enabled_backends = fs:file
[database]
connection = sqlite:///{folder}/glance.db
[glance_store]
default_backend = fs
[fs]
filesystem_store_datadir = {folder}/images
[os_glance_staging_store]
filesystem_store_datadir = {folder}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {folder}/tasks
[paste_deploy]
flavor = keystone
config_file = {paste}
[keystone_authtoken]
auth_type = password
auth_url = {keystone}
www_authenticate_uri = {keystone}
username = glance
password = {password}
user_domain_id = default
project_name = service
project_domain_id = default
[wsgi]
python_interpreter = {python}
"""


@contextmanager
def a_glance(folder: Path, keystone: Keystone) -> Iterator[str]:
    """Made and served for a Keystone that knows its user; the endpoint, without /v2."""
    for name in ("images", "staging", "tasks"):
        (folder / name).mkdir(parents=True)
    words = {"folder": folder, "keystone": keystone.url, "password": PASSWORD, "paste": _PASTE}
    (folder / "glance-api.conf").write_text(_CONFIG.format(**words, python=sys.executable))
    environment = {**os.environ, "OS_GLANCE_CONFIG_DIR": str(folder), "PYTHONWARNINGS": "ignore"}
    manage = [str(Path(sys.executable).parent / "glance-manage"), "--config-file", str(folder / "glance-api.conf")]
    done = subprocess.run(
        [*manage, "db_sync"], env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    port = free_port()
    command = [sys.executable, "-c", _SERVE.format(port=port)]
    with (folder / "served.log").open("wb") as log:
        served = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        _await(url, served, folder)
        yield url
    finally:
        served.terminate()
        served.wait(30)


def _await(url: str, served: "subprocess.Popen[bytes]", folder: Path) -> None:
    until = time.monotonic() + _READY_SECONDS
    while True:
        try:
            requests.get(f"{url}/versions", timeout=30)
            return
        except requests.RequestException:
            if served.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"Glance does not answer:\n{(folder / 'served.log').read_text()}") from None
            time.sleep(0.2)
