"""The VMs of a server as they stand on the pool, found by name and told by their tags."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cells.errors import Permanent
from cells.model import PowerState
from cells.names import id_text
from xenapi_host import tags
from xenapi_host.driver.errors import telling
from xenapi_host.session import Session, XenFailure


class BelongsToAnother(Permanent):
    """The pool has a server of this id, and it is owned by another API cell than the one that asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """One VM of ours: its reference and its record as it was read."""

    ref: str
    record: Mapping[str, Any]

    @property
    def uuid(self) -> str:
        return str(self.record["uuid"])

    @property
    def tags(self) -> Mapping[str, str]:
        other_config: Mapping[str, str] = self.record["other_config"]
        return other_config

    @property
    def attempt(self) -> int:
        return int(self.tags.get(tags.ATTEMPT, "0"))

    @property
    def serial(self) -> int:
        return int(self.tags.get(tags.SERIAL, "0"))

    @property
    def claim(self) -> str:
        """The claim of its root disk."""
        return self.claim_of("root")

    def claim_of(self, disk: str) -> str:
        """The claim of one of its disks."""
        server = tags.server_of(self.tags)
        assert server is not None
        return tags.claim(server, self.attempt, self.serial, disk)

    @property
    def power_state(self) -> PowerState:
        return power_state(self.record["power_state"])

    @property
    def halted(self) -> bool:
        return self.power_state is PowerState.HALTED


def power_state(text: str) -> PowerState:
    """XenAPI's power state; UNKNOWN for one we have never heard of."""
    try:
        return PowerState(text)
    except ValueError:
        return PowerState.UNKNOWN


def read(session: Session, ref: str) -> Vm | None:
    """The VM of this reference as it is now, or None if it is gone."""
    record = record_of(session, "VM", ref)
    return None if record is None else Vm(ref=ref, record=record)


def record_of(session: Session, class_name: str, ref: str) -> Mapping[str, Any] | None:
    """An object's record, or None if the object is gone."""
    try:
        record: Mapping[str, Any] = session.call(f"{class_name}.get_record", ref)
    except XenFailure as failure:
        if failure.code == "HANDLE_INVALID":
            return None
        raise
    return record


def current(session: Session, server: bytes, attempt: int | None = None) -> list[Vm]:
    """The server's VMs under its own name, of one attempt or all; the likeliest first. More than one only where two
    attempts were prepared here, or where the answer to VM.create was lost."""
    found = _named(session, tags.vm_name(server), server)
    if attempt is not None:
        found = [vm for vm in found if vm.attempt == attempt]
    return sorted(found, key=lambda vm: (vm.halted, -vm.attempt, -vm.serial, not vm.record["VBDs"], vm.uuid))


def originals(session: Session, server: bytes) -> list[Vm]:
    """The VM that a resize keeps until it is confirmed or reverted."""
    return _named(session, tags.vm_name(server) + tags.ORIGINAL_SUFFIX, server)


def rescuers(session: Session, server: bytes) -> list[Vm]:
    """The VM that a rescue has started beside the server's own."""
    return _named(session, tags.vm_name(server) + tags.RESCUE_SUFFIX, server)


@telling("rename the server")
def rename(session: Session, server: bytes, name: str) -> None:
    """Show the host's administrators the name that the tenant gives the server. The name label is ours, not his: by it
    the VM is found."""
    for vm in every(session, server):
        if vm.record["name_description"] != name:
            session.call("VM.set_name_description", vm.ref, name)


def lost(session: Session, server: bytes) -> list[Vm]:
    """What is left of the server on a host that died, since it was made anew elsewhere."""
    return _named(session, tags.vm_name(server) + tags.LOST_SUFFIX, server)


def every(session: Session, server: bytes) -> list[Vm]:
    """Every VM of the server: the ones that can have its disks besides their own come first."""
    return [*rescuers(session, server), *current(session, server), *originals(session, server)]


def is_of(vm: Vm, owner: str) -> bool:
    """Whether a VM may be this API cell's: it names it as its owner, or none, or it is not asked by whom ("")."""
    return not owner or vm.tags.get(tags.OWNER, owner) == owner


def refuse_others(found: Iterable[Vm], owner: str) -> None:
    """BelongsToAnother if one of a server's VMs is another API cell's."""
    if not all(is_of(vm, owner) for vm in found):
        raise BelongsToAnother("the host has a server of this id that belongs to another API cell")


def the_one(session: Session, server: bytes, attempt: int | None = None) -> Vm:
    """The server's VM; Permanent when the pool has none."""
    found = current(session, server, attempt)
    if not found:
        raise Permanent("the server's virtual machine is not on its host any more")
    return found[0]


def _named(session: Session, name: str, server: bytes) -> list[Vm]:
    found = []
    for ref in session.call("VM.get_by_name_label", name):
        vm = read(session, ref)
        # An administrator's snapshot or template of the VM has its tags, too.
        if vm is None or vm.record["is_a_snapshot"] or vm.record["is_a_template"]:
            continue
        if vm.tags.get(tags.SERVER) == id_text(server):
            found.append(vm)
    return found
