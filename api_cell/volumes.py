"""Which volumes a server has, as its tenant sees it: those its leaf reports and those on their way. Pure.

A volume is a disk that an administrator keeps in a pool's storage; its id is the VDI's uuid. Servers show them as
/dev/xvdi to /dev/xvdp: the disks before are the server's own.
"""

from collections.abc import Iterator

from api_cell.rows import ServerRow
from cells.model import Volume

FIRST_DEVICE, LAST_DEVICE = 8, 15
ATTACH, DETACH = "server.attach_volume", "server.detach_volume"
_NAME = "/dev/xvd"


def volumes_of(row: ServerRow) -> tuple[Volume, ...]:
    """Those attached, and those being attached."""
    here = row.state.volumes if row.state is not None else ()
    known = {volume.id for volume in here}
    return (*here, *(volume for volume in _coming(row) if volume.id not in known))


def detail_of(volume: Volume) -> str:
    """What a wish to attach it says of it (rows.OpenIntent.detail)."""
    return f"{volume.id} {volume.device}"


def leaving(row: ServerRow, volume: str) -> bool:
    """Whether a wish to detach it is open."""
    return any(wish.action == DETACH and wish.detail == volume for wish in row.intents)


def free_devices(row: ServerRow) -> list[int]:
    """The numbers at which a server could have one more volume."""
    taken = {volume.device for volume in volumes_of(row)}
    return [number for number in range(FIRST_DEVICE, LAST_DEVICE + 1) if number not in taken]


def device_name(device: int) -> str:
    """What the guest calls it."""
    return f"{_NAME}{chr(ord('a') + device)}"


def device_number(name: str) -> int | None:
    """The number of a device that a volume can be; None for any other name."""
    letter = name.removeprefix(_NAME)
    number = ord(letter) - ord("a") if len(letter) == 1 and name.startswith(_NAME) else -1
    return number if FIRST_DEVICE <= number <= LAST_DEVICE else None


def _coming(row: ServerRow) -> Iterator[Volume]:
    for wish in row.intents:
        if wish.action == ATTACH:
            volume, _, device = wish.detail.partition(" ")
            yield Volume(id=volume, device=int(device))
