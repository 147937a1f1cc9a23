#!/usr/bin/env python3
"""Plugin: what a guest has written to its console.

    version          {} -> {version, functions}
    get_console_log  {dom_id} -> {log}      its last 100 KiB, zlib, base64; null where dom0 keeps none

dom0 keeps it where xenconsoled runs with --log=guest, as XenServer's does.
"""

import base64
import os
import sys
import zlib
from typing import TYPE_CHECKING, Any, Dict, Optional

# In dom0 the scripts lie side by side in one folder; type checkers know them as a package.
if TYPE_CHECKING:
    from xenapi_host.plugins.celltree_plugin import Params, PermanentError, dispatch
else:
    # Every entry of the plugin folder is a plugin to XAPI; a __pycache__ must not appear there.
    sys.dont_write_bytecode = True
    from celltree_plugin import Params, PermanentError, dispatch

VERSION = "1.0"
MOST = 100 * 1024
_ROOT = os.environ.get("CELLTREE_DOM0_ROOT", "/")
"""Set only by the simulator, whose dom0 is a folder."""


def version(params: Params) -> Dict[str, Any]:
    return {"version": VERSION, "functions": sorted(FUNCTIONS)}


def get_console_log(params: Params) -> Dict[str, Optional[str]]:
    dom_id = str(params.get("dom_id", ""))
    if not dom_id.isdigit():
        raise PermanentError("params.dom_id must be the number of a domain")
    path = os.path.join(_ROOT, "var/log/xen/guest", f"console.{dom_id}")
    try:
        with open(path, "rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - MOST))
            data = log.read(MOST)
    except FileNotFoundError:
        return {"log": None}
    return {"log": base64.b64encode(zlib.compress(data)).decode()}


FUNCTIONS = {"version": version, "get_console_log": get_console_log}

if __name__ == "__main__":
    dispatch(FUNCTIONS)
