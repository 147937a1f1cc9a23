"""How our objects are found again on a host: names, tags and uuids that follow from the server alone.

A VM carries its tags from its creation (VM.create takes other_config). A disk made by VDI.create carries its claim
from creation; a clone is claimed after it was made (VDI.clone takes no such argument) by adding the claim, which
XAPI refuses when there is one already: so one clone never gets two owners.
"""

import uuid
from collections.abc import Mapping

from cells.names import id_from_text, id_text

SERVER = "celltree_server"  # VM: the server's id
ATTEMPT = "celltree_attempt"  # VM: the owner's try to place the server
OWNER = "celltree_owner"  # VM: the API cell that owns the server
SERIAL = "celltree_serial"  # VM: 0 for the build, the command's number for a resize
IMAGE = "celltree_image"  # VM: the image that its root disk is cloned from
STORAGE = "celltree_storage"  # VM: the uuid of the SR of its root disk
DISKS = "celltree_disks"  # VM: the names of its disks besides the root, with blanks between
SOURCE = "celltree_source"  # VM made by a resize: the uuid of the disk that its root disk is made from
ORIGINAL = "celltree_original"  # VM kept while a resize waits: its power state when the resize began
CLAIM = "celltree_disk"  # VDI: whose disk it is
PROJECT = "celltree_project"  # VDI: the project that may attach it as a volume; an administrator writes it
VOLUME = "celltree_volume"  # VBD: the uuid of the volume that a tenant has attached by it
IMAGE_ID = "image-id"  # VDI: the image that it holds, or was cloned from

BACKUP = "celltree_backup"  # VDI that is a snapshot: kept as the base of backups; as which image it was sent
LEFTOVER = "celltree_leftover"  # VM, VDI: since when nobody uses it, and when that was seen last, in Unix seconds
UNUSED = "celltree_unused"  # VDI of a cached image: since when no server uses it, in Unix seconds

ORIGINAL_SUFFIX = "-orig"
RESCUE_SUFFIX = "-rescue"
LOST_SUFFIX = "-lost"  # VM: its host died and took its disks along; the server was made anew elsewhere
_NAMESPACE = uuid.UUID("8f0f6c0e-6a34-5b0f-9e1a-2f4d1d5c7a10")


def vm_name(server: bytes) -> str:
    """The name label of a server's VM."""
    return f"celltree-{id_text(server)}"


def server_of(other_config: Mapping[str, str]) -> bytes | None:
    """The server that a VM belongs to, or None if it is not ours."""
    text = other_config.get(SERVER)
    return id_from_text(text, SERVER) if text else None


def claim(server: bytes, attempt: int, serial: int, disk: str = "root") -> str:
    """The claim of one disk of one VM of a server."""
    return f"{id_text(server)} {attempt}.{serial} {disk}"


def attempt_prefix(server: bytes, attempt: int) -> str:
    """What the claims of every disk of one attempt begin with."""
    return f"{id_text(server)} {attempt}."


def claimed_by(text: str, server: bytes) -> bool:
    """Whether a claim is one of this server's."""
    return text.startswith(id_text(server) + " ")


def image_name(image_id: str) -> str:
    """The name label of a cached image and, until they are claimed and attached, of its clones."""
    return f"celltree image {image_id}"


def image_uuids(storage: str, image_id: str, count: int) -> tuple[str, ...]:
    """The uuids of an image's disks in an SR, leaf first."""
    return tuple(str(uuid.uuid5(_NAMESPACE, f"{storage}/{image_id}/{place}")) for place in range(count))


def mac(server: bytes, device: int) -> str:
    """The MAC address of a server's network interface: locally administered, the same wherever the server goes."""
    tail = uuid.uuid5(_NAMESPACE, f"{id_text(server)}/mac/{device}").bytes[:5]
    return ":".join(f"{byte:02x}" for byte in b"\x02" + tail)
