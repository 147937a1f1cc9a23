"""Backups: snapshots of which the newest few of their kind (daily, weekly) are kept. The older ones are removed when a
newer one is whole, as slow work of the API cell, because images are its business and not the leaf's."""

from collections.abc import Iterable
from dataclasses import dataclass

from api_cell.errors import Forbidden
from api_cell.here import Here
from api_cell.images import Image, Images
from api_cell.incremental import needed_by
from api_cell.rows import OpenIntent, ServerRow
from cells import codec
from cells.decision import NOTHING, Decision, Job
from cells.names import id_text

ROTATE = "image.rotate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """Keep the newest `keep` backups of this kind that this project has of a server."""

    server: str
    project: str
    kind: str
    keep: int


def properties(server: str, kind: str) -> dict[str, str]:
    """What marks an image as a backup of a server."""
    return {**of_server(server), "backup_type": kind}


def of_server(server: str) -> dict[str, str]:
    """What every backup of a server has."""
    return {"image_type": "backup", "instance_uuid": server}


def over(here: Here, row: ServerRow, done: Iterable[OpenIntent]) -> Decision:
    """After the wishes that a leaf reports to be over: the rotation of each backup among them."""
    decision = NOTHING
    for wish in done:
        if wish.backup is not None:
            kind, keep = wish.backup
            rotation = Rotation(server=id_text(row.id), project=row.project, kind=kind, keep=keep)
            job = Job(
                id=here.new_id(),
                kind=ROTATE,
                server=row.id,
                lane="images",
                body=codec.pack(rotation),
                request=wish.request,
            )
            decision += Decision(do=(job,), notes=(f"{kind} backups: the newest {keep} are kept",))
    return decision


def rotate(images: Images, rotation: Rotation) -> None:
    """Remove what is older than the newest few. An image that the project's owner has protected stays."""
    for image in too_old(images.having(of_server(rotation.server)), rotation):
        try:
            images.delete(image.id)
        except Forbidden:
            continue


def too_old(found: Iterable[Image], rotation: Rotation) -> tuple[Image, ...]:
    """The backups of this kind beyond those that are kept, newest first; what a kept one of any kind builds upon stays.
    Only whole ones count, and only the project's own: anybody may give an image the properties of another's backup."""
    own = [image for image in found if image.owner == rotation.project]
    whole = [image for image in own if image.status == "active" and image.properties["backup_type"] == rotation.kind]
    whole.sort(key=lambda image: (image.created, image.id), reverse=True)
    old = {image.id: image for image in whole[rotation.keep :] if not image.protected}
    needed = needed_by((image for image in own if image.id not in old), own)
    return tuple(image for image in old.values() if image.id not in needed)
