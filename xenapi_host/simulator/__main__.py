"""`python -m xenapi_host.simulator`: one simulated pool, until SIGTERM or Ctrl-C. Prints its URL when it answers."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from xenapi_host.simulator.control import Refused, obey_file
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.full import FullPool
from xenapi_host.simulator.worlds import HostShape, demo_pool, recorded_world


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `celltree xenserver`."""
    parser.add_argument(
        "--port", type=int, default=8480, help="port on each host's loopback address; 0 takes a free one"
    )
    parser.add_argument("--listen", help="one address for the master alone, such as 0.0.0.0; slaves do not listen then")
    parser.add_argument("--reached", metavar="URL", help="where other pools reach this one, if not where it listens")
    parser.add_argument("--hosts", type=_hosts, default=2, help="how many hosts the pool has (1 to 200)")
    parser.add_argument("--data", type=Path, required=True, help="folder of the pool; it survives restarts")
    parser.add_argument("--user", default="root")
    parser.add_argument("--password", default="xen", help="seen by all in the list of processes; better a file:")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="its first line is the password")
    parser.add_argument("--world", choices=("demo", "recorded"), default="demo")
    parser.add_argument("--name", default="demo", help="the pool's name and the prefix of its hosts' names")
    parser.add_argument("--ram-mib", type=int, default=16 * 1024, help="memory of each host")
    parser.add_argument("--cpus", type=int, default=8)
    parser.add_argument("--disk-gib", type=int, default=200, help="size of each storage repository")
    parser.add_argument("--sr", choices=("ext", "nfs"), default="ext", help="nfs: one repository shared by the pool")
    parser.add_argument(
        "--session-idle", type=float, default=24 * 3600, metavar="SECONDS", help="how long an unused session lives"
    )
    parser.add_argument("--control", type=Path, metavar="SOCKET", help="make this Unix socket for the control command")
    parser.add_argument("--faults", type=Path, metavar="FILE", help="requests of the control socket, done at the start")
    parser.add_argument("--seed", type=int, default=0, help="of the faults that strike by chance")
    parser.add_argument("--https", action="store_true", help="serve HTTPS with a certificate made in the data folder")


def _hosts(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 200:
        raise argparse.ArgumentTypeError(
            "must be 1 to 200: each host has an address of its own on the loopback network"
        )
    return int(text)


def _world(options: argparse.Namespace, engine: Engine) -> Engine:
    if options.world == "recorded":
        return recorded_world(engine, hosts=options.hosts)
    shape = HostShape(
        ram_mib=options.ram_mib, cpus=options.cpus, disk_bytes=options.disk_gib * 2**30, sr_type=options.sr
    )
    return demo_pool(engine, hosts=options.hosts, shape=shape, name=options.name)


class Unreadable(Exception):
    """A file that was named cannot be used; the text is the remedy."""


def _read(path: Path, what: str) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    if not lines:
        raise Unreadable(f"{path} cannot be read or is empty; put {what} there")
    return lines


def run(options: argparse.Namespace) -> int:
    """Run until told to stop; returns the exit status."""
    try:
        return _run(options)
    except (Unreadable, Refused) as error:
        print(f"celltree xenserver: {error}", file=sys.stderr)
    except OSError as error:
        print(f"celltree xenserver: {error}; choose another --port or --data", file=sys.stderr)
    return 1


def _run(options: argparse.Namespace) -> int:
    password = _read(options.password_file, "the password")[0] if options.password_file else options.password
    faults = _read(options.faults, "requests of the control socket, one a line,") if options.faults else []
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    pool = FullPool(
        options.data,
        lambda engine: _world(options, engine),
        port=options.port,
        user=options.user,
        password=password,
        https=options.https,
        listen=options.listen,
        reached=options.reached,
        control=options.control,
    )
    pool.engine.faults.seed = options.seed
    pool.engine.session_idle = options.session_idle
    obey_file(pool.engine, faults)
    print(pool.start(), flush=True)
    stopped.wait()
    pool.stop()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="celltree xenserver", description="A simulated XenServer pool.")
    add_options(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
