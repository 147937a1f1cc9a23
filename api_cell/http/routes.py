"""The API: every route, in which microversions it is there, who may use it, and what its body must be. Nothing is
served that is not in this table."""

from api_cell.http import actions, flavors, guests, images, keypairs, probes, quotas, schemas, servers, versions, zones
from api_cell.http.call import Route, Rule

_SERVERS = "/v2.1/servers"
_SERVER = "/v2.1/servers/{server}"
_ACTION = f"{_SERVER}/action"
_FLAVOR = "/v2.1/flavors/{flavor}"
_IMAGE = "/image/v2/images/{image}"
_OPEN, _ADMIN, _BYTES = Rule.OPEN, Rule.ADMIN, Rule.IMAGE

ROUTES: tuple[Route, ...] = (
    # version documents
    Route(method="GET", path="/", handler=versions.root, rule=_OPEN),
    Route(method="GET", path="/v2.1", handler=versions.compute, rule=_OPEN),
    Route(method="GET", path="/v3", handler=versions.identity, rule=_OPEN),
    Route(method="GET", path="/v3/projects/{project}", handler=versions.project),
    Route(method="GET", path="/image", handler=versions.image, rule=_OPEN),
    Route(method="GET", path="/image/versions", handler=versions.image, rule=_OPEN),
    # for operators
    Route(method="GET", path="/healthz", handler=probes.health, rule=_OPEN),
    Route(method="GET", path="/readyz", handler=probes.ready, rule=_OPEN),
    Route(method="GET", path="/metrics", handler=probes.metrics, rule=_OPEN),
    # servers
    Route(method="GET", path=_SERVERS, handler=servers.names),
    Route(method="POST", path=_SERVERS, handler=servers.create, schema=schemas.create_server),
    Route(method="GET", path=f"{_SERVERS}/detail", handler=servers.details),
    Route(method="GET", path=_SERVER, handler=servers.show),
    Route(method="PUT", path=_SERVER, handler=servers.update, schema=schemas.update_server),
    Route(method="DELETE", path=_SERVER, handler=servers.delete),
    Route(method="GET", path=f"{_SERVER}/ips", handler=servers.addresses),
    Route(method="GET", path=f"{_SERVER}/ips/{{label}}", handler=servers.addresses_of),
    Route(method="GET", path=f"{_SERVER}/metadata", handler=servers.metadata),
    Route(method="POST", path=f"{_SERVER}/metadata", handler=servers.add_metadata, schema=schemas.SERVER_METADATA),
    Route(method="PUT", path=f"{_SERVER}/metadata", handler=servers.set_metadata, schema=schemas.SERVER_METADATA),
    Route(method="GET", path=f"{_SERVER}/metadata/{{key}}", handler=servers.metadata_item),
    Route(
        method="PUT",
        path=f"{_SERVER}/metadata/{{key}}",
        handler=servers.set_metadata_item,
        schema=schemas.METADATA_ITEM,
    ),
    Route(method="DELETE", path=f"{_SERVER}/metadata/{{key}}", handler=servers.drop_metadata_item),
    Route(method="GET", path=f"{_SERVER}/tags", handler=servers.tags, since=26),
    Route(method="PUT", path=f"{_SERVER}/tags", handler=servers.set_tags, since=26, schema=schemas.SERVER_TAGS),
    Route(method="DELETE", path=f"{_SERVER}/tags", handler=servers.drop_tags, since=26),
    # actions
    Route(method="POST", path=_ACTION, action="os-start", handler=actions.start, schema=schemas.START),
    Route(method="POST", path=_ACTION, action="os-stop", handler=actions.stop, schema=schemas.STOP),
    Route(method="POST", path=_ACTION, action="reboot", handler=actions.reboot, schema=schemas.REBOOT),
    Route(method="POST", path=_ACTION, action="pause", handler=actions.pause, schema=schemas.PAUSE),
    Route(method="POST", path=_ACTION, action="unpause", handler=actions.unpause, schema=schemas.UNPAUSE),
    Route(method="POST", path=_ACTION, action="suspend", handler=actions.suspend, schema=schemas.SUSPEND),
    Route(method="POST", path=_ACTION, action="resume", handler=actions.resume, schema=schemas.RESUME),
    Route(method="POST", path=_ACTION, action="rebuild", handler=actions.rebuild, schema=schemas.rebuild),
    Route(method="POST", path=_ACTION, action="rescue", handler=actions.rescue, schema=schemas.RESCUE),
    Route(method="POST", path=_ACTION, action="unrescue", handler=actions.unrescue, schema=schemas.UNRESCUE),
    Route(method="POST", path=_ACTION, action="resize", handler=actions.resize, schema=schemas.RESIZE),
    Route(
        method="POST",
        path=_ACTION,
        action="confirmResize",
        handler=actions.confirm_resize,
        schema=schemas.CONFIRM_RESIZE,
    ),
    Route(
        method="POST",
        path=_ACTION,
        action="revertResize",
        handler=actions.revert_resize,
        schema=schemas.REVERT_RESIZE,
    ),
    Route(method="POST", path=_ACTION, action="migrate", handler=actions.migrate, rule=_ADMIN, schema=schemas.migrate),
    Route(
        method="POST",
        path=_ACTION,
        action="os-migrateLive",
        handler=actions.live_migrate,
        rule=_ADMIN,
        schema=schemas.live_migrate,
    ),
    Route(
        method="POST", path=_ACTION, action="evacuate", handler=actions.evacuate, rule=_ADMIN, schema=schemas.evacuate
    ),
    Route(
        method="POST",
        path=_ACTION,
        action="changePassword",
        handler=guests.change_password,
        schema=schemas.CHANGE_PASSWORD,
    ),
    Route(
        method="POST",
        path=_ACTION,
        action="resetNetwork",
        handler=guests.reset_network,
        rule=_ADMIN,
        schema=schemas.RESET_NETWORK,
    ),
    Route(
        method="POST",
        path=_ACTION,
        action="injectNetworkInfo",
        handler=guests.inject_network,
        rule=_ADMIN,
        schema=schemas.INJECT_NETWORK,
    ),
    Route(
        method="POST",
        path=_ACTION,
        action="os-getConsoleOutput",
        handler=guests.console_output,
        schema=schemas.CONSOLE_OUTPUT,
    ),
    Route(
        method="POST",
        path=_ACTION,
        action="os-getVNCConsole",
        handler=guests.vnc_console,
        until=5,
        schema=schemas.VNC_CONSOLE,
    ),
    Route(
        method="POST",
        path=f"{_SERVER}/remote-consoles",
        handler=guests.remote_console,
        since=6,
        schema=schemas.REMOTE_CONSOLE,
    ),
    Route(method="GET", path=f"{_SERVER}/diagnostics", handler=guests.diagnostics, rule=_ADMIN),
    Route(method="POST", path=_ACTION, action="createImage", handler=actions.create_image, schema=schemas.CREATE_IMAGE),
    Route(
        method="POST", path=_ACTION, action="createBackup", handler=actions.create_backup, schema=schemas.CREATE_BACKUP
    ),
    Route(method="POST", path=_ACTION, action="lock", handler=actions.lock, schema=schemas.LOCK),
    Route(method="POST", path=_ACTION, action="unlock", handler=actions.unlock, schema=schemas.UNLOCK),
    *(
        Route(method="POST", path=_ACTION, action=name, handler=actions.not_served, schema=schemas.ANYTHING)
        for name in actions.NOT_SERVED
    ),
    Route(method="GET", path=f"{_SERVER}/os-instance-actions", handler=actions.history),
    Route(method="GET", path=f"{_SERVER}/os-instance-actions/{{request}}", handler=actions.history_of_request),
    # flavors
    Route(method="GET", path="/v2.1/flavors", handler=flavors.names),
    Route(method="POST", path="/v2.1/flavors", handler=flavors.create, rule=_ADMIN, schema=schemas.create_flavor),
    Route(method="GET", path="/v2.1/flavors/detail", handler=flavors.details),
    Route(method="GET", path=_FLAVOR, handler=flavors.show),
    Route(method="PUT", path=_FLAVOR, handler=flavors.update, rule=_ADMIN, since=55, schema=schemas.UPDATE_FLAVOR),
    Route(method="DELETE", path=_FLAVOR, handler=flavors.delete, rule=_ADMIN),
    Route(method="GET", path=f"{_FLAVOR}/os-extra_specs", handler=flavors.extra_specs),
    Route(
        method="POST",
        path=f"{_FLAVOR}/os-extra_specs",
        handler=flavors.add_extra_specs,
        rule=_ADMIN,
        schema=schemas.EXTRA_SPECS,
    ),
    Route(method="GET", path=f"{_FLAVOR}/os-extra_specs/{{key}}", handler=flavors.extra_spec),
    Route(
        method="PUT",
        path=f"{_FLAVOR}/os-extra_specs/{{key}}",
        handler=flavors.set_extra_spec,
        rule=_ADMIN,
        schema=schemas.EXTRA_SPEC,
    ),
    Route(method="DELETE", path=f"{_FLAVOR}/os-extra_specs/{{key}}", handler=flavors.drop_extra_spec, rule=_ADMIN),
    # what a project and a user have
    Route(method="GET", path="/v2.1/limits", handler=quotas.limits),
    Route(method="GET", path="/v2.1/os-quota-sets/{project}", handler=quotas.show),
    Route(method="GET", path="/v2.1/os-quota-sets/{project}/detail", handler=quotas.detail),
    Route(method="GET", path="/v2.1/os-quota-sets/{project}/defaults", handler=quotas.defaults),
    Route(
        method="PUT",
        path="/v2.1/os-quota-sets/{project}",
        handler=quotas.update,
        rule=_ADMIN,
        schema=schemas.UPDATE_QUOTA,
    ),
    Route(method="DELETE", path="/v2.1/os-quota-sets/{project}", handler=quotas.forget, rule=_ADMIN),
    Route(method="GET", path="/v2.1/os-keypairs", handler=keypairs.names),
    Route(method="POST", path="/v2.1/os-keypairs", handler=keypairs.create, schema=schemas.create_keypair),
    Route(method="GET", path="/v2.1/os-keypairs/{keypair}", handler=keypairs.show),
    Route(method="DELETE", path="/v2.1/os-keypairs/{keypair}", handler=keypairs.delete),
    Route(method="GET", path="/v2.1/os-availability-zone", handler=zones.show),
    Route(method="GET", path="/v2.1/os-availability-zone/detail", handler=zones.details, rule=_ADMIN),
    # images, where a folder holds them
    Route(method="GET", path="/image/v2/images", handler=images.names),
    Route(method="POST", path="/image/v2/images", handler=images.create, schema=schemas.CREATE_IMAGE_RECORD),
    Route(method="GET", path=_IMAGE, handler=images.show, rule=_BYTES),
    Route(
        method="PATCH",
        path=_IMAGE,
        handler=images.update,
        rule=_BYTES,
        schema=schemas.PATCH_IMAGE,
        media=images.PATCH_MEDIA,
    ),
    Route(method="DELETE", path=_IMAGE, handler=images.delete),
    Route(method="GET", path=f"{_IMAGE}/file", handler=images.download, rule=_BYTES),
    Route(
        method="PUT",
        path=f"{_IMAGE}/file",
        handler=images.upload,
        rule=_BYTES,
        media=("application/octet-stream",),
        streams=True,
    ),
    Route(method="PUT", path=f"{_IMAGE}/tags/{{tag}}", handler=images.add_tag),
    Route(method="DELETE", path=f"{_IMAGE}/tags/{{tag}}", handler=images.drop_tag),
)
