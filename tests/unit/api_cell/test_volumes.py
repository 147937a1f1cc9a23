"""Volumes from REST through the tree to light hosts: whose they are, where they show, and that they outlive servers."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.tenants import Tenant, a_tenant
from xenapi_host import tags

PROJECT = "local"


@pytest.fixture
def tenant(tmp_path: Path) -> Iterator[Tenant]:
    with a_tenant(tmp_path) as tenant:
        # Who waits for an answer lets time pass.
        tenant.app.api = replace(tenant.app.api, pause=lambda seconds: tenant.tree.run(0.25))
        yield tenant


def a_volume(tenant: Tenant, server: str, project: str = PROJECT, **fields: Any) -> str:
    """A disk that the administrator of the server's pool has made for a project; its uuid."""
    session = tenant.tree.pools[tenant.row(server).leaf].login()
    (vbd,) = session.call("VM.get_VBDs", session.call("VM.get_by_uuid", tenant.vm(server)["uuid"]))
    record = {
        "name_label": "data",
        "name_description": "",
        "SR": session.call("VDI.get_SR", session.call("VBD.get_VDI", vbd)),
        "virtual_size": str(2**30),
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {tags.PROJECT: project} if project else {},
    }
    return str(session.call("VDI.get_uuid", session.call("VDI.create", {**record, **fields})))


def attach(tenant: Tenant, server: str, volume: str, **fields: Any) -> Any:
    body = {"volumeAttachment": {"volumeId": volume, **fields}}
    return tenant.ask("POST", f"/servers/{server}/os-volume_attachments", body)


def listed(tenant: Tenant, server: str) -> list[tuple[str, str]]:
    found = tenant.ask("GET", f"/servers/{server}/os-volume_attachments").json["volumeAttachments"]
    return [(each["volumeId"], each["device"]) for each in found]


def on_host(tenant: Tenant, server: str) -> dict[str, str]:
    """Device -> the uuid of the volume there, for those that the running guest sees."""
    leaf = tenant.row(server).leaf
    vbds = {vbd["uuid"]: vbd for vbd in tenant.tree.objects(leaf, "VBD")}
    session = tenant.tree.pools[leaf].login()
    seen = {}
    for ref in tenant.vm(server)["VBDs"]:
        vbd = vbds[session.call("VBD.get_uuid", ref)]
        if vbd["other_config"].get(tags.VOLUME) and vbd["currently_attached"]:
            seen[vbd["device"]] = vbd["other_config"][tags.VOLUME]
    return seen


def test_volume_is_attached_shown_detached_and_outlives_its_server(tenant: Tenant) -> None:
    server = tenant.built("plain")
    first, second = a_volume(tenant, server), a_volume(tenant, server)
    made = attach(tenant, server, first)
    assert made.status_code == 200, made.text
    assert made.json["volumeAttachment"] == {
        "id": first,
        "volumeId": first,
        "serverId": server,
        "device": "/dev/xvdi",
    }
    assert attach(tenant, server, second, device="/dev/xvdk").status_code == 200
    assert listed(tenant, server) == [(first, "/dev/xvdi"), (second, "/dev/xvdk")]
    tenant.tree.run(5)
    assert on_host(tenant, server) == {"xvdi": first, "xvdk": second}
    assert listed(tenant, server) == [(first, "/dev/xvdi"), (second, "/dev/xvdk")]
    view = tenant.ask("GET", f"/servers/{server}").json["server"]["os-extended-volumes:volumes_attached"]
    assert view == [{"id": volume, "delete_on_termination": False} for volume in (first, second)]
    oldest = tenant.ask("GET", f"/servers/{server}", version="2.1").json["server"]
    assert oldest["os-extended-volumes:volumes_attached"] == [{"id": first}, {"id": second}]
    one = f"/servers/{server}/os-volume_attachments/{first}"
    assert tenant.ask("GET", one).json["volumeAttachment"]["device"] == "/dev/xvdi"
    assert tenant.ask("DELETE", one).status_code == 202
    tenant.tree.run(5)
    assert on_host(tenant, server) == {"xvdk": second}
    assert tenant.ask("GET", one).status_code == 404
    assert tenant.ask("DELETE", one).status_code == 404
    leaf = tenant.row(server).leaf
    assert tenant.ask("DELETE", f"/servers/{server}").status_code == 204
    tenant.tree.run(5)
    assert [vm for vm in tenant.tree.vms(leaf) if server in vm["name_label"]] == []
    left = {vdi["uuid"]: vdi["VBDs"] for vdi in tenant.tree.objects(leaf, "VDI") if tags.PROJECT in vdi["other_config"]}
    assert left == {first: [], second: []}


@pytest.mark.parametrize(
    "fields",
    [{"project": "another"}, {"project": ""}, {"type": "suspend"}, {"other_config": {tags.CLAIM: "a b c"}}],
    ids=["another project's", "nobody's", "not data", "a server's own"],
)
def test_only_a_volume_of_the_project_is_found(tenant: Tenant, fields: dict[str, Any]) -> None:
    server = tenant.built("plain")
    volume = a_volume(tenant, server, **fields)
    answer = attach(tenant, server, volume)
    assert (answer.status_code, answer.json) == (
        404,
        {"itemNotFound": {"code": 404, "message": f"Volume {volume} could not be found."}},
    )
    tenant.tree.run(3)
    assert on_host(tenant, server) == {}


def test_what_cannot_be_is_refused_at_once(tenant: Tenant) -> None:
    server = tenant.built("plain")
    volume, other = a_volume(tenant, server), a_volume(tenant, server)
    for device in ("/dev/xvda", "/dev/xvdb", "/dev/sda", "/dev/xvdz", "x"):
        assert attach(tenant, server, volume, device=device).status_code == 400
    assert attach(tenant, server, "no-uuid").status_code == 400
    assert attach(tenant, server, volume, tag="db").status_code == 400
    assert attach(tenant, server, volume).status_code == 200
    assert attach(tenant, server, volume).status_code == 400, "it is attached"
    assert attach(tenant, server, other, device="/dev/xvdi").status_code == 400, "the device is taken"
    tenant.tree.run(5)
    path = f"/servers/{server}/os-volume_attachments/{volume}"
    assert tenant.ask("DELETE", path).status_code == 202
    assert tenant.ask("DELETE", path).status_code == 409
    assert tenant.ask("GET", f"/servers/{server}/os-volume_attachments/x").status_code == 404


def test_volumes_go_along_with_a_resize_and_a_rebuild(tenant: Tenant) -> None:
    server = tenant.built("plain")
    volume = a_volume(tenant, server)
    attach(tenant, server, volume)
    tenant.tree.run(5)
    assert tenant.act(server, "rebuild", {"imageRef": tenant.images["agent"]}).status_code == 202
    tenant.tree.run(8)
    assert (tenant.row(server).status, on_host(tenant, server)) == ("ACTIVE", {"xvdi": volume})
    tenant.act(server, "os-stop")
    tenant.tree.run(5)
    assert (tenant.row(server).status, listed(tenant, server)) == ("SHUTOFF", [(volume, "/dev/xvdi")])
    tenant.act(server, "os-start")
    tenant.tree.run(5)
    assert on_host(tenant, server) == {"xvdi": volume}
