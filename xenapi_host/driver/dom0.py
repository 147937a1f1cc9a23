"""A disk's inside, looked after in dom0: the disk is plugged into the control domain, a plugin works on it, it is
unplugged again.

The attachment is found again by the disk alone: whatever a control domain has of a disk of ours is ours. A plugin that
an earlier try has begun is waited for, because two must not write one disk; its task is in the journal.
"""

from typing import Any

from cells.errors import Permanent, Temporary
from cells.ports import Journal
from xenapi_host.driver import disks
from xenapi_host.driver.plugin import PluginFailed, call_plugin_noted, earlier
from xenapi_host.session import Session

PLUGIN = "celltree_disk.py"
WORK_SECONDS = 6 * 3600.0


def work(
    session: Session,
    journal: Journal,
    step: str,
    host: str,
    function: str,
    on: dict[str, str],
    params: dict[str, Any] | None = None,
    plugin: str = PLUGIN,
) -> dict[str, Any]:
    """What a function of a plugin answers, called on a host (a reference) for these disks: {parameter's name:
    disk's reference}. `step` names it in the journal; done once, it is not done again."""
    done = earlier(session, journal, step, limit=WORK_SECONDS)
    if done is None:
        journal.check()
        plugged = {name: _plugged(session, host, ref) for name, ref in on.items()}
        try:
            done = call_plugin_noted(
                session, journal, step, host, plugin, function, {**(params or {}), **plugged}, limit=WORK_SECONDS
            )
        except (PluginFailed, Permanent):
            for ref in on.values():
                disks.unplug(session, ref)
            raise
    for ref in on.values():
        disks.unplug(session, ref)
    answer: dict[str, Any] = done
    return answer


def _plugged(session: Session, host: str, ref: str) -> dict[str, str]:
    """Plug a disk into a host's control domain; how the plugin finds it there."""
    disks.unplug(session, ref)
    disk = disks.read(session, ref)
    if disk is None:
        raise Temporary("a disk of the server has gone meanwhile; looking again")
    vbd = disks.attach(session, _control_domain(session, host), ref, "autodetect", unpluggable=True)
    session.call("VBD.plug", vbd)
    return {
        "device": str(session.call("VBD.get_device", vbd)),
        "sr": str(session.call("SR.get_uuid", disk.storage)),
        "vdi": disk.uuid,
    }


def _control_domain(session: Session, host: str) -> str:
    known: str | None = session.known.get(("dom0 of", host))
    if known is None:
        known = str(session.call("host.get_control_domain", host))
        session.known["dom0 of", host] = known
    return known
