"""Backups of a cell's database, made while it works, and put back as an operator does it (docs/reliability.md)."""

import os
import pwd
import subprocess
import sys

from cells.errors import Temporary
from cells.lab.lab import Lab
from cells.lab.mariadb import MariaServer
from cells.names import CellName
from cells.topology_file import API


def schema_of(cell: CellName) -> str:
    return f"cell_{cell.replace('-', '_')}"


def dump(server: MariaServer, schema: str, *words: str) -> bytes:
    """Every row of a schema at one moment."""
    login = (f"--user={pwd.getpwuid(os.geteuid()).pw_name}", "--protocol=socket", "--skip-ssl")
    socket = f"--socket={server.folder / 'data' / 'mariadb.sock'}"
    command = ["mariadb-dump", "--no-defaults", *login, socket, "--single-transaction", *words, schema]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    if done.returncode:
        raise Temporary(f"mariadb-dump of {schema}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def backup(lab: Lab, cell: CellName) -> str:
    """A cell's database as it is now."""
    return dump(lab.database(cell), schema_of(cell), "--hex-blob").decode()


def put_back(lab: Lab, cell: CellName, saved: str) -> None:
    """Put a stopped cell's database back and say so; may be called again when it raises."""
    lab.database(cell).execute(f"USE {schema_of(cell)};\n{saved}")
    words = ("api", "rebuild") if lab.topology[cell].role == API else ("host", "reread")
    command = [sys.executable, "-m", "cells.cli", *words, "--cell", cell, "--tree", str(lab.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise Temporary(f"celltree {' '.join(words)} of {cell}: {done.stderr}")
