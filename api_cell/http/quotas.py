"""/limits and /os-quota-sets."""

from typing import Any

from api_cell.errors import Forbidden, Invalid, NotFound
from api_cell.http import views
from api_cell.http.call import Answer, Call
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
    row, _ = quota.show(call.api, "")
    return Answer(body={"quota_set": {"id": project, **_limits(call, row)}})


def update(call: Call) -> Answer:
    project = _project(call)
    changes = {}
    for name, value in call.body["quota_set"].items():
        if name in ("force", "tenant_id"):
            continue
        if name not in _SETTABLE:
            raise Invalid(f"quota_set.{name}: cannot be set here; only {', '.join(_SETTABLE)} can")
        if int(value) < -1:
            raise Invalid(f"quota_set.{name}: must be -1 (no limit) or more")
        changes[_SETTABLE[name]] = int(value)
    row = quota.change(call.api, project, **changes)
    return Answer(body={"quota_set": _limits(call, row)})


def forget(call: Call) -> Answer:
    quota.forget(call.api, _project(call))
    return Answer(code=202)
