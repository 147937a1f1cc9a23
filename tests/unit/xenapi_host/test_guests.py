"""What follows for a VM from the guest that its image holds, its disks, and the images it cannot be built from."""

import io
from dataclasses import replace
from typing import Any

import pycdlib
import pytest

from cells.errors import Permanent
from cells.model import Flavor, ImageRef
from tests.support.xen_hosts import LINUX, SERVER, TINY, a_spec
from xenapi_host import guests
from xenapi_host.facts import GIB, MIB, HostFacts
from xenapi_host.iso9660 import make_iso
from xenapi_host.plan import BuildPlan, ephemeral_sizes, plan_build, plan_rescue

HOST = HostFacts(uuid="host-1", name="h", storage="sr-1", network="net-1")
EXTRA = Flavor(id="x", name="x", vcpus=2, ram_mib=512, disk_gib=2, ephemeral_gib=3, swap_mib=256)


def image(**properties: str) -> ImageRef:
    return replace(LINUX, properties=properties)


def plan(of: ImageRef = LINUX, flavor: Flavor = TINY, **more: Any) -> BuildPlan:
    spec = replace(a_spec(image=of, flavor=flavor), **more)
    return plan_build(spec, server=SERVER, attempt=1, host=HOST)


@pytest.mark.parametrize(
    ("properties", "kind"),
    [
        ({}, "linux"),
        ({"os_type": "Windows"}, "windows"),
        ({"os_type": "freebsd"}, "freebsd"),
        ({"os_distro": "freebsd"}, "freebsd"),
        ({"os_distro": "windows", "os_type": ""}, "windows"),
        ({"os_type": "plan9"}, "linux"),
    ],
)
def test_guest_is_told_by_the_images_properties(properties: dict[str, str], kind: str) -> None:
    assert guests.os_type(image(**properties)) == kind


def test_disks_stand_where_openstack_puts_them() -> None:
    made = plan(flavor=EXTRA, config_drive=True)
    found = [(disk.name, disk.device, disk.kind) for disk in made.disks]
    assert found == [("swap", 2, "swap"), ("config", 3, ""), ("ephemeral0", 4, "ext3")]
    assert [disk.size for disk in made.disks] == [256 * MIB, 2 * MIB, 3 * GIB]
    assert made.vm["other_config"]["celltree_disks"] == "swap config ephemeral0"


@pytest.mark.parametrize("kind", ["windows", "freebsd"])
def test_guests_that_format_disks_themselves_get_blank_ones(kind: str) -> None:
    assert {disk.kind for disk in plan(image(os_type=kind), EXTRA).disks} == {""}


@pytest.mark.parametrize(
    ("total", "sizes"),
    [(0, []), (10, [10]), (2048, [1024, 1024]), (2000, [2000]), (4100, [2000, 2000, 100])],
)
def test_ephemeral_room_is_cut_into_disks_a_vhd_can_be(total: int, sizes: list[int]) -> None:
    assert ephemeral_sizes(total) == tuple(size * GIB for size in sizes)


def test_rescue_vm_has_a_name_of_its_own_and_no_other_disks() -> None:
    spec = replace(a_spec(flavor=EXTRA), config_drive=True, auto_disk_config=True)
    made = plan_rescue(spec, server=SERVER, attempt=1, host=HOST, serial=4)
    assert made.vm["name_label"] == made.name == plan().name + "-rescue"
    assert (made.disks, made.root_bytes, made.auto_disk_config) == ((), 0, False)
    assert "celltree_disks" not in made.vm["other_config"]


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ({"quota:vcpu_weight": "0"}, "vcpu_weight"),
        ({"quota:vcpu_weight": "heavy"}, "vcpu_weight"),
        ({"quota:vcpu_cap": "300"}, "vcpu_cap"),
        ({"quota:vcpu_mask": "0-3"}, "vcpu_mask"),
    ],
)
def test_share_of_processors_that_xen_would_not_take_is_refused(specs: dict[str, str], words: str) -> None:
    with pytest.raises(Permanent, match=words):
        plan(flavor=replace(EXTRA, extra_specs=specs))


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (replace(LINUX, disk_format="iso"), "ISO image"),
        (replace(LINUX, disk_format="qcow2"), "qemu-img"),
        (image(kernel_id="k"), "whole disks"),
        (image(os_type="windows", vm_mode="xen"), "hvm"),
        (image(os_time_offset="late"), "number of seconds"),
    ],
)
def test_image_that_cannot_be_built_from_is_refused_with_a_remedy(of: ImageRef, words: str) -> None:
    with pytest.raises(Permanent, match=words):
        plan(of)


def test_iso_of_many_files_reads_back_by_both_kinds_of_names() -> None:
    files = {f"folder-{n % 7}/sub/file_{n}.json": bytes([n % 256]) * (n * 37) for n in range(120)}
    data = make_iso("config-2", files)
    assert data == make_iso("config-2", files)
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(data))
    for path, content in files.items():
        plain = "/" + path.upper().replace("-", "_") + ";1"
        for where in ({"joliet_path": f"/{path}"}, {"iso_path": plain}):
            read = io.BytesIO()
            iso.get_file_from_iso_fp(read, **where)
            assert read.getvalue() == content, where
    iso.close()
