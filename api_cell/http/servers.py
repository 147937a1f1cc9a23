"""/servers: parse -> api_cell.service.servers -> views."""

import base64
import hashlib
import ipaddress
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from api_cell.errors import Forbidden, Invalid, NotFound
from api_cell.http import schemas, views
from api_cell.http.call import Answer, Call
from api_cell.http.hints import hints_of
from api_cell.http.paging import page_size
from api_cell.http.zones import zones_of
from api_cell.rows import ServerRow
from api_cell.service import actions, secrets, servers
from api_cell.service.actions import Asking
from api_cell.service.servers import NewServer, Wanted
from api_cell.status import STATUS, STATUS_OF_TASK, UNKNOWN
from cells.errors import BadInput
from cells.names import SECOND, Instant, id_from_text, id_text

_TRUE = (True, "True", "true", "TRUE", "1", "on", "yes")


def server_id(call: Call) -> bytes:
    """The server of the path. What is no uuid is no server: clients look names up this way first."""
    text = call.params["server"]
    try:
        return id_from_text(text)
    except BadInput:
        raise NotFound(f"Instance {text[:255]} could not be found.") from None


def asking(call: Call) -> Asking:
    return Asking(caller=call.caller, server=server_id(call), request=call.request_id)


def create(call: Call) -> Answer:
    body = call.body["server"]
    new = _new_server(call, body)
    once = ""
    if call.chosen:
        # Clients send one request id with several requests of a piece of work, so the body is part of the key.
        digest = hashlib.sha256(json.dumps(secrets.without(call.body), sort_keys=True).encode()).hexdigest()[:32]
        once = f"{hashlib.sha256(call.caller.project.encode()).hexdigest()[:32]}/{call.request_id}/{digest}"
    elif secrets.could_set_password(call.api, new.image):
        # Not for a request that may be asked again: its second answer could not tell what the first one did.
        new = replace(new, password=new.password or secrets.new_password())
    made = servers.create(call.api, call.caller, new, call.request_id, once)
    if body.get("return_reservation_id") in _TRUE:
        return Answer(code=202, body={"reservation_id": made[0].request})
    server = id_text(made[0].id)
    view = {
        "id": server,
        "links": views.links(call.base, f"servers/{server}"),
        "OS-DCF:diskConfig": "AUTO" if made[0].spec.auto_disk_config else "MANUAL",
        "security_groups": [{"name": "default"}],
    }
    if new.password:
        view["adminPass"] = new.password
    return Answer(code=202, body={"server": view}, headers={"Location": f"{call.base}/v2.1/servers/{server}"})


# Fields OpenStack has and this API has not, with what to do instead.
_NOT_DONE = {
    "block_device_mapping": "use imageRef; servers boot from local disks only",
}


def _new_server(call: Call, body: dict[str, Any]) -> NewServer:
    for name, remedy in _NOT_DONE.items():
        if body.get(name):
            raise Invalid(f"server.{name}: is not supported; {remedy}")
    if any(group.get("name") != "default" for group in body.get("security_groups", [])):
        raise Invalid("server.security_groups: there are none but 'default'; leave it out")
    networks = body.get("networks", [])
    if networks not in ("none", "auto", []):
        raise Invalid(
            "server.networks: choosing networks or ports is not supported; use 'none', 'auto' or leave it out"
        )
    least = int(body.get("min_count", 1))
    most = int(body.get("max_count", least))
    if least > most:
        raise Invalid(f"server.min_count: {least} is more than max_count, {most}; min_count must be <= max_count")
    if most > 1000:
        raise Invalid(f"server.max_count: {most} servers in one request are too many; ask for at most 1000")
    if most > 1 and len(body["name"]) + len(f"-{most}") > 255:
        raise Invalid("server.name: with the number each server's name ends in it is longer than 255 characters")
    metadata = body.get("metadata", {})
    if len(metadata) > call.api.settings.most_metadata:
        raise Forbidden(
            f"server.metadata: {len(metadata)} items are over the limit of {call.api.settings.most_metadata}"
        )
    return NewServer(
        name=body["name"],
        flavor=_last_step(str(body["flavorRef"])),
        image=_image(body),
        metadata=metadata,
        hints=hints_of(call.body),
        zone=_zone(call, body.get("availability_zone", "")),
        key_name=body.get("key_name", ""),
        config_drive=body.get("config_drive") in _TRUE,
        auto_disk_config=disk_config(body),
        password=body.get("adminPass", ""),
        files=files_of(body.get("personality", [])),
        user_data=from_base64("server.user_data", body.get("user_data") or ""),
        description=body.get("description") or "",
        tags=tuple(dict.fromkeys(body.get("tags", []))),
        access=access_of(body, "server"),
        least=least,
        most=most,
    )


def access_of(body: dict[str, Any], noun: str) -> servers.Access:
    """The addresses that a server is said to be reached by."""
    v4, v6 = (_address(f"{noun}.accessIPv{n}", body.get(f"accessIPv{n}"), n) for n in (4, 6))
    return servers.Access(v4=v4, v6=v6)


def _address(field: str, text: str | None, version: int) -> str | None:
    if not text:
        return text
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or address.version != version or "%" in text:
        raise Invalid(f"{field}: {text[:80]!r} is no IPv{version} address")
    return str(address)


def files_of(given: list[dict[str, str]], noun: str = "server") -> dict[str, bytes]:
    """Files for the guest: path, which is from the root, -> content."""
    if len(given) > secrets.MOST_FILES:
        raise Forbidden(f"{noun}.personality: {len(given)} files are over the limit of {secrets.MOST_FILES}")
    files = {}
    for file in given:
        path = "/" + file["path"].lstrip("/")
        if path == "/" or "," in path or not path.isprintable() or ".." in path.split("/"):
            raise Invalid(f"{noun}.personality: path {path[:80]!r} must be printable, and without commas and '..'")
        content = from_base64(f"{noun}.personality: contents of {path[:80]}", file["contents"])
        if len(content) > secrets.LONGEST_FILE:
            raise Forbidden(
                f"{noun}.personality: {path[:80]} has {len(content)} bytes, the limit is {secrets.LONGEST_FILE}"
            )
        files[path] = content
    return files


def from_base64(field: str, text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()).encode(), validate=True)
    except ValueError:
        raise Invalid(f"{field}: is not base64; encode it") from None


def _last_step(reference: str) -> str:
    """References may be full links."""
    return reference.rstrip("/").rpartition("/")[2]


def _image(body: dict[str, Any]) -> str:
    """The image to boot from: imageRef, and the one device mapping that says the same, which clients send along."""
    image = _last_step(body.get("imageRef", ""))
    devices = body.get("block_device_mapping_v2", [])
    field = "server.block_device_mapping_v2"
    if len(devices) > 1:
        raise Invalid(f"{field}: more than one device is not supported; servers have one disk, made from the image")
    for device in devices:
        plain = (
            device.get("source_type") == "image"
            and device.get("destination_type", "local") == "local"
            and str(device.get("boot_index")) == "0"
            and device.get("delete_on_termination", True) in _TRUE
        )
        extra = set(device) - {"uuid", "source_type", "destination_type", "boot_index", "delete_on_termination"}
        if not plain or extra:
            raise Invalid(
                f"{field}: only a plain boot from an image is supported: source_type image, destination_type local, "
                "boot_index 0, delete_on_termination true"
            )
        if image and device.get("uuid") != image:
            raise Invalid(f"{field}: uuid must be the imageRef, {image}")
        image = str(device.get("uuid") or "")
    if not image:
        raise Invalid("server.imageRef: is required; servers boot from an image")
    return image


def _zone(call: Call, zone: str) -> str:
    if not zone or zone == call.api.settings.default_zone:
        return ""
    known = zones_of(call.api)
    if zone not in known:
        raise Invalid(
            f"server.availability_zone: the requested availability zone is not available: {zone}; "
            f"there are: {', '.join(known)}"
        )
    return zone


# --- lists ---


def names(call: Call) -> Answer:
    return _list(call, "/v2.1/servers", lambda row: views.server_name(row, call.base))


def details(call: Call) -> Answer:
    zone = call.api.settings.default_zone
    return _list(
        call,
        "/v2.1/servers/detail",
        lambda row: views.server(row, call.caller, call.version, call.base, zone),
    )


def _list(call: Call, path: str, view: Any) -> Answer:
    size = page_size(call)
    wanted = _wanted(call, size)
    rows: tuple[ServerRow, ...] = () if wanted is None or size == 0 else servers.find(call.api, wanted)
    body: dict[str, Any] = {"servers": [view(row) for row in rows]}
    if rows and len(rows) == size:
        body["servers_links"] = views.next_link(call.base, path, call.query.pairs(), id_text(rows[-1].id))
    return Answer(body=body)


_ORDERS = {
    "created_at": "created",
    "updated_at": "updated",
    "display_name": "name",
    "name": "name",
    "uuid": "id",
    "id": "id",
    "vm_state": "vm_state",
    "task_state": "task_state",
}
# Conditions that OpenStack knows and that are not looked at here: silence would give servers that do not meet them.
_NOT_FILTERED = frozenset(
    {
        *("tags", "tags-any", "not-tags", "not-tags-any", "key_name", "config_drive", "description", "power_state"),
        *("availability_zone", "locked", "node", "hostname", "reservation_id", "created_at", "launched_at"),
        *("terminated_at", "progress", "metadata", "access_ip_v4", "access_ip_v6", "changes-before"),
    }
)
STATUSES = frozenset({*STATUS.values(), *(s for tasks in STATUS_OF_TASK.values() for s in tasks.values()), UNKNOWN})


def _wanted(call: Call, size: int) -> Wanted | None:
    """The query as conditions; None when nothing can meet them."""
    query, caller = call.query, call.caller
    for name in sorted(query.names() & _NOT_FILTERED):
        raise Invalid(f"{name}: servers cannot be listed by it here; leave it out and look at the servers")
    if "ip" in query or "ip6" in query:
        return None  # Servers have no addresses that this cell knows of.
    everybody = caller.admin and query.truth("all_tenants")
    if query.truth("all_tenants") and not caller.admin:
        raise Forbidden("all_tenants: only an administrator may list servers of all projects; leave it out")
    project: str | None = caller.project
    if everybody:
        project = query.text("project_id") or query.text("tenant_id") or None
    deleted = caller.admin and query.truth("deleted")
    statuses = tuple(status.upper() for status in query.all("status"))
    if any(status not in STATUSES for status in statuses):
        if call.version >= 38:
            raise Invalid(
                f"status: {query.text('status')[:40]!r} is no status; use one of {', '.join(sorted(STATUSES))}"
            )
        return None
    if "DELETED" in statuses:
        if not caller.admin:
            raise Forbidden("status: only an administrator may list deleted servers; use changes-since")
        deleted = True
    ids: tuple[bytes, ...] = ()
    if "uuid" in query:
        try:
            ids = tuple(id_from_text(text) for text in query.all("uuid"))
        except BadInput:
            return None
    changed_since = instant("changes-since", query.text("changes-since"))
    order, descending = _order(call, by_id=deleted or changed_since is not None)
    return Wanted(
        project=project,
        name=like_of(query.text("name")),
        statuses=statuses,
        image=_last_step(query.text("image")),
        flavor=_last_step(query.text("flavor")),
        user=query.text("user_id") if caller.admin else "",
        leaf=query.text("host") if caller.admin else "",
        vm_state=query.text("vm_state"),
        ids=ids,
        task_state=query.text("task_state") if "task_state" in query else None,
        changed_since=changed_since,
        deleted=deleted,
        order=order,
        descending=descending,
        after=marker_of(query.text("marker")),
        limit=size,
    )


def _order(call: Call, *, by_id: bool) -> tuple[str, bool]:
    """What to sort by, and whether downwards. `by_id`: deleted servers are asked for, which are kept by id."""
    keys = call.query.all("sort_key") or ["created_at"]
    order = _ORDERS.get(keys[0])
    if order is None or len(keys) > 1:
        raise Invalid(f"sort_key: {keys[-1][:40]!r} cannot be sorted by; use one of {', '.join(_ORDERS)}")
    if by_id and order not in ("created", "id"):
        raise Invalid(f"sort_key: {keys[0][:40]!r} does not go with deleted servers; use created_at or leave it out")
    direction = call.query.text("sort_dir", "desc")
    if direction not in ("asc", "desc"):
        raise Invalid(f"sort_dir: {direction[:40]!r} is neither asc nor desc")
    return order, direction == "desc"


def marker_of(text: str) -> bytes | None:
    if not text:
        return None
    try:
        return id_from_text(text)
    except BadInput:
        raise Invalid(f"marker [{text[:80]}] not found; use the id of the last server of the page before") from None


def instant(field: str, text: str) -> Instant | None:
    if not text:
        return None
    try:
        # A plus sign in a query string is a blank to every server, and clients forget to write %2B.
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return int(moment.timestamp() * SECOND)
    except (ValueError, OverflowError):
        raise Invalid(f"{field}: {text[:40]!r} is no time; write it like 2026-01-31T12:00:00Z") from None


_LITERAL = re.compile(r"[\w \-@:/,;=~#!%&'\"<>]")


def like_of(expression: str) -> str:
    """A name filter as an SQL LIKE pattern. OpenStack takes a regular expression here; of these the anchors, '.', '.*'
    and backslash are understood, and the rest is refused rather than given to an engine that one can hang."""
    if not expression:
        return ""
    text = expression
    pattern = "" if text.startswith("^") else "%"
    text = text.removeprefix("^")
    anchored = text.endswith("$") and not text.endswith("\\$")
    text = text[:-1] if anchored else text
    while text:
        if text.startswith(".*"):
            pattern, text = pattern + "%", text[2:]
        elif text.startswith("."):
            pattern, text = pattern + "_", text[1:]
        elif text.startswith("\\") and len(text) > 1:
            pattern, text = pattern + _escaped(text[1]), text[2:]
        elif _LITERAL.match(text):
            pattern, text = pattern + _escaped(text[0]), text[1:]
        else:
            raise Invalid(
                f"name: {text[0]!r} is not understood; use plain text, ^, $, '.' and '.*', or escape it with \\"
            )
    return pattern if anchored else pattern + "%"


def _escaped(char: str) -> str:
    return "\\" + char if char in "%_\\" else char


# --- one server ---


def show(call: Call) -> Answer:
    row = servers.show(call.api, call.caller, server_id(call))
    return Answer(body={"server": view_of(call, row)})


def update(call: Call) -> Answer:
    body = call.body["server"]
    description = (body["description"] or "") if "description" in body else None
    row = servers.update(
        call.api,
        call.caller,
        server_id(call),
        name=body.get("name"),
        description=description,
        auto_disk_config=disk_config(body),
        access=access_of(body, "server"),
    )
    return Answer(body={"server": views.updated_server(view_of(call, row))})


def disk_config(body: dict[str, Any]) -> bool | None:
    """Whether the disk shall follow the flavor, where the body says."""
    said = body.get("OS-DCF:diskConfig")
    return None if said is None else said == "AUTO"


def view_of(call: Call, row: ServerRow) -> dict[str, Any]:
    return views.server(row, call.caller, call.version, call.base, call.api.settings.default_zone)


def delete(call: Call) -> Answer:
    actions.delete(call.api, asking(call))
    return Answer(code=204)


def addresses(call: Call) -> Answer:
    servers.show(call.api, call.caller, server_id(call))
    return Answer(body={"addresses": {}})


def addresses_of(call: Call) -> Answer:
    servers.show(call.api, call.caller, server_id(call))
    raise NotFound(f"Network label {call.params['label'][:255]} is not found; the server has no addresses")


def metadata(call: Call) -> Answer:
    return Answer(body={"metadata": servers.show(call.api, call.caller, server_id(call)).spec.metadata})


def add_metadata(call: Call) -> Answer:
    items = servers.put_metadata(call.api, call.caller, server_id(call), call.body["metadata"], keep=True)
    return Answer(body={"metadata": items})


def set_metadata(call: Call) -> Answer:
    items = servers.put_metadata(call.api, call.caller, server_id(call), call.body["metadata"], keep=False)
    return Answer(body={"metadata": items})


def metadata_item(call: Call) -> Answer:
    key = call.params["key"]
    items = servers.show(call.api, call.caller, server_id(call)).spec.metadata
    if key not in items:
        raise NotFound(f"Metadata item {key[:255]} was not found")
    return Answer(body={"meta": {key: items[key]}})


def set_metadata_item(call: Call) -> Answer:
    key, item = call.params["key"], call.body["meta"]
    if key not in item:
        raise Invalid(f"meta: the request body and the URI do not name the same key, {key[:255]}; make them agree")
    servers.put_metadata(call.api, call.caller, server_id(call), item, keep=True)
    return Answer(body={"meta": item})


def drop_metadata_item(call: Call) -> Answer:
    servers.drop_metadata(call.api, call.caller, server_id(call), call.params["key"])
    return Answer(code=204)


def tags(call: Call) -> Answer:
    return Answer(body={"tags": list(servers.show(call.api, call.caller, server_id(call)).tags)})


def set_tags(call: Call) -> Answer:
    wanted = tuple(dict.fromkeys(call.body["tags"]))
    return Answer(body={"tags": list(servers.put_tags(call.api, call.caller, server_id(call), wanted))})


def has_tag(call: Call) -> Answer:
    tag = call.params["tag"]
    if tag not in servers.show(call.api, call.caller, server_id(call)).tags:
        raise NotFound(f"Server {call.params['server']} has no tag '{tag[:60]}'")
    return Answer(code=204)


def add_tag(call: Call) -> Answer:
    tag = call.params["tag"]
    if not re.fullmatch(schemas.TAG["pattern"], tag) or not 1 <= len(tag) <= schemas.TAG["maxLength"]:
        raise Invalid(f"tag: {tag[:80]!r} must have 1 to 60 characters, no comma and no slash")
    added = servers.add_tag(call.api, call.caller, server_id(call), tag)
    return Answer(code=201, headers={"Location": call.base + call.path}) if added else Answer(code=204)


def drop_tag(call: Call) -> Answer:
    servers.drop_tag(call.api, call.caller, server_id(call), call.params["tag"])
    return Answer(code=204)


def drop_tags(call: Call) -> Answer:
    servers.put_tags(call.api, call.caller, server_id(call), ())
    return Answer(code=204)
