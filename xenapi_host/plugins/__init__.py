"""The scripts that XenServer runs in dom0 for us. Installing copies SCRIPTS into the host's plugin folder.

They run there under Python 3.6 with nothing but the standard library and each other; so nothing here imports the rest
of celltree. Only `celltree_tar` is also used from outside, by the image reader, so that archives from strangers have
one reader.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
SCRIPTS = tuple(sorted(FOLDER.glob("celltree_*.py")))
"""The files to copy into the plugin folder, mode 0755. Only those named in PLUGINS answer calls."""

PLUGINS = ("celltree_disk.py", "celltree_image.py")
