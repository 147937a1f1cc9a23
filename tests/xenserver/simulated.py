"""Builders for tests of the simulator: records a client would send, a pool on HTTP, calls over the real SDK."""

from contextlib import contextmanager

import XenAPI

from cells.model import Flavor
from xenapi_host.session import Access, connect
from xenapi_host.simulator.full import FullPool
from xenapi_host.simulator.worlds import HostShape, demo_pool

MIB = 2**20
TINY = Flavor(id="1", name="m1.tiny", vcpus=1, ram_mib=512, disk_gib=1)  # its disk is real: a GiB is enough


def a_vm(**fields):
    return {
        "name_label": "vm",
        "name_description": "",
        "user_version": "0",
        "is_a_template": False,
        "affinity": "",
        "memory_static_max": str(512 * MIB),
        "memory_dynamic_max": str(512 * MIB),
        "memory_dynamic_min": str(512 * MIB),
        "memory_static_min": "0",
        "VCPUs_max": "2",
        "VCPUs_at_startup": "2",
        "VCPUs_params": {},
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "destroy",
        "PV_bootloader": "",
        "PV_kernel": "",
        "PV_ramdisk": "",
        "PV_args": "",
        "PV_bootloader_args": "",
        "PV_legacy_args": "",
        "PCI_bus": "",
        "HVM_boot_policy": "BIOS order",
        "HVM_boot_params": {"order": "dc"},
        "platform": {},
        "recommendations": "",
        "other_config": {},
        **fields,
    }


def a_disk(sr, size=16 * MIB, **fields):
    plain = {"name_label": "disk", "name_description": "", "type": "user", "sharable": False, "read_only": False}
    return {**plain, "SR": sr, "virtual_size": str(size), "other_config": {}, **fields}


def a_vbd(vm, vdi, **fields):
    plain = {"userdevice": "0", "bootable": True, "mode": "RW", "type": "Disk", "empty": False, "other_config": {}}
    return {**plain, "VM": vm, "VDI": vdi, "qos_algorithm_type": "", "qos_algorithm_params": {}, **fields}


def a_vif(vm, network, **fields):
    plain = {"device": "0", "MAC": "", "MTU": "1500", "other_config": {}, "qos_algorithm_type": ""}
    return {**plain, "VM": vm, "network": network, "qos_algorithm_params": {}, **fields}


@contextmanager
def a_pool(folder, *, hosts=1, shape=None, **options):
    pool = FullPool(folder, lambda engine: demo_pool(engine, hosts=hosts, shape=shape or HostShape()), **options)
    pool.start()
    try:
        yield pool
    finally:
        pool.stop()


def connected(pool):
    """A session of the driver's on a pool over HTTP."""
    return connect(Access(url=pool.url, user="root", password="xen"))


@contextmanager
def logged_in(pool):
    """The SDK's session on a pool over HTTP."""
    session = XenAPI.Session(pool.url)
    session.login_with_password("root", "xen", "2.21", "test")
    try:
        yield session
    finally:
        session.logout()
        session("close")()


def failure_of(call, *params):
    """The error a call is refused with; the call must be refused."""
    try:
        call(*params)
    except Exception as error:
        return error.details
    raise AssertionError("the call was not refused")
