"""What the JSON bodies must be, as data (JSON Schema 2020-12). Fields OpenStack knows and this API does not do are let
through here and refused in the noun's module, with the remedy; unknown fields are refused here."""

from functools import cache
from typing import Any

from api_cell.http.call import Schema
from api_cell.service.servers import MOST_TAGS

NAME: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": 255,
    # No control characters, no blanks at either end, something besides blanks.
    "pattern": r"^(?! )[^\u0000-\u001f\u007f]*(?<! )$",
}
TEXT: Schema = {"type": "string", "maxLength": 255}
# Up to 2.91 a key pair's name may have these only.
KEYPAIR_NAME: Schema = {"type": "string", "maxLength": 255, "pattern": "^(?! )[a-zA-Z0-9 _-]+(?<! )$"}
PASSWORD: Schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[^\u0000-\u001f\u007f]*$"}
LONG_TEXT: Schema = {"type": ["string", "null"], "maxLength": 65535}
REFERENCE: Schema = {"type": "string", "minLength": 1, "maxLength": 1024}
COUNT: Schema = {"oneOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^[1-9][0-9]{0,8}$"}]}
TRUTH: Schema = {
    "enum": [True, False, "True", "False", "true", "false", "TRUE", "FALSE", "1", "0", "on", "off", "yes", "no"]
}
METADATA: Schema = {
    "type": "object",
    "additionalProperties": {"type": "string", "maxLength": 255},
    "propertyNames": {"minLength": 1, "maxLength": 255, "pattern": r"^[a-zA-Z0-9-_:. ]+$"},
}
TAG: Schema = {"type": "string", "minLength": 1, "maxLength": 60, "pattern": "^[^,/]*$"}
TAGS: Schema = {"type": "array", "items": TAG, "maxItems": MOST_TAGS}


def whole(properties: dict[str, Schema], *, required: tuple[str, ...] = ()) -> Schema:
    """An object of just these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def wrapped(key: str, inner: Schema, **beside: Schema) -> Schema:
    """An object of one required property, as nearly every OpenStack body is."""
    return whole({key: inner, **beside}, required=(key,))


_FILE: Schema = whole({"path": TEXT, "contents": {"type": "string", "maxLength": 65535}}, required=("path", "contents"))
_DEVICE: Schema = {"type": "object", "maxProperties": 20}
_HINTS: Schema = {
    "type": "object",
    "additionalProperties": {
        "oneOf": [TEXT, {"type": "array", "items": TEXT, "maxItems": 64}, {"type": "object"}, {"type": "null"}]
    },
}
_NETWORK_LIST: Schema = {"type": "array", "items": {"type": "object"}, "maxItems": 64}


@cache
def create_server(version: int) -> Schema:
    """POST /servers."""
    fields: dict[str, Any] = {
        "name": NAME,
        "imageRef": {"type": "string", "maxLength": 1024},
        "flavorRef": {"oneOf": [REFERENCE, {"type": "integer", "minimum": 0}]},
        "metadata": METADATA,
        "networks": _NETWORK_LIST,
        "block_device_mapping_v2": {"type": "array", "items": _DEVICE, "maxItems": 64},
        "block_device_mapping": {"type": "array", "items": _DEVICE, "maxItems": 64},
        "min_count": COUNT,
        "max_count": COUNT,
        "return_reservation_id": TRUTH,
        "key_name": NAME,
        "config_drive": TRUTH,
        "availability_zone": NAME,
        "adminPass": PASSWORD,
        "user_data": {"type": ["string", "null"], "maxLength": 65535},
        "accessIPv4": TEXT,
        "accessIPv6": TEXT,
        "OS-DCF:diskConfig": {"enum": ["AUTO", "MANUAL"]},
        "security_groups": {"type": "array", "items": {"type": "object", "maxProperties": 4}, "maxItems": 64},
    }
    if version >= 19:
        fields["description"] = LONG_TEXT
    if version >= 37:
        fields["networks"] = {"oneOf": [_NETWORK_LIST, {"enum": ["none", "auto"]}]}
    if version >= 52:
        fields["tags"] = TAGS
    if version < 57:
        fields["personality"] = {"type": "array", "items": _FILE, "maxItems": 64}
    required = ("name", "flavorRef") if version < 37 else ("name", "flavorRef", "networks")
    beside = {"os:scheduler_hints": _HINTS, "OS-SCH-HNT:scheduler_hints": _HINTS}
    return wrapped("server", whole(fields, required=required), **beside)


@cache
def update_server(version: int) -> Schema:
    """PUT /servers/{id}."""
    fields: dict[str, Any] = {
        "name": NAME,
        "accessIPv4": TEXT,
        "accessIPv6": TEXT,
        "OS-DCF:diskConfig": {"enum": ["AUTO", "MANUAL"]},
    }
    if version >= 19:
        fields["description"] = LONG_TEXT
    return wrapped("server", whole(fields))


NULL: Schema = {"type": "null"}
# Also what an action without arguments is given: OpenStack has never looked at it, and clients send null, {} and more.
ANYTHING: Schema = {}


def action(key: str, inner: Schema) -> Schema:
    """The body of POST /servers/{id}/action for one action."""
    return wrapped(key, inner)


START = action("os-start", ANYTHING)
STOP = action("os-stop", ANYTHING)
LOCK = action("lock", ANYTHING)
UNLOCK = action("unlock", ANYTHING)
PAUSE = action("pause", ANYTHING)
UNPAUSE = action("unpause", ANYTHING)
SUSPEND = action("suspend", ANYTHING)
RESUME = action("resume", ANYTHING)
REBOOT = action(
    "reboot", whole({"type": {"enum": ["SOFT", "HARD", "Soft", "Hard", "soft", "hard"]}}, required=("type",))
)
RESIZE = action(
    "resize",
    whole({"flavorRef": REFERENCE, "OS-DCF:diskConfig": {"enum": ["AUTO", "MANUAL"]}}, required=("flavorRef",)),
)


@cache
def rebuild(version: int) -> Schema:
    """POST /servers/{id}/action, rebuild."""
    fields: dict[str, Any] = {
        "imageRef": REFERENCE,
        "name": NAME,
        "metadata": METADATA,
        "adminPass": PASSWORD,
        "accessIPv4": TEXT,
        "accessIPv6": TEXT,
        "preserve_ephemeral": TRUTH,
        "OS-DCF:diskConfig": {"enum": ["AUTO", "MANUAL"]},
    }
    if version >= 19:
        fields["description"] = LONG_TEXT
    if version >= 54:
        fields["key_name"] = {"oneOf": [NAME, {"type": "null"}]}
    if version >= 57:
        fields["user_data"] = {"type": ["string", "null"], "maxLength": 65535}
    else:
        fields["personality"] = {"type": "array", "items": _FILE, "maxItems": 64}
    return action("rebuild", whole(fields, required=("imageRef",)))


_RESCUE: Schema = whole({"adminPass": PASSWORD, "rescue_image_ref": REFERENCE})
RESCUE = action("rescue", {"oneOf": [NULL, _RESCUE]})
UNRESCUE = action("unrescue", ANYTHING)
CONFIRM_RESIZE = action("confirmResize", ANYTHING)
REVERT_RESIZE = action("revertResize", ANYTHING)
_HOST: Schema = {"type": ["string", "null"], "maxLength": 255}


@cache
def migrate(version: int) -> Schema:
    """Cold migration: the host may be named from 2.56 on."""
    return action("migrate", {"anyOf": [NULL, whole({"host": _HOST})]} if version >= 56 else ANYTHING)


@cache
def live_migrate(version: int) -> Schema:
    """Live migration: block_migration may be "auto" from 2.25 on, and then nothing is asked of overcommit."""
    block: Schema = {"anyOf": [TRUTH, {"enum": ["auto"]}]} if version >= 25 else TRUTH
    fields: dict[str, Any] = {"host": _HOST, "block_migration": block}
    if version < 25:
        fields["disk_over_commit"] = TRUTH
    required = tuple(fields)
    if version >= 30:
        fields["force"] = TRUTH
    return action("os-migrateLive", whole(fields, required=required))


@cache
def evacuate(version: int) -> Schema:
    """Evacuation: before 2.14 the client says whether storage is shared."""
    fields: dict[str, Any] = {"host": _HOST, "adminPass": TEXT}
    if version < 14:
        fields["onSharedStorage"] = TRUTH
    if version >= 29:
        fields["force"] = TRUTH
    return action("evacuate", whole(fields, required=("onSharedStorage",) if version < 14 else ()))


CHANGE_PASSWORD = action("changePassword", whole({"adminPass": PASSWORD}, required=("adminPass",)))
RESET_NETWORK = action("resetNetwork", ANYTHING)
INJECT_NETWORK = action("injectNetworkInfo", ANYTHING)
_LENGTH: Schema = {
    "oneOf": [{"type": "integer", "minimum": -1}, {"type": "string", "pattern": "^(-1|[0-9]{1,9})$"}, {"type": "null"}]
}
CONSOLE_OUTPUT = action("os-getConsoleOutput", whole({"length": _LENGTH}))
_CONSOLES = ("novnc", "xvpvnc")
VNC_CONSOLE = action("os-getVNCConsole", whole({"type": {"enum": list(_CONSOLES)}}, required=("type",)))
REMOTE_CONSOLE = wrapped(
    "remote_console",
    whole(
        {
            "protocol": {"enum": ["vnc", "spice", "rdp", "serial", "mks"]},
            "type": {"enum": [*_CONSOLES, "spice-html5", "rdp-html5", "serial", "webmks"]},
        },
        required=("protocol", "type"),
    ),
)
UUID: Schema = {"type": "string", "pattern": "^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$"}


@cache
def attach_volume(version: int) -> Schema:
    """POST /servers/{id}/os-volume_attachments."""
    fields: dict[str, Any] = {"volumeId": UUID, "device": {"type": ["string", "null"], "maxLength": 255}}
    if version >= 49:
        fields["tag"] = TAG
    return wrapped("volumeAttachment", whole(fields, required=("volumeId",)))


# What a flavor's extra specs of these names may be, and what a server may be given in their place.
SHARES: dict[str, Schema] = {
    "quota:vcpu_weight": {"type": "string", "pattern": "^[1-9][0-9]{0,4}$"},
    "quota:vcpu_cap": {"type": "string", "pattern": "^(0|[1-9][0-9]{0,5})$"},
    "quota:vcpu_mask": {"type": "string", "maxLength": 255, "pattern": "^[0-9]{1,4}(,[0-9]{1,4})*$"},
    "quota:disk_io_class": {"enum": ["real-time", "best-effort", "idle"]},
    "quota:disk_io_priority": {"type": "string", "pattern": "^[0-7]$"},
}
SET_SHARES = action("celltree-setShares", whole(SHARES))
TAKE_HOST_SNAPSHOT = action("celltree-createHostSnapshot", whole({"name": NAME}, required=("name",)))
DROP_HOST_SNAPSHOT = action("celltree-deleteHostSnapshot", whole({"id": UUID}, required=("id",)))
CREATE_IMAGE = action("createImage", whole({"name": NAME, "metadata": METADATA}, required=("name",)))

# The rotation of 0, which would keep nothing, is refused: the backup would be thrown away when it is whole.
CREATE_BACKUP = action(
    "createBackup",
    whole(
        {
            "name": NAME,
            "backup_type": {"type": "string", "minLength": 1, "maxLength": 255},
            "rotation": {
                "oneOf": [
                    {"type": "integer", "minimum": 1, "maximum": 1000},
                    {"type": "string", "pattern": "^[1-9][0-9]{0,2}$"},
                ]
            },
            "metadata": METADATA,
        },
        required=("name", "backup_type", "rotation"),
    ),
)

SERVER_METADATA = wrapped("metadata", METADATA)
METADATA_ITEM = wrapped("meta", {**METADATA, "minProperties": 1, "maxProperties": 1})
SERVER_TAGS = wrapped("tags", TAGS)

_FLAVOR_ID: Schema = {
    "oneOf": [
        {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^(?! )[a-zA-Z0-9. _-]*(?<! )$"},
        {"type": "integer", "minimum": 0},
        {"type": "null"},
    ]
}


def _number(least: int) -> Schema:
    return {
        "oneOf": [
            {"type": "integer", "minimum": least, "maximum": 2**31 - 1},
            {"type": "string", "pattern": "^[1-9][0-9]{0,8}$" if least else "^(0|[1-9][0-9]{0,8})$"},
        ]
    }


@cache
def create_flavor(version: int) -> Schema:
    """POST /flavors."""
    fields: dict[str, Any] = {
        "id": _FLAVOR_ID,
        "name": NAME,
        "vcpus": _number(1),
        "ram": _number(1),
        "disk": _number(0),
        "OS-FLV-EXT-DATA:ephemeral": _number(0),
        "swap": _number(0),
        "rxtx_factor": {
            "oneOf": [
                {"type": "number", "exclusiveMinimum": 0, "maximum": 3.4e38},
                {"type": "string", "pattern": r"^(?=.*[1-9])[0-9]{1,9}(\.[0-9]{1,9})?$"},
            ]
        },
        "os-flavor-access:is_public": TRUTH,
    }
    if version >= 55:
        fields["description"] = LONG_TEXT
    return wrapped("flavor", whole(fields, required=("name", "vcpus", "ram", "disk")))


ADD_ACCESS = action("addTenantAccess", whole({"tenant": NAME}, required=("tenant",)))
DROP_ACCESS = action("removeTenantAccess", whole({"tenant": NAME}, required=("tenant",)))
UPDATE_FLAVOR = wrapped("flavor", whole({"description": LONG_TEXT}, required=("description",)))
_SPECS: Schema = {**METADATA, "properties": SHARES, "minProperties": 1}
EXTRA_SPECS = wrapped("extra_specs", _SPECS)
EXTRA_SPEC: Schema = {**_SPECS, "maxProperties": 1}


@cache
def create_keypair(version: int) -> Schema:
    """POST /os-keypairs."""
    fields: dict[str, Any] = {
        "name": KEYPAIR_NAME,
        "public_key": {"type": "string", "minLength": 1, "maxLength": 16384},
    }
    if version >= 2:
        fields["type"] = {"enum": ["ssh", "x509"]}
    if version >= 10:
        fields["user_id"] = NAME
    return wrapped("keypair", whole(fields, required=("name",)))


CLASSIC_MIGRATION = wrapped(
    "classic_migration",
    whole(
        {
            "name": NAME,
            "flavorRef": {"oneOf": [REFERENCE, {"type": "integer", "minimum": 0}]},
            "imageRef": REFERENCE,
            "source": {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$"},
            "guest": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"},
            "metadata": METADATA,
            "key_name": NAME,
        },
        required=("name", "flavorRef", "imageRef", "source", "guest"),
    ),
)

_LIMIT: Schema = {
    "oneOf": [{"type": "integer", "minimum": -1, "maximum": 2**31 - 1}, {"type": "string", "pattern": "^-?[0-9]{1,9}$"}]
}
QUOTA_NAMES = (
    "instances",
    "cores",
    "ram",
    "metadata_items",
    "key_pairs",
    "server_groups",
    "server_group_members",
    "fixed_ips",
    "floating_ips",
    "security_groups",
    "security_group_rules",
    "injected_files",
    "injected_file_content_bytes",
    "injected_file_path_bytes",
)
UPDATE_QUOTA = wrapped("quota_set", whole({**dict.fromkeys(QUOTA_NAMES, _LIMIT), "force": TRUTH, "tenant_id": TEXT}))
UPDATE_QUOTA_CLASS = wrapped("quota_class_set", whole(dict.fromkeys(QUOTA_NAMES, _LIMIT)))

IMAGE_PROPERTY: Schema = {"type": ["string", "null"], "maxLength": 65535}
CREATE_IMAGE_RECORD: Schema = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$"},
        "name": {"type": ["string", "null"], "maxLength": 255},
        "visibility": {"enum": ["public", "private", "shared", "community"]},
        "disk_format": {
            "enum": ["ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop", None]
        },
        "container_format": {"enum": ["ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed", None]},
        "min_disk": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
        "min_ram": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
        "protected": {"type": "boolean"},
        "os_hidden": {"type": "boolean"},
        "owner": {"type": ["string", "null"], "maxLength": 255},
        "tags": {"type": "array", "items": TEXT, "maxItems": 128},
    },
    "propertyNames": {"minLength": 1, "maxLength": 255},
    "additionalProperties": IMAGE_PROPERTY,
    "maxProperties": 160,
}
PATCH_IMAGE: Schema = {
    "type": "array",
    "maxItems": 200,
    "items": whole(
        {
            "op": {"enum": ["add", "replace", "remove"]},
            "path": {"type": "string", "pattern": "^/[^/]+$", "maxLength": 257},
            "value": ANYTHING,
        },
        required=("op", "path"),
    ),
}
