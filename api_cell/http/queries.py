"""What each list may be asked in its query string, as data for the OpenAPI document. Handlers read the values with
api_cell.http.call.Query and refuse what makes no sense; a name that is not here is passed over, as OpenStack does."""

from collections.abc import Mapping

from api_cell.http.call import Schema

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "integer", "minimum": 0, "maximum": 999_999_999}
_TRUTH: Schema = {"enum": ["true", "false", "1", "0", "yes", "no", "on", "off"]}
_TIME: Schema = {"type": "string", "format": "date-time"}
_DIRECTION: Schema = {"enum": ["asc", "desc"]}

PAGE: Mapping[str, Schema] = {"limit": _NUMBER, "marker": _TEXT}
SERVERS: Mapping[str, Schema] = {
    **PAGE,
    **dict.fromkeys(("name", "status", "image", "flavor", "uuid", "vm_state", "task_state"), _TEXT),
    **dict.fromkeys(("ip", "ip6", "user_id", "project_id", "tenant_id", "host"), _TEXT),
    **dict.fromkeys(("all_tenants", "deleted"), _TRUTH),
    "changes-since": _TIME,
    "sort_key": {
        "enum": ["created_at", "updated_at", "display_name", "name", "uuid", "id", "vm_state", "task_state"],
    },
    "sort_dir": _DIRECTION,
}
FLAVORS: Mapping[str, Schema] = {
    **PAGE,
    "is_public": {"enum": ["true", "false", "none"]},
    **dict.fromkeys(("minDisk", "minRam"), _NUMBER),
    "sort_key": {"enum": ["flavorid", "id", "name"]},
    "sort_dir": _DIRECTION,
}
ATTACHMENTS: Mapping[str, Schema] = {"limit": _NUMBER, "offset": _NUMBER}
KEYPAIR: Mapping[str, Schema] = {"user_id": _TEXT}
KEYPAIRS: Mapping[str, Schema] = {**PAGE, **KEYPAIR}
LIMITS: Mapping[str, Schema] = {"tenant_id": _TEXT}
USAGE: Mapping[str, Schema] = {**PAGE, "start": _TIME, "end": _TIME}
USAGES: Mapping[str, Schema] = {**USAGE, "detailed": {"enum": ["0", "1"]}}
IMAGES: Mapping[str, Schema] = {
    **PAGE,
    **dict.fromkeys(("name", "status", "visibility", "owner", "id", "disk_format", "container_format", "tag"), _TEXT),
    "os_hidden": _TRUTH,
    **dict.fromkeys(("sort", "sort_key"), _TEXT),
    "sort_dir": _DIRECTION,
}
