"""What a project has and may have. Pure but for the view it reads. Whoever saves a changed server row saves the
project's usage row (`charge`) in the same unit, so that the two never part.
"""

from dataclasses import dataclass, replace

from api_cell.errors import Forbidden
from api_cell.rows import QuotaRow, ServerRow, UsageRow
from api_cell.settings import DefaultQuota
from cells.model import Flavor
from cells.ports import View

NO_LIMIT = -1
EVERYBODY = ""
"""The project whose quota is that of all who have none of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What counts against a quota."""

    servers: int = 0
    vcpus: int = 0
    ram_mib: int = 0


def held(row: ServerRow | None) -> Held:
    """What a server counts for: while a resize is open, the larger of both flavors, since the old copy is kept."""
    if row is None:
        return Held()
    flavors = [row.spec.flavor]
    if row.resize_to is not None:
        flavors.append(row.resize_to)
    return Held(servers=1, vcpus=max(f.vcpus for f in flavors), ram_mib=max(f.ram_mib for f in flavors))


def held_by(flavor: Flavor, servers: int) -> Held:
    """What so many servers of a flavor count for."""
    return Held(servers=servers, vcpus=flavor.vcpus * servers, ram_mib=flavor.ram_mib * servers)


def charge(usage: UsageRow, before: ServerRow | None, after: ServerRow | None) -> UsageRow:
    """The project's usage when one of its servers changes like this; None is no server. Never below zero."""
    was, will = held(before), held(after)
    return replace(
        usage,
        servers=max(0, usage.servers + will.servers - was.servers),
        vcpus=max(0, usage.vcpus + will.vcpus - was.vcpus),
        ram_mib=max(0, usage.ram_mib + will.ram_mib - was.ram_mib),
    )


def usage_of(view: View, project: str) -> UsageRow:
    """What the project has now."""
    return view.get(UsageRow, project) or UsageRow(project=project)


def quota_of(view: View, project: str, default: DefaultQuota) -> QuotaRow:
    """What the project may have: its own quota, else everybody's row, else the settings."""
    found = view.get(QuotaRow, project) or view.get(QuotaRow, EVERYBODY)
    if found is not None:
        return replace(found, project=project)
    return QuotaRow(project=project, servers=default.servers, vcpus=default.vcpus, ram_mib=default.ram_mib)


def room_for(usage: UsageRow, quota: QuotaRow, flavor: Flavor, most: int) -> int:
    """How many servers of this flavor fit into the quota, at most so many."""
    fits = [most]
    for used, limit, each in (
        (usage.servers, quota.servers, 1),
        (usage.vcpus, quota.vcpus, flavor.vcpus),
        (usage.ram_mib, quota.ram_mib, flavor.ram_mib),
    ):
        if limit != NO_LIMIT and each > 0:
            fits.append(max(0, limit - used) // each)
    return min(fits)


def refuse_over(usage: UsageRow, quota: QuotaRow, more: Held) -> None:
    """Forbidden when so much more would be over the quota."""
    for name, used, limit, asked in (
        ("instances", usage.servers, quota.servers, more.servers),
        ("cores", usage.vcpus, quota.vcpus, more.vcpus),
        ("ram", usage.ram_mib, quota.ram_mib, more.ram_mib),
    ):
        if limit != NO_LIMIT and asked > 0 and used + asked > limit:
            raise Forbidden(
                f"Quota exceeded for {name}: Requested {asked}, but already used {used} of {limit} {name}; "
                "delete servers or ask for a higher quota"
            )
