"""What XAPI does for a domain besides its row: its part of the host's xenstore, filled at its start and gone at its
end, and the file of its console. Light hosts have neither. Called under the engine's lock.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from xenapi_host.simulator.database import Row
from xenapi_host.simulator.engine import Engine
from xenapi_host.simulator.xenstore import XenstoreError

if TYPE_CHECKING:
    from xenapi_host.simulator.dom0 import Dom0

CONSOLES = Path("var/log/xen/guest")
_PASSED_ON = "vm-data/"
_BOOTING = (
    "Linux version 5.10.0-celltree (simulated)",
    "Command line: root=/dev/xvda1 console=hvc0",
    "xen:grant_table: Grant tables using version 1 layout",
    "blkfront: xvda: flush diskcache: enabled",
    "EXT4-fs (xvda1): mounted filesystem with ordered data mode",
)


def home_of(domid: str) -> str:
    """Where a domain's part of xenstore begins."""
    return f"/local/domain/{domid}"


def began(engine: Engine, vm: Row) -> None:
    """A domain has begun: fill its part of its host's xenstore. Only vm-data/* of xenstore_data is passed on."""
    dom0 = engine.dom0s.get(vm["resident_on"])
    if dom0 is None:
        return
    home = home_of(vm["domid"])
    dom0.xenstore.remove(home)
    values: dict[str, bytes | str] = {
        f"/vm/{vm['uuid']}/uuid": vm["uuid"],
        f"/vm/{vm['uuid']}/name": vm["name_label"],
        home: "",
        f"{home}/name": vm["name_label"],
        f"{home}/domid": vm["domid"],
        f"{home}/vm": f"/vm/{vm['uuid']}",
        f"{home}/vm-data": "",
        f"{home}/data": "",
        f"{home}/data/os_name": "Simulated Linux",
        f"{home}/data/updated": "1",
        f"{home}/attr/PVAddons/Installed": "1",
        f"{home}/attr/PVAddons/MajorVersion": "9",
        f"{home}/attr/PVAddons/MinorVersion": "3",
        f"{home}/attr/PVAddons/MicroVersion": "0",
        f"{home}/attr/PVAddons/BuildVersion": "1",
    }
    dom0.xenstore.write_many(values)
    for name, value in vm["xenstore_data"].items():
        if name.startswith(_PASSED_ON):
            with suppress(XenstoreError):  # a name or length that xenstored refuses
                dom0.xenstore.write(f"{home}/{name}", value)
    say(dom0, vm["domid"], *_BOOTING, f"{vm['name_label']} login: ")


def ended(engine: Engine, vm: Row) -> None:
    """A domain is about to end: its part of xenstore goes with it."""
    dom0 = engine.dom0s.get(vm["resident_on"])
    if dom0 is not None and vm["domid"] != "-1":
        dom0.xenstore.remove(home_of(vm["domid"]))
        dom0.xenstore.remove(f"/vm/{vm['uuid']}")


def moved(engine: Engine, vm: Row, host: str, domid: str) -> None:
    """A domain goes on elsewhere; `host` and `domid` are where it was."""
    old, new = engine.dom0s.get(host), engine.dom0s.get(vm["resident_on"])
    if old is None or new is None:
        return
    old.xenstore.move(home_of(domid), new.xenstore, home_of(vm["domid"]))
    new.xenstore.write(f"{home_of(vm['domid'])}/domid", vm["domid"])
    old.xenstore.move(f"/vm/{vm['uuid']}", new.xenstore, f"/vm/{vm['uuid']}")


def say(dom0: Dom0, domid: str, *lines: str) -> None:
    """Let a guest write to its console."""
    folder = dom0.root / CONSOLES
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"console.{domid}", "a", encoding="utf-8") as console:
        console.writelines(f"{line}\n" for line in lines)
