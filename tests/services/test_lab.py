"""The production shape on this machine: real daemons, RabbitMQ, MariaDB, simulated XenServers, driven by the command as
an operator would."""

import json
from typing import Any

import pytest

from cells.broker import rpc
from cells.errors import BadInput, CelltreeError
from cells.lab.daemons import Daemon
from tests.support.labs import GONE, RunningLab


def test_a_build_asked_of_either_api_cell_becomes_active(shared_lab: RunningLab):
    servers = {api: shared_lab.build(api) for api in ("east", "west")}
    for api, server in servers.items():
        seen = shared_lab.wait_status(api, server, "ACTIVE", "ERROR")
        assert seen["status"] == "ACTIVE", seen.get("fault")
        instance = shared_lab.instance(shared_lab.leaf_of(server), server)
        assert instance is not None
        assert instance.owner == api
    assert shared_lab.show("west", servers["east"])["status"] == GONE
    for api, server in servers.items():
        shared_lab.delete(api, server)
        shared_lab.wait_status(api, server, GONE)


def test_the_command_tells_the_story_of_a_build_and_why_its_leaf_was_chosen(shared_lab: RunningLab):
    server = shared_lab.build("east", "told")
    shared_lab.wait_status("east", server, "ACTIVE")
    lines = json.loads(shared_lab.celltree("story", server, "-f", "json").stdout)
    events = [line["event"] for line in lines]
    assert events[:2] == ["asked.create", "placed"]
    accepted = next(line for line in lines if line["event"] == "accepted")
    assert accepted["down"][0]["cell"] == "east"
    assert accepted["up"][0]["cell"] == shared_lab.leaf_of(server)
    request = lines[0]["request"]
    verdicts = json.loads(shared_lab.celltree("explain", request, "-f", "json").stdout)
    chosen = [line["Leaf"] for line in verdicts if line["Verdict"] == "chosen"]
    assert chosen == [shared_lab.leaf_of(server)]
    assert {line["Leaf"] for line in verdicts} >= {"dfw-1", "ord-1", "shared-1"}
    shared_lab.delete("east", server)
    shared_lab.wait_status("east", server, GONE)


def test_the_command_shows_tree_capacity_and_hosts(shared_lab: RunningLab):
    cells = {cell["name"]: cell for cell in json.loads(shared_lab.celltree("tree", "-f", "json").stdout)}
    assert cells["shared-1"]["parents"] == ["dfw", "ord"]
    assert cells["dfw"]["parents"] == ["east", "west"]
    rows = json.loads(shared_lab.celltree("capacity", "--cell", "east", "--flavor", "m1.tiny", "-f", "json").stdout)
    total = next(row for row in rows if row["Leaf"] == "total" and row["State"] == "heard")
    leaves = [row for row in rows if row["Leaf"] != "total" and "silent" not in row["State"]]
    assert total["m1.tiny"] == sum(row["m1.tiny"] for row in leaves) > 0
    hosts = json.loads(shared_lab.celltree("host", "list", "--cell", "shared-1", "-f", "json").stdout)
    assert [host["Host"] for host in hosts] == ["shared-1-host1", "shared-1-host2"]
    drawn = shared_lab.celltree("tree").stdout
    assert "above; it has several parents" in drawn


def test_status_lists_every_part_and_logs_are_found(shared_lab: RunningLab):
    rows = {row["Part"]: row for row in json.loads(shared_lab.celltree("lab", "status", "-f", "json").stdout)}
    assert {row["State"] for row in rows.values()} == {"running"}
    assert rows.keys() >= {"broker", "database", "xenserver:dfw-1", "east", "shared-1"}
    assert "running as daemon main" in shared_lab.celltree("lab", "logs", "dfw", "--lines", "2000").stdout


def test_a_leaf_killed_in_the_middle_of_builds_finishes_them_when_it_is_back(shared_lab: RunningLab):
    servers = [shared_lab.build("east", f"kill-{number}", hints={"target_cell": "ord-1"}) for number in range(4)]
    shared_lab.wait(lambda: any(shared_lab.instance("ord-1", server) for server in servers), "a build begun at ord-1")
    shared_lab.celltree("lab", "kill", "ord-1")
    assert shared_lab.lab.daemon("ord-1").pid is None
    shared_lab.celltree("lab", "start", "ord-1")
    for server in servers:
        seen = shared_lab.wait_status("east", server, "ACTIVE", "ERROR")
        assert seen["status"] == "ACTIVE" or seen["fault"]["message"]
        shared_lab.delete("east", server)
    for server in servers:
        shared_lab.wait_status("east", server, GONE)


def test_a_region_that_is_down_is_gone_round_and_comes_back(shared_lab: RunningLab):
    shared_lab.celltree("lab", "kill", "dfw")
    server = shared_lab.build("east", "round", hints={"target_cell": "shared-1"})
    seen = shared_lab.wait_status("east", server, "ACTIVE", "ERROR")
    assert seen["status"] == "ACTIVE", seen.get("fault")
    shared_lab.celltree("lab", "start", "dfw")
    shared_lab.lab.wait_ready()
    shared_lab.delete("east", server)
    shared_lab.wait_status("east", server, GONE)


def test_sigterm_gives_the_leases_back_so_that_a_new_daemon_works_at_once(shared_lab: RunningLab):
    shared_lab.lab.stop("dfw-1")
    assert "dfw-1: ended" in shared_lab.lab.log("dfw-1").read_text()
    shared_lab.lab.start("dfw-1")
    shared_lab.lab.wait_ready()


def test_a_second_daemon_of_a_cell_takes_over_when_the_first_is_killed(shared_lab: RunningLab):
    words = ("run", "--config", shared_lab.lab.tree.config_file("ord-1"), "--daemon", "second")
    second = Daemon(shared_lab.lab.folder / "run", "ord-1-second", words)
    second.start()
    try:
        shared_lab.wait(lambda: "running as daemon second" in second.log.read_text(), "the second daemon runs")
        shared_lab.lab.kill("ord-1")
        server = shared_lab.build("east", "taken-over", hints={"target_cell": "ord-1"})
        seen = shared_lab.wait_status("east", server, "ACTIVE", "ERROR")
        assert seen["status"] == "ACTIVE", seen.get("fault")
        shared_lab.delete("east", server)
        shared_lab.wait_status("east", server, GONE)
    finally:
        second.stop()
        shared_lab.lab.start("ord-1")
        shared_lab.lab.wait_ready()


def test_a_leaf_joins_live_under_two_parents_takes_builds_drains_and_leaves(shared_lab: RunningLab):
    began = {part.what: part.pid for part in shared_lab.lab.status()}
    shared_lab.celltree("lab", "add", "new-1", "--parent", "dfw", "--parent", "ord", "--hosts", "1")
    lab = shared_lab.lab
    lab.wait_ready()
    assert lab.unseen_leaves("east") == lab.unseen_leaves("west") == set()
    server = shared_lab.build("west", "on-new", hints={"target_cell": "new-1"})
    assert shared_lab.wait_status("west", server, "ACTIVE", "ERROR")["status"] == "ACTIVE"
    assert shared_lab.leaf_of(server) == "new-1"

    shared_lab.celltree("cell", "drain", "new-1")
    shared_lab.wait(lambda: "draining" in _state(shared_lab, "new-1", "west"), "west sees new-1 drain")
    refused = shared_lab.build("west", "too-late", hints={"target_cell": "new-1"})
    seen = shared_lab.wait_status("west", refused, "ACTIVE", "ERROR")
    assert seen["status"] == "ERROR"
    assert "draining" in seen["fault"]["message"]
    assert shared_lab.show("west", server)["status"] == "ACTIVE"

    shared_lab.celltree("cell", "detach", "new-1", "--parent", "dfw")
    stays = shared_lab.celltree("cell", "detach", "new-1", "--parent", "ord", check=False)
    assert (stays.returncode, stays.stderr.count("\n")) == (1, 1)
    assert "new-1 would be cut off with servers" in stays.stderr
    for each in (server, refused):
        shared_lab.delete("west", each)
        shared_lab.wait_status("west", each, GONE)
    shared_lab.wait(
        lambda: shared_lab.celltree("cell", "detach", "new-1", "--parent", "ord", check=False).returncode == 0,
        "new-1 detached once its report says that it has no servers",
    )
    for api in ("east", "west"):
        shared_lab.wait(lambda api=api: _state(shared_lab, "new-1", api) == "", f"{api} has forgotten new-1")
    pids = {part.what: part.pid for part in lab.status()}
    assert {what: pids[what] for what in began} == began, "something was restarted"
    shared_lab.celltree("lab", "remove", "new-1")
    assert "new-1" not in {*lab.topology.names, *lab.tree.names()}


def _state(lab: RunningLab, leaf: str, api: str) -> str:
    rows = json.loads(lab.celltree("capacity", "--cell", api, "-f", "json").stdout)
    return next((row["State"] for row in rows if row["Leaf"] == leaf), "")


def test_what_cannot_join_is_refused_in_one_line_with_the_remedy(shared_lab: RunningLab):
    lab = shared_lab.lab
    lab.database().create_schema("cell_extra", "cell_extra", "word")
    database = lab.database().url("cell_extra", "cell_extra", "word")
    broker = lab.tree.config("dfw-1").broker
    nowhere = broker.replace(f":{lab.broker().amqp_port}/", f":{lab.broker().distribution_port}/")
    tries = {
        "taken": ("dfw-1", "compute", database, broker, "dfw"),
        "is not registered in": ("extra", "compute", database, broker, "dfw-9"),
        "is a cycle": ("extra", "compute", database, broker, "extra"),
        "is out of reach": ("extra", "compute", database, nowhere, "dfw"),
        "the database is out of reach": ("extra", "compute", database.replace("word@", "wrong@"), broker, "dfw"),
    }
    for said, (name, role, database_url, broker_url, parent) in tries.items():
        words = ("--role", role, "--database", database_url, "--broker", broker_url, "--parent", parent)
        refused = shared_lab.celltree("cell", "register", name, *words, check=False)
        assert refused.returncode == 1, said
        assert said in refused.stderr
        assert refused.stderr.count("\n") == 1, refused.stderr
        assert "Traceback" not in refused.stderr
    assert "extra" not in lab.tree.names()
    ring = shared_lab.celltree("cell", "attach", "ord", "--parent", "shared-1", check=False)
    assert (ring.returncode, "closes a cycle" in ring.stderr) == (1, True)


def test_a_database_that_is_away_for_a_moment_only_delays_a_build(shared_lab: RunningLab):
    shared_lab.image("east")
    shared_lab.celltree("lab", "kill", "database")
    shared_lab.celltree("lab", "start", "database")
    server = shared_lab.wait(lambda: _try_build(shared_lab), "a build asked for")
    seen = shared_lab.wait_status("east", server, "ACTIVE", "ERROR")
    assert seen["status"] == "ACTIVE", seen.get("fault")
    shared_lab.delete("east", server)
    shared_lab.wait_status("east", server, GONE)
    shared_lab.lab.wait_ready()


def _try_build(lab: RunningLab) -> str:
    try:
        return lab.build("east", "after-the-kill")
    except CelltreeError:
        return ""


def test_a_program_beside_the_cell_posts_a_build_and_asking_twice_is_asking_once(shared_lab: RunningLab):
    config = shared_lab.lab.tree.config("east")
    asked = {"request": "req-posted", "project": "p", "user": "u", "name": "posted", "flavor": "m1.tiny"}
    beside = rpc.client(config.broker, "east")
    try:
        made = beside.call("build", 30.0, image=shared_lab.image("east"), **asked)
        again = beside.call("build", 30.0, image=shared_lab.image("east"), **asked)
        assert again["server"] == made["server"]
        seen = shared_lab.wait(
            lambda: _settled(beside.call("show", 30.0, server=made["server"])), "the posted server built"
        )
        assert seen["status"] == "ACTIVE", seen["fault"]
        with pytest.raises(BadInput, match="flavor 'm9' is not one of this cell"):
            beside.call("build", 30.0, image=shared_lab.image("east"), **{**asked, "flavor": "m9"})
    finally:
        beside.close()


def _settled(seen: dict[str, Any]) -> dict[str, Any] | None:
    return seen if seen["status"] in ("ACTIVE", "ERROR") else None


def test_edge_users_may_only_write_to_one_inbox(shared_lab: RunningLab):
    edges = {(user, vhost): rights for user, vhost, rights in _permissions(shared_lab) if ".to." in user}
    assert ("east.to.dfw", "dfw") in edges
    assert ("dfw.to.east", "east") in edges
    assert set(edges.values()) == {("^$", r"^celltree\.inbox$", "^$")}
    assert all(user.partition(".to.")[2] == vhost for user, vhost in edges)


def _permissions(lab: RunningLab) -> list[tuple[str, str, tuple[str, str, str]]]:
    status, text = lab.lab.broker()._exchange("GET", "/api/permissions")
    assert status == 200
    return [(one["user"], one["vhost"], (one["configure"], one["write"], one["read"])) for one in json.loads(text)]
