"""Real images for demos and tests: a folder of files becomes a Linux disk as Glance holds it, and is read back.

The file system is made by e2fsprogs (`mke2fs -d`, no root needed), so that any other tool that knows ext4 agrees on
what is inside. Nothing in the running service needs this module.
"""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cells.errors import BadInput, Permanent
from xenapi_host import vhd

_SECTOR = 512
_MIB = 1024**2
PARTITION_START_SECTOR = 2048
"""Where the one partition of a partitioned image begins; the usual 1 MiB."""


class ToolMissing(Permanent):
    """A program of e2fsprogs is not installed."""


class ImageMakingFailed(Permanent):
    """mke2fs or debugfs refused; its own words are in the text."""


class NoSuchFile(BadInput):
    """The image has no regular file of that path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeImage:
    """An image file: where it is, the virtual size of its disk and its own size, in bytes."""

    path: Path
    virtual_size: int
    size: int


def make_image(
    folder: Path, image_path: Path, *, size: int, partitioned: bool = False, file_system: str = "ext4"
) -> MadeImage:
    """Make a Glance image (tar.gz of one VHD) whose disk of `size` bytes holds the files of `folder`.

    `size` is a multiple of 1 MiB; `file_system` is ext3 or ext4. With `partitioned` the disk has a boot sector with
    one Linux partition from sector 2048 to the end; else the file system fills the bare disk. All files belong to
    root. Raises ToolMissing, ImageMakingFailed (too small for the files), BadInput.
    """
    with tempfile.TemporaryDirectory(prefix="celltree-image-") as work:
        disk = Path(work) / "0.vhd"
        make_disk(folder, disk, size=size, partitioned=partitioned, file_system=file_system)
        with open(image_path, "xb") as target:
            vhd.write_image(disk, target)
    return MadeImage(path=image_path, virtual_size=size, size=image_path.stat().st_size)


def make_disk(folder: Path, vhd_path: Path, *, size: int, partitioned: bool = False, file_system: str = "ext4") -> None:
    """As `make_image`, but only the dynamic VHD."""
    with tempfile.TemporaryDirectory(prefix="celltree-disk-", dir=vhd_path.parent) as work:
        raw = Path(work) / "raw"
        make_raw(folder, raw, size=size, partitioned=partitioned, file_system=file_system)
        vhd.import_raw_file(raw, vhd_path)


def make_raw(folder: Path, raw_path: Path, *, size: int, partitioned: bool = False, file_system: str = "ext4") -> None:
    """As `make_image`, but only the raw disk, a sparse file."""
    if size <= 0 or size % _MIB:
        raise BadInput(f"an image of {size} bytes cannot be made: give a multiple of {_MIB}")
    if file_system not in ("ext3", "ext4"):
        raise BadInput(f"file system {file_system!r} is not known: choose ext3 or ext4")
    start = PARTITION_START_SECTOR * _SECTOR if partitioned else 0
    with open(raw_path, "xb") as raw:
        raw.truncate(size)
        if partitioned:
            raw.write(_boot_sector(size))
    options = ["-q", "-F", "-t", file_system, "-E", f"offset={start},root_owner=0:0", "-d", str(folder)]
    # A fixed block size, and a fixed length in blocks: mke2fs takes the rest of the file otherwise.
    run_tool("mke2fs", *options, "-b", "4096", str(raw_path), str((size - start) // 4096))


def _boot_sector(size: int) -> bytes:
    """An MBR with one bootable Linux partition (type 0x83) from sector 2048 to the end."""
    sectors = size // _SECTOR - PARTITION_START_SECTOR
    beyond_cylinders = b"\xfe\xff\xff"
    entry = b"\x80" + beyond_cylinders + b"\x83" + beyond_cylinders
    entry += PARTITION_START_SECTOR.to_bytes(4, "little") + sectors.to_bytes(4, "little")
    return bytes(440) + b"cell" + bytes(2) + entry + bytes(48) + b"\x55\xaa"


def read_file(image_path: Path, path_in_guest: str) -> bytes:
    """The bytes of one file inside an image (any chain, partitioned or bare); NoSuchFile if it is not there."""
    with tempfile.TemporaryDirectory(prefix="celltree-image-") as work, open(image_path, "rb") as image:
        chain = vhd.read_image(image, work)
        return read_file_of_disk(chain[0], path_in_guest)


def read_file_of_disk(leaf: Path, path_in_guest: str) -> bytes:
    """As `read_file`, for a chain of VHD files on the host's disk; the chain is only read."""
    if not path_in_guest.startswith("/") or '"' in path_in_guest or "\n" in path_in_guest:
        raise BadInput(f"{path_in_guest!r} is no absolute path: give one without quotes or line ends")
    with tempfile.TemporaryDirectory(prefix="celltree-disk-") as work:
        raw = Path(work) / "raw"
        vhd.export_raw_file(leaf, raw)
        device = f"{raw}?offset={file_system_start(raw)}"
        copy = Path(work) / "copy"
        said = run_tool("debugfs", "-R", f'dump "{path_in_guest}" "{copy}"', device)
        if not copy.is_file() or "File not found" in said:
            raise NoSuchFile(f"the disk has no file {path_in_guest}: {said.strip().splitlines()[-1:]}")
        return copy.read_bytes()


def file_system_start(raw: Path) -> int:
    """Where the file system begins, in bytes: at the first partition, or at 0 without a partition table."""
    with open(raw, "rb") as disk:
        sector = disk.read(_SECTOR)
    if sector[510:] != b"\x55\xaa" or sector[446 + 4] == 0:
        return 0
    return int.from_bytes(sector[446 + 8 : 446 + 12], "little") * _SECTOR


def run_tool(program: str, *arguments: str) -> str:
    """Run a program of e2fsprogs; everything it said."""
    # Debian keeps these where only root's PATH looks.
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        raise ToolMissing(f"{program} is not installed: run `apt-get install e2fsprogs`")
    ran = subprocess.run([found, *arguments], capture_output=True, text=True, errors="replace", timeout=300)
    if ran.returncode:
        raise ImageMakingFailed(f"{program} failed: {ran.stderr.strip() or ran.stdout.strip()}")
    return ran.stderr + ran.stdout
