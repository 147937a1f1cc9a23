"""A running server's domain: where plugins reach its guest, while it is there.

A domain's number changes at every start, reboot and migration. What is asked of a domain that has gone meanwhile is
asked again of the new one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cells.errors import Permanent, Temporary
from cells.model import PowerState
from xenapi_host.driver import vms
from xenapi_host.driver.plugin import PluginFailed, call_plugin
from xenapi_host.driver.vms import Vm
from xenapi_host.session import Session

_TRIES = 4
_PLUGIN_SECONDS = 60.0
_NEW_DOMAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """`host` is a reference."""

    vm: Vm
    host: str
    domid: int


def domain_of(session: Session, server: bytes) -> Domain | None:
    """The server's domain, or that of the VM which rescues it; None when there is none."""
    vm = vms.the_one(session, server)
    if vm.halted:
        vm = next(iter(vms.rescuers(session, server)), vm)
    if vm.power_state not in (PowerState.RUNNING, PowerState.PAUSED):
        return None
    return Domain(vm=vm, host=str(vm.record["resident_on"]), domid=int(vm.record["domid"]))


def running(session: Session, server: bytes) -> Domain:
    """The server's domain; Permanent when its guest does not run."""
    found = domain_of(session, server)
    if found is None or found.vm.power_state is not PowerState.RUNNING:
        raise Permanent("the server is not running; start it first")
    return found


def ask(
    session: Session,
    server: bytes,
    plugin: str,
    function: str,
    params: dict[str, Any],
    *,
    find: Callable[[Session, bytes], Domain] = running,
    limit: float = _PLUGIN_SECONDS,
) -> Any:
    """What a plugin's function says of the server's domain, found anew when it has gone meanwhile."""
    for _ in range(_TRIES):
        at = find(session, server)
        try:
            answer = call_plugin(
                session, at.host, plugin, function, {**params, "dom_id": at.domid}, limit=limit + _PLUGIN_SECONDS
            )
        except PluginFailed:
            if find(session, server).domid == at.domid:
                raise
            continue
        if not isinstance(answer, dict) or answer.get("outcome") != "reboot":
            return answer
        session.sleep(_NEW_DOMAIN_SECONDS)
    raise Temporary("the server is being rebooted or moved; trying again", retry_after=5.0)
