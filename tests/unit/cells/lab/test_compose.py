"""docker-compose.yml: valid by the Compose schema, what `celltree lab compose` prints, the tree that a lab runs."""

import json
import re
import shlex
from pathlib import Path

import jsonschema
import pytest
import yaml

from cells.cli.main import main
from cells.lab.compose import compose, compose_text
from cells.registering import open_store
from cells.rows import EdgeRow
from cells.topology_file import CellPlan, default
from cells.tree_folder import TreeFolder
from compute_cell.rows import PoolRow

ROOT = Path(__file__).resolve().parents[4]
FILE = ROOT / "docker-compose.yml"
SCHEMA = json.loads(Path(__file__).with_name("compose_spec.json").read_text())


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load(FILE.read_text())["services"]


def test_the_file_is_what_the_command_prints_for_the_default_tree():
    assert FILE.read_text() == compose_text(default()), "run: celltree lab compose > docker-compose.yml"


def test_the_file_is_valid_by_the_compose_schema():
    jsonschema.Draft7Validator(SCHEMA).validate(yaml.safe_load(FILE.read_text()))


def test_the_schema_would_find_a_slip():
    content = compose(default())
    content["services"]["east"]["comand"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(SCHEMA).validate(content)


def test_every_cell_has_a_daemon_a_broker_and_a_database_and_every_pool_a_simulator(services):
    tree = default()
    wanted = {"register"}
    for cell in tree.cells:
        wanted |= {cell.name, f"rabbitmq-{cell.name}", f"mariadb-{cell.name}"}
        wanted |= {f"xenserver-{pool.name}" for pool in cell.pools}
    assert services.keys() == wanted


def test_only_api_cells_are_reached_from_outside_each_on_a_port_of_its_own(services):
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"east": ["127.0.0.1:8774:8774"], "west": ["127.0.0.1:8775:8774"]}


def test_a_simulator_has_the_hosts_of_its_pool_and_is_in_its_leafs_network(services):
    for cell in default().leaves:
        service = services[f"xenserver-{cell.name}"]
        words = service["command"]
        assert words[words.index("--hosts") + 1] == str(cell.pools[0].hosts)
        assert service["network_mode"] == f"service:{cell.name}"


def test_the_registering_script_makes_this_very_tree(services, tmp_path, capsys):
    script = services["register"]["command"][0].replace("$$PASSWORD", "word").replace("\\\n", " ")
    (tmp_path / "password").write_text("word")
    folder = tmp_path / "tree"
    for line in script.splitlines()[1:]:
        words = shlex.split(line.partition("||")[2])
        words = [re.sub(r"^mysql\+pymysql://.*/(\w+)\?.*", rf"sqlite:///{tmp_path}/\1.sqlite", word) for word in words]
        words = [re.sub(r"^amqp://(.*):word@rabbitmq-\1/\1$", r"memory://\1", word) for word in words]
        words = [word.replace("/tmp/password", f"{tmp_path}/password") for word in words]
        assert words.pop(0) == "celltree"
        assert main([str(folder) if word == "/tree" else word for word in words]) == 0, capsys.readouterr().err
    tree, found = default(), TreeFolder(folder)
    assert set(found.names()) == set(tree.names)
    edges, pools = set(), {}
    for config in found.configs():
        assert config.role == tree[config.cell].role
        assert config.broker == f"memory://{config.cell}"
        with open_store(config, whole=config.role == "compute") as store, store.unit(lock=False) as unit:
            edges |= {(edge.neighbour, config.cell) for edge in unit.all(EdgeRow) if edge.parent}
            if config.role == "compute":
                pools |= {pool.name: pool.url for pool in unit.all(PoolRow)}
    assert edges == set(tree.edges)
    assert pools == {cell.name: "http://127.0.0.1:8480" for cell in tree.leaves}
    assert found.config("west").listen == "0.0.0.0:8774"
    assert found.config("west").settings["front"]["image_url"] == "http://west:8774/image"


def test_another_topology_gives_another_file():
    more = compose(default().with_cell(CellPlan(name="new-1", parents=("dfw",))))
    assert "--parent dfw" in more["services"]["register"]["command"][0].partition("register new-1")[2]


def test_the_image_installs_what_its_commands_need():
    text = (ROOT / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["celltree"]' in text
    assert "e2fsprogs" in text
