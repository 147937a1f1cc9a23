"""losetup, mount and umount of a simulated dom0, for what its plugins do: nothing here needs root or the kernel.

A loop device is a file dev/loopN with the bytes from an offset on, laid back when it is detached. A mount writes what
the file system holds into a folder (debugfs), an unmount makes the file system anew from the folder (mke2fs -d), of the
same type, label and uuid. Owners of files are kept where this runs as root, as dom0 does.

Run by the small scripts in a dom0's bin folder as `python -m xenapi_host.simulator.block_commands NAME ..`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

COMMANDS = ("losetup", "mount", "umount")
_STATE = "var/run/celltree-loops.json"
_PIECE = 1 << 20

State = dict[str, dict[str, str]]


class Refused(Exception):
    """The text is what the real command would say."""


class Blocks:
    """The loop devices and mounts of one dom0 root. `loops`: device -> {file, offset}; `mounts`: folder -> {device and
    what its file system is}."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._file = root / _STATE
        kept: dict[str, State] = json.loads(self._file.read_text()) if self._file.exists() else {}
        self.loops: State = kept.get("loops", {})
        self.mounts: State = kept.get("mounts", {})

    def keep(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps({"loops": self.loops, "mounts": self.mounts}))
        new.replace(self._file)

    def attach(self, file: str, offset: int) -> str:
        device = next(
            path for number in range(256) if (path := str(self._root / "dev" / f"loop{number}")) not in self.loops
        )
        _copy(file, offset, device, 0, os.path.getsize(file) - offset)
        self.loops[device] = {"file": file, "offset": str(offset)}
        return device

    def detach(self, device: str) -> None:
        loop = self.loops.get(device)
        if loop is None:
            raise Refused(f"losetup: {device}: detach failed: No such device or address")
        if any(mount["device"] == device for mount in self.mounts.values()):
            raise Refused(f"losetup: {device}: detach failed: Device or resource busy")
        if os.path.exists(loop["file"]):  # the disk may have been unplugged under it
            _copy(device, 0, loop["file"], int(loop["offset"]), os.path.getsize(device))
        os.unlink(device)
        del self.loops[device]

    def mount(self, device: str, folder: str) -> None:
        if folder in self.mounts:
            raise Refused(f"mount: {folder} is already mounted")
        facts = _facts(device)
        said = subprocess.run(
            ["debugfs", "-R", f'rdump / "{folder}"', device], capture_output=True, text=True, check=False
        )
        if said.returncode:
            raise Refused(f"mount: wrong fs type, bad option, bad superblock on {device}")
        self.mounts[folder] = {"device": device, **facts}

    def umount(self, asked: str) -> None:
        folder = next((each for each, mount in self.mounts.items() if asked in (each, mount["device"])), None)
        if folder is None:
            raise Refused(f"umount: {asked}: not mounted")
        mount = self.mounts[folder]
        shutil.rmtree(Path(folder) / "lost+found", ignore_errors=True)
        size = os.path.getsize(mount["device"])
        os.truncate(mount["device"], 0)  # so that what the file system does not use is a hole
        os.truncate(mount["device"], size)
        words = ["mke2fs", "-q", "-F", "-t", mount["type"], "-L", mount["label"], "-U", mount["uuid"], "-d", folder]
        said = subprocess.run([*words, mount["device"]], capture_output=True, text=True, check=False)
        if said.returncode:
            raise Refused(f"umount: {folder}: {said.stderr.strip()}")
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        del self.mounts[folder]


def _copy(source: str, at: int, target: str, to: int, length: int) -> None:
    """Bytes between two files. Only data is read; what is a hole in the source is made one in the target."""
    with open(source, "rb", buffering=0) as reader:
        writer = os.open(target, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(writer, max(os.fstat(writer).st_size, to + length))
            before = list(_data(writer, to, to + length))
            for start, stop in _data(reader.fileno(), at, at + length):
                for offset in range(start, stop, _PIECE):
                    data = os.pread(reader.fileno(), min(_PIECE, stop - offset), offset)
                    os.pwrite(writer, data, to + offset - at)
            _blank(reader.fileno(), at, writer, to, before)
        finally:
            os.close(writer)


def _blank(reader: int, at: int, writer: int, to: int, before: list[tuple[int, int]]) -> None:
    """Write zeros where the target held data and the source has a hole."""
    for start, stop in before:
        place = start
        for first, last in (*_data(reader, at + start - to, at + stop - to), (at + stop - to, at + stop - to)):
            until = first - at + to
            for offset in range(place, until, _PIECE):
                os.pwrite(writer, bytes(min(_PIECE, until - offset)), offset)
            place = last - at + to


def _data(file: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Where a file holds data between two offsets."""
    while start < stop:
        try:
            first = os.lseek(file, start, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        if first >= stop:
            return
        start = min(os.lseek(file, first, os.SEEK_HOLE), stop)
        yield first, start


def _facts(device: str) -> dict[str, str]:
    """Type, label and uuid of an ext file system."""
    said = subprocess.run(["dumpe2fs", "-h", device], capture_output=True, text=True, check=False)
    found: Mapping[str, str] = dict(re.findall(r"^([^:\n]+):[ \t]*(.*)$", said.stdout, re.MULTILINE))
    if said.returncode or "Filesystem UUID" not in found:
        raise Refused(f"mount: wrong fs type, bad option, bad superblock on {device}")
    label = found.get("Filesystem volume name", "").replace("<none>", "")
    features = found.get("Filesystem features", "").split()
    return {"type": "ext4" if "extent" in features else "ext3", "label": label, "uuid": found["Filesystem UUID"]}


# --- the commands ---


def _losetup(blocks: Blocks, words: list[str]) -> None:
    match words:
        case ["--show", "-f", "-o", offset, file]:
            print(blocks.attach(file, int(offset)))
        case ["-j", file]:
            for device, loop in blocks.loops.items():
                if loop["file"] == file:
                    print(f"{device}: []: ({file}), offset {loop['offset']}")
        case ["-d", device]:
            blocks.detach(device)
        case _:
            raise Refused("losetup: this dom0 knows --show -f -o OFFSET FILE, -j FILE and -d DEVICE")


def _mount(blocks: Blocks, words: list[str]) -> None:
    match words:
        case ["-o", _, device, folder]:
            blocks.mount(device, folder)
        case _:
            raise Refused("mount: this dom0 knows -o OPTIONS DEVICE FOLDER")


def _umount(blocks: Blocks, words: list[str]) -> None:
    match words:
        case [asked]:
            blocks.umount(asked)
        case _:
            raise Refused("umount: this dom0 knows FOLDER or DEVICE")


_DO: dict[str, Callable[[Blocks, list[str]], None]] = {"losetup": _losetup, "mount": _mount, "umount": _umount}


def main(words: list[str]) -> int:
    blocks = Blocks(Path(os.environ["CELLTREE_DOM0_ROOT"]))
    try:
        _DO[words[0]](blocks, words[1:])
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 32
    blocks.keep()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
