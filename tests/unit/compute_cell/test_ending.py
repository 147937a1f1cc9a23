"""How a leaf's daemon ends."""

from tests.support.embedded import make_tree


def test_a_daemon_that_ends_logs_out_of_its_pools() -> None:
    tree = make_tree({"east": (), "leaf": ("east",)})
    sessions = tree.pools["leaf"].engine.db
    assert sessions.refs("session")
    tree.close()
    assert not sessions.refs("session")
