"""A backup of a server's root disk as an image: whole, or what changed since the backup before it.

The snapshot of the newest backup stays on the storage repository, as the base of the next one; it says in other_config
which image it was sent as. It is found among the snapshots of the root disk, so it goes with that disk. When a newer
backup is whole its snapshot takes the base's place.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cells.errors import Temporary
from cells.model import BackupMark, ImageRef, Incremental
from cells.ports import Journal
from xenapi_host import tags
from xenapi_host.driver import disks, images, snapshot, vms
from xenapi_host.driver.disks import Disk
from xenapi_host.driver.errors import telling
from xenapi_host.driver.plugin import BaseGone, earlier
from xenapi_host.driver.vms import Vm
from xenapi_host.session import Session, XenFailure

_TAKEN = "taken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A kept snapshot: the image it was sent as, the identity its disk has there, how many files that image has with
    those it builds upon, and how many incremental ones there are since the last full one."""

    image: str
    identity: str
    disks: int
    deltas: int

    def __str__(self) -> str:
        return f"{self.image} {self.identity} {self.disks} {self.deltas}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackedUp:
    """What was sent: bytes, the image that it builds upon ("": it is a full one, for this reason)."""

    size: int
    parent: str = ""
    reason: str = ""


def base_of(text: str) -> Base | None:
    """What a kept snapshot says of itself; None if it is not understood."""
    words = text.split()
    if len(words) != 4 or not words[2].isdigit() or not words[3].isdigit():
        return None
    return Base(image=words[0], identity=words[1], disks=int(words[2]), deltas=int(words[3]))


def choose(kept: Base | None, wanted: Incremental) -> Base | str:
    """The base that a backup builds upon, or why it is a full one."""
    if kept is None:
        return "the server's disk has no base on its storage"
    if kept.image not in wanted.bases:
        return f"the image {kept.image}, which it would build upon, is not whole or gone"
    if kept.deltas >= wanted.most:
        return f"there are {kept.deltas} incremental ones since the last full one"
    if kept.disks >= images.LONGEST_CHAIN:
        return f"the image {kept.image} is as long a chain as an image may be"
    return kept


@telling("take the backup")
def backup(
    session: Session,
    server: bytes,
    image: ImageRef,
    wanted: Incremental,
    journal: Journal,
    *,
    headers: Mapping[str, str] | None = None,
) -> BackedUp:
    """Upload the server's root disk, as it is now, as the data of a queued image; only what changed since the newest
    backup, where that is possible. As `driver.snapshot`; the image is told in its properties what it builds upon."""
    vm = vms.the_one(session, server)
    root = snapshot.root_of(session, vm)
    done = earlier(session, journal, snapshot.UPLOAD, limit=images.MOVE_SECONDS)
    noted = journal.get(_TAKEN)
    snapshot.sweep(session, root, but=snapshot.held(journal))
    if done is None:
        journal.check()
        kept = _newest(kept_of(session, root))
        choice = choose(base_of(kept.record["other_config"][tags.BACKUP]) if kept else None, wanted)
        with snapshot.taken(session, root, journal) as ref:
            done, noted = _upload(session, vm, ref, kept, choice, image, journal, headers or {})
    parent = base_of(noted["base"])
    _keep(session, root, noted["ref"], image, parent, done)
    return BackedUp(size=int(done["size"]), parent=parent.image if parent else "", reason=noted["reason"])


def kept_of(session: Session, root: Disk) -> list[Disk]:
    """The snapshots of a disk that are kept as bases: one, or two where a newer one was just about to take over."""
    found = [disks.read(session, ref) for ref in root.record["snapshots"]]
    return [disk for disk in found if disk is not None and tags.BACKUP in disk.record["other_config"]]


def drop_base(session: Session, vm: Vm) -> None:
    """Give up the base of a disk that is about to leave its storage, where nothing would remember it."""
    root = disks.root(session, vm)
    for kept in kept_of(session, root) if root is not None else ():
        disks.destroy_ref(session, kept.ref)


def _newest(kept: list[Disk]) -> Disk | None:
    return max(kept, key=lambda disk: str(disk.record["snapshot_time"]), default=None)


def _upload(
    session: Session,
    vm: Vm,
    ref: str,
    kept: Disk | None,
    choice: Base | str,
    image: ImageRef,
    journal: Journal,
    headers: Mapping[str, str],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Send what changed since the base, or all; what was sent, and what the journal says of it."""
    if isinstance(choice, Base) and kept is not None:
        noted = {"ref": ref, "base": str(choice), "reason": ""}
        journal.put(_TAKEN, noted)
        base = {"chain": snapshot.chain(session, kept.ref), "identity": choice.identity}
        marks = _marks("incremental", parent=choice.image)
        try:
            sent = snapshot.upload(session, vm, ref, image, journal, headers, base=base, properties=marks)
            return sent, noted
        except BaseGone as gone:
            choice = str(gone)
    noted = {"ref": ref, "base": "", "reason": str(choice)}
    journal.put(_TAKEN, noted)
    marks = _marks("full", reason=str(choice))
    return snapshot.upload(session, vm, ref, image, journal, headers, properties=marks), noted


def _marks(kind: str, *, parent: str = "", reason: str = "") -> dict[str, str]:
    return {BackupMark.KIND: kind, BackupMark.PARENT: parent, BackupMark.REASON: reason}


def _keep(
    session: Session, root: Disk, ref: str, image: ImageRef, parent: Base | None, done: Mapping[str, Any]
) -> None:
    """The snapshot that was sent takes the place of the base before it."""
    now = Base(
        image=image.id,
        identity=str(done["identity"]),
        disks=int(done["disks"]) + (parent.disks if parent else 0),
        deltas=parent.deltas + 1 if parent else 0,
    )
    try:
        with disks.claimed_is_fine():
            session.call("VDI.add_to_other_config", ref, tags.BACKUP, str(now))
    except XenFailure as failure:
        if failure.code != "HANDLE_INVALID":
            raise  # gone with its disk: the image is whole all the same
    current = disks.read(session, root.ref)
    if current is None:
        raise Temporary("the server's disk is being changed by someone else; looking again")
    for kept in kept_of(session, current):
        if kept.ref != ref:
            disks.destroy_ref(session, kept.ref)
