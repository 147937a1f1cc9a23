"""Cached images that no server uses any more are removed from storage, after a while.

Whether one is used is seen from storage alone: a clone and the image it was made from have one parent. Since when it is
not used is noted on the image itself, because no call tells it. A build that loses its image to this fetches it again.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from xenapi_host import tags
from xenapi_host.driver import disks
from xenapi_host.driver.errors import telling
from xenapi_host.session import Session

_NAME = tags.image_name("")


@telling("clear the image cache")
def clear_cache(session: Session, *, now: int, unused_for: int) -> int:
    """Remove the cached images of the pool that were found unused at least `unused_for` seconds ago; how many. `now`:
    Unix seconds. To be called now and then: an image's time begins when this first finds it unused."""
    records: Mapping[str, Mapping[str, Any]] = session.call("VDI.get_all_records")
    children = Counter(
        (record["SR"], record["sm_config"]["vhd-parent"])
        for record in records.values()
        if record["sm_config"].get("vhd-parent")
    )
    removed = 0
    for ref, record in records.items():
        if not _is_cached(session, record):
            continue
        since = record["other_config"].get(tags.UNUSED, "")
        if _is_used(record, children):
            if since:
                session.call("VDI.remove_from_other_config", ref, tags.UNUSED)
        elif not since.isdigit():
            session.call("VDI.remove_from_other_config", ref, tags.UNUSED)
            session.call("VDI.add_to_other_config", ref, tags.UNUSED, str(now))
        elif now - int(since) >= unused_for:
            disks.destroy_ref(session, ref)
            removed += 1
    if removed:
        session.known.clear()
    return removed


def _is_cached(session: Session, record: Mapping[str, Any]) -> bool:
    """By its uuid, which follows from SR and image: a copy of it that an administrator keeps is not ours."""
    image = record["other_config"].get(tags.IMAGE_ID, "")
    if not image or not record["managed"] or not record["name_label"].startswith(_NAME):
        return False
    key = "uuid of SR", record["SR"]
    storage = session.known.get(key)
    if storage is None:
        storage = session.known[key] = str(session.call("SR.get_uuid", record["SR"]))
    return bool(record["uuid"] == tags.image_uuids(storage, image, 1)[0])


def _is_used(record: Mapping[str, Any], children: Mapping[tuple[str, str], int]) -> bool:
    parent = record["sm_config"].get("vhd-parent", "")
    siblings = children.get((record["SR"], parent), 0) - 1 if parent else 0
    return bool(record["VBDs"]) or siblings > 0 or children.get((record["SR"], record["uuid"]), 0) > 0
