"""Flavors: few rows, read whole. A flavor that is not public is seen by administrators and by the projects that were
given access to it."""

from dataclasses import replace

from api_cell.errors import NotAllowedNow, NotFound
from api_cell.rows import FlavorRow
from api_cell.service.api import Api, Caller
from cells.decision import Remove
from cells.ports import Unit, View


def flavor_seen(view: View, caller: Caller, flavor_id: str) -> FlavorRow | None:
    """The flavor with this id, if the caller may see it."""
    row = view.get(FlavorRow, flavor_id)
    return row if row is not None and (caller.admin or _is_for(row, caller)) else None


def _is_for(row: FlavorRow, caller: Caller) -> bool:
    return row.public or caller.project in row.projects


def show(api: Api, caller: Caller, flavor_id: str) -> FlavorRow:
    """One flavor."""
    return api.read(lambda unit: _need(unit, caller, flavor_id))


def find(
    api: Api, caller: Caller, *, public: bool | None = True, min_disk: int = 0, min_ram: int = 0
) -> list[FlavorRow]:
    """Flavors the caller may see, smallest first. `public` None: both kinds, for an administrator."""
    rows = api.read(lambda unit: unit.all(FlavorRow))
    wanted = public if caller.admin else True
    found = [
        row
        for row in rows
        if (wanted is None or (_is_for(row, caller) if wanted else not row.public))
        and row.flavor.disk_gib >= min_disk
        and row.flavor.ram_mib >= min_ram
    ]
    return sorted(found, key=lambda row: (row.flavor.ram_mib, row.flavor.vcpus, row.flavor.disk_gib, row.id))


def create(api: Api, row: FlavorRow) -> FlavorRow:
    """Offer a flavor; its id and name must be new."""

    def act(unit: Unit) -> FlavorRow:
        for other in unit.all(FlavorRow):
            if other.id == row.id:
                raise NotAllowedNow(f"Flavor with ID {row.id} already exists; choose another id, or 'auto'")
            if other.name == row.name:
                raise NotAllowedNow(f"Flavor with name {row.name} already exists; choose another name")
        unit.insert(row)
        return row

    return api.change(act)


def describe(api: Api, caller: Caller, flavor_id: str, description: str) -> FlavorRow:
    """Change a flavor's description."""

    def act(unit: Unit) -> FlavorRow:
        row = replace(_need(unit, caller, flavor_id), description=description)
        unit.save(row)
        return row

    return api.change(act)


def delete(api: Api, caller: Caller, flavor_id: str) -> None:
    """Offer it no more; servers that have it keep it."""

    def act(unit: Unit) -> None:
        unit.save(Remove(row=FlavorRow, key=(_need(unit, caller, flavor_id).id,)))

    api.change(act)


def projects_of(api: Api, caller: Caller, flavor_id: str) -> tuple[str, ...]:
    """Who was given access to a flavor that is not public."""
    row = show(api, caller, flavor_id)
    if row.public:
        raise NotFound(f"Access list not available for public flavors: {flavor_id} is for all projects")
    return row.projects


def add_access(api: Api, caller: Caller, flavor_id: str, project: str) -> tuple[str, ...]:
    """Let a project use a flavor that is not public; all that may, then."""

    def act(unit: Unit) -> tuple[str, ...]:
        row = _need(unit, caller, flavor_id)
        if row.public:
            raise NotAllowedNow(f"Flavor {flavor_id} is public: all projects have access to it")
        if project in row.projects:
            raise NotAllowedNow(f"Flavor access already exists for flavor {flavor_id} and project {project}")
        unit.save(replace(row, projects=(*row.projects, project)))
        return (*row.projects, project)

    return api.change(act)


def drop_access(api: Api, caller: Caller, flavor_id: str, project: str) -> tuple[str, ...]:
    """Take it back; all that may still."""

    def act(unit: Unit) -> tuple[str, ...]:
        row = _need(unit, caller, flavor_id)
        if project not in row.projects:
            raise NotFound(f"Flavor access not found for flavor {flavor_id} and project {project}")
        left = tuple(each for each in row.projects if each != project)
        unit.save(replace(row, projects=left))
        return left

    return api.change(act)


def put_extra_specs(api: Api, caller: Caller, flavor_id: str, specs: dict[str, str]) -> dict[str, str]:
    """Add or replace extra specs; those of other keys stay."""

    def act(unit: Unit) -> dict[str, str]:
        row = _need(unit, caller, flavor_id)
        merged = {**row.flavor.extra_specs, **specs}
        unit.save(replace(row, flavor=replace(row.flavor, extra_specs=merged)))
        return merged

    return api.change(act)


def drop_extra_spec(api: Api, caller: Caller, flavor_id: str, key: str) -> None:
    """Delete one extra spec."""

    def act(unit: Unit) -> None:
        row = _need(unit, caller, flavor_id)
        if key not in row.flavor.extra_specs:
            raise NotFound(f"Flavor {flavor_id} has no extra specs with key {key}.")
        left = {name: value for name, value in row.flavor.extra_specs.items() if name != key}
        unit.save(replace(row, flavor=replace(row.flavor, extra_specs=left)))

    api.change(act)


def _need(view: View, caller: Caller, flavor_id: str) -> FlavorRow:
    row = flavor_seen(view, caller, flavor_id)
    if row is None:
        raise NotFound(f"Flavor {flavor_id} could not be found.")
    return row
