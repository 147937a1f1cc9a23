"""The celltree command on a tree with nothing running: what it prints, and how it says no."""

import json
import logging
import socket
from pathlib import Path

import pytest
import yaml

from cells.cli.exports import export_lines
from cells.cli.main import main
from cells.config import load
from cells.house import House
from cells.record import NO_SERVER
from cells.registering import open_store
from cells.rows import MACHINERY, ParkedRow, StoryRow
from cells.store.sql import SqlStore
from cells.tree_folder import TREE_VARIABLE

BEGIN = 1_750_000_000_000_000
NAMES = {
    *("demo", "run", "db upgrade", "tree init", "story", "tree", "capacity", "explain", "xenserver"),
    *(f"cell {word}" for word in ("register", "attach", "detach", "drain", "enable", "list", "show")),
    *(f"lab {word}" for word in ("up", "add", "remove", "compose", "status", "logs", "kill", "start", "down")),
    *(f"messages {word}" for word in ("list", "show", "replay", "drop")),
    *(f"host {word}" for word in ("register", "list", "disable", "enable", "confirm-dead", "policy", "usage")),
    *(f"volume {word}" for word in ("list", "allow", "withdraw")),
}


@pytest.fixture
def celltree(capsys, monkeypatch, tmp_path):
    """Runs the command in this process; gives (status, output, errors)."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv(TREE_VARIABLE, raising=False)
    root, own = logging.getLogger(), logging.getLogger("celltree")
    before = list(root.handlers), root.level, own.level

    def run(*words):
        capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as end:
            status = end.code or 0
        said = capsys.readouterr()
        return status, said.out, said.err

    yield run
    root.handlers[:], root.level = before[0], before[1]
    own.setLevel(before[2])


@pytest.fixture
def tree(celltree, tmp_path):
    """A folder with east, dfw below it and the leaf dfw-1, on SQLite and brokers that are only named."""
    folder = tmp_path / "tree"
    assert celltree("tree", "init", folder)[0] == 0
    for name, role, parents in (("east", "api", ()), ("dfw", "compute", ("east",)), ("dfw-1", "compute", ("dfw",))):
        words = [word for parent in parents for word in ("--parent", parent)]
        where = ("--database", f"sqlite:///{tmp_path}/{name}.sqlite", "--broker", f"memory://{name}")
        status, out, err = celltree("cell", "register", name, "--role", role, *where, *words, "--tree", folder)
        assert (status, err) == (0, ""), out
    return folder


def test_every_command_there_is_meant_to_be_is_found_by_name(celltree):
    status, out, _ = celltree("--help")
    assert status == 0
    commands = out.partition("Commands:")[2].splitlines()
    missing = {name for name in NAMES if not any(line.startswith(f"  {name} ") for line in commands)}
    assert not missing


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_command_tells_how_it_is_used(celltree, name):
    status, out, err = celltree(*name.split(), "--help")
    assert (status, err) == (0, "")
    assert "usage:" in out


def test_without_words_the_help_is_shown(celltree):
    status, out, _ = celltree()
    assert (status, "Commands:" in out) == (0, True)


def test_an_unknown_command_or_option_is_status_2(celltree):
    assert celltree("bogus")[0] == 2
    status, _, err = celltree("cell", "register")
    assert (status, "the following arguments are required: name" in err) == (2, True)
    assert celltree("lab", "up", "--auth", "many")[0] == 2


def test_a_refusal_is_one_line_with_the_remedy_and_status_1(celltree, tmp_path):
    for words, said in {
        ("cell", "list"): "which tree? there is none yet; name its folder with --tree or in CELLTREE_TREE",
        (
            "cell",
            "list",
            "--tree",
            f"{tmp_path}",
        ): "is not a tree folder (no root.public in it); make one: celltree tree",
        ("lab", "status", "--name", f"{tmp_path}/none"): "there is no lab in",
        (
            "lab",
            "up",
            "--name",
            f"{tmp_path}/many",
            "--brokers",
            "many",
        ): "use vhosts (one RabbitMQ), nodes (a RabbitMQ",
        ("lab", "up", "--name", f"{tmp_path}/many", "--daemons", "0"): "use a number from 1 to 99",
        ("lab", "up", f"{tmp_path}/none.yaml"): "none.yaml cannot be read: No such file or directory",
        (
            "run",
            "--config",
            f"{tmp_path}/none.yaml",
        ): "cannot be read: No such file or directory; name it with --config",
        ("run",): "name the cell with --cell NAME or --config FILE",
    }.items():
        status, out, err = celltree(*words)
        assert (status, out, err.count("\n")) == (1, "", 1), err
        assert err.startswith("celltree: ")
        assert said in err


def test_cells_are_listed_and_shown_as_their_databases_know_them(celltree, tree):
    status, out, err = celltree("cell", "list", "--tree", tree, "-f", "json")
    assert (status, err) == (0, "")
    rows = {row["Name"]: row for row in json.loads(out)}
    assert (rows["dfw"]["Parents"], rows["dfw"]["Children"]) == ("east", "dfw-1")
    _, out, _ = celltree("cell", "show", "dfw", "--tree", tree, "-f", "yaml")
    shown = yaml.safe_load(out)
    assert (shown["role"], shown["state"], shown["schema"]) == ("compute", "enabled", "compute_0001")
    assert shown["parents"] == ["east, enabled, heard - ago"]
    _, out, _ = celltree("cell", "list", "--tree", tree)
    assert "| dfw-1 | compute |" in out


def test_a_cell_is_registered_without_a_secret_on_the_command_line(celltree, tree, tmp_path):
    for name in ("database", "broker"):
        (tmp_path / name).write_text(f"{'sqlite:///' if name == 'database' else 'memory:/'}/{tmp_path / name}.x\n")
    words = ("--role", "api", "--database", f"@{tmp_path}/database", "--broker", f"@{tmp_path}/broker")
    status, _, err = celltree("cell", "register", "west", *words, "--tree", tree)
    assert (status, err) == (0, "")
    front = load(tree / "cells" / "west.yaml").settings["front"]
    secret = Path(front["secret_file"])
    assert secret.stat().st_mode & 0o077 == 0
    assert len(bytes.fromhex(secret.read_text())) == 32
    status, _, err = celltree(
        "cell", "register", "ord", *words[2:4], "--broker", "@none", "--role", "api", "--tree", tree
    )
    assert (status, "--broker @none: the file cannot be read or is empty" in err) == (1, True)
    words = (*words, "--tls", "certificate=x,password=y")
    assert "write authorities=FILE" in celltree("cell", "register", "ord", *words, "--tree", tree)[2]


def test_a_key_is_rotated_and_a_cell_removed(celltree, tree):
    status, out, err = celltree("cell", "rotate", "dfw-1", "--tree", tree)
    assert (status, err) == (0, "")
    assert "dfw-1 has the new key" in out
    status, _, err = celltree("cell", "rotate", "dfw-1", "--finish", "--tree", tree)
    assert (status, "dfw-1 still needs its former keys" in err, "1 rows of edges" in err) == (1, True, True)
    house = House()
    house.open(load(tree / "cells" / "dfw-1.yaml")).node.step()
    house.close()
    status, out, err = celltree("cell", "rotate", "dfw-1", "--finish", "--tree", tree)
    assert (status, err) == (0, "")
    assert out.startswith(
        f"dfw-1: only its newest certificate counts. Its former keys are out of {tree}/cells/dfw-1.key:"
    )
    assert [len(line) for line in (tree / "cells" / "dfw-1.key").read_text().splitlines()] == [64, len("public ") + 64]
    status, _, err = celltree("cell", "remove", "dfw-1", "--tree", tree)
    assert (status, "still has edges to dfw" in err) == (1, True)
    status, out, err = celltree("cell", "remove", "dfw-1", "--force", "--tree", tree)
    assert (status, err) == (0, "")
    assert out.startswith("dfw-1 is removed; stop its daemons")
    assert "dfw-1" not in celltree("cell", "list", "--tree", tree)[1]


def test_parked_messages_are_counted_by_sender_and_reason(celltree, tree):
    config = load(tree / "cells" / "dfw.yaml")
    with open_store(config) as store, store.unit() as unit:
        for number in range(3):
            reason = "it lies" if number else "not a bundle"
            unit.save(
                ParkedRow(
                    id=bytes(15) + bytes([number]),
                    at=number,
                    neighbour="east",
                    kind="x",
                    server=NO_SERVER,
                    reason=reason,
                    data=b"",
                )
            )
    rows = json.loads(celltree("messages", "count", "--tree", tree, "-f", "json")[1])
    assert [(row["Cell"], row["Count"], row["Reason"]) for row in rows] == [
        ("dfw", 2, "it lies"),
        ("dfw", 1, "not a bundle"),
    ]


def test_draining_is_shown(celltree, tree):
    assert celltree("cell", "drain", "dfw-1", "--tree", tree)[1] == "dfw-1 takes no new builds\n"
    _, out, _ = celltree("cell", "show", "dfw-1", "--tree", tree, "-f", "json")
    assert json.loads(out)["state"] == "draining"
    _, out, _ = celltree("cell", "enable", "dfw", "--tree", tree)
    assert out.splitlines() == [
        "dfw takes new builds",
        "the cells below it are as they were (dfw-1); --below means them, too",
    ]


def test_a_lab_whose_port_is_taken_is_not_begun(celltree, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, _, err = celltree("lab", "up", "--name", f"{tmp_path}/lab", "--port", port)
    assert (status, err.count("\n")) == (1, 1)
    assert f"--port {port}: port {port} of 127.0.0.1 is taken; choose another, or leave it out" in err
    assert not (tmp_path / "lab").exists()


def test_the_tree_is_found_by_variable_or_by_being_the_only_one(celltree, tree, monkeypatch):
    monkeypatch.setenv(TREE_VARIABLE, str(tree))
    assert celltree("cell", "list")[0] == 0
    monkeypatch.delenv(TREE_VARIABLE)
    assert celltree("tree", "init", "mine")[0] == 0
    assert celltree("cell", "list")[0] == 0
    assert celltree("tree", "init", "other")[0] == 0
    status, _, err = celltree("cell", "list")
    assert (status, "there are several: mine, other" in err) == (1, True)
    assert celltree("cell", "list", "--tree", "mine")[0] == 0


def test_a_tree_that_was_never_heard_is_drawn_all_the_same(celltree, tree):
    status, out, err = celltree("tree", "--tree", tree)
    assert (status, err) == (0, "")
    assert "east  API cell" in out
    assert "dfw  compute cell  never heard" in out


def test_capacity_and_explain_say_what_is_missing(celltree, tree):
    for words, said in {
        ("capacity", "--cell", "dfw"): "the tree is seen from an API cell",
        ("capacity", "--flavor", "m9"): "east has no flavor 'm9'; there are: none yet",
        ("explain", "req-1"): "no API cell has decided anything about 'req-1' yet",
        ("story", "req-1"): "no cell knows a story of 'req-1'",
        ("host", "disable", "h1"): "there is no host 'h1'; see celltree host list",
        ("messages", "show", "7"): "message id '7' is not a uuid",
        ("messages", "drop", "01a2045e-5e95-7866-850b-50638b729340"): "no cell has a parked message",
        ("host", "register", "p", "--url", "https://127.0.0.1", "--password-file", "/", "--cell", "east"): (
            "east is an API cell and has no hosts"
        ),
    }.items():
        status, _, err = celltree(*words, "--tree", tree)
        assert (status, err.count("\n")) == (1, 1), err
        assert said in err


def test_a_story_is_told_with_its_ways(celltree, tree, tmp_path):
    store = SqlStore(f"sqlite:///{tmp_path}/east.sqlite", MACHINERY)
    server = bytes(range(16))
    with store.unit() as unit:
        unit.save(
            StoryRow(id=bytes(16), server=server, request="req-1", at=BEGIN, cell="east", event="placed"),
            StoryRow(
                id=bytes(15) + b"\1",
                server=server,
                request="req-1",
                at=BEGIN + 30_000,
                cell="dfw-1",
                event="accepted",
                text="host h1",
                trail=(("dfw-1", BEGIN + 10_000), ("dfw", BEGIN + 20_000)),
                detail={"down": [["east", BEGIN], ["dfw", BEGIN + 5_000]]},
            ),
        )
    store.close()
    _, out, err = celltree("story", "req-1", "--tree", tree)
    assert err == ""
    assert "+   0.030 s  dfw-1        accepted  host h1" in out
    assert "asked: east ─5.0 ms→ dfw ─5.0 ms→ dfw-1" in out
    assert "told: dfw-1 ─10.0 ms→ dfw ─10.0 ms→ east" in out
    _, out, _ = celltree("story", "00010203-0405-0607-0809-0a0b0c0d0e0f", "--tree", tree, "-f", "json")
    assert [line["event"] for line in json.loads(out)] == ["placed", "accepted"]


def test_an_outdated_schema_names_the_command_that_mends_it(celltree, tree, tmp_path):
    (tmp_path / "dfw.sqlite").unlink()
    status, _, err = celltree("run", "--cell", "dfw", "--tree", tree)
    assert status == 1
    assert "run celltree db upgrade --cell dfw" in err
    assert celltree("db", "upgrade", "--cell", "dfw", "--tree", tree)[:2] == (0, "dfw: at compute_0001\n")


def test_export_lines_are_safe_for_a_shell():
    assert export_lines("http://127.0.0.1:1", "none")[0] == "export OS_AUTH_TYPE=none"
    lines = export_lines("http://127.0.0.1:1", "http_basic", "demo", "it's $ecret")
    assert """export OS_PASSWORD='it'"'"'s $ecret'""" in lines
