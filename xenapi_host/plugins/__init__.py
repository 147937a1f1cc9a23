"""The scripts that XenServer runs in dom0 for us. Installing copies SCRIPTS into the host's plugin folder.

They run there under Python 3.6 with nothing but the standard library and each other; so nothing here imports the rest
of celltree. Used from outside are only `celltree_tar` and `celltree_gzip`, by the image reader and writer, so that
archives from strangers have one reader, and `celltree_scripts`, which tells the versions of these files wherever they
lie.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
SCRIPTS = tuple(sorted(FOLDER.glob("celltree_*.py")))
"""The files to copy into the plugin folder, mode 0755. Only those named in PLUGINS answer calls."""

PLUGINS = (
    "celltree_agent.py",
    "celltree_classic.py",
    "celltree_console.py",
    "celltree_disk.py",
    "celltree_image.py",
    "celltree_version.py",
    "celltree_xenstore.py",
)
