"""A snapshot of a server's root disk as an image: the chain of VHD files, uploaded by the plugin where they lie."""

from collections.abc import Mapping
from dataclasses import dataclass

from cells.errors import LeaseLost, Permanent, Refusal, Temporary
from cells.model import ImageRef
from cells.ports import Journal
from xenapi_host.driver import disks, images, vms
from xenapi_host.driver.disks import Disk
from xenapi_host.driver.errors import telling
from xenapi_host.driver.plugin import PluginFailed, call_plugin_noted, earlier
from xenapi_host.driver.vms import Vm
from xenapi_host.session import Session, TaskTimedOut, XenFailure

_LONGEST_CHAIN = 16  # the plugin's limit, which is what builds can take; storage itself allows 30
_UPLOAD = "upload"


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """What was sent to the image service: bytes and their MD5 in hexadecimal."""

    size: int
    checksum: str


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
    root = _root(session, vm)
    done = earlier(session, journal, _UPLOAD, limit=images.MOVE_SECONDS)
    _sweep(session, root)
    if done is None:
        journal.check()
        taken = str(session.call("VDI.snapshot", root.ref, {}))
        try:
            done = _upload(session, vm, taken, image, journal, headers or {})
        except (XenFailure, TaskTimedOut, PluginFailed, Permanent, Refusal) as error:
            if not isinstance(error, LeaseLost):
                _clear_away(session, taken)
            raise
        disks.destroy_ref(session, taken)
    return Uploaded(size=int(done["size"]), checksum=str(done["checksum"]))


def _root(session: Session, vm: Vm) -> Disk:
    root = disks.root(session, vm)
    if root is None:
        raise Permanent("the server has no root disk")
    return root


def _sweep(session: Session, root: Disk) -> None:
    """Destroy snapshots that an earlier try has left. Those that belong to a VM snapshot have a VBD: not ours."""
    for ref in root.record["snapshots"]:
        left = disks.read(session, ref)
        if left is not None and not left.record["VBDs"]:
            disks.destroy_ref(session, ref)


def _clear_away(session: Session, taken: str) -> None:
    try:
        disks.destroy_ref(session, taken)
    except (XenFailure, Temporary):
        return  # the pool does not answer; the next try sweeps it


def _upload(
    session: Session, vm: Vm, taken: str, image: ImageRef, journal: Journal, headers: Mapping[str, str]
) -> dict[str, int | str]:
    storage = str(session.call("VDI.get_SR", taken))
    with session.exclusively(f"scan/{storage}"):
        session.call("SR.scan", storage)  # only after a scan are the parents right
    chain = _chain(session, taken)
    host, path = images.folder(session, storage, vm.record["resident_on"])
    params = {"url": images.file_url(image), "headers": dict(headers), "sr_path": path, "chain": chain}
    sent: dict[str, int | str] = call_plugin_noted(
        session, journal, _UPLOAD, host, images.PLUGIN, "upload", params, limit=images.MOVE_SECONDS
    )
    return sent


def _chain(session: Session, leaf: str) -> list[str]:
    """The uuids of a disk's VHD files, leaf first."""
    record = session.call("VDI.get_record", leaf)
    chain = [str(record["uuid"])]
    while parent := record["sm_config"].get("vhd-parent", ""):
        if len(chain) == _LONGEST_CHAIN:
            raise Temporary("the disk has too many snapshot layers until storage has merged them", retry_after=60.0)
        chain.append(parent)
        record = session.call("VDI.get_record", session.call("VDI.get_by_uuid", parent))
    return chain
