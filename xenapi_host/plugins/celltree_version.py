#!/usr/bin/env python3
"""Plugin: which of our scripts this host has.

version  {} -> {version, functions}
scripts  {} -> {file: {version, digest}}    digest: SHA-256 of the file, its first 16 hexadecimal digits
"""

import os
import sys
from typing import TYPE_CHECKING, Any, Dict

# In dom0 the scripts lie side by side in one folder; type checkers know them as a package.
if TYPE_CHECKING:
    from xenapi_host.plugins.celltree_plugin import Params, dispatch
    from xenapi_host.plugins.celltree_scripts import of_folder
else:
    # Every entry of the plugin folder is a plugin to XAPI; a __pycache__ must not appear there.
    sys.dont_write_bytecode = True
    from celltree_plugin import Params, dispatch
    from celltree_scripts import of_folder

VERSION = "1.0"


def version(params: Params) -> Dict[str, Any]:
    return {"version": VERSION, "functions": sorted(FUNCTIONS)}


def scripts(params: Params) -> Dict[str, Dict[str, str]]:
    return of_folder(os.path.dirname(os.path.abspath(__file__)))


FUNCTIONS = {"version": version, "scripts": scripts}

if __name__ == "__main__":
    dispatch(FUNCTIONS)
