"""Which of our scripts lie in a folder, and their versions: for dom0, and for a cell that would install them."""

import hashlib
import os
import re
from typing import Dict

_SAYS = re.compile(rb'^VERSION = "([0-9.]+)"', re.MULTILINE)


def of_folder(folder: str) -> Dict[str, Dict[str, str]]:
    """File -> its version ("" for one that states none) and the first 16 digits of its SHA-256 digest."""
    found = {}
    for name in sorted(os.listdir(folder)):
        if name.startswith("celltree_") and name.endswith(".py"):
            with open(os.path.join(folder, name), "rb") as script:
                data = script.read()
            says = _SAYS.search(data)
            digest = hashlib.sha256(data).hexdigest()[:16]
            found[name] = {"version": says.group(1).decode() if says else "", "digest": digest}
    return found
