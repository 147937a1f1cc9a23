"""Guests from REST through the tree to light hosts and back: passwords, files, user data, metadata, console."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from api_cell.rows import QuestionRow, SecretRow
from compute_cell.rows import InstanceRow, PoolRow
from tests.support.embedded import Tree
from tests.support.network import UnsteadyExchange
from tests.support.tenants import Tenant, a_tenant

CANARY = "Canary-4f2a9c"
FILE = f"file {CANARY}".encode()
DATA = f"#!/bin/sh\n# {CANARY}\n".encode()


@pytest.fixture
def tenant(tmp_path: Path) -> Iterator[Tenant]:
    with a_tenant(tmp_path) as tenant:
        yield tenant


def _seen_anywhere(tree: Tree, needle: bytes) -> list[str]:
    """Every table of every cell that holds these bytes in any row, as they are or in base64."""
    forms = [needle, *(base64.b64encode(bytes(pad) + needle)[4:-4] for pad in (0, 1, 2))]
    found = []
    for name, store in tree.stores.items():
        connection = store.inner._database.engine.raw_connection()
        try:
            for line in connection.driver_connection.iterdump():
                raw = line.encode() + b"".join(
                    bytes.fromhex(part) for part in line.split("'") if len(part) % 2 == 0 and _is_hex(part)
                )
                if any(form in raw for form in forms):
                    found.append(f"{name}: {line[:60]}")
        finally:
            connection.close()
    return found


def _is_hex(part: str) -> bool:
    return bool(part) and all(letter in "0123456789ABCDEFabcdef" for letter in part)


def test_secrets_of_a_create_reach_the_guest_and_lie_nowhere_in_clear(
    tenant: Tenant, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("DEBUG")
    caplog.set_level("DEBUG", logger="celltree")
    tree, seen = tenant.tree, []
    sent: list[bytes] = []
    publish = UnsteadyExchange.publish

    def watched(exchange: UnsteadyExchange, data: bytes, user: str) -> str:
        sent.append(data)
        return publish(exchange, data, user)

    monkeypatch.setattr(UnsteadyExchange, "publish", watched)
    made = tenant.create(
        adminPass=CANARY,
        personality=[{"path": "/etc/motd", "contents": base64.b64encode(FILE).decode()}],
        user_data=base64.b64encode(DATA).decode(),
    )
    assert made["adminPass"] == CANARY
    assert len(tree.rows("east", SecretRow)) == 1
    for _ in range(24):
        seen += _seen_anywhere(tree, CANARY.encode())
        tree.run(0.25)
    tree.run(6)
    row = tenant.row(made["id"])
    assert row.status == "ACTIVE"
    assert seen + _seen_anywhere(tree, CANARY.encode()) == []
    assert CANARY not in caplog.text
    assert sent
    assert not any(CANARY.encode() in data for data in sent)
    assert tree.rows("east", SecretRow) == ()
    assert row.secret is False
    assert [instance.spec.sealed for instance in tree.rows(row.leaf, InstanceRow)] == [b""]
    guests, vm = tree.guests[row.leaf], tenant.vm(made["id"])
    assert guests.passwords == {vm["uuid"]: CANARY}
    assert guests.files == {vm["uuid"]: {"/etc/motd": FILE}}
    assert guests.network_resets == {vm["uuid"]: 1}
    assert row.spec.config_drive, "files and user data are on a config drive, too"


def test_the_search_finds_what_lies_in_clear(tenant: Tenant) -> None:
    tenant.built(metadata={"open": CANARY})
    assert _seen_anywhere(tenant.tree, CANARY.encode())


def test_password_is_changed_in_the_guest(tenant: Tenant) -> None:
    server = tenant.built()
    assert tenant.act(server, "changePassword", {"adminPass": CANARY}).status_code == 202
    assert tenant.row(server).status == "PASSWORD"
    assert _seen_anywhere(tenant.tree, CANARY.encode()) == []
    tenant.tree.run(5)
    assert tenant.row(server).status == "ACTIVE"
    assert tenant.tree.guests[tenant.row(server).leaf].passwords[tenant.vm(server)["uuid"]] == CANARY
    assert _seen_anywhere(tenant.tree, CANARY.encode()) == []
    assert tenant.act(server, "changePassword", {"adminPass": ""}).status_code == 400
    tenant.act(server, "os-stop")
    tenant.tree.run(5)
    assert tenant.act(server, "changePassword", {"adminPass": "x"}).status_code == 409


def test_server_of_an_agent_image_is_given_a_password_and_one_of_another_is_not(tenant: Tenant) -> None:
    given = tenant.create()["adminPass"]
    assert len(given) == 12
    assert "adminPass" not in tenant.create("plain")
    tenant.tree.run(10)
    assert any(given in guests.passwords.values() for guests in tenant.tree.guests.values())


def test_silent_agent_does_not_hinder_a_build_and_fails_a_change(tenant: Tenant) -> None:
    for guests in tenant.tree.guests.values():
        guests.everybody_silent = True
    server = str(tenant.create()["id"])
    tenant.tree.run(60)
    row = tenant.row(server)
    assert row.status == "ACTIVE"
    assert row.state is not None
    assert "guest agent does not answer" in row.state.note
    tenant.act(server, "changePassword", {"adminPass": "x"})
    tenant.tree.run(10)
    events = tenant.ask("GET", f"/servers/{server}/os-instance-actions").json["instanceActions"]
    assert events[0]["action"] == "changePassword"
    assert tenant.row(server).intents == ()


def test_metadata_reaches_the_running_guest_beside_other_wishes(tenant: Tenant) -> None:
    server = tenant.built(metadata={"a": "1", "b": "2"})
    assert tenant.ask("PUT", f"/servers/{server}/metadata/a", {"meta": {"a": "new"}}).status_code == 200
    assert tenant.act(server, "reboot", {"type": "HARD"}).status_code == 202
    assert tenant.ask("DELETE", f"/servers/{server}/metadata/b").status_code == 204
    tenant.tree.run(10)
    assert tenant.row(server).status == "ACTIVE"
    assert tenant.row(server).intents == ()
    vm = tenant.vm(server)
    known = {k.rpartition("/")[2]: json.loads(v) for k, v in vm["xenstore_data"].items() if "user-metadata" in k}
    assert known == {"a": "new"}
    live = tenant.tree.guests[tenant.row(server).leaf].live[f"{vm['uuid']} {vm['domid']}"]
    assert live["vm-data/user-metadata/a"] == '"new"'
    (instance,) = tenant.tree.rows(tenant.row(server).leaf, InstanceRow)
    assert instance.spec.metadata == {"a": "new"}


def test_console_and_diagnostics_are_answered_by_the_leaf(tenant: Tenant) -> None:
    server = tenant.built()
    tenant.app.api = replace(tenant.app.api, poke=lambda: tenant.tree.run(2))
    answer = tenant.act(server, "os-getConsoleOutput", {})
    assert answer.status_code == 200
    assert answer.json["output"].endswith("login: \n")
    last = answer.json["output"].splitlines()[-1]
    assert tenant.act(server, "os-getConsoleOutput", {"length": 1}).json["output"] == last
    assert tenant.act(server, "os-getConsoleOutput", {"length": "x"}).status_code == 400
    old = tenant.ask("GET", f"/servers/{server}/diagnostics", version="2.1").json
    assert old["memory"] == 512 * 2**20
    new = tenant.ask("GET", f"/servers/{server}/diagnostics", version="2.48").json
    assert (new["state"], new["driver"], new["num_cpus"], new["num_disks"]) == ("running", "xenapi", 1, 1)
    wish = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
    assert tenant.ask("POST", f"/servers/{server}/remote-consoles", wish).status_code == 400
    wish["remote_console"]["type"] = "xvpvnc"
    url = tenant.ask("POST", f"/servers/{server}/remote-consoles", wish).json["remote_console"]["url"]
    assert "/console?ref=" in url
    assert "session" not in url
    assert tenant.act(server, "os-getVNCConsole", {"type": "xvpvnc"}, "2.1").json["console"]["url"] == url
    assert tenant.tree.rows("east", QuestionRow) == ()
    tenant.act(server, "os-stop")
    tenant.tree.run(5)
    off = tenant.act(server, "os-getConsoleOutput", {})
    assert off.status_code == 409
    assert "start it first" in off.text


def test_question_that_nobody_answers_ends_with_a_remedy(tenant: Tenant) -> None:
    server = tenant.built()
    waited: list[float] = []
    tenant.app.api = replace(tenant.app.api, poke=lambda: None, pause=waited.append)
    answer = tenant.act(server, "os-getConsoleOutput", {})
    assert answer.status_code == 503
    assert "try again" in answer.text
    assert 4 < sum(waited) <= 5
    assert tenant.tree.rows("east", QuestionRow) == ()
    tenant.tree.run(5)  # the answer that comes too late is dropped
    assert tenant.tree.rows("east", QuestionRow) == ()


def test_network_is_written_and_reset_on_an_administrators_word(tenant: Tenant) -> None:
    server = tenant.built()
    for action in ("injectNetworkInfo", "resetNetwork"):
        assert tenant.act(server, action).status_code == 202
        tenant.tree.run(5)
        assert tenant.row(server).intents == ()
    guests, vm = tenant.tree.guests[tenant.row(server).leaf], tenant.vm(server)
    assert guests.network_resets[vm["uuid"]] == 2
    (written,) = [value for key, value in vm["xenstore_data"].items() if key.startswith("vm-data/networking/")]
    assert json.loads(written)["label"] != "net0"


def test_pool_without_plugins_is_reported(tenant: Tenant) -> None:
    leaf = next(iter(tenant.tree.pools))
    del tenant.tree.pools[leaf].engine.plugin_twins["celltree_version.py", "scripts"]
    tenant.tree.run(700, step=10)
    row = tenant.tree.row(leaf, PoolRow, leaf)
    assert row is not None
    assert "install-plugins" in row.error
