"""A server that its leaf has forgotten still stands on a host, and only the API cell that owns it may do anything to
it: another one that knows its id is refused, whichever way it tries."""

from collections.abc import Iterator
from typing import Any

import pytest

from api_cell.rows import ServerRow
from cells.codec import pack
from cells.decision import Job, Remove
from cells.errors import CelltreeError
from cells.messages import BuildServer, DeleteServer, Discard, Grant, JobEnded, RebuildServer, RememberServer
from cells.model import InstanceState, PowerState, VmState
from compute_cell.answers import released
from compute_cell.build import claims
from compute_cell.rows import InstanceRow
from tests.support.embedded import IMAGE, TINY, Tree, make_tree
from tests.support.invariants import validate
from tests.support.xen_hosts import KeptJournal
from tests.unit.compute_cell.test_decisions import spec
from xenapi_host import tags


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = make_tree({"east": (), "west": (), "leaf": ("east", "west")}, hosts=1)
    yield tree
    tree.close()


def orphan(tree: Tree, *, tagged: bool = True) -> bytes:
    """A running server of east that its leaf knows nothing of."""
    server = tree.build("east")
    tree.run(6)
    (vm,) = tree.vms("leaf")
    assert vm["other_config"][tags.OWNER] == "east"
    if not tagged:
        session = tree.pools["leaf"].login()
        ref = session.call("VM.get_by_uuid", vm["uuid"])
        session.call("VM.remove_from_other_config", ref, tags.OWNER)
        session.close()
    with tree.stores["leaf"].inner.unit() as unit:
        row = unit.get(InstanceRow, server)
        unit.save(Remove(row=InstanceRow, key=(server,)), *released(unit, *claims(row)))
    return server


def steal(tree: Tree, server: bytes) -> None:
    """West writes into its own database that the server is its own."""
    row = tree.row("east", ServerRow, server)
    with tree.stores["west"].inner.unit() as unit:
        unit.save(row)


def power_states(tree: Tree) -> list[str]:
    return [vm["power_state"] for vm in tree.vms("leaf")]


def tell(tree: Tree, origin: str, server: bytes, body: Any) -> None:
    """A record comes to the leaf, and the jobs that follow from it are done."""
    waiting = [tree.record(origin, "leaf", body, server, number=2)]
    for record in waiting:
        waiting += [tree.record("leaf", "leaf", _end(tree, job), server) for job in tree.decide("leaf", record).do]


def _end(tree: Tree, job: Job) -> JobEnded:
    try:
        result = tree["leaf"].role.work(job, KeptJournal())
    except CelltreeError as error:
        return JobEnded(job=job.id, kind=job.kind, lane=job.lane, error=str(error))
    return JobEnded(job=job.id, kind=job.kind, lane=job.lane, result=pack(result))


def remembered(launched_at: int) -> RememberServer:
    state = InstanceState(vm_state=VmState.ACTIVE, power_state=PowerState.RUNNING, flavor=TINY, launched_at=launched_at)
    return RememberServer(attempt=1, spec=spec(), proof=b"", version=9, number=1, state=state)


TRIES = {
    "delete": DeleteServer(build_deadline=0),
    "discard": Discard(attempt=1),
    "build": BuildServer(attempt=1, spec=spec()),
    "remember": remembered(5),
    "remember as never started": remembered(0),
}


@pytest.mark.parametrize("halted", [False, True], ids=["running", "halted"])
@pytest.mark.parametrize("way", TRIES)
def test_another_api_cell_can_do_nothing_to_an_orphan(tree: Tree, way: str, halted: bool) -> None:
    server = orphan(tree)
    if halted:
        session = tree.pools["leaf"].login()
        session.call("VM.hard_shutdown", session.call("VM.get_by_name_label", tags.vm_name(server))[0])
        session.close()
    before = tree.vms("leaf"), tree.objects("leaf", "VDI")
    tell(tree, "west", server, TRIES[way])
    tell(tree, "west", server, Grant(attempt=1))
    tell(tree, "west", server, DeleteServer(build_deadline=0))
    assert (tree.vms("leaf"), tree.objects("leaf", "VDI")) == before
    assert tree.instance("leaf", server) is None, "nothing stands in the way of the owner"
    validate(tree, rows=False, versions=False)


def test_owner_gets_its_orphan_back_while_another_claims_it(tree: Tree) -> None:
    server = orphan(tree)
    steal(tree, server)
    tree.run(60)
    tree.ask("west", server, DeleteServer(build_deadline=0))
    tree.run(60)
    row = tree.instance("leaf", server)
    assert row is not None and (row.owner, row.state.vm_state) == ("east", VmState.ACTIVE)
    assert power_states(tree) == ["Running"]
    tree.ask("east", server, DeleteServer(build_deadline=0))
    tree.run(10)
    assert power_states(tree) == []


def test_orphan_that_names_no_owner_is_whosever_asks(tree: Tree) -> None:
    """Made by an earlier version, which wrote no owner."""
    server = orphan(tree, tagged=False)
    tell(tree, "west", server, DeleteServer(build_deadline=0))
    assert power_states(tree) == []


def test_owner_is_written_on_whatever_is_made_of_a_server_later(tree: Tree) -> None:
    server = tree.build("east")
    tree.run(6)
    first = tree.vms("leaf")[0]["uuid"]
    tree.ask("east", server, RebuildServer(image=IMAGE))
    tree.run(10)
    (vm,) = tree.vms("leaf")
    assert (vm["uuid"] != first, vm["other_config"][tags.OWNER]) == (True, "east")
