"""What has gone wrong below the front doors of OpenStack, tried over the whole embedded tree; each test is named by its
advisory."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cells.rows import StoryRow
from compute_cell.rows import InstanceRow
from tests.support.invariants import validate_quiet
from tests.support.tenants import Tenant, a_tenant
from xenapi_host import tags
from xenapi_host.simulator.failure import Failure

CANARY = "Canary-51f0"


@pytest.fixture
def tenant(tmp_path: Path) -> Iterator[Tenant]:
    with a_tenant(tmp_path) as tenant:
        yield tenant


def _strike_always(tenant: Tenant, method: str, *error: str) -> None:
    """Every call of this method at every leaf fails so."""

    def fail() -> None:
        strike()
        raise Failure(*error)

    def strike() -> None:
        for leaf in tenant.tree.pools:
            tenant.tree.steps[leaf].strike(fail, before=method)

    strike()


def _vms(tenant: Tenant) -> list[dict[str, Any]]:
    return [vm for leaf in tenant.tree.pools for vm in tenant.tree.vms(leaf)]


def _disks(tenant: Tenant) -> list[str]:
    """Every disk at a leaf that a server has claimed."""
    found = [vdi for leaf in tenant.tree.pools for vdi in tenant.tree.objects(leaf, "VDI")]
    return [vdi["name_label"] for vdi in found if tags.CLAIM in vdi["other_config"]]


@pytest.mark.parametrize("method", ["Async.VM.start_on", "VDI.clone"])
def test_ossa_2016_002_what_storage_says_in_an_error_reaches_neither_tenant_nor_log(
    tenant: Tenant, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Connection data and credentials in the error texts of Xen's storage."""
    caplog.set_level("DEBUG")
    caplog.set_level("DEBUG", logger="celltree")
    text = f"mount error(13): //filer/vol -o username=root,password={CANARY}"
    _strike_always(tenant, method, "SR_BACKEND_FAILURE_73", "", text, f"opterr={CANARY}")
    server = tenant.create()["id"]
    tenant.tree.run(60)
    shown = tenant.ask("GET", f"/servers/{server}").text
    told = [line for cell in tenant.tree.house.cells for line in tenant.tree.rows(cell, StoryRow)]
    assert "SR_BACKEND_FAILURE_73" in shown + caplog.text + repr(told)
    assert CANARY not in shown
    assert CANARY not in caplog.text
    assert CANARY not in repr(told)


@pytest.mark.parametrize(
    ("action", "moment"),
    [
        pytest.param("resize", 0.25, id="ossa_2015_017-resize begins"),
        pytest.param("resize", 1, id="ossa_2014_037-resize is under way"),
        pytest.param("resize", 20, id="ossa_2016_011-resize waits for a confirm"),
        pytest.param("migrate", 0.5, id="ossa_2015_015-migrate"),
        pytest.param("migrate live", 0.5, id="ossa_2015_015-migrate live"),
        pytest.param("createImage", 0.25, id="ossa_2015_017-snapshot begins"),
        pytest.param("createImage", 1, id="ossa_2015_017-snapshot is under way"),
        pytest.param("rescue", 0.5, id="ossa_2014_037-rescue is under way"),
        pytest.param("rescue", 20, id="ossa_2014_037-rescued"),
        pytest.param("rebuild", 0.5, id="ossa_2015_017-rebuild"),
    ],
)
def test_ossa_2015_017_a_delete_during_anything_leaves_no_vm_no_disk_and_no_usage(
    tenant: Tenant, action: str, moment: float
) -> None:
    arguments: dict[str, Any] = {
        "resize": {"flavorRef": "2"},
        "migrate": None,
        "migrate live": {"host": None, "block_migration": "auto"},
        "createImage": {"name": "snap"},
        "rescue": {"rescue_image_ref": tenant.images["plain"]},
        "rebuild": {"imageRef": tenant.images["plain"]},
    }
    server = tenant.built()
    assert _vms(tenant) and _disks(tenant)
    told = tenant.act(server, "os-migrateLive" if action == "migrate live" else action, arguments[action])
    assert told.status_code in (200, 202), told.text
    tenant.tree.run(moment)
    assert tenant.ask("DELETE", f"/servers/{server}").status_code == 204
    tenant.tree.run_until_quiet(60)
    assert tenant.ask("GET", f"/servers/{server}").status_code == 404
    absolute = tenant.ask("GET", "/limits").json["limits"]["absolute"]
    assert (absolute["totalInstancesUsed"], absolute["totalRAMUsed"]) == (0, 0)
    assert _vms(tenant) == []
    assert _disks(tenant) == []
    validate_quiet(tenant.tree)


_KEPT = (
    *("platform", "actions_after_crash", "actions_after_reboot", "actions_after_shutdown", "VCPUs_params"),
    *("HVM_boot_policy", "HVM_boot_params", "blocked_operations"),
)
_GUARDED = ("MAC", "network", "device", "locking_mode", "ipv4_allowed", "ipv6_allowed", "MTU")
_RATES = ("qos_algorithm_type", "qos_algorithm_params")
_LIMITED = {"quota:vcpu_weight": "300", "quota:vcpu_cap": "50", "quota:disk_io_class": "best-effort"}


def _protection(tenant: Tenant, server: str, vm: dict[str, Any]) -> dict[str, Any]:
    """What bounds a VM: itself, its interfaces, its disks."""
    session = tenant.tree.pools[tenant.row(server).leaf].login()
    vifs = [session.call("VIF.get_record", ref) for ref in vm["VIFs"]]
    vbds = [session.call("VBD.get_record", ref) for ref in vm["VBDs"]]
    session.close()
    return {
        "vm": {name: vm[name] for name in _KEPT},
        "interfaces": [{name: vif[name] for name in (*_GUARDED, *_RATES)} for vif in vifs],
        "root disk": [{name: vbd[name] for name in (*_RATES, "mode")} for vbd in vbds if vbd["userdevice"] == "0"],
    }


def _guard(tenant: Tenant, server: str) -> None:
    """As an operator does it at the pool: the server may use two addresses, and send so much."""
    session = tenant.tree.pools[tenant.row(server).leaf].login()
    for ref in tenant.vm(server)["VIFs"]:
        session.call("VIF.set_locking_mode", ref, "locked")
        session.call("VIF.set_ipv4_allowed", ref, ["192.0.2.7"])
        session.call("VIF.set_ipv6_allowed", ref, ["2001:db8::7"])
        session.call("VIF.set_qos_algorithm_type", ref, "ratelimit")
        session.call("VIF.set_qos_algorithm_params", ref, {"kbps": "3000"})
    session.close()


@pytest.mark.parametrize("way", ["confirm", "revert", "migrate", "migrate live", "rescue", "unrescue", "rebuild"])
def test_ossa_2013_030_a_server_keeps_what_protects_others_from_it(tenant: Tenant, way: str) -> None:
    """Whatever VM stands for it: the addresses its interface may use, its rates, its share of processors and disks."""
    for flavor in ("1", "2"):
        answer = tenant.ask("POST", f"/flavors/{flavor}/os-extra_specs", {"extra_specs": _LIMITED})
        assert answer.status_code == 200, answer.text
    server = tenant.built()
    _guard(tenant, server)
    before = tenant.vm(server)
    had = _protection(tenant, server, before)
    assert had["interfaces"][0]["locking_mode"] == "locked" and had["interfaces"][0]["qos_algorithm_params"]
    assert had["root disk"][0]["qos_algorithm_type"] == "ionice" and had["vm"]["VCPUs_params"]["weight"] == "300"
    image = tenant.images["agent"]
    ways: dict[str, list[tuple[str, Any, int]]] = {
        "confirm": [("resize", {"flavorRef": "2"}, 202), ("confirmResize", None, 204)],
        "revert": [("resize", {"flavorRef": "2"}, 202), ("revertResize", None, 202)],
        "migrate": [("migrate", None, 202), ("confirmResize", None, 204)],
        "migrate live": [("os-migrateLive", {"host": None, "block_migration": "auto"}, 202)],
        "rescue": [("rescue", {"rescue_image_ref": image}, 200)],
        "unrescue": [("rescue", {"rescue_image_ref": image}, 200), ("unrescue", None, 202)],
        "rebuild": [("rebuild", {"imageRef": image}, 202)],
    }
    for action, argument, wanted in ways[way]:
        answer = tenant.act(server, action, argument)
        assert answer.status_code == wanted, answer.text
        tenant.tree.run(20)
    # A rescue has two VMs: the server's own is off and may not start meanwhile.
    (after,) = [vm for vm in _vms(tenant) if vm["power_state"] == "Running"]
    if way == "migrate live":
        assert after["resident_on"] != before["resident_on"]
    elif way not in ("revert", "unrescue"):
        assert after["uuid"] != before["uuid"]
    assert _protection(tenant, server, after) == had
    assert tenant.row(server).status == ("RESCUE" if way == "rescue" else "ACTIVE")


@pytest.mark.parametrize("key", ["other_config", "vm-data/../x", "..", "a b:c-d"])
def test_ghsa_fg38_pgj3_5w5f_metadata_of_a_tenant_touches_none_of_xapis_own_keys(tenant: Tenant, key: str) -> None:
    """What a tenant names goes below vm-data/user-metadata of xenstore, and nowhere else of the VM's record."""
    body: dict[str, Any] = {
        "server": {"name": "web", "imageRef": tenant.images["plain"], "flavorRef": "1", "networks": "none"}
    }
    plain = str(tenant.ask("POST", "/servers", body).json["server"]["id"])
    body["server"]["metadata"] = {key: "owned"}
    answer = tenant.ask("POST", "/servers", body)
    if answer.status_code == 400:
        assert "metadata" in answer.text
        return
    tenant.tree.run(15)
    named, other = tenant.vm(str(answer.json["server"]["id"])), tenant.vm(plain)
    for field in ("platform", "HVM_boot_params", "blocked_operations", "VCPUs_params", "xenstore_data"):
        ours = {name: value for name, value in named[field].items() if not name.startswith("vm-data/user-metadata/")}
        assert set(ours) == set(other[field]), field
    assert set(named["other_config"]) == set(other["other_config"])
    paths = [name for name in named["xenstore_data"] if "user-metadata" in name]
    assert all(re.fullmatch(r"vm-data/user-metadata/[A-Za-z0-9_@-]+", path) for path in paths), paths


def test_ghsa_fg38_pgj3_5w5f_no_metadata_is_ever_restored_from_a_disk() -> None:
    root = Path(__file__).parents[2] / "xenapi_host"
    calls = re.compile(r"\"(?:Async\.)?(VDI\.open_database|VM\.import|VM\.recover|SR\.assert_\w+recover|VDI\.read_\w+)")
    ours = [path for path in root.rglob("*.py") if "simulator" not in path.parts]
    assert ours
    assert not [path for path in ours if calls.search(path.read_text(encoding="utf-8"))]


def test_ossa_2014_001_the_image_folder_and_its_parts_are_nobody_elses(tmp_path: Path) -> None:
    """What lies in the folder is named by ids alone."""
    with a_tenant(tmp_path) as tenant:
        names = os.listdir(tmp_path)
        assert all(re.fullmatch(r"[0-9a-f-]{36}\.(img|data|upload\.lock)|records\.lock", name) for name in names), names
        assert tenant.tree.rows("dfw-1", InstanceRow) == ()
