"""Images of snapshots that get no data. One whose snapshot fails is given up at once; others are left by a daemon that
died before it saved the wish, or by a wish that was lost with the cell's database, and go after a day. All of it is
slow work, because the images may be another service's."""

from api_cell.errors import Forbidden
from api_cell.here import Here
from api_cell.images import Images
from api_cell.rows import OpenIntent, ServerRow
from cells import codec
from cells.decision import Decision, Job
from cells.names import SECOND, Instant
from cells.record import NO_SERVER

GIVE_UP = "image.give_up"
SWEEP = "image.sweep"
SWEEP_EVERY = 3600 * SECOND
# Far longer than a snapshot may take: its token is good for hours only.
KEPT = 24 * 3600 * SECOND


def given_up(here: Here, row: ServerRow, *wishes: OpenIntent | None) -> Decision:
    """The images of snapshots that failed, or were overtaken by a delete, are removed."""
    images = [wish.detail for wish in wishes if wish is not None and wish.action == "server.snapshot" and wish.detail]
    return Decision(
        do=tuple(
            Job(
                id=here.new_id(),
                kind=GIVE_UP,
                server=row.id,
                lane="images",
                body=codec.pack(image),
                request=row.request,
            )
            for image in images
        )
    )


def give_up(images: Images, image: str) -> None:
    """Remove it, unless it got its data after all: only the word of that was lost."""
    held = images.get(image)
    if held is not None and held.status != "active":
        images.delete(image)


def looked_for(here: Here, now: Instant) -> Decision:
    """A job that removes what has waited too long."""
    job = Job(id=here.new_id(), kind=SWEEP, server=NO_SERVER, lane="images", body=codec.pack(now - KEPT))
    return Decision(do=(job,))


def sweep(images: Images, before: Instant) -> None:
    """Remove the snapshots that were asked for before this and have no data. A tenant's own queued images stay."""
    for kind in ("snapshot", "backup"):
        for image in images.having({"image_type": kind}, status="queued"):
            if image.updated < before and "instance_uuid" in image.properties:
                try:
                    images.delete(image.id)
                except Forbidden:
                    continue  # a protected one is its owner's business
