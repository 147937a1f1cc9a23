"""Rename, rebuild and rescue from REST to light hosts: what the host shows, what the guest's agent is told."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cells.names import id_from_text
from compute_cell.rows import InstanceRow
from tests.support.tenants import Tenant, a_tenant
from xenapi_host.driver import disks
from xenapi_host.driver.dom0 import PLUGIN as DISK_PLUGIN

SCRIPT = base64.b64encode(b"#!/bin/sh\n").decode()


@pytest.fixture
def tenant(tmp_path: Path) -> Iterator[Tenant]:
    with a_tenant(tmp_path) as tenant:
        yield tenant


def _password(tenant: Tenant, server: str) -> str | None:
    """What the agent of the server's VM that runs has been told."""
    leaf = tenant.row(server).leaf
    (running,) = [
        vm["uuid"] for vm in tenant.tree.vms(leaf) if server in vm["name_label"] and vm["power_state"] == "Running"
    ]
    return tenant.tree.guests[leaf].passwords.get(running)


def _config_drives(tenant: Tenant, server: str) -> list[str]:
    label = disks.label(id_from_text(server), "config")
    return [vdi["uuid"] for vdi in tenant.tree.objects(tenant.row(server).leaf, "VDI") if vdi["name_label"] == label]


def test_new_name_reaches_the_host_and_our_own_name_for_the_vm_stays(tenant: Tenant) -> None:
    server = tenant.built("plain")
    label = tenant.vm(server)["name_label"]
    answer = tenant.ask("PUT", f"/servers/{server}", {"server": {"name": "shop front"}})
    assert answer.json["server"]["name"] == "shop front"
    tenant.tree.run(5)
    vm = tenant.vm(server)
    assert (vm["name_label"], vm["name_description"]) == (label, "shop front")
    assert tenant.row(server).intents == ()
    (instance,) = tenant.tree.rows(tenant.row(server).leaf, InstanceRow)
    assert instance.spec.name == "shop front", "what makes the VM anew has it, too"


def test_rebuild_asks_the_agent_again(tenant: Tenant) -> None:
    server = tenant.built("plain")
    answer = tenant.act(server, "rebuild", {"imageRef": tenant.images["agent"], "adminPass": "s3cret"})
    assert answer.json["server"]["adminPass"] == "s3cret"
    tenant.tree.run(8)
    assert (tenant.row(server).status, _password(tenant, server)) == ("ACTIVE", "s3cret")
    made_up = tenant.act(server, "rebuild", {"imageRef": tenant.images["agent"]}).json["server"]["adminPass"]
    tenant.tree.run(8)
    assert _password(tenant, server) == made_up
    assert "adminPass" not in tenant.act(server, "rebuild", {"imageRef": tenant.images["plain"]}).json["server"]


def test_rebuild_keeps_the_config_drive_unless_it_is_given_what_goes_on_it(tenant: Tenant) -> None:
    server = tenant.built("plain", user_data=SCRIPT)
    written: list[str] = []
    pool = tenant.tree.pools[tenant.row(server).leaf]

    def write(call: Any, host: Any, args: dict[str, str]) -> str:
        written.append(args["params"])
        return json.dumps({"written": 0})

    pool.twin(DISK_PLUGIN, "write", write)
    (first,) = _config_drives(tenant, server)
    wish = {"imageRef": tenant.images["plain"]}
    for fields, writes in (({}, 0), ({"user_data": SCRIPT}, 1), ({"user_data": None}, 2)):
        assert tenant.act(server, "rebuild", {**wish, **fields}, "2.57").status_code == 202
        tenant.tree.run(8)
        assert tenant.row(server).status == "ACTIVE"
        (now,) = _config_drives(tenant, server)
        assert now != first
        assert len(written) == writes, "a drive that goes along is cloned, not written"
        first = now


def test_rebuild_gives_a_config_drive_to_a_server_that_had_none(tenant: Tenant) -> None:
    server = tenant.built("plain")
    assert _config_drives(tenant, server) == []
    files = [{"path": "/etc/motd", "contents": SCRIPT}]
    assert tenant.act(server, "rebuild", {"imageRef": tenant.images["plain"], "personality": files}).status_code == 202
    tenant.tree.run(8)
    assert tenant.row(server).status == "ACTIVE"
    assert len(_config_drives(tenant, server)) == 1
    assert tenant.row(server).spec.config_drive


def test_rescue_image_with_an_agent_is_given_a_password(tenant: Tenant) -> None:
    server = tenant.built("plain")
    body = {"rescue_image_ref": tenant.images["agent"], "adminPass": "s3cret"}
    assert tenant.act(server, "rescue", body).json == {"adminPass": "s3cret"}
    tenant.tree.run(8)
    assert (tenant.row(server).status, _password(tenant, server)) == ("RESCUE", "s3cret")
    tenant.act(server, "unrescue")
    tenant.tree.run(8)
    made_up = tenant.act(server, "rescue", {"rescue_image_ref": tenant.images["agent"]}).json["adminPass"]
    tenant.tree.run(8)
    assert (len(made_up), _password(tenant, server)) == (12, made_up)


def test_rescue_image_without_an_agent_is_given_none(tenant: Tenant) -> None:
    server = tenant.built("plain")
    refused = tenant.act(server, "rescue", {"adminPass": "s3cret"})
    assert (refused.status_code, "no guest agent" in refused.text) == (400, True)
    assert tenant.act(server, "rescue").json == {"adminPass": ""}
    tenant.tree.run(8)
    assert (tenant.row(server).status, _password(tenant, server)) == ("RESCUE", None)
