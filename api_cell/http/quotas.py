"""/limits, /os-quota-sets and /os-quota-class-sets."""

from typing import Any

from api_cell.errors import Forbidden, Invalid, NotFound
from api_cell.http import views
from api_cell.http.call import Answer, Call
from api_cell.quota import EVERYBODY
from api_cell.rows import QuotaRow
from api_cell.service import quota

# Quotas that can be set here, with their names in the row.
_SETTABLE = {"instances": "servers", "cores": "vcpus", "ram": "ram_mib"}


def limits(call: Call) -> Answer:
    project = call.caller.project
    if call.caller.admin:
        project = call.query.text("tenant_id") or project
    row, usage = quota.show(call.api, project)
    settings = call.api.settings
    absolute = views.absolute_limits(
        row, usage, call.version, metadata=settings.most_metadata, keypairs=settings.most_keypairs
    )
    return Answer(body={"limits": {"rate": [], "absolute": absolute}})


def _project(call: Call) -> str:
    project = call.params["project"]
    if project != call.caller.project and not call.caller.admin:
        raise Forbidden("Only an administrator may ask for another project's quota")
    if len(project) > 255:
        raise NotFound("No such project")
    return project


def _limits(call: Call, row: QuotaRow) -> dict[str, int]:
    settings = call.api.settings
    return views.limits_of(row, call.version, metadata=settings.most_metadata, keypairs=settings.most_keypairs)


def show(call: Call) -> Answer:
    project = _project(call)
    row, _ = quota.show(call.api, project)
    return Answer(body={"quota_set": {"id": project, **_limits(call, row)}})


def detail(call: Call) -> Answer:
    project = _project(call)
    row, usage = quota.show(call.api, project)
    used = views.used_of(usage)
    view: dict[str, Any] = {
        name: {"limit": limit, "in_use": used.get(name, 0), "reserved": 0} for name, limit in _limits(call, row).items()
    }
    return Answer(body={"quota_set": {"id": project, **view}})


def defaults(call: Call) -> Answer:
    project = _project(call)
    row, _ = quota.show(call.api, EVERYBODY)
    return Answer(body={"quota_set": {"id": project, **_limits(call, row)}})


def update(call: Call) -> Answer:
    row = quota.change(call.api, _project(call), **_changes(call, "quota_set"))
    return Answer(body={"quota_set": _limits(call, row)})


def _changes(call: Call, key: str) -> dict[str, int]:
    changes = {}
    for name, value in call.body[key].items():
        if name in ("force", "tenant_id"):
            continue
        if name not in _SETTABLE:
            raise Invalid(f"{key}.{name}: cannot be set here; only {', '.join(_SETTABLE)} can")
        if int(value) < -1:
            raise Invalid(f"{key}.{name}: must be -1 (no limit) or more")
        changes[_SETTABLE[name]] = int(value)
    return changes


def show_class(call: Call) -> Answer:
    name = _class(call)
    row, _ = quota.show(call.api, EVERYBODY)
    return Answer(body={"quota_class_set": {"id": name, **_class_limits(call, row)}})


def update_class(call: Call) -> Answer:
    _class(call)
    row = quota.change(call.api, EVERYBODY, **_changes(call, "quota_class_set"))
    return Answer(body={"quota_class_set": _class_limits(call, row)})


def _class(call: Call) -> str:
    """There is one class: what each project may have for which nothing else was set."""
    name = call.params["name"]
    if name != "default":
        raise NotFound(f"There is no quota class {name[:80]}, only 'default'")
    return name


def _class_limits(call: Call, row: QuotaRow) -> dict[str, int]:
    settings = call.api.settings
    return views.class_limits_of(row, call.version, metadata=settings.most_metadata, keypairs=settings.most_keypairs)


def forget(call: Call) -> Answer:
    quota.forget(call.api, _project(call))
    return Answer(code=202)
