"""A config drive: what a guest may read about itself without any network, in OpenStack's layout. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cells.model import BuildSpec
from cells.names import id_text
from xenapi_host import tags
from xenapi_host.guests import host_name, os_type
from xenapi_host.iso9660 import make_iso

LABEL = "config-2"
_VERSIONS = ("latest", "2013-10-17")


@dataclass(frozen=True, slots=True, kw_only=True)
class Personal:
    """What a tenant gave for the first start of one server: never logged, kept nowhere but on the config drive."""

    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    user_data: bytes = field(default=b"", repr=False)
    password: str = field(default="", repr=False)


def config_drive(spec: BuildSpec, server: bytes, personal: Personal) -> bytes:
    """An ISO 9660 image with the volume label that guests look for."""
    interface = {"id": "tap0", "type": "phy", "ethernet_mac_address": tags.mac(server, 0), "mtu": 1500}
    network = {
        "links": [interface],
        "networks": [{"id": "network0", "link": "tap0", "type": "ipv4_dhcp"}],
        "services": [],
    }
    metadata: dict[str, Any] = {
        "uuid": id_text(server),
        "name": spec.name,
        "hostname": host_name(spec.name, os_type(spec.image)),
        "launch_index": 0,
        "availability_zone": spec.zone,
        "project_id": spec.project,
        "meta": spec.metadata,
    }
    if spec.public_key:
        metadata["public_keys"] = {spec.key_name: spec.public_key}
        metadata["keys"] = [{"name": spec.key_name, "type": "ssh", "data": spec.public_key}]
    if personal.password:
        metadata["admin_pass"] = personal.password
    files = {}
    for number, (path, content) in enumerate(personal.files.items()):
        metadata.setdefault("files", []).append({"path": path, "content_path": f"/content/{number:04}"})
        files[f"openstack/content/{number:04}"] = content
    for version in _VERSIONS:
        files[f"openstack/{version}/meta_data.json"] = _text(metadata)
        files[f"openstack/{version}/network_data.json"] = _text(network)
        files[f"openstack/{version}/vendor_data.json"] = b"{}\n"
        if personal.user_data:
            files[f"openstack/{version}/user_data"] = personal.user_data
    return make_iso(LABEL, files)


def _text(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
