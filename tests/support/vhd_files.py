"""VHD files read by somebody else's code: libvhdi through pyvhdi, the one place that imports it."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pyvhdi


def libvhdi_read(paths: Sequence[Path], offset: int = 0, length: int | None = None) -> bytes:
    """Read a disk as libvhdi sees it; the chain's files leaf first, as libvhdi looks for no parents itself."""
    with ExitStack() as opened:
        files: list[pyvhdi.file] = []
        for path in reversed(paths):
            file = pyvhdi.file()
            file.open(str(path))
            opened.callback(file.close)
            if files:
                file.set_parent(files[-1])
            files.append(file)
        leaf = files[-1]
        leaf.seek_offset(offset, 0)
        left = leaf.get_media_size() - offset if length is None else length
        parts = []
        while left:
            part = leaf.read_buffer(min(left, 1 << 20))
            if not part:
                break
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


def libvhdi_facts(path: Path) -> dict[str, object]:
    """What libvhdi says of one file."""
    file = pyvhdi.file()
    file.open(str(path))
    try:
        return {
            "disk_type": file.get_disk_type(),
            "media_size": file.get_media_size(),
            "identifier": file.get_identifier(),
            "parent_identifier": file.get_parent_identifier(),
            "parent_filename": file.get_parent_filename(),
        }
    finally:
        file.close()
