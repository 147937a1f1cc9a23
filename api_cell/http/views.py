"""Rows as OpenStack shows them, by microversion. Pure: a row, who looks, and this API's URL in; plain data out."""

import hashlib
from typing import Any
from urllib.parse import urlencode

from api_cell.images import Image
from api_cell.rows import FlavorRow, KeyPairRow, QuotaRow, ServerRow, UsageRow
from api_cell.service.api import Caller
from api_cell.service.secrets import LONGEST_FILE, LONGEST_PATH, MOST_FILES
from api_cell.service.story import action_of
from api_cell.service.usage import Period, ServerUsage
from api_cell.status import POWER_STATE, fault_of, flavor_of
from api_cell.volumes import volumes_of
from cells.model import Flavor, Volume
from cells.names import Instant, id_text, iso
from cells.rows import StoryRow

_HAS_PROGRESS = ("ACTIVE", "BUILD", "REBUILD", "RESIZE", "VERIFY_RESIZE", "MIGRATING")


def links(base: str, path: str) -> list[dict[str, str]]:
    return [
        {"rel": "self", "href": f"{base}/v2.1/{path}"},
        {"rel": "bookmark", "href": f"{base}/{path}"},
    ]


def next_link(base: str, path: str, pairs: list[tuple[str, str]], marker: str) -> list[dict[str, str]]:
    """Where the next page is: the same question with another marker."""
    query = urlencode([pair for pair in pairs if pair[0] != "marker"] + [("marker", marker)])
    return [{"rel": "next", "href": f"{base}{path}?{query}"}]


# --- servers ---


def server_name(row: ServerRow, base: str) -> dict[str, Any]:
    """A server in the short list."""
    server = id_text(row.id)
    return {"id": server, "name": row.name, "links": links(base, f"servers/{server}")}


def server(row: ServerRow, caller: Caller, version: int, base: str, zone: str) -> dict[str, Any]:
    """A server whole. `zone` is the zone of servers that were not built for another."""
    identity = id_text(row.id)
    state = row.state
    host = state.host if state is not None else ""
    flavor = flavor_of(row)
    image = row.spec.image.id
    view: dict[str, Any] = {
        "id": identity,
        "name": row.name,
        "status": row.status,
        "tenant_id": row.project,
        "user_id": row.user,
        "metadata": row.spec.metadata,
        "hostId": hashlib.sha224(f"{row.project}{row.leaf}/{host}".encode()).hexdigest() if host else "",
        "image": {"id": image, "links": [{"rel": "bookmark", "href": f"{base}/images/{image}"}]} if image else "",
        "flavor": _flavor_of_server(flavor, version, base),
        "created": iso(row.created),
        "updated": iso(row.updated),
        "addresses": {},
        "accessIPv4": row.access_ipv4,
        "accessIPv6": row.access_ipv6,
        "links": links(base, f"servers/{identity}"),
        "OS-DCF:diskConfig": "AUTO" if row.spec.auto_disk_config else "MANUAL",
        "OS-EXT-AZ:availability_zone": row.spec.zone or (zone if host else ""),
        "config_drive": "True" if row.spec.config_drive else "",
        "key_name": row.spec.key_name or None,
        "OS-SRV-USG:launched_at": _plain(state.launched_at) if state is not None else None,
        "OS-SRV-USG:terminated_at": _plain(state.terminated_at) if state is not None else None,
        "OS-EXT-STS:task_state": row.task_state or None,
        "OS-EXT-STS:vm_state": row.vm_state,
        "OS-EXT-STS:power_state": POWER_STATE[state.power_state] if state is not None else 0,
        "os-extended-volumes:volumes_attached": [_volume(each, version) for each in volumes_of(row)],
    }
    if row.status in _HAS_PROGRESS:
        view["progress"] = _progress(row)
    fault = fault_of(row)
    if row.status in ("ERROR", "DELETED") and fault is not None:
        view["fault"] = {"code": fault.code, "created": iso(fault.at), "message": fault.message}
        if caller.admin and row.tried:
            view["fault"]["details"] = "\n".join(f"{t.leaf}: {t.code}: {t.reason}" for t in row.tried)
    if caller.admin:
        view |= _for_administrators(row, host, version)
    if version >= 9:
        view["locked"] = row.locked
    if version >= 19:
        view["description"] = row.description or None
    if version >= 26:
        view["tags"] = list(row.tags)
    return view


_NOT_AFTER_UPDATE = ("OS-EXT-", "OS-SRV-USG:", "os-extended-volumes:", "config_drive", "key_name", "host_status")


def updated_server(view: dict[str, Any]) -> dict[str, Any]:
    """A server in the answer to its update, which up to 2.74 is without these."""
    return {name: value for name, value in view.items() if not name.startswith(_NOT_AFTER_UPDATE)}


def rebuilt_server(view: dict[str, Any], version: int) -> dict[str, Any]:
    """A server in the answer to its rebuild, which tells what a rebuild may change. Nobody here can read user data."""
    shown = updated_server(view)
    if version >= 54:
        shown["key_name"] = view["key_name"]
    if version >= 57:
        shown["user_data"] = None
    return shown


def _volume(volume: Volume, version: int) -> dict[str, Any]:
    """A volume outlives its server."""
    return {"id": volume.id} if version < 3 else {"id": volume.id, "delete_on_termination": False}


def _for_administrators(row: ServerRow, host: str, version: int) -> dict[str, Any]:
    view: dict[str, Any] = {
        "OS-EXT-SRV-ATTR:host": row.leaf or None,
        "OS-EXT-SRV-ATTR:hypervisor_hostname": host or None,
        "OS-EXT-SRV-ATTR:instance_name": f"instance-{id_text(row.id)}",
    }
    if version >= 3:
        view |= {
            "OS-EXT-SRV-ATTR:reservation_id": row.request,
            "OS-EXT-SRV-ATTR:launch_index": 0,
            "OS-EXT-SRV-ATTR:hostname": row.name,
            "OS-EXT-SRV-ATTR:kernel_id": "",
            "OS-EXT-SRV-ATTR:ramdisk_id": "",
            "OS-EXT-SRV-ATTR:root_device_name": "/dev/xvda",
            "OS-EXT-SRV-ATTR:user_data": None,
        }
    if version >= 16:
        view["host_status"] = "" if not host else "UNKNOWN" if row.status == "UNKNOWN" else "UP"
    return view


def _progress(row: ServerRow) -> int:
    if row.state is not None and row.state.progress:
        return row.state.progress
    return 100 if row.status == "ACTIVE" else 0


def _flavor_of_server(flavor: Flavor, version: int, base: str) -> dict[str, Any]:
    if version < 47:
        return {"id": flavor.id, "links": [{"rel": "bookmark", "href": f"{base}/flavors/{flavor.id}"}]}
    return {
        "original_name": flavor.name,
        "vcpus": flavor.vcpus,
        "ram": flavor.ram_mib,
        "disk": flavor.disk_gib,
        "ephemeral": flavor.ephemeral_gib,
        "swap": flavor.swap_mib,
        "extra_specs": flavor.extra_specs,
    }


def _plain(at: Instant) -> str | None:
    """OS-SRV-USG writes its times without a zone."""
    return _without_zone(at) if at else None


def _without_zone(at: Instant) -> str:
    return iso(at).removesuffix("Z") + ".000000"


# --- flavors, key pairs, quotas ---


def flavor_name(row: FlavorRow, version: int, base: str) -> dict[str, Any]:
    """A flavor in the short list."""
    view: dict[str, Any] = {"id": row.id, "name": row.name, "links": links(base, f"flavors/{row.id}")}
    if version >= 55:
        view["description"] = row.description or None
    return view


def flavor(row: FlavorRow, version: int, base: str) -> dict[str, Any]:
    """A flavor whole."""
    size = row.flavor
    view: dict[str, Any] = {
        "id": row.id,
        "name": row.name,
        "vcpus": size.vcpus,
        "ram": size.ram_mib,
        "disk": size.disk_gib,
        "OS-FLV-EXT-DATA:ephemeral": size.ephemeral_gib,
        "swap": size.swap_mib or "",
        "rxtx_factor": row.rxtx_factor,
        "os-flavor-access:is_public": row.public,
        "OS-FLV-DISABLED:disabled": False,
        "links": links(base, f"flavors/{row.id}"),
    }
    if version >= 55:
        view["description"] = row.description or None
    if version >= 61:
        view["extra_specs"] = size.extra_specs
    return view


def keypair(row: KeyPairRow, version: int, *, whole: bool = False) -> dict[str, Any]:
    """A key pair; `whole` adds what only its own page shows."""
    view: dict[str, Any] = {"name": row.name, "public_key": row.public_key, "fingerprint": row.fingerprint}
    if version >= 2:
        view["type"] = row.kind
    if whole:
        view |= {
            "user_id": row.user,
            "id": int.from_bytes(hashlib.sha256(f"{row.user}/{row.name}".encode()).digest()[:4], "big") >> 1,
            "created_at": iso(row.created).removesuffix("Z") + ".000000",
            "deleted": False,
            "deleted_at": None,
            "updated_at": None,
        }
    return view


def limits_of(quota: QuotaRow, version: int, *, metadata: int, keypairs: int) -> dict[str, int]:
    """Each thing that OpenStack has a quota for. What this API does not have is -1, unlimited."""
    view = {
        "instances": quota.servers,
        "cores": quota.vcpus,
        "ram": quota.ram_mib,
        "metadata_items": metadata,
        "key_pairs": keypairs,
        "server_groups": 0,
        "server_group_members": 0,
    }
    if version < 36:
        view |= {"fixed_ips": -1, "floating_ips": 0, "security_groups": 0, "security_group_rules": 0}
    if version < 57:
        view |= {
            "injected_files": MOST_FILES,
            "injected_file_content_bytes": LONGEST_FILE,
            "injected_file_path_bytes": LONGEST_PATH,
        }
    return view


def class_limits_of(quota: QuotaRow, version: int, *, metadata: int, keypairs: int) -> dict[str, int]:
    """The same of a quota class: up to 2.49 without server groups, from 2.50 on without networks."""
    if version >= 50:
        return limits_of(quota, version, metadata=metadata, keypairs=keypairs)
    view = limits_of(quota, 1, metadata=metadata, keypairs=keypairs)
    return {name: limit for name, limit in view.items() if not name.startswith("server_group")}


def used_of(usage: UsageRow) -> dict[str, int]:
    """What of it is used."""
    return {"instances": usage.servers, "cores": usage.vcpus, "ram": usage.ram_mib}


def absolute_limits(quota: QuotaRow, usage: UsageRow, version: int, *, metadata: int, keypairs: int) -> dict[str, int]:
    """GET /limits."""
    view = {
        "maxTotalInstances": quota.servers,
        "maxTotalCores": quota.vcpus,
        "maxTotalRAMSize": quota.ram_mib,
        "maxServerMeta": metadata,
        "maxTotalKeypairs": keypairs,
        "maxServerGroups": 0,
        "maxServerGroupMembers": 0,
        "totalInstancesUsed": usage.servers,
        "totalCoresUsed": usage.vcpus,
        "totalRAMUsed": usage.ram_mib,
        "totalServerGroupsUsed": 0,
    }
    if version < 36:
        view |= {
            "maxTotalFloatingIps": 0,
            "maxSecurityGroups": 0,
            "maxSecurityGroupRules": 0,
            "totalFloatingIpsUsed": 0,
            "totalSecurityGroupsUsed": 0,
        }
    if version < 39:
        view["maxImageMeta"] = metadata
    if version < 57:
        view |= {"maxPersonality": MOST_FILES, "maxPersonalitySize": LONGEST_FILE}
    return view


# --- what was asked of a server ---


def action(line: StoryRow, version: int) -> dict[str, Any]:
    """A line of the story as an instance action."""
    who = line.detail or {}
    view: dict[str, Any] = {
        "action": action_of(line),
        "instance_uuid": id_text(line.server),
        "message": None,
        "project_id": who.get("project"),
        "request_id": line.request,
        "start_time": iso(line.at).removesuffix("Z") + ".000000",
        "user_id": who.get("user"),
    }
    if version >= 58:
        view["updated_at"] = view["start_time"]
    return view


def event(line: StoryRow, version: int, *, host: bool) -> dict[str, Any]:
    """A line of the story as an event of an action. `host`: tell the cell it happened in."""
    at = iso(line.at).removesuffix("Z") + ".000000"
    view: dict[str, Any] = {"event": line.event, "start_time": at, "finish_time": at, "result": "Success"}
    if version >= 51:
        view["traceback"] = None
    if version >= 62 and host:
        view["host"] = line.cell
    return view


# --- usage ---


def usage(project: str, servers: tuple[ServerUsage, ...], period: Period, *, detailed: bool) -> dict[str, Any]:
    """What a project took; `detailed`: of each server, too."""
    view: dict[str, Any] = {
        "tenant_id": project,
        "start": _without_zone(period.start),
        "stop": _without_zone(period.end),
        "total_hours": sum(each.hours for each in servers),
        "total_vcpus_usage": sum(each.hours * each.flavor.vcpus for each in servers),
        "total_memory_mb_usage": sum(each.hours * each.flavor.ram_mib for each in servers),
        "total_local_gb_usage": sum(each.hours * _local_gib(each.flavor) for each in servers),
    }
    return {**view, "server_usages": [_server_usage(each) for each in servers]} if detailed else view


def _local_gib(flavor: Flavor) -> int:
    return flavor.disk_gib + flavor.ephemeral_gib


def _server_usage(server: ServerUsage) -> dict[str, Any]:
    flavor = server.flavor
    return {
        "instance_id": id_text(server.id),
        "name": server.name,
        "tenant_id": server.project,
        "flavor": flavor.name,
        "vcpus": flavor.vcpus,
        "memory_mb": flavor.ram_mib,
        "local_gb": _local_gib(flavor),
        "started_at": _plain(server.started),
        "ended_at": _plain(server.ended),
        "state": "terminated" if server.ended else server.status.lower(),
        "hours": server.hours,
        "uptime": server.uptime,
    }


# --- images ---


def image(found: Image) -> dict[str, Any]:
    """An image as Glance v2 shows it."""
    path = f"/v2/images/{found.id}"
    return {
        **found.properties,
        "id": found.id,
        "name": found.name,
        "status": found.status,
        "visibility": found.visibility,
        "owner": found.owner,
        "size": found.size,
        "virtual_size": None,
        "checksum": found.checksum or None,
        "os_hash_algo": "sha512" if found.sha512 else None,
        "os_hash_value": found.sha512 or None,
        "os_hidden": found.hidden,
        "disk_format": found.disk_format or None,
        "container_format": found.container_format or None,
        "min_disk": found.min_disk,
        "min_ram": found.min_ram,
        "protected": found.protected,
        "tags": list(found.tags),
        "created_at": iso(found.created),
        "updated_at": iso(found.updated),
        "self": path,
        "file": f"{path}/file",
        "schema": "/v2/schemas/image",
    }
