"""A server is renamed, wherever its build has come to: the new name is on its VM when all is quiet."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api_cell.rows import Phase
from cells.names import id_from_text
from compute_cell.rows import InstanceRow
from compute_cell.rows import Phase as LeafPhase
from tests.support.tenants import Tenant, a_tenant


@pytest.fixture
def tenant(tmp_path: Path) -> Iterator[Tenant]:
    with a_tenant(tmp_path) as tenant:
        yield tenant


def at_leaf(tenant: Tenant, server: str) -> InstanceRow | None:
    leaf = tenant.row(server).leaf
    return tenant.tree.instance(leaf, id_from_text(server, "server")) if leaf else None


def offered(tenant: Tenant, server: str) -> bool:
    """The leaf has taken the build, and the owner does not know yet."""
    return tenant.row(server).phase is Phase.OFFERED and at_leaf(tenant, server) is not None


def starting(tenant: Tenant, server: str) -> bool:
    """The VM is made, under the old name, and about to be started."""
    row = at_leaf(tenant, server)
    return row is not None and row.phase is LeafPhase.GRANTED and row.state.task_state == "spawning"


MOMENTS: dict[str, Callable[[Tenant, str], bool]] = {
    "not placed yet": lambda tenant, server: tenant.row(server).phase is Phase.PLACING,
    "offered": offered,
    "granted": lambda tenant, server: tenant.row(server).phase is Phase.GRANTED,
    "starting": starting,
    "running": lambda tenant, server: tenant.row(server).status == "ACTIVE",
}


def wait_for(tenant: Tenant, server: str, moment: str) -> None:
    """Let one cell after the other have a turn until it has come to this."""
    for _ in range(500):
        for cell in list(tenant.tree.house.cells.values()):
            if MOMENTS[moment](tenant, server):
                return
            cell.node.step()
        tenant.tree.clock.advance(0.05)
    raise AssertionError(f"the build was never {moment}")


@pytest.mark.parametrize("moment", MOMENTS)
def test_new_name_reaches_the_host(tenant: Tenant, moment: str) -> None:
    server = str(tenant.create("plain", name="old")["id"])
    wait_for(tenant, server, moment)
    assert tenant.ask("PUT", f"/servers/{server}", {"server": {"name": "new"}}).status_code == 200
    tenant.tree.run(10)
    assert tenant.vm(server)["name_description"] == "new"
    row = tenant.row(server)
    assert (row.status, row.intents) == ("ACTIVE", ())
