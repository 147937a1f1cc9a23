"""A private RabbitMQ node on the loopback address: one per cell, or one with a virtual host per cell.

The node has its own ports, name server (epmd), cookie, data and logs, and runs as whoever starts it. Virtual hosts,
users and permissions are made through the management plugin's HTTP interface: about 10 ms each, where every
`rabbitmqctl` call starts an Erlang machine of its own. The plugin's statistics are off, so it costs nothing while idle.
"""

import base64
import http.client
import json
import secrets
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cells.errors import Permanent, Temporary
from cells.lab import processes
from cells.lab.folder import Facts, clear, remembered
from cells.lab.papers import Papers
from cells.lab.ports import LOOPBACK, claim_ports, is_free, release_ports
from cells.lab.programs import clean_environment, rabbitmq_programs

ADMIN = "celltree-lab"
PORT_SECONDS = 5.0
STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A broker user and what it may do in one virtual host: three regular expressions over queue and exchange names.
    Without a password it can log in with a certificate only."""

    vhost: str
    user: str
    password: str
    configure: str = ".*"
    write: str = ".*"
    read: str = ".*"


class RabbitNode:
    """The node that lives in `folder`, running or not. The same folder is the same node, in any process. With `papers`
    it takes AMQP over TLS only, from clients with a certificate, whose common name is their user."""

    def __init__(self, folder: Path, *, name: str = "rabbit", papers: Papers | None = None) -> None:
        self.folder = folder.absolute()
        facts = remembered(self.folder, lambda: _choose(self.folder, name))
        self.node_name = f"{facts['name']}@localhost"
        self.amqp_port, self.distribution_port, self.epmd_port, self.management_port = (
            int(facts[key]) for key in ("amqp_port", "distribution_port", "epmd_port", "management_port")
        )
        self._password = str(facts["admin_password"])
        self._papers = papers
        self._node_mark = self.folder / "node.pid"
        self._epmd_mark = self.folder / "epmd.pid"
        self._output = self.folder / "log" / "output.log"

    # --- running and not running ---

    def start(self) -> None:
        """Start the node unless it runs; does not wait for it. May be called again."""
        if self.running:
            return
        server, epmd = rabbitmq_programs()
        self._write_configuration()
        env = self._environment()
        self._start_epmd(epmd, env)
        if not processes.wait_until(lambda: is_free(self.amqp_port), timeout=PORT_SECONDS):
            raise Temporary(
                f"port {self.amqp_port} of {self.node_name} is taken by another program; end that one first"
            )
        # In its log folder, because a database that does not come up is dumped to wherever the node is.
        log_folder = self._output.parent
        processes.spawn([server], env=env, log=self._output, mark_file=self._node_mark, folder=log_folder)

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Until the node accepts AMQP connections; raises with the end of its log when it cannot."""
        if processes.wait_until(lambda: not self.running or self._listens(), timeout=timeout) and self.running:
            return
        state = "is not ready" if self.running else "has ended"
        log = self.folder / "log" / "node.log"
        raise Permanent(
            f"RabbitMQ node {self.node_name} {state}; its log {log} ends:\n{processes.log_tail(log)}\n"
            f"and its output {self._output} ends:\n{processes.log_tail(self._output)}"
        )

    def stop(self) -> None:
        """End the node in peace, then its name server. May be called when it does not run."""
        if mark := processes.read_mark(self._node_mark):
            processes.stop(mark, grace=STOP_SECONDS)
        if mark := processes.read_mark(self._epmd_mark):
            processes.kill(mark)

    def kill9(self) -> None:
        """Kill the node without warning, as a power cut would. Its name server stays, `start` brings the node back."""
        if mark := processes.read_mark(self._node_mark):
            processes.kill(mark)

    def remove(self) -> None:
        """Kill the node and forget it, with all its data."""
        self.kill9()
        self.stop()
        release_ports(self._ports, self.folder)
        clear(self.folder)

    @property
    def running(self) -> bool:
        return self.pid is not None

    @property
    def pid(self) -> int | None:
        """The pid of the Erlang machine, None when it does not run."""
        mark = processes.read_mark(self._node_mark)
        return mark.pid if mark and processes.is_alive(mark) else None

    # --- virtual hosts and users ---

    def add_grants(self, grants: Iterable[Grant]) -> None:
        """Make all these virtual hosts, users and permissions in one call; what exists is brought in line."""
        asked = tuple(grants)
        users = {grant.user: grant.password for grant in asked}
        body = {
            "vhosts": [{"name": vhost} for vhost in dict.fromkeys(grant.vhost for grant in asked)],
            "users": [
                {"name": user, "tags": "", **({"password": word} if word else {"password_hash": ""})}
                for user, word in users.items()
            ],
            "permissions": [
                {"user": g.user, "vhost": g.vhost, "configure": g.configure, "write": g.write, "read": g.read}
                for g in asked
            ],
        }
        self._ask("POST", "/api/definitions", body)

    def add_vhost_user(
        self,
        vhost: str,
        user: str,
        password: str,
        *,
        configure: str = ".*",
        write: str = ".*",
        read: str = ".*",
    ) -> None:
        """Make a virtual host and a user with these permissions in it; what exists is brought in line."""
        grant = Grant(vhost=vhost, user=user, password=password, configure=configure, write=write, read=read)
        self.add_grants([grant])

    def set_permissions(self, vhost: str, user: str, *, configure: str, write: str, read: str) -> None:
        """Change what an existing user may do in an existing virtual host."""
        body = {"configure": configure, "write": write, "read": read}
        self._ask("PUT", f"/api/permissions/{quote(vhost, safe='')}/{quote(user, safe='')}", body)

    def delete_user(self, user: str) -> None:
        """Remove a user; its connections are closed. One that is not there is fine."""
        self._ask("DELETE", f"/api/users/{quote(user, safe='')}", absent_is_fine=True)

    def delete_vhost(self, vhost: str) -> None:
        """Remove a virtual host with its queues and messages. One that is not there is fine."""
        self._ask("DELETE", f"/api/vhosts/{quote(vhost, safe='')}", absent_is_fine=True)

    def set_policy(self, vhost: str, name: str, queues: str, definition: Mapping[str, Any]) -> None:
        """Change how the queues that match behave, while they are in use."""
        body = {"pattern": queues, "definition": dict(definition), "apply-to": "queues"}
        self._ask("PUT", f"/api/policies/{quote(vhost, safe='')}/{quote(name, safe='')}", body)

    def delete_policy(self, vhost: str, name: str) -> None:
        """Remove a policy. One that is not there is fine."""
        self._ask("DELETE", f"/api/policies/{quote(vhost, safe='')}/{quote(name, safe='')}", absent_is_fine=True)

    def delete_queue(self, vhost: str, queue: str) -> None:
        """Remove a queue with its messages. One that is not there is fine."""
        self._ask("DELETE", f"/api/queues/{quote(vhost, safe='')}/{quote(queue, safe='')}", absent_is_fine=True)

    def close_connections(self, user: str = "") -> None:
        """Close what is connected, or what this user is, as an operator may."""
        status, text = self._exchange("GET", "/api/connections?columns=name,user")
        for connection in json.loads(text) if status == http.HTTPStatus.OK else ():
            if not user or connection.get("user") == user:
                self._ask("DELETE", f"/api/connections/{quote(connection['name'], safe='')}", absent_is_fine=True)

    def control(self, *words: str) -> str:
        """What rabbitmqctl says; seconds, for it starts an Erlang machine. For what the interface above cannot do."""
        program = rabbitmq_programs()[0].with_name("rabbitmqctl")
        command = [str(program), "--node", self.node_name, *words]
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise Temporary(f"rabbitmqctl {words[0]} at {self.node_name}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def amqp_url(self, vhost: str, user: str, password: str, *, port: int = 0) -> str:
        """Where a client connects as this user. `port`: of what stands before the node."""
        login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
        scheme = "amqps" if self._papers else "amqp"
        return f"{scheme}://{login}@{LOOPBACK}:{port or self.amqp_port}/{quote(vhost, safe='')}"

    # --- inside ---

    @property
    def _ports(self) -> tuple[int, ...]:
        return self.amqp_port, self.distribution_port, self.epmd_port, self.management_port

    def _write_configuration(self) -> None:
        for name in ("data", "log", "home"):
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        cookie = self.folder / "home" / ".erlang.cookie"
        if not cookie.exists():
            processes.write_whole(cookie, secrets.token_hex(16))
        (self.folder / "empty.conf").touch()
        plugins = "rabbitmq_management" + (",rabbitmq_auth_mechanism_ssl" if self._papers else "")
        processes.write_whole(self.folder / "enabled_plugins", f"[{plugins}].\n")
        processes.write_whole(
            self.folder / "rabbitmq.conf",
            f"{self._listeners()}"
            f"default_user = {ADMIN}\n"
            f"default_pass = {self._password}\n"
            "disk_free_limit.absolute = 10MB\n"
            "log.console = false\n"
            "log.file = node.log\n"
            f"management.tcp.ip = {LOOPBACK}\n"
            f"management.tcp.port = {self.management_port}\n"
            "management.disable_stats = true\n"
            "management_agent.disable_metrics_collector = true\n",
        )

    def _listeners(self) -> str:
        if self._papers is None:
            return f"listeners.tcp.1 = {LOOPBACK}:{self.amqp_port}\n"
        return (
            "listeners.tcp = none\n"
            f"listeners.ssl.1 = {LOOPBACK}:{self.amqp_port}\n"
            f"ssl_options.cacertfile = {self._papers.authorities}\n"
            f"ssl_options.certfile = {self._papers.certificate}\n"
            f"ssl_options.keyfile = {self._papers.key}\n"
            "ssl_options.verify = verify_peer\n"
            "ssl_options.fail_if_no_peer_cert = true\n"
            "ssl_cert_login_from = common_name\n"
            "auth_mechanisms.1 = EXTERNAL\n"
        )

    def _environment(self) -> Mapping[str, str]:
        place = {
            "HOME": "home",
            "RABBITMQ_MNESIA_BASE": "data",
            "RABBITMQ_MNESIA_DIR": "data/mnesia",
            "RABBITMQ_LOG_BASE": "log",
            "RABBITMQ_CONFIG_FILE": "rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": "advanced.config",
            "RABBITMQ_CONF_ENV_FILE": "empty.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": "enabled_plugins",
            "RABBITMQ_FEATURE_FLAGS_FILE": "data/feature_flags",
            "RABBITMQ_GENERATED_CONFIG_DIR": "data/config",
            "RABBITMQ_PLUGINS_EXPAND_DIR": "data/plugins",
            "RABBITMQ_PID_FILE": "data/rabbitmq.pid",
        }
        return clean_environment(
            "RABBITMQ_",
            "ERL_",
            **{variable: str(self.folder / path) for variable, path in place.items()},
            # A crash is told by the log; writing the dump would only keep us waiting.
            ERL_CRASH_DUMP_SECONDS="0",
            RABBITMQ_NODENAME=self.node_name,
            RABBITMQ_NODE_IP_ADDRESS=LOOPBACK,
            RABBITMQ_NODE_PORT=str(self.amqp_port),
            RABBITMQ_DIST_PORT=str(self.distribution_port),
            ERL_EPMD_PORT=str(self.epmd_port),
            ERL_EPMD_ADDRESS=LOOPBACK,
            # We start epmd ourselves: one that the node starts is a daemon whose pid nobody knows. No spinning.
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=(
                "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none"
            ),
            # Makes the start script become the Erlang machine instead of guarding it, so the pid we know is the node's.
            RUNNING_UNDER_SYSTEMD="true",
        )

    def _start_epmd(self, epmd: Path, env: Mapping[str, str]) -> None:
        mark = processes.read_mark(self._epmd_mark)
        if mark and processes.is_alive(mark):
            return
        command: list[str | Path] = [epmd, "-port", str(self.epmd_port), "-address", LOOPBACK]
        mark = processes.spawn(command, env=env, log=self._output, mark_file=self._epmd_mark)
        listening = processes.wait_until(
            lambda: not processes.is_alive(mark) or not is_free(self.epmd_port), timeout=10
        )
        if not listening or not processes.is_alive(mark):
            tail = processes.log_tail(self._output)
            raise Temporary(f"Erlang's name server does not come up on port {self.epmd_port}:\n{tail}")

    def _listens(self) -> bool:
        try:
            status, _ = self._exchange("GET", f"/api/health/checks/port-listener/{self.amqp_port}")
        except (OSError, http.client.HTTPException):
            return False
        return status == http.HTTPStatus.OK

    def _ask(self, method: str, path: str, body: Any = None, *, absent_is_fine: bool = False) -> None:
        try:
            status, answer = self._exchange(method, path, body)
        except (OSError, http.client.HTTPException) as error:
            raise Temporary(f"RabbitMQ node {self.node_name} does not answer: {error}; is it started?") from error
        if status >= 400 and not (absent_is_fine and status == http.HTTPStatus.NOT_FOUND):
            raise Permanent(f"RabbitMQ node {self.node_name} refuses {method} {path}: {status} {answer}")

    def _exchange(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        login = base64.b64encode(f"{ADMIN}:{self._password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(LOOPBACK, self.management_port, timeout=20)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        finally:
            connection.close()


def _choose(folder: Path, name: str) -> Facts:
    amqp, distribution, epmd, management = claim_ports(4, folder)
    return {
        "server": "rabbitmq",
        "name": f"{name}-{amqp}",
        "amqp_port": amqp,
        "distribution_port": distribution,
        "epmd_port": epmd,
        "management_port": management,
        "admin_password": secrets.token_urlsafe(18),
    }
