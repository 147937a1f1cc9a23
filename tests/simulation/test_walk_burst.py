"""Many builds at once: no host is overfilled, the leaves share them, and what does not fit is told why."""

from collections import Counter

from compute_cell.rows import HostRow
from tests.support.embedded import SMALL, TINY, make_tree
from tests.support.invariants import validate, validate_quiet
from xenapi_host.simulator.worlds import HostShape


def test_two_hundred_builds_at_once_fill_no_host_too_full_and_go_to_all_leaves() -> None:
    tree = make_tree(hosts=8)
    servers = [(api, tree.build(api, f"{api}{number}", TINY)) for number in range(100) for api in ("east", "west")]
    for _ in range(24):
        tree.run(0.25)
        validate(tree)
    tree.run(10, step=1.0)
    validate_quiet(tree)
    rows = [tree.server(api, server) for api, server in servers]
    assert Counter(row.status for row in rows) == {"ACTIVE": 200}
    leaves = Counter(row.leaf for row in rows)
    assert len(leaves) == 3
    assert max(leaves.values()) < 120, leaves
    tree.close()


def test_burst_over_what_there_is_room_for_fills_the_leaves_to_the_last_host() -> None:
    tree = make_tree(hosts=4, host=HostShape(ram_mib=4096, cpu_objects=False))
    room = sum(host.free_ram_mib // SMALL.ram_mib for leaf in tree.pools for host in tree.rows(leaf, HostRow))
    servers = [(api, tree.build(api, f"{api}{number}", SMALL)) for number in range(20) for api in ("east", "west")]
    assert room < len(servers)
    for _ in range(12):
        tree.run(0.5)
        validate(tree)
    tree.run(12, step=1.0)
    validate_quiet(tree)
    rows = [tree.server(api, server) for api, server in servers]
    states = Counter(row.status for row in rows)
    assert states == {"ACTIVE": room, "ERROR": len(servers) - room}
    assert all("No valid host was found" in row.fault for row in rows if row.status == "ERROR")
    tree.close()
