"""A snapshot of a server's root disk as an image: the chain of VHD files, uploaded by the plugin where they lie."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cells.errors import LeaseLost, Permanent, Refusal, Temporary
from cells.model import ImageRef
from cells.ports import Journal
from xenapi_host import tags
from xenapi_host.driver import disks, images, vms
from xenapi_host.driver.disks import Disk
from xenapi_host.driver.errors import telling
from xenapi_host.driver.merging import await_merging
from xenapi_host.driver.plugin import PluginFailed, call_plugin_noted, earlier
from xenapi_host.driver.vms import Vm
from xenapi_host.session import Session, TaskTimedOut, XenFailure

UPLOAD = "upload"
_TAKEN, _NOTE = "snapshot taken", "snapshot note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """What was sent to the image service: bytes and their MD5 in hexadecimal. `note`: what an operator should know."""

    size: int
    checksum: str
    note: str = ""


@telling("take the snapshot")
def snapshot(
    session: Session,
    server: bytes,
    image: ImageRef,
    journal: Journal,
    *,
    headers: Mapping[str, str] | None = None,
) -> Uploaded:
    """Upload the server's root disk, as it is now, as the data of an image that the image service holds as queued.

    The server may run. The disk's snapshot is destroyed in the end, and so are those that earlier tries have left; an
    upload that an earlier try has begun is waited for, not begun again. `headers` go with the upload (a token).
    Raises Temporary, Permanent, and what journal.check() raises."""
    vm = vms.the_one(session, server)
    root = root_of(session, vm)
    done = earlier(session, journal, UPLOAD, limit=images.MOVE_SECONDS)
    sweep(session, root, but=held(journal))
    if done is None:
        journal.check()
        with taken(session, root, journal) as ref:
            done = upload(session, vm, ref, image, journal, headers or {})
    disks.destroy_ref(session, held(journal))
    return Uploaded(size=int(done["size"]), checksum=str(done["checksum"]), note=note(journal))


def undo_snapshot(session: Session, server: bytes) -> None:
    """Destroy the disk's snapshots that uploads which were given up have left. Raises Temporary, Permanent."""
    sweep(session, root_of(session, vms.the_one(session, server)))


def root_of(session: Session, vm: Vm) -> Disk:
    """The disk that a snapshot is taken of."""
    root = disks.root(session, vm)
    if root is None:
        raise Permanent("the server has no root disk")
    return root


def sweep(session: Session, root: Disk, *, but: str = "") -> None:
    """Destroy snapshots that an earlier try has left. Those that belong to a VM snapshot have a VBD: not ours. Those
    that are kept as the base of backups stay, and so does `but`."""
    for ref in root.record["snapshots"]:
        left = disks.read(session, ref) if ref != but else None
        if left is not None and not left.record["VBDs"] and tags.BACKUP not in left.record["other_config"]:
            disks.destroy_ref(session, ref)


def held(journal: Journal) -> str:
    """The snapshot (a reference) that this job has taken, at this try or an earlier one; "" for none."""
    return str(journal.get(_TAKEN) or "")


def note(journal: Journal) -> str:
    """What was found out while the disk's files were sent."""
    return str(journal.get(_NOTE) or "")


@contextmanager
def taken(session: Session, root: Disk, journal: Journal) -> Iterator[str]:
    """A snapshot of a disk (its reference), the one of an earlier try if that is still there. Destroyed when what is
    done with it fails for any reason but a lost lease: then it is the business of whoever has the lease."""
    ref = held(journal)
    if not ref or disks.read(session, ref) is None:
        ref = str(session.call("VDI.snapshot", root.ref, {}))
        journal.put(_TAKEN, ref)
    try:
        yield ref
    except (XenFailure, TaskTimedOut, PluginFailed, Permanent, Refusal) as error:
        if not isinstance(error, LeaseLost):
            _clear_away(session, ref)
        raise


def _clear_away(session: Session, ref: str) -> None:
    try:
        disks.destroy_ref(session, ref)
    except (XenFailure, Temporary):
        return  # the pool does not answer; the next try sweeps it


def upload(
    session: Session, vm: Vm, ref: str, image: ImageRef, journal: Journal, headers: Mapping[str, str], **more: Any
) -> dict[str, Any]:
    """Have the plugin send a snapshot's chain; `more` parameters of it."""
    storage = str(session.call("VDI.get_SR", ref))
    with session.exclusively(f"scan/{storage}"):
        session.call("SR.scan", storage)  # only after a scan are the parents right
    files = chain(session, ref)
    if found := await_merging(session, storage, files, journal):
        journal.put(_NOTE, found)
    host, path = images.folder(session, storage, vm.record["resident_on"])
    params = {
        "url": images.file_url(image),
        "headers": dict(headers),
        "sr_path": path,
        "chain": files,
        **more,
    }
    sent: dict[str, Any] = call_plugin_noted(
        session, journal, UPLOAD, host, images.PLUGIN, "upload", params, limit=images.MOVE_SECONDS
    )
    return sent


def chain(session: Session, leaf: str) -> list[str]:
    """The uuids of a disk's VHD files, leaf first."""
    record = session.call("VDI.get_record", leaf)
    found = [str(record["uuid"])]
    while parent := record["sm_config"].get("vhd-parent", ""):
        if len(found) == images.LONGEST_CHAIN:
            raise Temporary("the disk has too many snapshot layers until storage has merged them", retry_after=60.0)
        found.append(parent)
        record = session.call("VDI.get_record", session.call("VDI.get_by_uuid", parent))
    return found
