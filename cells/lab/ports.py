"""Free loopback ports that stay ours while a server is down.

Asking the kernel for any free port is not enough: it gives one of the ephemeral range, and while our server is being
restarted an outgoing connection of anybody may take it. So ports are picked below that range, and each pick leaves a
claim: a file named as the port that holds the folder of the server it is for. A claim holds as long as that folder
exists.
"""

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cells.errors import Permanent, Temporary

LOOPBACK = "127.0.0.1"
LOWEST = 15_000
SPAN = 14_000


def claim_ports(count: int, owner: Path) -> tuple[int, ...]:
    """This many free ports, claimed for the server that lives in the folder `owner`."""
    folder = _claims_folder()
    candidates = list(range(LOWEST, min(LOWEST + SPAN, _first_ephemeral())))
    random.shuffle(candidates)
    found: list[int] = []
    with _alone(folder):
        for port in candidates:
            if len(found) == count:
                break
            if not _claimed(folder / str(port)) and is_free(port):
                (folder / str(port)).write_text(str(owner.absolute()))
                found.append(port)
    if len(found) < count:
        raise Temporary(f"no {count} free loopback ports from {LOWEST} up; end some labs with `celltree lab down`", 5.0)
    return tuple(found)


def release_ports(ports: tuple[int, ...], owner: Path) -> None:
    """Give up claims; those of others are left alone."""
    folder = _claims_folder()
    with _alone(folder):
        for port in ports:
            claim = folder / str(port)
            if claim.exists() and claim.read_text() == str(owner.absolute()):
                claim.unlink()


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Servers set this too: without it, connections in TIME_WAIT would make a restarted server's port look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _claimed(claim: Path) -> bool:
    return claim.exists() and Path(claim.read_text()).exists()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _claims_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"celltree-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise Permanent(f"{folder} belongs to somebody else; remove it, or set TMPDIR to a folder of your own")
    return folder


def _first_ephemeral() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
