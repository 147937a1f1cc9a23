"""A source of classic guests that are files: for demos, tests and rescued images. Run in dom0 by celltree_classic.py as

    python3 -m xenapi_host.classic_source FOLDER WORD GUEST

FOLDER/GUEST holds `root`, a folder with the guest's files, or `disk.img`, an ext file system without a partition table;
and `power`, which says `on` or `off`. A real classic Xen host with LVM has classic_source_lvm.sh.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_SHOWN = "shown"


def snapshot(guest: Path) -> str:
    return str(_show(guest))


def final(guest: Path) -> str:
    (guest / "power").write_text("off\n")
    return str(_show(guest))


def release(guest: Path) -> str:
    shutil.rmtree(guest / _SHOWN, ignore_errors=True)
    return ""


def power_on(guest: Path) -> str:
    (guest / "power").write_text("on\n")
    return ""


def _show(guest: Path) -> Path:
    """A copy of what the guest's disk holds now."""
    shown = guest / _SHOWN
    shutil.rmtree(shown, ignore_errors=True)
    if (guest / "root").is_dir():
        shutil.copytree(guest / "root", shown, symlinks=True)
        return shown
    shown.mkdir()
    subprocess.run(["debugfs", "-R", f'rdump / "{shown}"', str(guest / "disk.img")], check=True, capture_output=True)
    shutil.rmtree(shown / "lost+found", ignore_errors=True)
    return shown


_WORDS: dict[str, Callable[[Path], str]] = {
    "snapshot": snapshot,
    "final": final,
    "release": release,
    "power-on": power_on,
}


def main(words: list[str]) -> int:
    """Do one word for one guest."""
    if len(words) != 3 or words[1] not in _WORDS:
        print(f"usage: classic_source FOLDER {{{','.join(_WORDS)}}} GUEST", file=sys.stderr)
        return 2
    folder, word, name = words
    guest = Path(folder) / name
    if not guest.is_dir():
        print(f"no guest {name} in {folder}", file=sys.stderr)
        return 1
    if said := _WORDS[word](guest):
        print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
