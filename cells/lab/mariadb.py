"""A private MariaDB server on the loopback address, with a schema and a user per cell.

Committed means on disk (`innodb_flush_log_at_trx_commit=1`), as in production, so that what a test or a benchmark
sees is true. The administrator is the operating system's user who started the server, known by the socket: there is no
password to keep.
"""

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, urlencode

from cells.errors import BadInput, Permanent, Temporary
from cells.lab import processes
from cells.lab.folder import Facts, clear, remembered
from cells.lab.papers import Papers
from cells.lab.ports import LOOPBACK, claim_ports, is_free, release_ports
from cells.lab.programs import clean_environment, mariadb_programs

PORT_SECONDS = 5.0
STOP_SECONDS = 60.0
# Relative to the data folder: the kernel allows a socket's path no more than 107 bytes.
SOCKET = "mariadb.sock"
NAME = re.compile(r"[A-Za-z0-9_]{1,64}")


class MariaServer:
    """The server that lives in `folder`, running or not. The same folder is the same server, in any process.

    `options` are further words for mariadbd's command line, such as "--innodb-buffer-pool-size=1G"; the last one wins.
    With `papers` it takes TLS only.
    """

    def __init__(self, folder: Path, *, options: Sequence[str] = (), papers: Papers | None = None) -> None:
        self.folder = folder.absolute()
        self.port = int(remembered(self.folder, lambda: _choose(self.folder))["port"])
        self._options = (*_tls_options(papers), *options)
        self._data = self.folder / "data"
        self._mark = self.folder / "server.pid"
        self._log = self.folder / "server.log"

    # --- running and not running ---

    def start(self) -> None:
        """Start the server unless it runs, making its first tables when it is new; does not wait for it."""
        if self.running:
            return
        server, install, _ = mariadb_programs()
        if not self._data.exists():
            self._make_first_tables(install)
        if not processes.wait_until(lambda: is_free(self.port), timeout=PORT_SECONDS):
            raise Temporary(f"port {self.port} of {self.folder} is taken by another program; end that one first")
        command: list[str | Path] = [
            server,
            "--no-defaults",
            f"--user={_user()}",
            f"--datadir={self._data}",
            f"--tmpdir={self.folder / 'tmp'}",
            f"--socket={SOCKET}",
            f"--pid-file={self._data / 'mariadbd.pid'}",
            f"--bind-address={LOOPBACK}",
            f"--port={self.port}",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=1",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=64M",
            "--max-connections=400",
            "--character-set-server=utf8mb4",
            *self._options,
        ]
        (self.folder / "tmp").mkdir(mode=0o700, exist_ok=True)
        processes.spawn(command, env=_environment(), log=self._log, mark_file=self._mark, folder=self.folder)

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Until the server answers a query; raises with the end of its log when it cannot."""
        if processes.wait_until(lambda: not self.running or self._answers(), timeout=timeout) and self.running:
            return
        state = "is not ready" if self.running else "has ended"
        raise Permanent(f"MariaDB in {self.folder} {state}; its log ends:\n{processes.log_tail(self._log)}")

    def stop(self) -> None:
        """End the server in peace. May be called when it does not run."""
        if mark := processes.read_mark(self._mark):
            processes.stop(mark, grace=STOP_SECONDS)

    def kill9(self) -> None:
        """Kill the server without warning, as a power cut would. `start` brings it back."""
        if mark := processes.read_mark(self._mark):
            processes.kill(mark)

    def restart(self) -> None:
        """Stop in peace, start again and wait until it answers."""
        self.stop()
        self.start()
        self.wait_ready()

    def remove(self) -> None:
        """Kill the server and forget it, with all its data."""
        self.kill9()
        release_ports((self.port,), self.folder)
        clear(self.folder)

    @property
    def running(self) -> bool:
        return self.pid is not None

    @property
    def pid(self) -> int | None:
        """The server's pid, None when it does not run."""
        mark = processes.read_mark(self._mark)
        return mark.pid if mark and processes.is_alive(mark) else None

    # --- schemas and users ---

    def create_schema(self, schema: str, user: str, password: str, *, certificate_of: str = "") -> None:
        """Make an empty schema and a user who may do everything in it and nothing elsewhere. What exists stays; the
        password is set. `certificate_of`: the user must also show a certificate of this name."""
        _check_names(schema, user)
        word = password.replace("\\", "\\\\").replace("'", "''")
        shown = f"SUBJECT '/CN={certificate_of}'" if certificate_of else "NONE"
        self.execute(
            f"CREATE DATABASE IF NOT EXISTS `{schema}` CHARACTER SET utf8mb4;"
            f"CREATE USER IF NOT EXISTS '{user}'@'%' IDENTIFIED BY '{word}';"
            f"ALTER USER '{user}'@'%' IDENTIFIED BY '{word}' REQUIRE {shown};"
            f"GRANT ALL ON `{schema.replace('_', chr(92) + '_')}`.* TO '{user}'@'%';"
        )

    def drop_schema(self, schema: str, user: str) -> None:
        """Remove a schema with its rows, and its user. What is not there is fine."""
        _check_names(schema, user)
        self.execute(f"DROP DATABASE IF EXISTS `{schema}`; DROP USER IF EXISTS '{user}'@'%';")

    def url(self, schema: str, user: str, password: str, *, port: int = 0, papers: Papers | None = None) -> str:
        """Where a client connects as this user, as SQLAlchemy writes it. `port`: of what stands before the server;
        `papers`: what the client shows."""
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        words = {"charset": "utf8mb4"}
        if papers:
            words |= {
                "ssl_ca": str(papers.authorities),
                "ssl_cert": str(papers.certificate),
                "ssl_key": str(papers.key),
            }
        return f"mysql+pymysql://{login}@{LOOPBACK}:{port or self.port}/{schema}?{urlencode(words, safe='/')}"

    def execute(self, sql: str) -> str:
        """Run statements as the administrator; gives back the rows, columns separated by tabs."""
        done = self._client(sql)
        if done.returncode != 0:
            raise Permanent(f"MariaDB in {self.folder} refuses: {done.stderr.strip()}")
        return done.stdout

    # --- inside ---

    def _client(self, sql: str) -> "subprocess.CompletedProcess[str]":
        _, _, client = mariadb_programs()
        words = ("--no-defaults", f"--user={_user()}", f"--socket={SOCKET}", "--protocol=socket")
        return subprocess.run(
            [str(client), *words, "--batch", "--skip-column-names"],
            cwd=self._data,
            env=_environment(),
            input=sql,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def _answers(self) -> bool:
        return self._client("SELECT 1").returncode == 0

    def _make_first_tables(self, install: Path) -> None:
        """Half a second; in a folder of another name first, so that an interrupted try is not taken for a database."""
        draft = self.folder / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        command: list[str | Path] = [
            install,
            "--no-defaults",
            f"--datadir={draft}",
            f"--user={_user()}",
            "--auth-root-authentication-method=socket",
            f"--auth-root-socket-user={_user()}",
            "--skip-test-db",
            "--skip-name-resolve",
            "--innodb-log-file-size=64M",
        ]
        # A folder of our own: any MariaDB that starts removes temporary tables it finds in the one it shares.
        scratch = self.folder / "tmp"
        scratch.mkdir(mode=0o700, exist_ok=True)
        environment = {**_environment(), "TMPDIR": str(scratch)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
            raise Permanent(f"mariadb-install-db cannot make {draft}; is there room on the disk?\n{tail}")
        draft.rename(self._data)


def _tls_options(papers: Papers | None) -> tuple[str, ...]:
    if papers is None:
        return ()
    return (
        f"--ssl-ca={papers.authorities}",
        f"--ssl-cert={papers.certificate}",
        f"--ssl-key={papers.key}",
        "--require-secure-transport=ON",
    )


def _choose(folder: Path) -> Facts:
    return {"server": "mariadb", "port": claim_ports(1, folder)[0]}


def _environment() -> dict[str, str]:
    return dict(clean_environment("MYSQL_", "MARIADB_"))


def _user() -> str:
    # Not getpass.getuser(): that believes $USER, the socket's check believes the kernel.
    return pwd.getpwuid(os.geteuid()).pw_name


def _check_names(*names: str) -> None:
    for name in names:
        if not NAME.fullmatch(name):
            raise BadInput(f"{name!r} cannot name a schema or its user: letters, digits and _ only, at most 64")
