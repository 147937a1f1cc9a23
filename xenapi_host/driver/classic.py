"""A guest of a classic Xen host becomes a server: its root file system is copied while it runs, then once more when it
has been powered off, onto a disk with a partition of its own; kernel, ramdisk and agent come from a kit, an image whose
data is a tar.gz.

Before the owner's grant (`prepare_classic`) the guest goes on running and nothing of it changes; after it
(`finish_classic`) the guest is off, and on again if the server cannot be started for good. The source is the
operator's program (docs/hosts.md, "From classic Xen"); the work is done in dom0 by celltree_classic.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cells.errors import Permanent, Refusal
from cells.ports import Journal
from xenapi_host.driver import build, data_disks, disks, dom0, images, vms
from xenapi_host.driver.build import Prepared, RunningFacts
from xenapi_host.driver.errors import telling
from xenapi_host.driver.plugin import call_plugin
from xenapi_host.plan import BuildPlan
from xenapi_host.session import Session

PLUGIN = "celltree_classic.py"
_TELL_SECONDS = 600.0
_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicSource:
    """How guests of classic Xen hosts are reached from dom0. `command`: the operator's program and its first words;
    `shell`: rsync's remote shell, empty where what is shown is on the host itself."""

    name: str
    command: tuple[str, ...]
    shell: str = ""


@telling("copy the guest's disk")
def prepare_classic(
    session: Session, plan: BuildPlan, journal: Journal, *, source: ClassicSource, guest: str
) -> Prepared:
    """Make the root disk of a plan and copy a snapshot of the running guest onto it. Raises Temporary, Permanent,
    Refusal(no_room); `destroy` removes a part-made disk."""
    journal.check()
    disk = _root(session, plan)
    _work(session, plan, journal, "format", disk, {"kind": "ext4", "label": "root"})
    came = _work(session, plan, journal, "copy", disk, {**_of(source, guest), "word": "snapshot"}, "copy snapshot")
    return Prepared(vm_uuid="", note=f"{_mib(came)} copied while the guest ran")


def finish_classic(
    session: Session,
    plan: BuildPlan,
    journal: Journal,
    *,
    source: ClassicSource,
    guest: str,
    headers: Mapping[str, str] | None = None,
) -> tuple[RunningFacts, str]:
    """Power the guest off, copy what has changed, add the kit, make the VM and start it; what it is then, and a note.
    Raises as `prepare_classic`; after Permanent and Refusal the guest has been told to start again."""
    try:
        return _finished(session, plan, journal, source=source, guest=guest, headers=headers or {})
    except (Permanent, Refusal):
        _power_on(session, plan, source, guest)
        raise


@telling("start the migrated server")
def _finished(
    session: Session,
    plan: BuildPlan,
    journal: Journal,
    *,
    source: ClassicSource,
    guest: str,
    headers: Mapping[str, str],
) -> tuple[RunningFacts, str]:
    vm = vms.the_one(session, plan.server, plan.attempt)
    if vm.halted:
        root = disks.root(session, vm)
        if root is None:
            raise Permanent("the disk that the guest was copied to has gone; ask for the migration again")
        came = _work(session, plan, journal, "copy", root.ref, {**_of(source, guest), "word": "final"}, "copy final")
        journal.put("note", f"{_mib(came)} copied after it was off")
        _work(session, plan, journal, "extract", root.ref, _kit(plan, headers))
        journal.check()
        data_disks.give(session, plan, vm.ref, journal)
        build.add_interfaces(session, plan, vm)
    running = build.started_on(session, vm, plan.host)
    return build.running_facts(running), str(journal.get("note") or "")


@telling("start the classic guest again")
def _power_on(session: Session, plan: BuildPlan, source: ClassicSource, guest: str) -> None:
    host = session.handle("host", plan.host)
    params = {**_of(source, guest), "word": "power-on"}
    call_plugin(session, host, PLUGIN, "tell", params, limit=_TELL_SECONDS)


def _root(session: Session, plan: BuildPlan) -> str:
    """The plan's root disk, attached to its halted VM, by which both are found again; made if they are not there."""
    before = build.without_doubles(session, build.made_before(session, plan))
    if before is not None and (root := disks.root(session, before)) is not None:
        return root.ref
    vm = before.ref if before is not None else str(session.call("VM.create", dict(plan.vm)))
    disk = data_disks.claimed(session, plan.server, "root", plan.root_claim) or disks.create(
        session, plan.server, "root", plan.root_claim, session.handle("SR", plan.storage), plan.root_bytes
    )
    disks.attach_root(session, vm, disk)
    return disk


def _work(
    session: Session,
    plan: BuildPlan,
    journal: Journal,
    function: str,
    disk: str,
    params: dict[str, Any],
    step: str = "",
) -> dict[str, Any]:
    host = session.handle("host", plan.host)
    return dom0.work(session, journal, f"classic {step or function}", host, function, {"disk": disk}, params, PLUGIN)


def _of(source: ClassicSource, guest: str) -> dict[str, Any]:
    return {"source": {"command": list(source.command), "shell": source.shell}, "guest": guest}


def _kit(plan: BuildPlan, headers: Mapping[str, str]) -> dict[str, Any]:
    checksum = {"checksum": plan.image.checksum} if plan.image.checksum else {}
    return {"url": images.file_url(plan.image), "headers": dict(headers), **checksum}


def _mib(came: Mapping[str, Any]) -> str:
    return f"{int(came['bytes']) / _MIB:,.1f} MiB"
