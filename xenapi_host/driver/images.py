"""Images in a storage repository: fetched once by the plugin, kept as one disk that builds clone copy-on-write.

The cached disk's uuid follows from SR and image, so every daemon looks for, and makes, the same one; its record
appears last, after its files and its parents, so that what is found is whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cells.errors import Permanent, Temporary
from cells.model import ImagePart, ImageRef
from xenapi_host import tags
from xenapi_host.driver import disks
from xenapi_host.driver.plugin import call_plugin
from xenapi_host.facts import GIB
from xenapi_host.plan import BuildPlan
from xenapi_host.session import NULL, Session, XenFailure

PLUGIN = "celltree_image.py"
MOVE_SECONDS = 4 * 3600.0
LONGEST_CHAIN = 16  # the plugin's limit; storage itself allows 30
_MOUNTS = "/var/run/sr-mount"


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedImage:
    """An image in an SR (`storage`, its reference): the disk to clone, its virtual size in bytes."""

    ref: str
    uuid: str
    size: int
    storage: str


def cached(session: Session, plan: BuildPlan, headers: Mapping[str, str]) -> CachedImage:
    """The plan's image in the plan's SR; downloaded first if it is not there. Permanent when it is larger than the
    flavor's disk."""
    key = _key(plan)
    found: CachedImage | None = session.known.get(key) or _look(session, plan)
    if found is None:
        with session.exclusively("/".join(key)):
            found = _look(session, plan) or _fetch(session, plan, headers)
    session.known[key] = found
    if plan.root_bytes and found.size > plan.root_bytes:
        raise Permanent(
            f"image {plan.image.name or plan.image.id} has a disk of {-(-found.size // GIB)} GiB and flavor "
            f"{plan.flavor.name} has {plan.flavor.disk_gib} GiB; choose a larger flavor"
        )
    return found


def forget(session: Session, plan: BuildPlan) -> None:
    """What we know of the plan's image is stale."""
    session.known.pop(_key(plan), None)


def _key(plan: BuildPlan) -> tuple[str, str]:
    return "image", f"{plan.storage}/{plan.image.id}"


def _look(session: Session, plan: BuildPlan) -> CachedImage | None:
    disk = disks.by_uuid(session, tags.image_uuids(plan.storage, plan.image.id, 1)[0])
    if disk is None:
        return None
    return CachedImage(ref=disk.ref, uuid=disk.uuid, size=disk.size, storage=disk.storage)


def _fetch(session: Session, plan: BuildPlan, headers: Mapping[str, str]) -> CachedImage:
    storage = session.handle("SR", plan.storage)
    host, path = folder(session, storage, session.handle("host", plan.host))
    params: dict[str, Any] = {
        "url": file_url(plan.image),
        "headers": dict(headers),
        "sr_path": path,
        "uuids": tags.image_uuids(plan.storage, plan.image.id, LONGEST_CHAIN),
    }
    if plan.image.disk_format == "raw":
        params["format"] = "raw"
    if plan.root_bytes:
        params["max_virtual_size"] = plan.root_bytes
    if plan.image.checksum:
        params["checksum"] = plan.image.checksum
    if plan.image.parents:
        params["parents"] = [_parent(plan.image, part) for part in plan.image.parents]
    chain = call_plugin(session, host, PLUGIN, "download", params, limit=MOVE_SECONDS)
    for place in range(len(chain) - 1, -1, -1):
        _introduce(session, plan, storage, chain[place], leaf=place == 0)
    found = _look(session, plan)
    if found is None:
        raise Temporary("the image has gone from the host's storage meanwhile; looking again")
    return found


def _parent(image: ImageRef, part: ImagePart) -> dict[str, str]:
    checksum = {"checksum": part.checksum} if part.checksum else {}
    return {"url": file_url(image, part.id), **checksum}


def _introduce(session: Session, plan: BuildPlan, storage: str, disk: Mapping[str, Any], *, leaf: bool) -> None:
    uuid, parent = disk["uuid"], disk["parent"]
    try:
        session.call(
            "VDI.introduce",
            uuid,
            tags.image_name(plan.image.id) if leaf else "base copy",
            plan.image.name if leaf else "",
            storage,
            "user",
            False,
            not leaf,
            {tags.IMAGE_ID: plan.image.id} if leaf else {},
            uuid,
            {},
            {"vhd-parent": parent} if parent else {},
            leaf,
            str(disk["virtual_size"]),
        )
    except XenFailure:
        # A scan, or another daemon, was faster; a scan gives no name.
        known = disks.by_uuid(session, uuid)
        if known is None:
            raise
        if leaf and known.record["name_label"] != tags.image_name(plan.image.id):
            session.call("VDI.set_name_label", known.ref, tags.image_name(plan.image.id))


def file_url(image: ImageRef, part: str = "") -> str:
    """Where an image's bytes are got from and put to; or those of an image that it builds upon."""
    return f"{image.url.rstrip('/')}/v2/images/{part or image.id}/file"


def folder(session: Session, storage: str, prefer: str = "") -> tuple[str, str]:
    """A host (a reference) that an SR is plugged into, this one if it is, and the SR's folder in its dom0."""
    record = session.call("SR.get_record", storage)
    host, path = "", ""
    for ref in record["PBDs"]:
        pbd = session.call("PBD.get_record", ref)
        if pbd["currently_attached"] and (not host or pbd["host"] == prefer):
            host = pbd["host"]
            path = pbd["device_config"].get("path") or f"{_MOUNTS}/{record['uuid']}"
    if not host or host == NULL:
        raise Temporary("the server's storage is not connected to any host", retry_after=30.0)
    return host, path
