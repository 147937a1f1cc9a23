"""The root disk's size: the disk, its one partition and the file system inside follow the flavor, where the server asks
for that (auto-disk-config) and the disk is of the kind that can be.

Growing is done in place, on a disk that no VM has yet. A smaller disk is a new one: a clone is shrunk inside, then its
beginning is copied, so that the original's disk is never written.
"""

import json

from cells.errors import Permanent, Temporary
from cells.ports import Journal
from xenapi_host.driver import disks, dom0
from xenapi_host.driver.disks import Disk
from xenapi_host.driver.plugin import earlier
from xenapi_host.facts import GIB
from xenapi_host.plan import BuildPlan
from xenapi_host.session import Session

_GROW = "grow root"
_SHRINK = "shrink root"
_SHRINKING = "shrinking"  # the name in the claim of the clone that is shrunk


def grow(session: Session, plan: BuildPlan, disk: str, size: int, journal: Journal) -> None:
    """Make a claimed root disk of `size` bytes as large as the plan's, and what is inside too where that is asked."""
    disks.grow(session, disk, size, plan.root_bytes)
    if plan.auto_disk_config and plan.root_bytes:
        dom0.work(session, journal, _GROW, session.handle("host", plan.host), "grow", {"disk": disk})


def note(journal: Journal) -> str:
    """Why the inside of the disk was left as it is; "" when it was not, or nobody asked."""
    noted = journal.get(_GROW) or {}
    answer = json.loads(noted.get("result", "{}"))
    return "" if answer.get("done", True) else f"the file system was not resized: {answer['reason']}"


def refuse_shrink(plan: BuildPlan, source: Disk) -> None:
    """Permanent when the plan wants a smaller disk of a server that has not asked for auto-disk-config."""
    if plan.root_bytes and plan.root_bytes < source.size and not plan.auto_disk_config:
        raise Permanent(
            f"flavor {plan.flavor.name} has a smaller disk ({plan.flavor.disk_gib} GiB) than the server has "
            f"({-(-source.size // GIB)} GiB), and a disk shrinks only with diskConfig AUTO; set that, or choose a "
            "flavor with at least that much"
        )


def shrunk(session: Session, plan: BuildPlan, source: Disk, journal: Journal) -> Disk:
    """A new disk of the plan's size, claimed for the plan's VM, with all that the source holds. Permanent when it
    does not fit, or the disk is of a kind that is left alone."""
    host, storage = session.handle("host", plan.host), session.handle("SR", plan.storage)
    target = _target(session, plan, storage)
    copied = f"copy to {target}"
    if earlier(session, journal, copied, limit=dom0.WORK_SECONDS) is None:
        small = _clone(session, plan, source)
        answer = dom0.work(session, journal, _SHRINK, host, "shrink", {"disk": small}, {"size": plan.root_bytes})
        if not answer["done"]:
            raise Permanent(
                f"the server's disk cannot shrink to the {plan.flavor.disk_gib} GiB of flavor {plan.flavor.name}: "
                f"{answer['reason']}"
            )
        on = {"source": small, "disk": target}
        dom0.work(session, journal, copied, host, "copy", on, {"size": plan.root_bytes})
    disks.unplug(session, target)
    if left := _left_clone(session, plan, source):
        disks.discard(session, left)
    made = disks.read(session, target)
    if made is None:
        raise Temporary("the copy of the disk has gone meanwhile; looking again")
    return made


def _target(session: Session, plan: BuildPlan, storage: str) -> str:
    for disk in disks.named(session, disks.label(plan.server)):
        if disk.claim == plan.root_claim and disks.is_free(session, disk):
            return disk.ref
    return disks.create(session, plan.server, "root", plan.root_claim, storage, plan.root_bytes, plan.image.id)


def _left_clone(session: Session, plan: BuildPlan, source: Disk) -> str:
    return disks.adopt(
        session,
        source.record["name_label"],
        source.storage,
        plan.claim(_SHRINKING),
        not_these=[source.uuid],
        inherited=source.claim,
    )


def _clone(session: Session, plan: BuildPlan, source: Disk) -> str:
    return _left_clone(session, plan, source) or disks.clone(
        session, source.ref, plan.claim(_SHRINKING), inherited=bool(source.claim)
    )
