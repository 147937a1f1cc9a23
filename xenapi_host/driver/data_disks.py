"""The disks of a server besides its root: ephemeral, swap, config drive. Made with their name and claim, filled in
dom0, attached at the device number that OpenStack gives them.

The VM says from its creation which it is to have, so whoever deletes it knows their names.
"""

import base64
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from cells.ports import Journal
from xenapi_host.driver import disks, dom0
from xenapi_host.driver.disks import Disk
from xenapi_host.driver.vms import Vm
from xenapi_host.plan import CONFIG_DEVICE, FIRST_EPHEMERAL_DEVICE, SWAP_DEVICE, BuildPlan, DiskPlan
from xenapi_host.session import Session

_MOST_AT_ONCE = 64 * 1024


def give(session: Session, plan: BuildPlan, vm: str, journal: Journal, ready: Mapping[str, str] | None = None) -> None:
    """Give a halted VM (a reference) the plan's disks that it has not got. `ready`: name -> reference of those that
    need not be made."""
    if not plan.disks:
        return
    have = disks.attached(session, vm)
    for wanted in plan.disks:
        if wanted.device not in have:
            journal.check()
            ref = (ready or {}).get(wanted.name) or _made(session, plan, wanted, journal)
            disks.attach(session, vm, ref, str(wanted.device), shares=plan.disk_shares)


def _made(session: Session, plan: BuildPlan, wanted: DiskPlan, journal: Journal) -> str:
    claim = plan.claim(wanted.name)
    ref = claimed(session, plan.server, wanted.name, claim)
    if not ref:
        ref = disks.create(session, plan.server, wanted.name, claim, session.handle("SR", plan.storage), wanted.size)
    host = session.handle("host", plan.host)
    for number, piece in enumerate(_pieces(wanted.content)):
        step = f"write {wanted.name}" + (f" {number}" if number else "")
        dom0.work(session, journal, step, host, "write", {"disk": ref}, piece)
    if wanted.kind:
        params = {"kind": wanted.kind, "label": wanted.name}
        dom0.work(session, journal, f"make {wanted.name}", host, "make", {"disk": ref}, params)
    return ref


def _pieces(content: bytes) -> Iterator[dict[str, Any]]:
    """What a disk is to hold, as the plugin takes it: at once if it can be. XAPI gives a plugin its whole call as one
    argument of a process, for which Linux allows 128 KiB."""
    packed = zlib.compress(content)
    if len(packed) <= _MOST_AT_ONCE:
        if content:
            yield {"data": base64.b64encode(packed).decode(), "packed": True}
        return
    for offset in range(0, len(content), _MOST_AT_ONCE):
        piece = content[offset : offset + _MOST_AT_ONCE]
        if any(piece):
            yield {"data": base64.b64encode(zlib.compress(piece)).decode(), "packed": True, "offset": offset}


def claimed(session: Session, server: bytes, name: str, claim: str) -> str:
    """The disk that an earlier try has made for this claim and not attached to a VM yet; "" for none."""
    for disk in disks.named(session, disks.label(server, name)):
        if disk.claim == claim and disks.is_free(session, disk):
            return disk.ref
    return ""


def of_vm(session: Session, vm: Vm) -> dict[str, Disk]:
    """Name -> disk of every disk of ours that a VM has besides its root."""
    if len(disks.names_of(vm)) == 1:
        return {}
    found = {}
    for ref in disks.attached(session, vm.ref).values():
        disk = disks.read(session, ref)
        name = disk.claim.rpartition(" ")[2] if disk is not None else ""
        if disk is not None and name in disks.names_of(vm)[1:]:
            found[name] = disk
    return found


def device_of(name: str) -> int:
    """The device number of one of our disks."""
    fixed = {"root": 0, "swap": SWAP_DEVICE, "config": CONFIG_DEVICE}
    return fixed[name] if name in fixed else FIRST_EPHEMERAL_DEVICE + int(name.removeprefix("ephemeral"))
