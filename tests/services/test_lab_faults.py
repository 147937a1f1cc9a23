"""Real processes under kill -9 while builds go on: nothing accepted is lost or done twice, views equal the truth.

A time-out of a request counts as unknown, never as refused: it may have been accepted, and is found by its name.
"""

import time
from collections import Counter
from typing import Any

import pytest

from api_cell.rows import ServerRow
from cells.cli.rest import RestFailed
from cells.errors import CelltreeError
from cells.names import id_from_text, id_text
from cells.registering import open_store
from tests.support.labs import GONE, RunningLab, shared_lab
from xenapi_host.session import Access, connect

__all__ = ["shared_lab"]

BUILDS = 9
PARTS = {
    "the API daemon": "east",
    "a region": "dfw",
    "a leaf": "shared-1",
    "the broker": "broker",
    "the database": "database",
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS.keys())
def test_kill_nine_while_builds_go_on_loses_nothing_and_doubles_nothing(shared_lab: RunningLab, part: str):
    lab = shared_lab
    lab.image("east")
    asked = []
    for number in range(BUILDS):
        if number == BUILDS // 3:
            lab.lab.kill(part)
        if number == 2 * BUILDS // 3:
            lab.lab.start(part)
        name = f"{part}-{number}"
        asked.append(name)
        try:
            lab.build("east", name)
        except (CelltreeError, OSError):
            asked.pop()  # unknown: if it was accepted it is found by its name below
        time.sleep(0.1)
    lab.lab.wait_ready()

    servers = lab.wait(lambda: _settled(lab, part), f"every build around kill -9 of {part} to end")

    assert set(asked) <= {server["name"] for server in servers}, "an accepted build is not there"
    for server in servers:
        assert server["status"] == "ACTIVE" or server["fault"]["message"]
    running = _running(lab)
    for server in servers:
        wanted = 1 if server["status"] == "ACTIVE" else 0
        assert running[id_from_text(server["id"])] == wanted, server["name"]
    lab.wait(lambda: _views_agree(lab, servers), "views that equal the leaves' truth")
    for server in servers:
        lab.delete("east", server["id"])
    for server in servers:
        lab.wait_status("east", server["id"], GONE)
    assert not _running(lab)


def _settled(lab: RunningLab, part: str) -> list[dict[str, Any]]:
    """The servers of this test, once each is ACTIVE or in ERROR."""
    try:
        found = lab.rest("east").compute("GET", f"/servers/detail?name={part}-")["servers"]
    except (RestFailed, CelltreeError):
        return []
    over = [server for server in found if server["status"] in ("ACTIVE", "ERROR")]
    return over if len(over) == len(found) else []


def _running(lab: RunningLab) -> Counter[bytes]:
    """How many VMs of each server run, over every pool of the forest, whoever thinks to have started them."""
    count: Counter[bytes] = Counter()
    for seen in lab.lab.status():
        if seen.kind != "xenserver":
            continue
        pool = seen.what.removeprefix("xenserver:")
        session = connect(Access(url=seen.at, user="root", password=lab.plan.password("xenserver", pool)))
        try:
            records = session.call("VM.get_all_records_where", 'field "is_control_domain" = "false"')
        finally:
            session.close()
        for record in records.values():
            server = record["other_config"].get("celltree_server")
            if server and not record["is_a_template"] and record["power_state"] == "Running":
                count[id_from_text(server)] += 1
    return count


def _views_agree(lab: RunningLab, servers: list[dict[str, Any]]) -> bool:
    with open_store(lab.lab.tree.config("east"), whole=True) as store, store.unit(lock=False) as unit:
        rows = [unit.get(ServerRow, id_from_text(server["id"])) for server in servers]
    for row in rows:
        if row is None or not row.leaf:
            continue
        truth = lab.instance(row.leaf, id_text(row.id))
        if truth is None or (truth.version, truth.state) != (row.version, row.state):
            return False
    return True
