"""Virtual disks (VDIs): cloned and claimed, grown, found again, destroyed. No disk is ever left without an owner.

VDI.clone takes no tag, so a clone exists for a moment without a claim, under its source's name. A try that was cut
short there is found by that name; adding the claim decides who owns it, because XAPI adds a key only once.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cells.errors import Temporary
from xenapi_host import tags
from xenapi_host.driver.vms import Vm, record_of
from xenapi_host.session import NULL, Session, XenFailure

_ROOT_DEVICE = "0"
_CLONE_TRIES = 5
SHARES = "ionice"  # the one algorithm that XenServer knows (XAPI ocaml/xapi/xapi_xenops.ml)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """One VDI: its reference and its record as it was read."""

    ref: str
    record: Mapping[str, Any]

    @property
    def uuid(self) -> str:
        return str(self.record["uuid"])

    @property
    def size(self) -> int:
        """Virtual size in bytes."""
        return int(self.record["virtual_size"])

    @property
    def storage(self) -> str:
        """The reference of its SR."""
        return str(self.record["SR"])

    @property
    def claim(self) -> str:
        return str(self.record["other_config"].get(tags.CLAIM, ""))

    @property
    def loose(self) -> bool:
        """Attached to nothing, and no base copy or snapshot."""
        return not self.record["VBDs"] and not self.record["is_a_snapshot"] and bool(self.record["managed"])


def read(session: Session, ref: str) -> Disk | None:
    """The disk of this reference as it is now, or None if it is gone."""
    record = record_of(session, "VDI", ref)
    return None if record is None else Disk(ref=ref, record=record)


def by_uuid(session: Session, uuid: str) -> Disk | None:
    """The disk of this uuid, or None."""
    try:
        ref = session.call("VDI.get_by_uuid", uuid)
    except XenFailure as failure:
        if failure.code == "UUID_INVALID":
            return None
        raise
    return read(session, ref)


def named(session: Session, name: str) -> list[Disk]:
    """Every disk of this name on the pool."""
    found = [read(session, ref) for ref in session.call("VDI.get_by_name_label", name)]
    return [disk for disk in found if disk is not None]


def label(server: bytes, disk: str = "root") -> str:
    """The name label of a server's disk, of its snapshots and of the copies a resize makes."""
    return f"{tags.vm_name(server)} {disk}"


def root(session: Session, vm: Vm) -> Disk | None:
    """The disk a VM starts from, if it is attached."""
    for ref in vm.record["VBDs"]:
        vbd = record_of(session, "VBD", ref)
        if vbd is not None and vbd["userdevice"] == _ROOT_DEVICE and vbd["VDI"] != NULL:
            return read(session, vbd["VDI"])
    return None


def attached(session: Session, vm: str) -> dict[int, str]:
    """Device number -> reference of the disk that a VM (a reference) has there now."""
    found = {}
    for ref in session.call("VM.get_VBDs", vm):
        vbd = record_of(session, "VBD", ref)
        if vbd is not None and vbd["VDI"] != NULL:
            found[int(vbd["userdevice"])] = str(vbd["VDI"])
    return found


def names_of(vm: Vm) -> tuple[str, ...]:
    """The names of every disk of ours that this VM has, or was about to get."""
    return ("root", *vm.tags.get(tags.DISKS, "").split())


def create(session: Session, server: bytes, name: str, claim: str, storage: str, size: int, image: str = "") -> str:
    """A new blank disk of a server, which has its name and its claim from the start."""
    other_config = {tags.CLAIM: claim, **({tags.IMAGE_ID: image} if image else {})}
    return str(
        session.call(
            "VDI.create",
            {
                "name_label": label(server, name),
                "name_description": "",
                "SR": storage,
                "virtual_size": str(size),
                "type": "user",
                "sharable": False,
                "read_only": False,
                "other_config": other_config,
                "xenstore_data": {},
                "sm_config": {},
                "tags": [],
            },
        )
    )


def clone(session: Session, source: str, claim: str, *, inherited: bool = False) -> str:
    """A new claimed clone of a disk. `inherited`: the source carries a claim, which the clone has copied. Another
    build may adopt the clone before we claim it; then there is one disk more to clone, none lost."""
    for _ in range(_CLONE_TRIES):
        made = str(session.call("VDI.clone", source, {}))
        if _claimed(session, made, claim, inherited=inherited):
            return made
    raise Temporary("could not clone the image's disk: others were faster each time", retry_after=0.5)


def adopt(
    session: Session, name: str, storage: str, claim: str, *, not_these: Iterable[str], inherited: str = ""
) -> str:
    """A loose disk of this name in this SR that an earlier try has made and claimed, or made and not yet claimed
    (`inherited`: the claim such a one has copied); claimed when this returns. "" when there is none."""
    apart = set(not_these)
    found = [disk for disk in named(session, name) if disk.storage == storage and disk.uuid not in apart]
    for disk in found:
        if disk.claim == claim and is_free(session, disk):
            return disk.ref
    for disk in found:
        if (
            disk.loose
            and disk.claim in ("", inherited)
            and _claimed(session, disk.ref, claim, inherited=bool(inherited))
        ):
            return disk.ref
    return ""


def _claimed(session: Session, ref: str, claim: str, *, inherited: bool) -> bool:
    try:
        if inherited:
            session.call("VDI.remove_from_other_config", ref, tags.CLAIM)
        session.call("VDI.add_to_other_config", ref, tags.CLAIM, claim)
    except XenFailure as failure:
        if failure.code in ("MAP_DUPLICATE_KEY", "HANDLE_INVALID"):
            return False
        raise
    return True


def grow(session: Session, disk: str, size: int, wanted: int) -> None:
    """Make a disk of `size` bytes at least `wanted` bytes large."""
    if size < wanted:
        session.call("VDI.resize", disk, str(wanted))


def attach_root(session: Session, vm: str, disk: str, shares: Mapping[str, str] | None = None) -> None:
    """Attach a disk as the one a VM starts from."""
    attach(session, vm, disk, _ROOT_DEVICE, bootable=True, shares=shares)


def attach(
    session: Session,
    vm: str,
    disk: str,
    device: str,
    *,
    bootable: bool = False,
    unpluggable: bool = False,
    volume: str = "",
    shares: Mapping[str, str] | None = None,
) -> str:
    """Attach a disk to a VM for writing, from its next start on; the attachment's reference. `volume`: its uuid, where
    it is one. `shares`: of the storage's time (guests.disk_shares)."""
    return str(
        session.call(
            "VBD.create",
            {
                "VM": vm,
                "VDI": disk,
                "userdevice": device,
                "bootable": bootable,
                "mode": "RW",
                "type": "Disk",
                "unpluggable": unpluggable,
                "empty": False,
                "other_config": {tags.VOLUME: volume} if volume else {},
                "qos_algorithm_type": SHARES if shares else "",
                "qos_algorithm_params": dict(shares or {}),
            },
        )
    )


def rename(session: Session, disk: str, server: bytes) -> None:
    """Give a disk its server's name: from here on it is no clone of the image but the server's."""
    session.call("VDI.set_name_label", disk, label(server))


def is_free(session: Session, disk: Disk, but: Iterable[str] = ()) -> bool:
    """Whether a disk is attached to no VM but control domains, where only a plugin of ours works on it. `but`: VBDs
    that do not count."""
    if disk.record["is_a_snapshot"] or not disk.record["managed"]:
        return False
    others = set(disk.record["VBDs"]) - set(but)
    return all(_in_dom0(session, vbd) is not None for vbd in others)


def _in_dom0(session: Session, vbd: str) -> Mapping[str, Any] | None:
    """The record of an attachment to a control domain; None for one to another VM. One that is gone has no fields."""
    record = record_of(session, "VBD", vbd)
    if record is None:
        return {}
    return record if session.call("VM.get_is_control_domain", record["VM"]) else None


def unplug(session: Session, ref: str) -> None:
    """Take a disk out of every control domain that has it. A disk that is gone is as good."""
    record = record_of(session, "VDI", ref)
    for vbd in () if record is None else record["VBDs"]:
        found = _in_dom0(session, vbd)
        if not found:
            continue
        if found["currently_attached"]:
            try:
                session.call("VBD.unplug", vbd)
            except XenFailure as failure:
                if failure.code != "DEVICE_ALREADY_DETACHED":
                    raise
        with gone_is_fine():
            session.call("VBD.destroy", vbd)


def discard(session: Session, ref: str) -> None:
    """Destroy a disk that a plugin may still have in a control domain."""
    unplug(session, ref)
    destroy_ref(session, ref)


def destroy(session: Session, disk: Disk) -> None:
    """Destroy a disk and the snapshots of it that nobody holds. Already gone is as good."""
    for ref in disk.record["snapshots"]:
        snapshot = read(session, ref)
        if snapshot is not None and not snapshot.record["VBDs"]:
            destroy_ref(session, ref)
    destroy_ref(session, disk.ref)


def destroy_ref(session: Session, ref: str) -> None:
    """Destroy one disk. Already gone is as good."""
    with gone_is_fine():
        session.call("VDI.destroy", ref)


@contextmanager
def gone_is_fine() -> Iterator[None]:
    """What shall be removed may be gone already."""
    try:
        yield
    except XenFailure as failure:
        if failure.code != "HANDLE_INVALID":
            raise


@contextmanager
def claimed_is_fine() -> Iterator[None]:
    """What shall be noted may have been noted by an earlier try."""
    try:
        yield
    except XenFailure as failure:
        if failure.code != "MAP_DUPLICATE_KEY":
            raise
