"""Whether a pool's hosts have this cell's plugins, and which of them are missing or of another version."""

from functools import cache
from typing import Any

from cells.errors import Permanent
from xenapi_host.driver.errors import telling
from xenapi_host.driver.plugin import call_plugin
from xenapi_host.plugins import FOLDER
from xenapi_host.plugins.celltree_scripts import of_folder
from xenapi_host.session import Session, XenFailure

PLUGIN = "celltree_version.py"
_SECONDS = 30.0
_LOOKED_AGAIN = 600.0
_RIGHT = ("plugins", "seen right at")

Scripts = dict[str, dict[str, str]]


@cache
def ours() -> Scripts:
    """File -> version and digest, of the scripts that this cell installs."""
    return of_folder(str(FOLDER))


@telling("look at the hosts' plugins")
def plugins_wrong(session: Session, *, again: bool = False) -> str:
    """What is wrong with the plugins of the pool's hosts, for its operator; "" when nothing is. A pool found right is
    looked at again after ten minutes, or when asked `again`."""
    right = session.known.get(_RIGHT)
    if not again and right is not None and session.now() - right < _LOOKED_AGAIN:
        return ""
    wrong = []
    for ref, host in sorted(session.call("host.get_all_records").items(), key=lambda item: str(item[1]["name_label"])):
        found = _of_host(session, ref)
        differs = "" if found is None else compare(found, ours())
        if differs:
            wrong.append(f"{host['name_label']}: {differs}")
    if not wrong:
        session.known[_RIGHT] = session.now()
        return ""
    return f"plugins of {'; '.join(wrong)}. Run `celltree host install-plugins`"


def _of_host(session: Session, host: str) -> Scripts | None:
    """The scripts of a host (a reference); None when it is down, which its measuring tells of."""
    try:
        found: Scripts = call_plugin(session, host, PLUGIN, "scripts", {}, limit=_SECONDS)
    except XenFailure as failure:
        if failure.code in ("XENAPI_MISSING_PLUGIN", "UNKNOWN_XENAPI_PLUGIN_FUNCTION"):
            return {}
        if failure.code in ("HOST_OFFLINE", "HANDLE_INVALID", "CANNOT_CONTACT_HOST"):
            return None
        raise
    except Permanent:
        return {}
    return found


def compare(found: Scripts, wanted: Scripts) -> str:
    """How the scripts of a host differ from those that it should have, in a few words; "" when they do not."""
    if not found:
        return "none installed"
    missing = [name for name in wanted if name not in found]
    shared = [name for name in wanted if name in found]
    older = [name for name in shared if _number(found[name]) < _number(wanted[name])]
    newer = [name for name in shared if _number(found[name]) > _number(wanted[name])]
    other = [name for name in shared if found[name]["digest"] != wanted[name]["digest"]]
    changed = [name for name in other if name not in older and name not in newer]
    words = (("missing", missing), ("older", older), ("newer", newer), ("changed", changed))
    return ", ".join(f"{word} {' '.join(names)}" for word, names in words if names)


def _number(script: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(part) for part in str(script["version"]).split(".") if part.isdigit())
