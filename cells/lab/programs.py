"""Where the servers' programs are, and what to install when they are not there."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from cells.errors import Permanent

# Debian keeps the servers out of an ordinary user's PATH.
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
# /usr/sbin/rabbitmq-server is a wrapper that changes to the user rabbitmq; the real one runs as whoever starts it.
RABBITMQ_FOLDERS = ("/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin")


class MissingProgram(Permanent):
    """A server's program is not installed on this machine."""


def rabbitmq_programs() -> tuple[Path, Path]:
    """rabbitmq-server and epmd, Erlang's name server."""
    return _find("rabbitmq-server", "rabbitmq-server", RABBITMQ_FOLDERS), _find("epmd", "rabbitmq-server")


def mariadb_programs() -> tuple[Path, Path, Path]:
    """The server, the program that makes its first tables, and the command line client."""
    packages = "mariadb-server-core mariadb-client-core"
    return _find("mariadbd", packages), _find("mariadb-install-db", packages), _find("mariadb", packages)


def clean_environment(*strip: str, **changes: str) -> Mapping[str, str]:
    """This process's environment without the variables of the prefixes in `strip`, with `changes`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(strip)}
    path = os.pathsep.join(dict.fromkeys((*kept.get("PATH", "").split(os.pathsep), *SYSTEM_FOLDERS)))
    return {**kept, "PATH": path.strip(os.pathsep), **changes}


def _find(program: str, packages: str, first: tuple[str, ...] = ()) -> Path:
    folders = (*first, *os.environ.get("PATH", "").split(os.pathsep), *SYSTEM_FOLDERS)
    found = shutil.which(program, path=os.pathsep.join(folders))
    if found is None:
        raise MissingProgram(f"{program} is not on this machine; `apt-get install {packages}`, or `make services`")
    return Path(found)
