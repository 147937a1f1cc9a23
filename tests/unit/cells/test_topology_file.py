"""Topology files: what is taken, and what is refused with the place and the remedy."""

import pytest

from cells.errors import BadInput
from cells.topology_file import CellPlan, PoolPlan, default, dump, parse, read

GOOD = """
cells:
- {name: dfw-1, parents: [dfw], pools: [{hosts: 3, ram_mib: 4096}, {name: old, sr: nfs}]}
- {name: dfw, parents: [east]}
- name: east
"""


def test_roles_and_pool_names_are_filled_in_and_parents_come_first():
    tree = parse(GOOD)
    assert [(cell.name, cell.role) for cell in tree.cells] == [
        ("east", "api"),
        ("dfw", "compute"),
        ("dfw-1", "compute"),
    ]
    assert [(pool.name, pool.hosts, pool.sr) for pool in tree["dfw-1"].pools] == [
        ("dfw-1-pool1", 3, "ext"),
        ("old", 2, "nfs"),
    ]
    assert tree.edges == (("east", "dfw"), ("dfw", "dfw-1"))


def test_what_is_dumped_reads_the_same():
    assert parse(dump(default())) == default()
    assert parse(dump(parse(GOOD))) == parse(GOOD)


def test_the_default_tree_has_a_leaf_under_both_regions():
    tree = default()
    assert [cell.name for cell in tree.api_cells] == ["east", "west"]
    assert tree["shared-1"].parents == ("dfw", "ord")
    assert {cell.name: [pool.hosts for pool in cell.pools] for cell in tree.leaves} == {
        "dfw-1": [2],
        "ord-1": [2],
        "shared-1": [2],
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cells: [", "is not YAML"),
        ("- name: east", "must be a mapping with 'cells:'"),
        ("cells: []", "cells must be a list with at least one cell"),
        ("cell: []", "'cell' is not known here, did you mean 'cells'?"),
        ("cells: [east]", "cells[0] must be a mapping"),
        ("cells: [{role: api}]", "cells[0]: name is missing; add it"),
        ("cells: [{name: Dfw_1}]", "cells[0].name: cell name 'Dfw_1' is not valid: use 1 to 63"),
        ("cells: [{name: east, parent: [x]}]", "cells[0]: 'parent' is not known here, did you mean 'parents'?"),
        ("cells: [{name: east}, {name: east}]", "cells[1].name: 'east' is cells[0] already"),
        (
            "cells: [{name: east}, {name: dfw, parents: [eest]}]",
            "cells[1] (dfw): parents[0]: there is no cell 'eest', did you mean 'east'?; there are: east, dfw",
        ),
        ("cells: [{name: a, parents: [a]}]", "parents[0]: a cell cannot be its own parent; that is a cycle"),
        ("cells: [{name: a}, {name: b, parents: [a, a]}]", "cells[1] (b): parents[1]: 'a' is named twice; remove one"),
        ("cells: [{name: a}, {name: b, parents: a}]", "cells[1] (b): parents must be a list"),
        ("cells: [{name: a}, {name: b, parents: [1]}]", "cells[1].parents[0] must be a cell's name, not 1"),
        (
            "cells: [{name: a}, {name: b, parents: [a, c]}, {name: c, parents: [b]}]",
            "is a cycle; remove one of these parents",
        ),
        ("cells: [{name: a, role: boss}]", "cells[0] (a): role is 'boss'; use api or compute"),
        ("cells: [{name: a}, {name: b, role: api, parents: [a]}]", "an API cell has no parents; remove them"),
        ("cells: [{name: a, role: compute}]", "a compute cell needs at least one parent"),
        ("cells: [{name: a, pools: [{}]}]", "an API cell has no hosts; put them in a compute cell below it"),
        (
            "cells: [{name: a}, {name: b, parents: [a], pools: [{hosts: 0}]}]",
            "pools[0].hosts is 0; it must be 1",
        ),
        ("cells: [{name: a}, {name: b, parents: [a], pools: [{hosts: two}]}]", "hosts must be a whole number"),
        ("cells: [{name: a}, {name: b, parents: [a], pools: [{sr: lvm}]}]", "pools[0].sr is 'lvm'; use ext"),
        ("cells: [{name: a}, {name: b, parents: [a], pools: [{ram: 1}]}]", "'ram' is not known here"),
        (
            "cells: [{name: a}, {name: b, parents: [a], pools: [{name: p}]},"
            " {name: c, parents: [a], pools: [{name: p}]}]",
            "cells[2] (c): pools: 'p' is a pool of b already; rename one",
        ),
    ],
)
def test_a_bad_file_is_refused_with_the_place_and_the_remedy(text, said):
    with pytest.raises(BadInput) as refusal:
        parse(text, "tree.yaml")
    assert str(refusal.value).startswith("tree.yaml")
    assert said in str(refusal.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"nowhere\.yaml cannot be read: No such file"):
        read(tmp_path / "nowhere.yaml")


def test_one_cell_more_is_checked_against_the_others():
    tree = default().with_cell(CellPlan(name="new-1", parents=("dfw", "ord"), pools=(PoolPlan(hosts=1),)))
    assert tree["new-1"].pools[0].name == "new-1"
    with pytest.raises(BadInput, match="'east' is cells"):
        default().with_cell(CellPlan(name="east"))
