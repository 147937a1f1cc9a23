"""What an administrator does to a server beyond OpenStack's words: shares of its host, snapshots that stay there."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.tenants import Tenant, a_tenant

SHARES = {"quota:vcpu_weight": "64", "quota:vcpu_cap": "50", "quota:disk_io_class": "idle"}


@pytest.fixture
def tenant(tmp_path: Path) -> Iterator[Tenant]:
    with a_tenant(tmp_path) as tenant:
        tenant.app.api = replace(tenant.app.api, pause=lambda seconds: tenant.tree.run(0.25))
        yield tenant


def _disks(tenant: Tenant, server: str) -> list[dict[str, Any]]:
    leaf = tenant.row(server).leaf
    session = tenant.tree.pools[leaf].login()
    return [session.call("VBD.get_record", ref) for ref in tenant.vm(server)["VBDs"]]


def test_shares_reach_the_host_show_in_the_flavor_and_stay_through_a_rebuild(tenant: Tenant) -> None:
    server = tenant.built("plain")
    assert tenant.act(server, "celltree-setShares", SHARES).status_code == 202
    tenant.tree.run(5)
    for _ in range(2):
        assert tenant.vm(server)["VCPUs_params"] == {"weight": "64", "cap": "50"}
        assert [(vbd["qos_algorithm_type"], vbd["qos_algorithm_params"]) for vbd in _disks(tenant, server)] == [
            ("ionice", {"sched": "idle"})
        ]
        shown = tenant.ask("GET", f"/servers/{server}").json["server"]["flavor"]["extra_specs"]
        assert {key: shown.get(key) for key in SHARES} == SHARES
        assert tenant.act(server, "rebuild", {"imageRef": tenant.images["plain"]}).status_code == 202
        tenant.tree.run(8)
    assert tenant.act(server, "celltree-setShares", {}).status_code == 202
    tenant.tree.run(5)
    assert tenant.vm(server)["VCPUs_params"] == {}
    assert [vbd["qos_algorithm_type"] for vbd in _disks(tenant, server)] == [""]


@pytest.mark.parametrize(
    "shares",
    [
        {"quota:vcpu_weight": "0"},
        {"quota:vcpu_weight": "65536"},
        {"quota:vcpu_cap": "101"},
        {"quota:vcpu_mask": "a"},
        {"quota:disk_io_class": "first"},
        {"quota:disk_io_priority": "8"},
        {"hw:cpu_cores": "1"},
    ],
    ids=lambda shares: "=".join(*shares.items()),
)
def test_shares_that_no_host_could_give_are_refused_at_once(tenant: Tenant, shares: dict[str, str]) -> None:
    server = tenant.built("plain")
    assert tenant.act(server, "celltree-setShares", shares).status_code == 400
    assert tenant.row(server).intents == ()


def test_flavor_brings_its_shares_to_the_disks(tenant: Tenant) -> None:
    specs = {"extra_specs": {"quota:disk_io_class": "best-effort", "quota:disk_io_priority": "7"}}
    assert tenant.ask("POST", "/flavors/1/os-extra_specs", specs).status_code == 200
    wrong = {"extra_specs": {"quota:disk_io_priority": "9"}}
    assert tenant.ask("POST", "/flavors/1/os-extra_specs", wrong).status_code == 400
    server = tenant.built("plain")
    (root,) = _disks(tenant, server)
    assert (root["qos_algorithm_type"], root["qos_algorithm_params"]) == (
        "ionice",
        {"sched": "best-effort", "class": "7"},
    )


def test_snapshot_is_kept_at_the_host_listed_and_dropped(tenant: Tenant) -> None:
    server = tenant.built("plain")
    path = f"/servers/{server}/celltree-host-snapshots"
    assert tenant.act(server, "celltree-createHostSnapshot", {"name": "before"}).status_code == 202
    tenant.tree.run(5)
    (kept,) = tenant.ask("GET", path).json["host_snapshots"]
    assert kept["name"] == "before"
    assert tenant.act(server, "celltree-deleteHostSnapshot", {"id": kept["id"]}).status_code == 202
    tenant.tree.run(5)
    assert tenant.ask("GET", path).json["host_snapshots"] == []
