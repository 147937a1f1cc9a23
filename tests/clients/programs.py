"""Real OpenStack clients, run as the programs they are, against a front door served on a loopback port."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCRIPTS = Path(sys.executable).parent


@dataclass(frozen=True, kw_only=True)
class Door:
    """Where the front door is and how to log in: with nothing, a password, or at this Keystone, in whose catalog the
    front door is."""

    port: int
    user: str = ""
    password: str = ""
    keystone: str = ""
    project: str = ""

    def environment(self) -> dict[str, str]:
        base = f"http://127.0.0.1:{self.port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
        if self.keystone:
            domains = {"OS_USER_DOMAIN_ID": "default", "OS_PROJECT_DOMAIN_ID": "default"}
            login = {"OS_USERNAME": self.user, "OS_PASSWORD": self.password, "OS_PROJECT_NAME": self.project}
            return {**kept, "OS_AUTH_URL": self.keystone, "OS_IDENTITY_API_VERSION": "3", **login, **domains}
        told = {
            "OS_AUTH_TYPE": "none",
            "OS_ENDPOINT": f"{base}/v2.1",
            "OS_COMPUTE_ENDPOINT_OVERRIDE": f"{base}/v2.1",
            "OS_IMAGE_ENDPOINT_OVERRIDE": f"{base}/image",
            "OS_IDENTITY_ENDPOINT_OVERRIDE": f"{base}/v3",
            "OS_BLOCK_STORAGE_ENDPOINT_OVERRIDE": f"{base}/volume/v3",
        }
        if self.user:
            told |= {"OS_AUTH_TYPE": "http_basic", "OS_USERNAME": self.user, "OS_PASSWORD": self.password}
        return {**kept, **told}

    def run(self, *words: str, fails: bool = False) -> str:
        """openstack WORDS; what it printed. It must end well, or badly where it is to fail."""
        command = [str(_SCRIPTS / "openstack"), *words]
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True, timeout=120, check=False)
        said = f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
        assert (done.returncode != 0) == fails, said
        return done.stderr if fails else done.stdout

    def ask(self, *words: str) -> Any:
        """openstack WORDS -f json."""
        return json.loads(self.run(*words, "-f", "json"))

    def python(self, program: str) -> Any:
        """A Python program in a process of its own; the JSON it prints."""
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
