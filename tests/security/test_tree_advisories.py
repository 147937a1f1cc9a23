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
    """Also OSSA-2017-002: connection data and credentials in the error texts of Xen's storage."""
    caplog.set_level("DEBUG")
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
    ("action", "moment"), [("resize", 0.25), ("resize", 1), ("createImage", 0.25), ("createImage", 1), ("rebuild", 0.5)]
)
def test_ossa_2015_017_a_delete_during_anything_leaves_no_vm_no_disk_and_no_usage(
    tenant: Tenant, action: str, moment: float
) -> None:
    """Also OSSA-2015-015, OSSA-2016-011, OSSA-2014-037."""
    argument = {
        "resize": {"flavorRef": "2"},
        "createImage": {"name": "snap"},
        "rebuild": {"imageRef": tenant.images["plain"]},
    }[action]
    server = tenant.built()
    assert _vms(tenant) and _disks(tenant)
    assert tenant.act(server, action, argument).status_code == 202
    tenant.tree.run(moment)
    assert tenant.ask("DELETE", f"/servers/{server}").status_code == 204
    tenant.tree.run(60)
    assert tenant.ask("GET", f"/servers/{server}").status_code == 404
    absolute = tenant.ask("GET", "/limits").json["limits"]["absolute"]
    assert (absolute["totalInstancesUsed"], absolute["totalRAMUsed"]) == (0, 0)
    assert _vms(tenant) == []
    assert _disks(tenant) == []
    validate_quiet(tenant.tree)


def test_ossa_2013_030_a_server_keeps_what_protects_it_when_it_is_resized(tenant: Tenant) -> None:
    """The interface's lock and the limits of the old VM are those of the new one."""
    server = tenant.built()
    before = tenant.vm(server)
    assert tenant.act(server, "resize", {"flavorRef": "2"}).status_code == 202
    tenant.tree.run(20)
    assert tenant.act(server, "confirmResize").status_code == 204
    tenant.tree.run(20)
    after = tenant.vm(server)
    kept = ("platform", "blocked_operations", "actions_after_crash", "actions_after_reboot", "actions_after_shutdown")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert len(after["VIFs"]) == len(before["VIFs"])


@pytest.mark.parametrize("key", ["other_config", "vm-data/../x", "..", "a b:c-d"])
def test_ghsa_fg38_pgj3_5w5f_metadata_of_a_tenant_touches_none_of_xapis_own_keys(tenant: Tenant, key: str) -> None:
    """What a tenant names goes below vm-data/user-metadata of xenstore, and nowhere else of the VM's record."""
    body = {"server": {"name": "web", "imageRef": tenant.images["plain"], "flavorRef": "1", "networks": "none"}}
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
    """Also OSSA-2011-001: what lies in the folder is named by ids alone."""
    with a_tenant(tmp_path) as tenant:
        names = os.listdir(tmp_path)
        assert all(re.fullmatch(r"[0-9a-f-]{36}\.(img|data|upload\.lock)|records\.lock", name) for name in names), names
        assert tenant.tree.rows("dfw-1", InstanceRow) == ()
