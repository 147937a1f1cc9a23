"""What a server's guest wrote to its console, and where its screen can be seen."""

import base64
import zlib

from cells.errors import Permanent
from xenapi_host.driver import domain, vms
from xenapi_host.driver.errors import telling
from xenapi_host.session import Session

PLUGIN = "celltree_console.py"
_MOST = 100 * 1024
_SCREEN = "rfb"


@telling("read the server's console")
def console_log(session: Session, server: bytes) -> bytes:
    """The last 100 KiB at most of what the guest has written since its domain began; b"" when nothing is kept."""
    said = domain.ask(session, server, PLUGIN, "get_console_log", {}, find=domain.running)["log"]
    if said is None:
        return b""
    try:
        return zlib.decompressobj().decompress(base64.b64decode(said), _MOST)
    except (ValueError, zlib.error) as error:
        raise Permanent("the host's console log cannot be read; are its plugins those of this cell?") from error


@telling("find the server's screen")
def console_url(session: Session, server: bytes) -> str:
    """Where an operator, with a XenServer login of his own, finds the screen (RFB by HTTP CONNECT)."""
    vm = vms.the_one(session, server)
    for ref in vm.record["consoles"]:
        record = vms.record_of(session, "console", ref)
        if record is not None and record["protocol"] == _SCREEN:
            return str(record["location"])
    raise Permanent("the server has no console; start it first")
