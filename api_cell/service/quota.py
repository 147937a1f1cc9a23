"""Quotas as an administrator sets them and a tenant sees them."""

from dataclasses import replace

from api_cell.quota import quota_of, usage_of
from api_cell.rows import QuotaRow, UsageRow
from api_cell.service.api import Api
from cells.decision import Remove
from cells.ports import Unit


def show(api: Api, project: str) -> tuple[QuotaRow, UsageRow]:
    """A project's quota and usage."""
    return api.read(lambda unit: (quota_of(unit, project, api.settings.quota), usage_of(unit, project)))


def change(
    api: Api, project: str, *, servers: int | None = None, vcpus: int | None = None, ram_mib: int | None = None
) -> QuotaRow:
    """Set some of a project's limits; those not given stay as they are."""

    def act(unit: Unit) -> QuotaRow:
        old = quota_of(unit, project, api.settings.quota)
        row = replace(
            old,
            servers=old.servers if servers is None else servers,
            vcpus=old.vcpus if vcpus is None else vcpus,
            ram_mib=old.ram_mib if ram_mib is None else ram_mib,
        )
        unit.save(row)
        return row

    return api.change(act)


def forget(api: Api, project: str) -> None:
    """Back to the default quota."""
    api.change(lambda unit: unit.save(Remove(row=QuotaRow, key=(project,))))
