"""From a build's words to records: sizes, guests, names, refusals."""

from dataclasses import replace
from typing import Any

import pytest

from cells.errors import Permanent
from cells.model import ImageRef
from cells.names import id_text
from tests.support.xen_hosts import LINUX, OTHER_SERVER, SERVER, TINY, a_spec
from xenapi_host import tags
from xenapi_host.facts import GIB, HostFacts
from xenapi_host.guests import host_name
from xenapi_host.plan import memory_needed_mib, plan_build

HOST = HostFacts(uuid="host-1", name="h", storage="sr-1", network="net-1")


def vm_of(**properties: str) -> dict[str, Any]:
    image = replace(LINUX, properties=properties)
    return dict(plan_build(a_spec(image=image), server=SERVER, attempt=1, host=HOST).vm)


def test_record_has_the_flavors_size_and_the_servers_tags() -> None:
    plan = plan_build(a_spec(), server=SERVER, attempt=3, host=HOST, serial=9)
    assert plan.vm["memory_static_max"] == plan.vm["memory_dynamic_min"] == str(512 * 2**20)
    assert plan.vm["VCPUs_max"] == plan.vm["VCPUs_at_startup"] == "1"
    assert plan.root_bytes == 2 * GIB
    assert plan.vm["name_label"] == f"celltree-{id_text(SERVER)}"
    assert plan.vm["other_config"] == {
        "celltree_server": id_text(SERVER),
        "celltree_attempt": "3",
        "celltree_serial": "9",
        "celltree_image": LINUX.id,
        "celltree_storage": "sr-1",
    }


def test_planning_again_gives_the_same_plan() -> None:
    first = plan_build(a_spec(), server=SERVER, attempt=1, host=HOST)
    assert plan_build(a_spec(), server=SERVER, attempt=1, host=HOST) == first


def test_mac_stays_with_the_server_and_is_local_and_unicast() -> None:
    mac = tags.mac(SERVER, 0)
    assert mac == tags.mac(SERVER, 0)
    assert len({mac, tags.mac(SERVER, 1), tags.mac(OTHER_SERVER, 0)}) == 3
    assert int(mac[:2], 16) & 3 == 2


def test_linux_is_fully_virtual_by_default() -> None:
    vm = vm_of()
    assert (vm["HVM_boot_policy"], vm["PV_bootloader"]) == ("BIOS order", "")
    assert vm["platform"]["viridian"] == "false"
    assert vm["platform"]["device-model"] == "qemu-upstream-compat"


def test_paravirtual_image_boots_by_pygrub() -> None:
    vm = vm_of(vm_mode="xen")
    assert (vm["HVM_boot_policy"], vm["PV_bootloader"]) == ("", "pygrub")
    assert "device-model" not in vm["platform"]


def test_windows_gets_viridian_and_a_short_name() -> None:
    image = replace(LINUX, properties={"os_type": "windows", "xenapi_device_id": "2"})
    vm = plan_build(a_spec(image=image, name="a-long-name-for-a-server"), server=SERVER, attempt=1, host=HOST).vm
    assert vm["platform"]["viridian"] == "true"
    assert vm["platform"]["device_id"] == "0002"
    assert vm["xenstore_data"]["vm-data/hostname"] == "a-long-name-for"


def test_firmware_follows_the_image() -> None:
    vm = vm_of(hw_firmware_type="uefi", os_secure_boot="required")
    assert vm["HVM_boot_params"] == {"order": "dc", "firmware": "uefi"}
    assert vm["platform"]["secureboot"] == "true"
    assert vm["platform"]["device-model"] == "qemu-upstream-uefi"


def test_metadata_reaches_xenstore_with_safe_keys() -> None:
    spec = replace(a_spec(), metadata={"role": "web", "a/b c": 'say "hi"'})
    data = plan_build(spec, server=SERVER, attempt=1, host=HOST).vm["xenstore_data"]
    assert data["vm-data/user-metadata/role"] == '"web"'
    assert data["vm-data/user-metadata/a_b_c"] == '"say \\"hi\\""'


def test_processor_shares_come_from_the_flavor() -> None:
    flavor = replace(TINY, extra_specs={"quota:vcpu_cap": "50", "quota:vcpu_mask": "1,2"})
    vm = plan_build(a_spec(flavor=flavor), server=SERVER, attempt=1, host=HOST).vm
    assert vm["VCPUs_params"] == {"weight": "256", "cap": "50", "mask": "1,2"}
    assert vm_of()["VCPUs_params"] == {}


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (replace(LINUX, disk_format="qcow2"), "qcow2"),
        (replace(LINUX, min_disk_gib=40), "40 GiB.*larger flavor"),
        (replace(LINUX, min_ram_mib=4096), "4096 MiB.*larger flavor"),
    ],
)
def test_image_that_cannot_be_built_is_refused_with_the_remedy(image: ImageRef, said: str) -> None:
    with pytest.raises(Permanent, match=said):
        plan_build(a_spec(image=image), server=SERVER, attempt=1, host=HOST)


@pytest.mark.parametrize(
    ("name", "os_type", "label"),
    [
        ("Web 1", "linux", "web-1"),
        ("___", "linux", "server"),
        ("x" * 80, "linux", "x" * 63),
        ("fourteen-chars-then", "windows", "fourteen-chars"),
    ],
)
def test_host_name_is_a_label(name: str, os_type: str, label: str) -> None:
    assert host_name(name, os_type) == label


def test_memory_counts_what_xen_needs() -> None:
    assert memory_needed_mib(TINY) == 512 + 9


def test_claim_tells_its_server_and_attempt() -> None:
    claim = tags.claim(SERVER, 1, 0)
    assert tags.claimed_by(claim, SERVER)
    assert not tags.claimed_by(claim, OTHER_SERVER)
    assert claim.startswith(tags.attempt_prefix(SERVER, 1))
    assert not tags.claim(SERVER, 11, 0).startswith(tags.attempt_prefix(SERVER, 1))
