"""What the JSON answers of the Compute API are, as data (JSON Schema 2020-12), by microversion where that differs. The
OpenAPI document is made of them, and tests hold every answer against it: a field too many is a mistake, too."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from api_cell.http.call import Gives, Schema
from api_cell.http.schemas import whole

NOTHING: Schema | None = None
ACCEPTED: Gives = {202: NOTHING}
DELETED: Gives = {204: NOTHING}

UUID: Schema = {"type": "string", "format": "uuid"}
TIME: Schema = {"type": "string", "format": "date-time"}
TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
# -1 is no limit.
LIMIT: Schema = {"type": "integer", "minimum": -1}
# Some extensions of old write their times without a zone.
_PLAIN_TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$"
PLAIN_TIME: Schema = {"type": "string", "pattern": _PLAIN_TIME}
ITEMS: Schema = {"type": "object", "additionalProperties": TEXT}
LINKS: Schema = {"type": "array", "items": whole({"rel": TEXT, "href": TEXT}, required=("rel", "href"))}


def maybe(schema: Schema) -> Schema:
    """This, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def exactly(fields: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """An object that has all these fields, perhaps some optional ones, and no others."""
    return whole({**fields, **(optional or {})}, required=tuple(fields))


def list_of(key: str, item: Schema, *, links: bool = True) -> Schema:
    """A page of a list; `links` lead to the next one."""
    return exactly({key: {"type": "array", "items": item}}, {f"{key}_links": LINKS} if links else None)


def ok(schema: Schema) -> Gives:
    """200 with this body."""
    return {200: schema}


def by_version(make: Callable[[int], Schema], code: int = 200) -> Callable[[int], Gives]:
    """This code with the body of the microversion."""
    return lambda version: {code: make(version)}


# --- version documents ---

_VERSION: Mapping[str, Schema] = {
    "id": TEXT,
    "status": TEXT,
    "version": {"type": "string", "pattern": r"^2\.\d+$"},
    "min_version": {"type": "string", "pattern": r"^2\.\d+$"},
    "updated": TIME,
    "links": LINKS,
}
_MEDIA: Schema = {"type": "array", "items": exactly({"base": TEXT, "type": TEXT})}
ROOT = ok(exactly({"versions": {"type": "array", "items": exactly(_VERSION)}}))
COMPUTE = ok(exactly({"version": exactly({**_VERSION, "media-types": _MEDIA})}))
IDENTITY = ok(
    exactly({"version": exactly({"id": TEXT, "status": TEXT, "updated": TIME, "links": LINKS, "media-types": _MEDIA})})
)
PROJECT = ok(
    exactly(
        {
            "project": exactly(
                {
                    "id": TEXT,
                    "name": TEXT,
                    "enabled": {"type": "boolean"},
                    "is_domain": {"type": "boolean"},
                    "links": exactly({"self": TEXT}),
                }
            )
        }
    )
)
_ANYTHING: Schema = {}
OPENAPI = ok(exactly({"openapi": TEXT, **dict.fromkeys(("info", "servers", "paths", "components"), _ANYTHING)}))
IMAGE_VERSIONS = ok(
    exactly({"versions": {"type": "array", "items": exactly({"id": TEXT, "status": TEXT, "links": LINKS})}})
)

# --- servers ---

SERVER_NAMES = ok(list_of("servers", exactly({"id": UUID, "name": TEXT, "links": LINKS})))
_DISK_CONFIG: Schema = {"enum": ["AUTO", "MANUAL"]}


def _flavor_of_server(version: int) -> Schema:
    if version < 47:
        return exactly({"id": TEXT, "links": LINKS})
    sizes = dict.fromkeys(("vcpus", "ram", "disk", "ephemeral", "swap"), COUNT)
    return exactly({"original_name": TEXT, **sizes, "extra_specs": ITEMS})


def _of_administrators(version: int) -> dict[str, Schema]:
    prefix = "OS-EXT-SRV-ATTR:"
    fields: dict[str, Schema] = {
        f"{prefix}host": maybe(TEXT),
        f"{prefix}hypervisor_hostname": maybe(TEXT),
        f"{prefix}instance_name": TEXT,
    }
    if version >= 3:
        named = ("reservation_id", "hostname", "kernel_id", "ramdisk_id", "root_device_name")
        fields |= {f"{prefix}{name}": TEXT for name in named}
        fields |= {f"{prefix}launch_index": COUNT, f"{prefix}user_data": maybe(TEXT)}
    if version >= 16:
        fields["host_status"] = {"enum": ["", "UP", "UNKNOWN"]}
    return fields


_UPDATED: Mapping[str, Schema] = {
    "id": UUID,
    "name": TEXT,
    "status": TEXT,
    "tenant_id": TEXT,
    "user_id": TEXT,
    "metadata": ITEMS,
    "hostId": TEXT,
    "image": {"oneOf": [exactly({"id": TEXT, "links": LINKS}), {"const": ""}]},
    "created": TIME,
    "updated": TIME,
    "addresses": {"type": "object"},
    "accessIPv4": TEXT,
    "accessIPv6": TEXT,
    "links": LINKS,
    "OS-DCF:diskConfig": _DISK_CONFIG,
}
_WHOLE: Mapping[str, Schema] = {
    "OS-EXT-AZ:availability_zone": TEXT,
    "config_drive": {"enum": ["True", ""]},
    "key_name": maybe(TEXT),
    "OS-SRV-USG:launched_at": maybe(PLAIN_TIME),
    "OS-SRV-USG:terminated_at": maybe(PLAIN_TIME),
    "OS-EXT-STS:task_state": maybe(TEXT),
    "OS-EXT-STS:vm_state": TEXT,
    "OS-EXT-STS:power_state": COUNT,
    "os-extended-volumes:volumes_attached": {"type": "array", "items": {"type": "object", "required": ["id"]}},
}
_SOMETIMES: Mapping[str, Schema] = {
    "progress": {"type": "integer", "minimum": 0, "maximum": 100},
    "fault": exactly({"code": COUNT, "created": TIME, "message": TEXT}, {"details": TEXT}),
}


def _later(version: int) -> dict[str, Schema]:
    """What microversions have added to every server."""
    fields: dict[str, Schema] = {"flavor": _flavor_of_server(version)}
    if version >= 9:
        fields["locked"] = {"type": "boolean"}
    if version >= 19:
        fields["description"] = maybe(TEXT)
    if version >= 26:
        fields["tags"] = {"type": "array", "items": TEXT}
    return fields


@cache
def server(version: int) -> Schema:
    """A server whole; some fields are for administrators only."""
    sometimes = {**_SOMETIMES, **_of_administrators(version)}
    return exactly({**_UPDATED, **_WHOLE, **_later(version)}, sometimes)


def _one_server(version: int) -> Schema:
    return exactly({"server": server(version)})


def _updated_server(version: int) -> Schema:
    return exactly({"server": exactly({**_UPDATED, **_later(version)}, _SOMETIMES)})


def _rebuilt_server(version: int) -> Schema:
    fields: dict[str, Schema] = {**_UPDATED, **_later(version)}
    if version >= 54:
        fields["key_name"] = maybe(TEXT)
    if version >= 57:
        fields["user_data"] = {"type": "null"}
    return exactly({"server": exactly(fields, {**_SOMETIMES, "adminPass": TEXT})})


SERVER = by_version(_one_server)
SERVERS = by_version(lambda version: list_of("servers", server(version)))
SERVER_UPDATED = by_version(_updated_server)
SERVER_REBUILT = by_version(_rebuilt_server, 202)
_MADE: Schema = exactly(
    {
        "id": UUID,
        "links": LINKS,
        "OS-DCF:diskConfig": _DISK_CONFIG,
        "security_groups": {"type": "array", "items": exactly({"name": TEXT})},
    },
    {"adminPass": TEXT},
)
SERVER_CREATED: Gives = {202: {"oneOf": [exactly({"server": _MADE}), exactly({"reservation_id": TEXT})]}}
CLASSIC_STARTED: Gives = {202: exactly({"server": exactly({"id": TEXT, "links": LINKS})})}
ADDRESSES = ok(exactly({"addresses": {"type": "object"}}))
ADDRESSES_OF_LABEL: Gives = {200: {"type": "object"}}
METADATA = ok(exactly({"metadata": ITEMS}))
META = ok(exactly({"meta": {**ITEMS, "maxProperties": 1}}))
TAG_THERE: Gives = {204: NOTHING}
TAG_ADDED: Gives = {201: NOTHING, 204: NOTHING}
TAGS = ok(exactly({"tags": {"type": "array", "items": TEXT}}))

_ATTACHMENT: Schema = exactly({"id": UUID, "volumeId": UUID, "serverId": UUID, "device": TEXT})
ATTACHMENT = ok(exactly({"volumeAttachment": _ATTACHMENT}))
ATTACHMENTS = ok(exactly({"volumeAttachments": {"type": "array", "items": _ATTACHMENT}}))
VOLUME = ok(exactly({"volume": exactly({"id": UUID, "name": TEXT, "size": COUNT, "status": TEXT})}))
BLOCK_STORAGE = ok(
    exactly(
        {
            "versions": {
                "type": "array",
                "items": exactly({**dict.fromkeys(("id", "status", "version", "min_version"), TEXT), "links": LINKS}),
            }
        }
    )
)
HOST_SNAPSHOTS = ok(
    exactly({"host_snapshots": {"type": "array", "items": exactly({"id": UUID, "name": TEXT, "taken": TEXT})}})
)

# --- actions ---

RESCUED = ok(exactly({"adminPass": TEXT}))
OUTPUT = ok(exactly({"output": TEXT}))
CONSOLE = ok(exactly({"console": exactly({"type": TEXT, "url": TEXT})}))
REMOTE_CONSOLE = ok(exactly({"remote_console": exactly({"protocol": TEXT, "type": TEXT, "url": TEXT})}))


def evacuated(version: int) -> Gives:
    """Up to 2.13 with a password, which is empty: the server keeps its disk."""
    return {200: NOTHING if version >= 14 else exactly({"adminPass": TEXT})}


def image_made(version: int) -> Gives:
    """Before 2.45 the image's id is in the Location header only."""
    return {202: exactly({"image_id": UUID}) if version >= 45 else NOTHING}


_AMOUNT: Schema = {"type": ["number", "null"]}


def _diagnostics(version: int) -> Schema:
    if version < 48:
        return {"type": "object", "additionalProperties": {"type": "number"}}
    counts = [f"{way}_{what}" for way in ("rx", "tx") for what in ("octets", "errors", "drop", "packets", "rate")]
    disk = ("read_bytes", "read_requests", "write_bytes", "write_requests", "errors_count")
    details: dict[str, Schema] = {
        "cpu_details": exactly({"id": COUNT, "time": _AMOUNT, "utilisation": _AMOUNT}),
        "nic_details": exactly({"mac_address": maybe(TEXT), **dict.fromkeys(counts, _AMOUNT)}),
        "disk_details": exactly(dict.fromkeys(disk, _AMOUNT)),
    }
    return exactly(
        {
            "state": {"enum": ["pending", "running", "paused", "shutdown", "crashed", "suspended"]},
            "driver": TEXT,
            "hypervisor": maybe(TEXT),
            "hypervisor_os": maybe(TEXT),
            "uptime": _AMOUNT,
            "config_drive": {"type": "boolean"},
            **dict.fromkeys(("num_cpus", "num_nics", "num_disks"), COUNT),
            **{name: {"type": "array", "items": item} for name, item in details.items()},
            "memory_details": exactly({"maximum": COUNT, "used": _AMOUNT}),
        }
    )


DIAGNOSTICS = by_version(_diagnostics)


def _action(version: int) -> dict[str, Schema]:
    fields: dict[str, Schema] = {
        **{name: TEXT for name in ("action", "request_id")},
        **{name: maybe(TEXT) for name in ("message", "project_id", "user_id")},
        "instance_uuid": UUID,
        "start_time": PLAIN_TIME,
    }
    return {**fields, "updated_at": PLAIN_TIME} if version >= 58 else fields


def _event(version: int) -> Schema:
    fields: dict[str, Schema] = {"event": TEXT, "start_time": PLAIN_TIME, "finish_time": PLAIN_TIME, "result": TEXT}
    return exactly({**fields, "traceback": {"type": "null"}} if version >= 51 else fields)


def _history(version: int) -> Schema:
    actions: Schema = {"type": "array", "items": exactly(_action(version))}
    return exactly({"instanceActions": actions}, {"links": LINKS} if version >= 58 else None)


def _history_of_request(version: int) -> Schema:
    events: dict[str, Schema] = {"events": {"type": "array", "items": _event(version)}}
    if version >= 51:
        return exactly({"instanceAction": exactly({**_action(version), **events})})
    return exactly({"instanceAction": exactly(_action(version), events)})


HISTORY = by_version(_history)
HISTORY_OF_REQUEST = by_version(_history_of_request)

# --- flavors, key pairs, quotas, zones ---


@cache
def flavor(version: int) -> Schema:
    """A flavor whole."""
    fields: dict[str, Schema] = {
        "id": TEXT,
        "name": TEXT,
        **dict.fromkeys(("vcpus", "ram", "disk", "OS-FLV-EXT-DATA:ephemeral"), COUNT),
        "swap": {"oneOf": [{"type": "integer", "minimum": 1}, {"const": ""}]},
        "rxtx_factor": {"type": "number"},
        "os-flavor-access:is_public": {"type": "boolean"},
        "OS-FLV-DISABLED:disabled": {"type": "boolean"},
        "links": LINKS,
    }
    if version >= 55:
        fields["description"] = maybe(TEXT)
    if version >= 61:
        fields["extra_specs"] = ITEMS
    return exactly(fields)


def _flavor_name(version: int) -> Schema:
    fields: dict[str, Schema] = {"id": TEXT, "name": TEXT, "links": LINKS}
    return exactly({**fields, "description": maybe(TEXT)} if version >= 55 else fields)


FLAVOR = by_version(lambda version: exactly({"flavor": flavor(version)}))
FLAVORS = by_version(lambda version: list_of("flavors", flavor(version)))
FLAVOR_NAMES = by_version(lambda version: list_of("flavors", _flavor_name(version)))
FLAVOR_ACCESS = ok(
    exactly({"flavor_access": {"type": "array", "items": exactly({"flavor_id": TEXT, "tenant_id": TEXT})}})
)
EXTRA_SPECS = ok(exactly({"extra_specs": ITEMS}))
EXTRA_SPEC = ok({**ITEMS, "maxProperties": 1})


def _keypair(version: int) -> dict[str, Schema]:
    fields = dict.fromkeys(("name", "public_key", "fingerprint"), TEXT)
    return {**fields, "type": TEXT} if version >= 2 else fields


def _keypairs(version: int) -> Schema:
    return list_of("keypairs", exactly({"keypair": exactly(_keypair(version))}), links=version >= 35)


def _one_keypair(version: int) -> Schema:
    more: dict[str, Schema] = {
        "user_id": TEXT,
        "id": COUNT,
        "created_at": PLAIN_TIME,
        "deleted": {"type": "boolean"},
        "deleted_at": maybe(PLAIN_TIME),
        "updated_at": maybe(PLAIN_TIME),
    }
    return exactly({"keypair": exactly({**_keypair(version), **more})})


def keypair_created(version: int) -> Gives:
    """201 since 2.2."""
    made = exactly({"keypair": exactly({**_keypair(version), "user_id": TEXT})})
    return {200 if version < 2 else 201: made}


def keypair_deleted(version: int) -> Gives:
    """204 since 2.2."""
    return {202 if version < 2 else 204: NOTHING}


KEYPAIR = by_version(_one_keypair)
KEYPAIRS = by_version(_keypairs)


def _quotas(version: int) -> tuple[str, ...]:
    names: tuple[str, ...] = ("instances", "cores", "ram", "metadata_items", "key_pairs")
    names += ("server_groups", "server_group_members")
    if version < 36:
        names += ("fixed_ips", "floating_ips", "security_groups", "security_group_rules")
    if version < 57:
        names += ("injected_files", "injected_file_content_bytes", "injected_file_path_bytes")
    return names


def _quota(version: int) -> Schema:
    return exactly({"quota_set": exactly({"id": TEXT, **dict.fromkeys(_quotas(version), LIMIT)})})


def _quota_updated(version: int) -> Schema:
    return exactly({"quota_set": exactly(dict.fromkeys(_quotas(version), LIMIT))})


def _quota_detail(version: int) -> Schema:
    each = exactly({"limit": LIMIT, "in_use": COUNT, "reserved": COUNT})
    return exactly({"quota_set": exactly({"id": TEXT, **dict.fromkeys(_quotas(version), each)})})


QUOTA = by_version(_quota)
QUOTA_UPDATED = by_version(_quota_updated)
QUOTA_DETAIL = by_version(_quota_detail)


def _class_quotas(version: int) -> dict[str, Schema]:
    """Up to 2.49 without the quotas of server groups, from 2.50 on without those of networks."""
    names = _quotas(version) if version >= 50 else _quotas(1)
    return {name: LIMIT for name in names if version >= 50 or not name.startswith("server_group")}


QUOTA_CLASS = by_version(lambda version: exactly({"quota_class_set": exactly({"id": TEXT, **_class_quotas(version)})}))
QUOTA_CLASS_UPDATED = by_version(lambda version: exactly({"quota_class_set": exactly(_class_quotas(version))}))


_EXTENSION = exactly(
    {**dict.fromkeys(("alias", "name", "description", "namespace"), TEXT), "updated": TIME, "links": LINKS}
)
EXTENSION = ok(exactly({"extension": _EXTENSION}))
EXTENSIONS = ok(exactly({"extensions": {"type": "array", "items": _EXTENSION}}))

_HOURS: Schema = {"type": "number", "minimum": 0}
_SERVER_USAGE = exactly(
    {
        **dict.fromkeys(("name", "tenant_id", "flavor", "state"), TEXT),
        **dict.fromkeys(("vcpus", "memory_mb", "local_gb", "uptime"), COUNT),
        "instance_id": UUID,
        "started_at": PLAIN_TIME,
        "ended_at": maybe(PLAIN_TIME),
        "hours": _HOURS,
    }
)
_SERVER_USAGES: Schema = {"type": "array", "items": _SERVER_USAGE}
_TAKEN: Mapping[str, Schema] = {
    "tenant_id": TEXT,
    **dict.fromkeys(("start", "stop"), PLAIN_TIME),
    **dict.fromkeys(
        ("total_hours", "total_vcpus_usage", "total_memory_mb_usage", "total_local_gb_usage"),
        _HOURS,
    ),
}
USAGES = ok(list_of("tenant_usages", exactly(_TAKEN, {"server_usages": _SERVER_USAGES})))
_NO_USAGE = exactly({})
USAGE = ok(
    exactly(
        {"tenant_usage": {"anyOf": [exactly({**_TAKEN, "server_usages": _SERVER_USAGES}), _NO_USAGE]}},
        {"tenant_usage_links": LINKS},
    )
)


def _limits(version: int) -> Schema:
    absolute: Schema = {"type": "object", "additionalProperties": LIMIT, "required": ["maxTotalInstances"]}
    return exactly({"limits": exactly({"rate": {"type": "array"}, "absolute": absolute})})


LIMITS = by_version(_limits)


def _zones(hosts: Schema) -> Gives:
    zone = exactly({"zoneName": TEXT, "zoneState": exactly({"available": {"type": "boolean"}}), "hosts": hosts})
    return ok(exactly({"availabilityZoneInfo": {"type": "array", "items": zone}}))


ZONES = _zones({"type": "null"})
ZONES_IN_DETAIL = _zones({"type": "object"})

# --- images ---

_IMAGE_TEXTS = ("checksum", "os_hash_algo", "os_hash_value", "disk_format", "container_format")
IMAGE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": UUID,
        "name": TEXT,
        "status": {"enum": ["queued", "saving", "active"]},
        "visibility": {"enum": ["public", "private", "shared", "community"]},
        "owner": TEXT,
        "size": maybe(COUNT),
        "virtual_size": maybe(COUNT),
        **dict.fromkeys(_IMAGE_TEXTS, maybe(TEXT)),
        "os_hidden": {"type": "boolean"},
        "protected": {"type": "boolean"},
        "min_disk": COUNT,
        "min_ram": COUNT,
        "tags": {"type": "array", "items": TEXT},
        "created_at": TIME,
        "updated_at": TIME,
        **dict.fromkeys(("self", "file", "schema"), TEXT),
    },
    # Properties of the owner's choice stand beside the fields.
    "additionalProperties": TEXT,
}
IMAGE["required"] = sorted(IMAGE["properties"])
IMAGE_SHOWN = ok(IMAGE)
IMAGE_TASKS = ok(exactly({"tasks": {"type": "array", "maxItems": 0}}))
IMAGE_CREATED: Gives = {201: IMAGE}
IMAGES = ok(
    exactly(
        {"images": {"type": "array", "items": IMAGE}, "first": TEXT, "schema": TEXT},
        {"next": TEXT},
    )
)
BYTES: Schema = {"type": "string", "contentMediaType": "application/octet-stream"}
# 204 is Glance's own answer for an image without data.
IMAGE_DATA: Gives = {200: BYTES, 204: NOTHING}
PLAIN: Schema = {"type": "string", "contentMediaType": "text/plain"}
PAGE = ok(PLAIN)
