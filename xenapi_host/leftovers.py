"""Things of ours on a pool that nobody uses any more, told from its records alone. Pure.

They come of a daemon that was frozen between the look at its lease and a call: by then another daemon had done the
work, so what the call made is nobody's. There are clones of cached images without a claim, which no server knows; and
VMs without disks, claimed disks and snapshots that are attached to nothing, which have a server. Volumes, bases of
backups, running VMs, VMs with disks (but those set aside), whatever does not carry our names and tags are never told.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cells.errors import BadInput
from cells.names import id_from_text
from xenapi_host import tags

SWEPT = "swept"  # the claim of a clone that is about to go: no build can take it any more
Records = Mapping[str, Mapping[str, Any]]


class Held(StrEnum):
    """What the leaf says of a server on this pool. HERE: it is here, and nothing goes on with it. GONE: it is not here,
    as far as the leaf remembers. UNKNOWN: the leaf has never heard of it, or has forgotten."""

    HERE = "here"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """One thing that nobody uses at this moment; `server` is None for a clone of the image `image`. `is_lost`: a VM
    with its disks whose server was made anew elsewhere. `seen`: the note on it."""

    of: str
    ref: str
    name: str
    server: bytes | None = None
    image: str = ""
    is_lost: bool = False
    seen: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Age:
    """When to take a thing away: unused for `longer_than` at `now`, at looks that were no further apart than `gap`.
    Seconds; `now` in Unix time."""

    now: int
    longer_than: int
    gap: int

    def since(self, seen: str) -> int:
        """Since when a thing is unused, by the note "SINCE LAST" of earlier looks."""
        since, _, last = seen.partition(" ")
        if not since.isdigit() or not last.isdigit() or self.now - int(last) > self.gap:
            return self.now
        return int(since)

    def is_over(self, seen: str) -> bool:
        return self.now - self.since(seen) >= self.longer_than


def unused(machines: Records, virtual_disks: Records, storages: Records) -> tuple[Leftover, ...]:
    """Everything of ours that is attached to nothing and runs nowhere, from all records of a pool."""
    by_uuid = {str(record["uuid"]): record for record in virtual_disks.values()}
    found = [_of_machine(ref, record) for ref, record in machines.items()]
    for ref, record in virtual_disks.items():
        if record["VBDs"] or not record["managed"] or tags.PROJECT in record["other_config"]:
            continue
        found.append(_clone(ref, record, by_uuid, storages) or _of_server(ref, record, virtual_disks))
    return tuple(leftover for leftover in found if leftover is not None)


def _of_machine(ref: str, record: Mapping[str, Any]) -> Leftover | None:
    server = tags.server_of(record["other_config"])
    if server is None or record["is_a_snapshot"] or record["is_a_template"]:
        return None
    name = record["name_label"]
    if name == tags.vm_name(server) + tags.LOST_SUFFIX and record["power_state"] != "Running":
        return Leftover(of="VM", ref=ref, name=name, server=server, is_lost=True, seen=_note(record))
    ours = {tags.vm_name(server) + suffix for suffix in ("", tags.ORIGINAL_SUFFIX, tags.RESCUE_SUFFIX)}
    if name not in ours or record["power_state"] != "Halted" or record["VBDs"]:
        return None
    return Leftover(of="VM", ref=ref, name=name, server=server, seen=_note(record))


def _clone(
    ref: str, record: Mapping[str, Any], by_uuid: Mapping[str, Mapping[str, Any]], storages: Records
) -> Leftover | None:
    """A clone of a cached image. A copy of it, or a clone with another name, is an administrator's."""
    image = record["other_config"].get(tags.IMAGE_ID, "")
    claim = record["other_config"].get(tags.CLAIM, "")
    if claim not in ("", SWEPT) or not image or record["name_label"] != tags.image_name(image):
        return None
    storage = storages.get(record["SR"])
    kept = tags.image_uuids(str(storage["uuid"]), image, 1)[0] if storage is not None else ""
    cached, parent = by_uuid.get(kept), record["sm_config"].get("vhd-parent", "")
    if record["uuid"] == kept or cached is None or not parent or cached["sm_config"].get("vhd-parent") != parent:
        return None
    return Leftover(of="VDI", ref=ref, name=record["name_label"], image=image, seen=_note(record))


def _of_server(ref: str, record: Mapping[str, Any], virtual_disks: Records) -> Leftover | None:
    server = _server_of(record["other_config"].get(tags.CLAIM, ""))
    if server is None or not record["name_label"].startswith(tags.vm_name(server) + " "):
        return None
    if tags.BACKUP in record["other_config"] and record["snapshot_of"] in virtual_disks:
        return None
    return Leftover(of="VDI", ref=ref, name=record["name_label"], server=server, seen=_note(record))


def _note(record: Mapping[str, Any]) -> str:
    return str(record["other_config"].get(tags.LEFTOVER, ""))


def _server_of(claim: str) -> bytes | None:
    words = claim.split()
    if len(words) != 3:
        return None
    try:
        return id_from_text(words[0], tags.CLAIM)
    except BadInput:
        return None
