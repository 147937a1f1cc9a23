"""One daemon of one cell, from start to SIGTERM: `celltree run`. A house of one cell, whose loop has the main thread.

It waits for a database that is away when it starts, because after a power cut nobody knows which comes up first; a
schema that does not fit is told at once, because waiting does not help there.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from cells import collector, tls
from cells.broker import rpc
from cells.config import CellConfig, keys
from cells.errors import BadInput, Temporary
from cells.house import Cell, House, system_clock
from cells.identity import fingerprint
from cells.masking import MaskingFormatter
from cells.store import schema

log = logging.getLogger("celltree.daemon")

RETRY_SECONDS = 1.0
DRAIN_SECONDS = 60.0
EXIT_NOT_DRAINED = 3


def run(
    config: CellConfig, *, drain_seconds: float = DRAIN_SECONDS, reread: Callable[[], CellConfig] | None = None
) -> int:
    """Serve until told to stop; gives the exit status. At SIGHUP the key and certificate that `reread` finds are taken
    up. Jobs under way at SIGTERM have `drain_seconds` to reach their end; what is left then is taken up from its
    journal by whichever daemon comes next."""
    tls.check(config, system_clock())
    stopping = threading.Event()
    cell: Cell | None = None

    def stop(*_: object) -> None:
        stopping.set()
        if cell is not None:
            cell.node.stop()

    def renew(*_: object) -> None:
        if cell is not None and reread is not None:
            _renew(cell, reread)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    signal.signal(signal.SIGHUP, renew)
    cell = _open(config, stopping)
    if cell is None:
        return 0
    collector.calm()
    log.info("%s: running as daemon %s", config.cell, config.daemon)
    if stopping.is_set():
        cell.node.stop()
    watch = threading.Thread(target=_end_in_time, args=(stopping, config, drain_seconds), daemon=True)
    watch.start()
    posting = _open_posting(cell)
    cell.node.run()
    if posting is not None:
        posting.stop()
    if cell.front is not None:
        cell.front.stop()
    cell.let_go()
    log.info("%s: ended", config.cell)
    return 0


def set_up_logging(level: int = logging.INFO) -> None:
    """Lines with time, level and logger to stderr, secrets masked; the node puts cell, request and server into each.
    At DEBUG the libraries tell everything too."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = MaskingFormatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if level <= logging.DEBUG else logging.WARNING)
    logging.getLogger("celltree").setLevel(level)


def _open(config: CellConfig, stopping: threading.Event) -> Cell | None:
    told = ""
    while not stopping.is_set():
        try:
            schema.check(config.database, config.role, config.cell)
            return House().open(config)
        except Temporary as error:
            if str(error) != told:
                told = str(error)
                log.warning("%s: cannot start yet: %s", config.cell, told)
            stopping.wait(RETRY_SECONDS)
    return None


def _renew(cell: Cell, reread: Callable[[], CellConfig]) -> None:
    try:
        config = reread()
        cell.identity.renew(keys(config), bytes.fromhex(config.certificate))
    except BadInput as error:
        log.error("%s: goes on with the key it has: %s", cell.name, error)
    else:
        log.info("%s: signs with key %s from now on", cell.name, fingerprint(cell.identity.says.key))


@runtime_checkable
class HasPosting(Protocol):
    """A role that takes requests of programs beside the cell."""

    def posting(self, poke: Callable[[], None]) -> rpc.Endpoint:
        """The methods offered, by name; `poke` tells the cell's loop of new work."""


def _open_posting(cell: Cell) -> rpc.Server | None:
    if not cell.config.posting:
        return None
    if not isinstance(cell.role, HasPosting):
        raise BadInput(f"posting is set, but a {cell.config.role} cell takes no requests; remove it")
    server = rpc.serve(cell.config.broker, cell.name, cell.role.posting(cell.node.poke), options=cell.config.amqp)
    server.start()
    return server


def _end_in_time(stopping: threading.Event, config: CellConfig, seconds: float) -> None:
    stopping.wait()
    log.info("%s: stopping; jobs under way have %.0f s to end", config.cell, seconds)
    time.sleep(seconds)
    log.warning("%s: jobs are still under way after %.0f s; the next daemon takes them up", config.cell, seconds)
    logging.shutdown()
    os._exit(EXIT_NOT_DRAINED)
