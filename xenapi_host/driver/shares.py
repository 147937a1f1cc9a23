"""A server's shares of its host, changed while it lives: its processors' weight, cap and mask, its disks' class.

XAPI keeps both in the records and gives them to Xen when the VM starts: nothing of it moves a running domain
(`VM.add_to_VCPUs_params_live` answers NOT_IMPLEMENTED, XAPI ocaml/xapi/xapi_vm.ml).
"""

from collections.abc import Mapping

from xenapi_host.driver import vms
from xenapi_host.driver.disks import SHARES, claimed_is_fine
from xenapi_host.driver.errors import telling
from xenapi_host.driver.vms import Vm
from xenapi_host.session import NULL, Session


@telling("change the server's shares")
def set_shares(session: Session, server: bytes, vcpus: Mapping[str, str], disks: Mapping[str, str]) -> None:
    """Let the server have these VCPUs_params (guests.vcpu_params) and, for each of its disks, these parameters
    (guests.disk_shares), from its next start on."""
    vm = vms.the_one(session, server)
    _set_vcpus(session, vm, vcpus)
    for ref in vm.record["VBDs"]:
        vbd = vms.record_of(session, "VBD", ref)
        if vbd is None or vbd["VDI"] == NULL:
            continue
        kind = SHARES if disks else ""
        if vbd["qos_algorithm_type"] != kind:
            session.call("VBD.set_qos_algorithm_type", ref, kind)
        if vbd["qos_algorithm_params"] != dict(disks):
            session.call("VBD.set_qos_algorithm_params", ref, dict(disks))


def _set_vcpus(session: Session, vm: Vm, wanted: Mapping[str, str]) -> None:
    had: Mapping[str, str] = vm.record["VCPUs_params"]
    for key, value in had.items():
        if wanted.get(key) != value:
            session.call("VM.remove_from_VCPUs_params", vm.ref, key)
    for key, value in wanted.items():
        if had.get(key) != value:
            with claimed_is_fine():
                session.call("VM.add_to_VCPUs_params", vm.ref, key, value)
