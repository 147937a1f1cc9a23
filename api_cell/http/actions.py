"""POST /servers/{id}/action, one function an action, and /os-instance-actions."""

from api_cell.errors import Forbidden, Invalid, NotFound, NotServed
from api_cell.http import views
from api_cell.http.call import Answer, Call
from api_cell.http.paging import page_size
from api_cell.http.servers import access_of, asking, disk_config, files_of, from_base64, server_id, view_of
from api_cell.service import actions, secrets, servers, story
from cells.model import Secrets

ACCEPTED = Answer(code=202)


def start(call: Call) -> Answer:
    actions.start(call.api, asking(call))
    return ACCEPTED


def stop(call: Call) -> Answer:
    actions.stop(call.api, asking(call))
    return ACCEPTED


def reboot(call: Call) -> Answer:
    hard = call.body["reboot"]["type"].upper() == "HARD"
    actions.reboot(call.api, asking(call), hard=hard)
    return ACCEPTED


def pause(call: Call) -> Answer:
    actions.pause(call.api, asking(call))
    return ACCEPTED


def unpause(call: Call) -> Answer:
    actions.unpause(call.api, asking(call))
    return ACCEPTED


def suspend(call: Call) -> Answer:
    actions.suspend(call.api, asking(call))
    return ACCEPTED


def resume(call: Call) -> Answer:
    actions.resume(call.api, asking(call))
    return ACCEPTED


def resize(call: Call) -> Answer:
    wish = call.body["resize"]
    actions.resize(call.api, asking(call), wish["flavorRef"].rpartition("/")[2], disk_config(wish))
    return ACCEPTED


_NOT_REBUILT = {
    "preserve_ephemeral": "ephemeral disks are made anew",
}


def rebuild(call: Call) -> Answer:
    wish = call.body["rebuild"]
    for name, remedy in _NOT_REBUILT.items():
        if wish.get(name):
            raise Invalid(f"rebuild.{name}: is not supported; {remedy}")
    metadata = wish.get("metadata")
    if metadata is not None and len(metadata) > call.api.settings.most_metadata:
        raise Forbidden(
            f"rebuild.metadata: {len(metadata)} items are over the limit of {call.api.settings.most_metadata}"
        )
    image = wish["imageRef"].rstrip("/").rpartition("/")[2]
    given = Secrets(
        admin_password=wish.get("adminPass") or _made_up(call, image),
        files=files_of(wish.get("personality", []), "rebuild"),
        user_data=from_base64("rebuild.user_data", wish.get("user_data") or ""),
    )
    wanted = actions.Rebuild(
        image=image,
        name=wish.get("name"),
        description=(wish["description"] or "") if "description" in wish else None,
        metadata=metadata,
        auto_disk_config=disk_config(wish),
        access=access_of(wish, "rebuild"),
        key_name=(wish["key_name"] or "") if "key_name" in wish else None,
        given=given,
        keep_config="user_data" not in wish,
    )
    row = actions.rebuild(call.api, asking(call), wanted)
    view = views.rebuilt_server(view_of(call, row), call.version)
    if given.admin_password:
        view["adminPass"] = given.admin_password
    here = call.path.removesuffix("/action")
    return Answer(code=202, body={"server": view}, headers={"Location": f"{call.base}{here}"})


def _made_up(call: Call, image: str) -> str:
    """A password for an image that can be given one."""
    return secrets.new_password() if secrets.could_set_password(call.api, image) else ""


def rescue(call: Call) -> Answer:
    wish = call.body["rescue"] or {}
    image = wish.get("rescue_image_ref", "").rpartition("/")[2]
    # Clients read the field. It is empty where nobody can set a password in the rescue image.
    return Answer(body={"adminPass": actions.rescue(call.api, asking(call), image, wish.get("adminPass", ""))})


def unrescue(call: Call) -> Answer:
    actions.unrescue(call.api, asking(call))
    return ACCEPTED


def confirm_resize(call: Call) -> Answer:
    actions.confirm_resize(call.api, asking(call))
    return Answer(code=204)


def revert_resize(call: Call) -> Answer:
    actions.revert_resize(call.api, asking(call))
    return ACCEPTED


def migrate(call: Call) -> Answer:
    actions.migrate(call.api, asking(call), (call.body["migrate"] or {}).get("host") or "")
    return ACCEPTED


def live_migrate(call: Call) -> Answer:
    wish = call.body["os-migrateLive"]
    block = wish["block_migration"]
    if block != "auto":
        block = str(block).lower() in ("true", "1", "yes", "on", "t", "y")
    actions.live_migrate(call.api, asking(call), wish["host"] or "", None if block == "auto" else block)
    return ACCEPTED


def evacuate(call: Call) -> Answer:
    wish = call.body["evacuate"]
    if "adminPass" in wish:
        raise Invalid("evacuate.adminPass: the server keeps its disk, hence its password; leave it out")
    actions.evacuate(call.api, asking(call), wish.get("host") or "")
    if call.version >= 14:
        return Answer()
    return Answer(body={"adminPass": ""})


def create_image(call: Call) -> Answer:
    wish = call.body["createImage"]
    return _of_image(call, actions.create_image(call.api, asking(call), wish["name"], wish.get("metadata", {})))


def _of_image(call: Call, image: str) -> Answer:
    if call.version >= 45:
        return Answer(code=202, body={"image_id": image})
    service = call.api.images.url if call.folder is None else f"{call.base}/image"
    return Answer(code=202, headers={"Location": f"{service}/v2/images/{image}"})


def _truth(text: str, field: str) -> bool | None:
    """A yes or no that may be left out."""
    if text.lower() not in ("", "true", "false"):
        raise Invalid(f"{field}: {text[:40]!r} is neither true nor false")
    return text.lower() == "true" if text else None


def create_backup(call: Call) -> Answer:
    wish = call.body["createBackup"]
    metadata = dict(wish.get("metadata", {}))
    incremental = _truth(metadata.pop("incremental", ""), "createBackup.metadata.incremental")
    wanted = actions.Backup(kind=wish["backup_type"], rotation=int(wish["rotation"]), incremental=incremental)
    return _of_image(call, actions.create_backup(call.api, asking(call), wish["name"], wanted, metadata))


def lock(call: Call) -> Answer:
    servers.lock(call.api, call.caller, server_id(call), True)
    return ACCEPTED


def unlock(call: Call) -> Answer:
    servers.lock(call.api, call.caller, server_id(call), False)
    return ACCEPTED


def not_served(call: Call) -> Answer:
    """Actions that OpenStack has and these servers have not."""
    servers.show(call.api, call.caller, server_id(call))
    raise NotServed(
        "This action is not implemented here; GET the version document and the reference for those that are"
    )


NOT_SERVED = (
    "shelve",
    "unshelve",
    "shelveOffload",
    "restore",
    "forceDelete",
    "os-resetState",
    "trigger_crash_dump",
    "addSecurityGroup",
    "removeSecurityGroup",
)


def history(call: Call) -> Answer:
    server = server_id(call)
    servers.show(call.api, call.caller, server)
    lines = call.api.read(lambda unit: story.actions(unit, server))
    if call.version < 58:
        return Answer(body={"instanceActions": [views.action(line, call.version) for line in lines]})
    marker, size = call.query.text("marker"), page_size(call)
    if marker:
        places = [n for n, line in enumerate(lines) if line.request == marker]
        if not places:
            raise Invalid(f"marker [{marker[:80]}] not found; begin again without a marker")
        lines = lines[places[0] + 1 :]
    page = lines[:size]
    body: dict[str, object] = {"instanceActions": [views.action(line, call.version) for line in page]}
    if page and len(lines) > len(page):
        path = call.path
        body["links"] = views.next_link(call.base, path, call.query.pairs(), page[-1].request)
    return Answer(body=body)


def history_of_request(call: Call) -> Answer:
    server, request = server_id(call), call.params["request"]
    servers.show(call.api, call.caller, server)
    lines = call.api.read(lambda unit: story.of_request(unit, server, request))
    asked = next((line for line in lines if story.action_of(line)), None)
    if asked is None:
        raise NotFound(f"Action for request_id {request[:255]} on instance {call.params['server'][:255]} not found")
    view = views.action(asked, call.version)
    if call.caller.admin or call.version >= 51:
        view["events"] = [
            views.event(line, call.version, host=call.caller.admin) for line in lines if line is not asked
        ]
    return Answer(body={"instanceAction": view})
