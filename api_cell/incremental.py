"""Images that build upon others: an incremental backup holds what changed since another backup of the same server.

Which one is in its properties, where its leaf has put it and anybody who owns the image may change it. So a chain is
followed only as far as its reader may see, never in a circle, and no further than an image may be long.
"""

from collections.abc import Callable, Iterable, Iterator

from api_cell.errors import Invalid
from api_cell.images import Image, visible
from cells.model import BackupMark, ImagePart

LONGEST = 16
_NEWEST = 64
Look = Callable[[str], Image | None]


class BrokenChain(Exception):
    """An image builds upon something that cannot be used; the text says why."""


def chain_of(image: Image, look: Look, project: str, *, admin: bool = False) -> Iterator[Image]:
    """What an image builds upon, newest first, as a project sees it; BrokenChain where that is not whole."""
    seen = {image.id}
    while parent := image.properties.get(BackupMark.PARENT, ""):
        if parent in seen:
            raise BrokenChain(f"{parent} builds upon itself")
        found = look(parent)
        if found is None or not visible(found, project, admin=admin):
            raise BrokenChain(f"{parent} is gone")
        if found.status != "active":
            raise BrokenChain(f"{parent} is {found.status}, not active")
        if len(seen) == LONGEST:
            raise BrokenChain(f"more than {LONGEST} images build upon each other")
        seen.add(parent)
        yield found
        image = found


def parts_of(image: Image, look: Look, project: str, field: str, *, admin: bool = False) -> tuple[ImagePart, ...]:
    """What a leaf has to fetch besides the image itself; Invalid names the field it was asked in."""
    try:
        chain = tuple(chain_of(image, look, project, admin=admin))
    except BrokenChain as broken:
        raise Invalid(
            f"{field}: image {image.id} is an incremental backup, and what it builds upon cannot be used: {broken}; "
            "choose a full backup, or one whose chain is whole"
        ) from None
    return tuple(ImagePart(id=part.id, checksum=part.checksum) for part in chain)


def bases(found: Iterable[Image], project: str) -> tuple[str, ...]:
    """The backups of a server that another one may build upon, newest first: the project's own, with all that they
    build upon. One whose data is still to come counts, because it comes before the next one is taken."""
    own = {image.id: image for image in found if image.owner == project}
    usable = [image for image in own.values() if image.status in ("queued", "saving", "active") and _whole(image, own)]
    usable.sort(key=lambda image: (image.created, image.id), reverse=True)
    return tuple(image.id for image in usable[:_NEWEST])


def _whole(image: Image, own: dict[str, Image]) -> bool:
    try:
        tuple(chain_of(image, own.get, image.owner))
    except BrokenChain:
        return False
    return True


def needed_by(kept: Iterable[Image], found: Iterable[Image]) -> set[str]:
    """The ids of the images among `found` that those which are kept build upon."""
    known = {image.id: image for image in found}
    needed: set[str] = set()
    for image in kept:
        parent = image.properties.get(BackupMark.PARENT, "")
        while parent and parent not in needed:
            needed.add(parent)
            parent = known[parent].properties.get(BackupMark.PARENT, "") if parent in known else ""
    return needed
