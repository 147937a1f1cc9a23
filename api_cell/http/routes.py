"""The API: every route, in which microversions it is there, who may use it, what its body must be and what it answers.
Nothing is served that is not in this table."""

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from api_cell.http import (
    actions,
    answers,
    classic,
    extensions,
    flavors,
    guests,
    images,
    keypairs,
    openapi,
    operators,
    probes,
    queries,
    quotas,
    schemas,
    servers,
    usage,
    versions,
    volumes,
    zones,
)
from api_cell.http.answers import ACCEPTED, DELETED
from api_cell.http.call import Answer, Call, Gives, Handler, Route, Rule, Schema

_OPEN, _ADMIN, _BYTES = Rule.OPEN, Rule.ADMIN, Rule.IMAGE
_SERVERS = "/v2.1/servers"
_SERVER = "/v2.1/servers/{server}"
_VOLUMES = "/v2.1/servers/{server}/os-volume_attachments"
_FLAVORS = "/v2.1/flavors"
_FLAVOR = "/v2.1/flavors/{flavor}"
_SPECS = "/v2.1/flavors/{flavor}/os-extra_specs"
_QUOTA = "/v2.1/os-quota-sets/{project}"
_QUOTA_CLASS = "/v2.1/os-quota-class-sets/{name}"
_USAGE = "/v2.1/os-simple-tenant-usage"
_KEYPAIRS = "/v2.1/os-keypairs"
_IMAGES = "/image/v2/images"
_IMAGE = "/image/v2/images/{image}"

_Gives = Gives | Callable[[int], Gives]


def _route(words: str, handler: Handler, gives: _Gives, **more: Any) -> Route:
    """`words`: method and path."""
    method, path = words.split()
    return Route(method=method, path=path, handler=handler, gives=gives, **more)


def _action(
    name: str,
    handler: Handler,
    schema: Schema | Callable[[int], Schema],
    gives: _Gives = ACCEPTED,
    of: str = _SERVER,
    **more: Any,
) -> Route:
    return _route(f"POST {of}/action", handler, gives, action=name, schema=schema, **more)


def _openapi(call: Call) -> Answer:
    return Answer(body=_document(call.version))


@lru_cache(maxsize=4)
def _document(version: int) -> bytes:
    return json.dumps(openapi.document(ROUTES, version)).encode()


ROUTES: tuple[Route, ...] = (
    # version documents
    _route("GET /", versions.root, answers.ROOT, rule=_OPEN),
    _route("GET /v2.1", versions.compute, answers.COMPUTE, rule=_OPEN),
    _route("GET /v2.1/openapi.json", _openapi, answers.OPENAPI, rule=_OPEN),
    _route("GET /v3", versions.identity, answers.IDENTITY, rule=_OPEN),
    _route("GET /v3/projects/{project}", versions.project, answers.PROJECT),
    _route("GET /image", versions.image, answers.IMAGE_VERSIONS, rule=_OPEN),
    _route("GET /image/versions", versions.image, answers.IMAGE_VERSIONS, rule=_OPEN),
    _route("GET /v2.1/extensions", extensions.every, answers.EXTENSIONS),
    _route("GET /v2.1/extensions/{alias}", extensions.one, answers.EXTENSION),
    # for operators
    _route("GET /healthz", probes.health, answers.PAGE, rule=_OPEN),
    _route("GET /readyz", probes.ready, answers.PAGE, rule=_OPEN),
    _route("GET /metrics", probes.metrics, answers.PAGE, rule=_OPEN),
    # servers
    _route(f"GET {_SERVERS}", servers.names, answers.SERVER_NAMES, query=queries.SERVERS),
    _route(f"POST {_SERVERS}", servers.create, answers.SERVER_CREATED, schema=schemas.create_server),
    _route(f"GET {_SERVERS}/detail", servers.details, answers.SERVERS, query=queries.SERVERS),
    _route(f"GET {_SERVER}", servers.show, answers.SERVER),
    _route(f"PUT {_SERVER}", servers.update, answers.SERVER_UPDATED, schema=schemas.update_server),
    _route(f"DELETE {_SERVER}", servers.delete, DELETED),
    _route(f"GET {_SERVER}/ips", servers.addresses, answers.ADDRESSES),
    _route(f"GET {_SERVER}/ips/{{label}}", servers.addresses_of, answers.ADDRESSES_OF_LABEL),
    _route(f"GET {_SERVER}/metadata", servers.metadata, answers.METADATA),
    _route(f"POST {_SERVER}/metadata", servers.add_metadata, answers.METADATA, schema=schemas.SERVER_METADATA),
    _route(f"PUT {_SERVER}/metadata", servers.set_metadata, answers.METADATA, schema=schemas.SERVER_METADATA),
    _route(f"GET {_SERVER}/metadata/{{key}}", servers.metadata_item, answers.META),
    _route(f"PUT {_SERVER}/metadata/{{key}}", servers.set_metadata_item, answers.META, schema=schemas.METADATA_ITEM),
    _route(f"DELETE {_SERVER}/metadata/{{key}}", servers.drop_metadata_item, DELETED),
    _route(f"GET {_SERVER}/tags", servers.tags, answers.TAGS, since=26),
    _route(f"PUT {_SERVER}/tags", servers.set_tags, answers.TAGS, since=26, schema=schemas.SERVER_TAGS),
    _route(f"DELETE {_SERVER}/tags", servers.drop_tags, DELETED, since=26),
    _route(f"GET {_SERVER}/tags/{{tag}}", servers.has_tag, answers.TAG_THERE, since=26),
    _route(f"PUT {_SERVER}/tags/{{tag}}", servers.add_tag, answers.TAG_ADDED, since=26),
    _route(f"DELETE {_SERVER}/tags/{{tag}}", servers.drop_tag, DELETED, since=26),
    # actions
    _action("os-start", actions.start, schemas.START),
    _action("os-stop", actions.stop, schemas.STOP),
    _action("reboot", actions.reboot, schemas.REBOOT),
    _action("pause", actions.pause, schemas.PAUSE),
    _action("unpause", actions.unpause, schemas.UNPAUSE),
    _action("suspend", actions.suspend, schemas.SUSPEND),
    _action("resume", actions.resume, schemas.RESUME),
    _action("rebuild", actions.rebuild, schemas.rebuild, answers.SERVER_REBUILT),
    _action("rescue", actions.rescue, schemas.RESCUE, answers.RESCUED),
    _action("unrescue", actions.unrescue, schemas.UNRESCUE),
    _action("resize", actions.resize, schemas.RESIZE),
    _action("confirmResize", actions.confirm_resize, schemas.CONFIRM_RESIZE, DELETED),
    _action("revertResize", actions.revert_resize, schemas.REVERT_RESIZE),
    _action("migrate", actions.migrate, schemas.migrate, rule=_ADMIN),
    _action("os-migrateLive", actions.live_migrate, schemas.live_migrate, rule=_ADMIN),
    _action("evacuate", actions.evacuate, schemas.evacuate, answers.evacuated, rule=_ADMIN),
    _action("changePassword", guests.change_password, schemas.CHANGE_PASSWORD),
    _action("resetNetwork", guests.reset_network, schemas.RESET_NETWORK, rule=_ADMIN),
    _action("injectNetworkInfo", guests.inject_network, schemas.INJECT_NETWORK, rule=_ADMIN),
    _action("os-getConsoleOutput", guests.console_output, schemas.CONSOLE_OUTPUT, answers.OUTPUT),
    _action("os-getVNCConsole", guests.vnc_console, schemas.VNC_CONSOLE, answers.CONSOLE, until=5),
    _action("createImage", actions.create_image, schemas.CREATE_IMAGE, answers.image_made),
    _action("createBackup", actions.create_backup, schemas.CREATE_BACKUP, answers.image_made),
    _action("lock", actions.lock, schemas.LOCK),
    _action("unlock", actions.unlock, schemas.UNLOCK),
    *(_action(name, actions.not_served, schemas.ANYTHING, {}) for name in actions.NOT_SERVED),
    _route(
        f"POST {_SERVER}/remote-consoles",
        guests.remote_console,
        answers.REMOTE_CONSOLE,
        since=6,
        schema=schemas.REMOTE_CONSOLE,
    ),
    _action("celltree-setShares", operators.set_shares, schemas.SET_SHARES, rule=_ADMIN),
    _action("celltree-createHostSnapshot", operators.take_host_snapshot, schemas.TAKE_HOST_SNAPSHOT, rule=_ADMIN),
    _action("celltree-deleteHostSnapshot", operators.drop_host_snapshot, schemas.DROP_HOST_SNAPSHOT, rule=_ADMIN),
    _route(f"GET {_SERVER}/celltree-host-snapshots", operators.host_snapshots, answers.HOST_SNAPSHOTS, rule=_ADMIN),
    _route(f"GET {_VOLUMES}", volumes.names, answers.ATTACHMENTS, query=queries.ATTACHMENTS),
    _route(f"POST {_VOLUMES}", volumes.attach, answers.ATTACHMENT, schema=schemas.attach_volume),
    _route(f"GET {_VOLUMES}/{{volume}}", volumes.show, answers.ATTACHMENT),
    _route(f"DELETE {_VOLUMES}/{{volume}}", volumes.detach, ACCEPTED),
    _route(f"GET {_SERVER}/diagnostics", guests.diagnostics, answers.DIAGNOSTICS, rule=_ADMIN),
    _route(f"GET {_SERVER}/os-instance-actions", actions.history, answers.HISTORY, query=queries.PAGE),
    _route(f"GET {_SERVER}/os-instance-actions/{{request}}", actions.history_of_request, answers.HISTORY_OF_REQUEST),
    _route(
        "POST /v2.1/os-classic-migrations",
        classic.create,
        answers.CLASSIC_STARTED,
        rule=_ADMIN,
        schema=schemas.CLASSIC_MIGRATION,
    ),
    # the volume that a client looks up before it attaches it
    _route("GET /volume/v3", volumes.block_storage, answers.BLOCK_STORAGE, rule=_OPEN),
    _route("GET /volume/v3/volumes/detail", volumes.find_by_name, {}),
    _route("GET /volume/v3/volumes/{volume}", volumes.find, answers.VOLUME),
    # flavors
    _route(f"GET {_FLAVORS}", flavors.names, answers.FLAVOR_NAMES, query=queries.FLAVORS),
    _route(f"POST {_FLAVORS}", flavors.create, answers.FLAVOR, rule=_ADMIN, schema=schemas.create_flavor),
    _route(f"GET {_FLAVORS}/detail", flavors.details, answers.FLAVORS, query=queries.FLAVORS),
    _route(f"GET {_FLAVOR}", flavors.show, answers.FLAVOR),
    _route(f"PUT {_FLAVOR}", flavors.update, answers.FLAVOR, rule=_ADMIN, since=55, schema=schemas.UPDATE_FLAVOR),
    _route(f"DELETE {_FLAVOR}", flavors.delete, ACCEPTED, rule=_ADMIN),
    _route(f"GET {_FLAVOR}/os-flavor-access", flavors.access, answers.FLAVOR_ACCESS, rule=_ADMIN),
    _action("addTenantAccess", flavors.add_access, schemas.ADD_ACCESS, answers.FLAVOR_ACCESS, _FLAVOR, rule=_ADMIN),
    _action(
        "removeTenantAccess", flavors.drop_access, schemas.DROP_ACCESS, answers.FLAVOR_ACCESS, _FLAVOR, rule=_ADMIN
    ),
    _route(f"GET {_SPECS}", flavors.extra_specs, answers.EXTRA_SPECS),
    _route(f"POST {_SPECS}", flavors.add_extra_specs, answers.EXTRA_SPECS, rule=_ADMIN, schema=schemas.EXTRA_SPECS),
    _route(f"GET {_SPECS}/{{key}}", flavors.extra_spec, answers.EXTRA_SPEC),
    _route(f"PUT {_SPECS}/{{key}}", flavors.set_extra_spec, answers.EXTRA_SPEC, rule=_ADMIN, schema=schemas.EXTRA_SPEC),
    _route(f"DELETE {_SPECS}/{{key}}", flavors.drop_extra_spec, {200: None}, rule=_ADMIN),
    # what a project and a user have
    _route("GET /v2.1/limits", quotas.limits, answers.LIMITS, query=queries.LIMITS),
    _route(f"GET {_USAGE}", usage.of_all, answers.USAGES, rule=_ADMIN, query=queries.USAGES),
    _route(f"GET {_USAGE}/{{project}}", usage.of_project, answers.USAGE, query=queries.USAGE),
    _route(f"GET {_QUOTA}", quotas.show, answers.QUOTA),
    _route(f"GET {_QUOTA}/detail", quotas.detail, answers.QUOTA_DETAIL),
    _route(f"GET {_QUOTA}/defaults", quotas.defaults, answers.QUOTA),
    _route(f"PUT {_QUOTA}", quotas.update, answers.QUOTA_UPDATED, rule=_ADMIN, schema=schemas.UPDATE_QUOTA),
    _route(f"DELETE {_QUOTA}", quotas.forget, ACCEPTED, rule=_ADMIN),
    _route(f"GET {_QUOTA_CLASS}", quotas.show_class, answers.QUOTA_CLASS, rule=_ADMIN),
    _route(
        f"PUT {_QUOTA_CLASS}",
        quotas.update_class,
        answers.QUOTA_CLASS_UPDATED,
        rule=_ADMIN,
        schema=schemas.UPDATE_QUOTA_CLASS,
    ),
    _route(f"GET {_KEYPAIRS}", keypairs.names, answers.KEYPAIRS, query=queries.KEYPAIRS),
    _route(f"POST {_KEYPAIRS}", keypairs.create, answers.keypair_created, schema=schemas.create_keypair),
    _route(f"GET {_KEYPAIRS}/{{keypair}}", keypairs.show, answers.KEYPAIR, query=queries.KEYPAIR),
    _route(f"DELETE {_KEYPAIRS}/{{keypair}}", keypairs.delete, answers.keypair_deleted, query=queries.KEYPAIR),
    _route("GET /v2.1/os-availability-zone", zones.show, answers.ZONES),
    _route("GET /v2.1/os-availability-zone/detail", zones.details, answers.ZONES_IN_DETAIL, rule=_ADMIN),
    # images, where a folder holds them
    _route(f"GET {_IMAGES}", images.names, answers.IMAGES, query=queries.IMAGES),
    _route(f"POST {_IMAGES}", images.create, answers.IMAGE_CREATED, schema=schemas.CREATE_IMAGE_RECORD),
    _route(f"GET {_IMAGE}", images.show, answers.IMAGE_SHOWN, rule=_BYTES),
    _route(
        f"PATCH {_IMAGE}",
        images.update,
        answers.IMAGE_SHOWN,
        rule=_BYTES,
        schema=schemas.PATCH_IMAGE,
        media=images.PATCH_MEDIA,
    ),
    _route(f"DELETE {_IMAGE}", images.delete, DELETED),
    _route(f"GET {_IMAGE}/file", images.download, answers.IMAGE_DATA, rule=_BYTES),
    _route(
        f"PUT {_IMAGE}/file",
        images.upload,
        DELETED,
        rule=_BYTES,
        media=("application/octet-stream",),
        streams=True,
    ),
    _route(f"GET {_IMAGE}/tasks", images.tasks, answers.IMAGE_TASKS),
    _route(f"PUT {_IMAGE}/tags/{{tag}}", images.add_tag, DELETED),
    _route(f"DELETE {_IMAGE}/tags/{{tag}}", images.drop_tag, DELETED),
)
