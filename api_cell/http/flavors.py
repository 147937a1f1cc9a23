"""/flavors: parse -> api_cell.service.flavors -> views."""

from typing import Any

from api_cell.errors import Invalid, NotFound
from api_cell.http import views
from api_cell.http.call import Answer, Call
from api_cell.http.paging import page_size
from api_cell.rows import FlavorRow
from api_cell.service import flavors
from cells.model import Flavor
from cells.names import id_text

_TRUE = (True, "True", "true", "TRUE", "1", "on", "yes")


def names(call: Call) -> Answer:
    return _list(call, "/v2.1/flavors", lambda row: views.flavor_name(row, call.version, call.base))


def details(call: Call) -> Answer:
    return _list(call, "/v2.1/flavors/detail", lambda row: views.flavor(row, call.version, call.base))


def _list(call: Call, path: str, view: Any) -> Answer:
    query = call.query
    public: bool | None = True
    if query.text("is_public").lower() == "none":
        public = None
    elif "is_public" in query:
        public = query.truth("is_public")
    found = flavors.find(
        call.api,
        call.caller,
        public=public,
        min_disk=query.number("minDisk", 0),
        min_ram=query.number("minRam", 0),
    )
    key, direction = query.text("sort_key", "flavorid"), query.text("sort_dir", "asc")
    if direction not in ("asc", "desc"):
        raise Invalid(f"sort_dir: {direction[:40]!r} is neither asc nor desc")
    if key in ("id", "flavorid", "name") and "sort_key" in query:
        found.sort(key=lambda row: row.name if key == "name" else row.id)
    if direction == "desc":
        found.reverse()
    marker = query.text("marker")
    if marker:
        places = [n for n, row in enumerate(found) if row.id == marker]
        if not places:
            raise Invalid(f"marker [{marker[:80]}] not found; begin again without a marker")
        found = found[places[0] + 1 :]
    page = found[: page_size(call)]
    body: dict[str, Any] = {"flavors": [view(row) for row in page]}
    if page and len(page) < len(found):
        body["flavors_links"] = views.next_link(call.base, path, query.pairs(), page[-1].id)
    return Answer(body=body)


def show(call: Call) -> Answer:
    return _one(call, flavors.show(call.api, call.caller, call.params["flavor"]))


def _one(call: Call, row: FlavorRow) -> Answer:
    return Answer(body={"flavor": views.flavor(row, call.version, call.base)})


def create(call: Call) -> Answer:
    body = call.body["flavor"]
    given = body.get("id")
    # 'auto' and null ask for an id of our making.
    flavor_id = id_text(call.api.ids()) if given in (None, "auto") else str(given)
    flavor = Flavor(
        id=flavor_id,
        name=body["name"],
        vcpus=int(body["vcpus"]),
        ram_mib=int(body["ram"]),
        disk_gib=int(body["disk"]),
        ephemeral_gib=int(body.get("OS-FLV-EXT-DATA:ephemeral", 0)),
        swap_mib=int(body.get("swap", 0)),
    )
    public = body.get("os-flavor-access:is_public", True) in _TRUE
    row = FlavorRow(
        id=flavor_id,
        name=flavor.name,
        public=public,
        flavor=flavor,
        description=body.get("description") or "",
        rxtx_factor=float(body.get("rxtx_factor", 1.0)),
    )
    return _one(call, flavors.create(call.api, row))


def update(call: Call) -> Answer:
    description = call.body["flavor"]["description"] or ""
    return _one(call, flavors.describe(call.api, call.caller, call.params["flavor"], description))


def delete(call: Call) -> Answer:
    flavors.delete(call.api, call.caller, call.params["flavor"])
    return Answer(code=202)


def access(call: Call) -> Answer:
    flavor = call.params["flavor"]
    return _projects(flavor, flavors.projects_of(call.api, call.caller, flavor))


def add_access(call: Call) -> Answer:
    flavor, project = call.params["flavor"], call.body["addTenantAccess"]["tenant"]
    return _projects(flavor, flavors.add_access(call.api, call.caller, flavor, project))


def drop_access(call: Call) -> Answer:
    flavor, project = call.params["flavor"], call.body["removeTenantAccess"]["tenant"]
    return _projects(flavor, flavors.drop_access(call.api, call.caller, flavor, project))


def _projects(flavor: str, projects: tuple[str, ...]) -> Answer:
    return Answer(body={"flavor_access": [{"flavor_id": flavor, "tenant_id": project} for project in projects]})


def extra_specs(call: Call) -> Answer:
    row = flavors.show(call.api, call.caller, call.params["flavor"])
    return Answer(body={"extra_specs": row.flavor.extra_specs})


def add_extra_specs(call: Call) -> Answer:
    specs = call.body["extra_specs"]
    flavors.put_extra_specs(call.api, call.caller, call.params["flavor"], specs)
    return Answer(body={"extra_specs": specs})


def extra_spec(call: Call) -> Answer:
    key = call.params["key"]
    specs = flavors.show(call.api, call.caller, call.params["flavor"]).flavor.extra_specs
    if key not in specs:
        raise NotFound(f"Flavor {call.params['flavor'][:255]} has no extra specs with key {key[:255]}.")
    return Answer(body={key: specs[key]})


def set_extra_spec(call: Call) -> Answer:
    key = call.params["key"]
    if key not in call.body:
        raise Invalid(f"The request body and the URI do not name the same key, {key[:255]}; make them agree")
    flavors.put_extra_specs(call.api, call.caller, call.params["flavor"], call.body)
    return Answer(body=call.body)


def drop_extra_spec(call: Call) -> Answer:
    flavors.drop_extra_spec(call.api, call.caller, call.params["flavor"], call.params["key"])
    return Answer(code=200)
