"""Who has which server, port and daemon in a lab."""

from pathlib import Path

import pytest

from cells.lab.plan import LabPlan, load_plan, make_plan, save_plan
from cells.topology_file import CellPlan, default


@pytest.fixture
def plan(tmp_path: Path) -> LabPlan:
    return make_plan(default(), tmp_path, brokers="2", databases=2, daemons=2, auth="none", port=0)


def test_cells_share_servers_in_turn_and_keep_theirs_when_others_come_and_go(plan: LabPlan, tmp_path: Path):
    turns = {cell: plan.broker_of(cell) for cell in plan.topology.names}
    assert sorted(set(turns.values())) == ["1", "2"]
    assert {plan.database_of(cell) for cell in plan.topology.names} == {"1", "2"}
    later = plan.without_cell(tmp_path, "dfw-1").with_cell(tmp_path, CellPlan(name="new", parents=("dfw",)))
    assert {cell: later.broker_of(cell) for cell in turns if cell != "dfw-1"} == {
        cell: turn for cell, turn in turns.items() if cell != "dfw-1"
    }
    assert later.broker_of("new") in ("1", "2")


def test_each_daemon_of_an_api_cell_has_a_port_of_its_own(plan: LabPlan):
    assert plan.daemons_of("east") == ("east", "east/2")
    assert plan.api_ports.keys() == {"east", "east/2", "west", "west/2"}
    assert len(set(plan.api_ports.values())) == 4


def test_a_plan_is_read_as_it_was_written(plan: LabPlan, tmp_path: Path):
    save_plan(plan, tmp_path / "lab.json")
    assert load_plan(tmp_path / "lab.json") == plan


def test_one_server_of_a_kind_needs_no_name(tmp_path: Path):
    plan = make_plan(default(), tmp_path, brokers="vhosts", auth="none", port=0)
    assert {plan.broker_of(cell) for cell in plan.topology.names} == {""}
    assert {plan.database_of(cell) for cell in plan.topology.names} == {""}
