"""A topology as docker-compose.yml: the production shape, small. A RabbitMQ, a MariaDB and a daemon per cell, a
simulated XenServer per pool, and one container that runs once: it makes the tree's folder and registers every cell.

docker-compose.yml in the repository is what this gives for the default topology; a test holds them equal.
"""

from collections.abc import Iterator
from typing import Any

import yaml

from cells.names import CellName
from cells.topology_file import API, CellPlan, TopologyFile

IMAGE = "celltree"
RABBITMQ = "rabbitmq:3.13"
MARIADB = "mariadb:10.11"
REST_PORT = 8774
XENSERVER_PORT = 8480
PASSWORD = "${CELLTREE_PASSWORD:-celltree}"
TREE = "tree:/tree"

HEAD = """\
# The production shape, small: `docker compose up --build`. Made by `celltree lab compose`; change cells/lab/compose.py.
# Set CELLTREE_PASSWORD to letters and digits of your own. On real machines each edge gets a broker user that may only
# write to one inbox (celltree cell register --up, --down), brokers and databases get TLS, and the simulators give way
# to XenServers (celltree host register).
"""


def compose_text(topology: TopologyFile) -> str:
    """The whole file."""
    return HEAD + yaml.dump(compose(topology), Dumper=_Plain, sort_keys=False, width=200)


def compose(topology: TopologyFile) -> dict[str, Any]:
    """The file's content."""
    services: dict[str, Any] = {}
    volumes: dict[str, Any] = {"tree": None}
    for cell in topology.cells:
        services |= {f"rabbitmq-{cell.name}": _rabbitmq(cell.name), f"mariadb-{cell.name}": _mariadb(cell.name)}
        volumes |= {f"rabbitmq-{cell.name}": None, f"mariadb-{cell.name}": None}
    services["register"] = _register(topology)
    api_ports = {cell.name: REST_PORT + number for number, cell in enumerate(topology.api_cells)}
    for cell in topology.cells:
        services[cell.name] = _daemon(cell, api_ports.get(cell.name, 0))
        for number, pool in enumerate(cell.pools):
            services[f"xenserver-{pool.name}"] = _xenserver(cell, number)
            volumes[f"xenserver-{pool.name}"] = None
    return {"services": services, "volumes": volumes}


def _rabbitmq(cell: CellName) -> dict[str, Any]:
    return {
        "image": RABBITMQ,
        "hostname": f"rabbitmq-{cell}",
        "environment": {
            "RABBITMQ_DEFAULT_USER": cell,
            "RABBITMQ_DEFAULT_PASS": PASSWORD,
            "RABBITMQ_DEFAULT_VHOST": cell,
        },
        "volumes": [f"rabbitmq-{cell}:/var/lib/rabbitmq"],
        "healthcheck": _healthy(["rabbitmq-diagnostics", "-q", "check_port_connectivity"]),
        "restart": "unless-stopped",
    }


def _mariadb(cell: CellName) -> dict[str, Any]:
    return {
        "image": MARIADB,
        "environment": {
            "MARIADB_DATABASE": _schema(cell),
            "MARIADB_USER": _schema(cell),
            "MARIADB_PASSWORD": PASSWORD,
            "MARIADB_RANDOM_ROOT_PASSWORD": "1",
        },
        "volumes": [f"mariadb-{cell}:/var/lib/mysql"],
        "healthcheck": _healthy(["healthcheck.sh", "--connect", "--innodb_initialized"]),
        "restart": "unless-stopped",
    }


def _healthy(test: list[str]) -> dict[str, Any]:
    return {"test": ["CMD", *test], "interval": "5s", "timeout": "10s", "retries": 24}


def _register(topology: TopologyFile) -> dict[str, Any]:
    """Runs once, and does nothing when it runs again: a cell that is registered keeps its key."""
    lines = [
        'printf %s "$$PASSWORD" > /tmp/password',
        "test -e /tree/root.key || celltree tree init /tree",
        *(line for cell in topology.cells for line in _registering(cell)),
    ]
    needed = [f"{server}-{cell.name}" for cell in topology.cells for server in ("rabbitmq", "mariadb")]
    return {
        "build": ".",
        "image": IMAGE,
        "entrypoint": ["/bin/sh", "-euc"],
        "command": ["\n".join(lines) + "\n"],
        "environment": {"PASSWORD": PASSWORD},
        "volumes": [TREE],
        "depends_on": {name: {"condition": "service_healthy"} for name in needed},
    }


def _registering(cell: CellPlan) -> Iterator[str]:
    schema = _schema(cell.name)
    words = [
        f"test -e /tree/cells/{cell.name}.yaml || celltree cell register {cell.name} --tree /tree --role {cell.role}",
        f'--database "mysql+pymysql://{schema}:$$PASSWORD@mariadb-{cell.name}/{schema}?charset=utf8mb4"',
        f'--broker "amqp://{cell.name}:$$PASSWORD@rabbitmq-{cell.name}/{cell.name}"',
        *(f"--parent {parent}" for parent in cell.parents),
        *(
            f"--pool {pool.name}=http://127.0.0.1:{XENSERVER_PORT + number},password-file=/tmp/password"
            for number, pool in enumerate(cell.pools)
        ),
    ]
    if cell.role == API:
        words.append(f"--listen 0.0.0.0:{REST_PORT} --image-url http://{cell.name}:{REST_PORT}/image")
    yield " \\\n  ".join(words)


def _daemon(cell: CellPlan, port: int) -> dict[str, Any]:
    service: dict[str, Any] = {
        "image": IMAGE,
        "command": ["run", "--cell", cell.name, "--tree", "/tree"],
        "volumes": [TREE],
        "depends_on": {"register": {"condition": "service_completed_successfully"}},
        "stop_grace_period": "70s",
        "restart": "unless-stopped",
    }
    if port:
        service["ports"] = [f"127.0.0.1:{port}:{REST_PORT}"]
    return service


def _xenserver(cell: CellPlan, number: int) -> dict[str, Any]:
    """In its leaf's network: each simulated host has a loopback address of its own."""
    pool = cell.pools[number]
    words: dict[str, object] = {
        "--port": XENSERVER_PORT + number,
        "--hosts": pool.hosts,
        "--name": pool.name,
        "--ram-mib": pool.ram_mib,
        "--cpus": pool.cpus,
        "--disk-gib": pool.disk_gib,
        "--sr": pool.sr,
        "--data": "/data",
        "--password": PASSWORD,
    }
    return {
        "image": IMAGE,
        "command": ["xenserver", *(str(word) for pair in words.items() for word in pair)],
        "network_mode": f"service:{cell.name}",
        "volumes": [f"xenserver-{pool.name}:/data"],
        "depends_on": [cell.name],
        "restart": "unless-stopped",
    }


def _schema(cell: CellName) -> str:
    return f"cell_{cell.replace('-', '_')}"


class _Plain(yaml.SafeDumper):
    """Scripts as they are, line by line; nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _text)
