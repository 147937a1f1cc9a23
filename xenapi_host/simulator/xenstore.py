"""The xenstore of one simulated host: a small tree of texts that dom0 and the guests share.

Commands in dom0 are processes of their own and guests are threads of the simulator, so the tree is an SQLite file;
every call is one transaction. The limits are xenstored's: names, length of a path, and one message for path and value.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

FILE = Path("var/lib/xenstored/tree.db")
MOST_PAYLOAD = 4096
"""Bytes of one message between a client and xenstored: path, a zero byte, value."""
LONGEST_PATH = 3072
_NAME = re.compile(r"[A-Za-z0-9@_-]+")
_BUSY_SECONDS = 30.0
_PRIVATE = "n0"


class XenstoreError(Exception):
    """What xenstored refuses; the text is the name of its error number."""


class Xenstore:
    """One host's tree, opened over what is already there. Each call opens the file anew: any thread may call."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as db:
            db.execute("CREATE TABLE IF NOT EXISTS nodes (path TEXT PRIMARY KEY, value BLOB, perms TEXT) WITHOUT ROWID")
            db.execute("CREATE TABLE IF NOT EXISTS changes (number INTEGER)")
            if db.execute("SELECT number FROM changes").fetchone() is None:
                db.execute("INSERT INTO changes VALUES (0)")

    def read(self, path: str) -> bytes | None:
        """The value of a node; None where there is none."""
        with self._open() as db:
            found = db.execute("SELECT value FROM nodes WHERE path = ?", (absolute(path),)).fetchone()
        return None if found is None else bytes(found[0])

    def text(self, path: str) -> str | None:
        found = self.read(path)
        return None if found is None else found.decode(errors="replace")

    def write(self, path: str, value: bytes | str) -> None:
        """Set a node, made with its parents if it is new."""
        self.write_many({path: value})

    def write_many(self, values: dict[str, bytes | str]) -> None:
        with self._open() as db:
            for path, value in values.items():
                _put(db, absolute(path), value.encode() if isinstance(value, str) else value)
            _changed(db)

    def children(self, path: str) -> list[str] | None:
        """The names below a node; None where there is no such node."""
        with self._open() as db:
            return _children(db, absolute(path))

    def remove(self, path: str) -> bool:
        """Remove a node and all below it; whether it, or at least its parent, was there."""
        whole = absolute(path)
        with self._open() as db:
            gone = db.execute("DELETE FROM nodes WHERE path = ? OR path GLOB ?", (whole, f"{whole}/*")).rowcount
            _changed(db)
            return bool(gone) or _exists(db, whole.rpartition("/")[0] or "/")

    def exists(self, path: str) -> bool:
        with self._open() as db:
            return _exists(db, absolute(path))

    def move(self, source: str, target: Xenstore, path: str) -> None:
        """Take a subtree to another host's tree, as a migration does."""
        taken = dict(self.below(source))
        target.write_many({path + name: value for name, value in taken.items()})
        self.remove(source)

    def below(self, path: str) -> list[tuple[str, bytes]]:
        """(path below this one, "" for the node itself; value) of a whole subtree, in order of paths."""
        whole = absolute(path)
        with self._open() as db:
            found = db.execute(
                "SELECT path, value FROM nodes WHERE path = ? OR path GLOB ? ORDER BY path",
                (whole, f"{'' if whole == '/' else whole}/*"),
            ).fetchall()
        return [(name.removeprefix(whole), bytes(value)) for name, value in found]

    def permissions(self, path: str) -> str | None:
        with self._open() as db:
            found = db.execute("SELECT perms FROM nodes WHERE path = ?", (absolute(path),)).fetchone()
        return None if found is None else str(found[0])

    def set_permissions(self, path: str, permissions: str) -> None:
        with self._open() as db:
            done = db.execute("UPDATE nodes SET perms = ? WHERE path = ?", (permissions, absolute(path))).rowcount
        if not done:
            raise XenstoreError("ENOENT")

    @property
    def changes(self) -> int:
        """A number that grows with every change, for whoever waits for one."""
        with self._open() as db:
            return int(db.execute("SELECT number FROM changes").fetchone()[0])

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._file, timeout=_BUSY_SECONDS)) as db:
            db.execute("PRAGMA synchronous = OFF")  # what a crash of the machine would lose is lost on a real host, too
            with db:
                yield db


def _put(db: sqlite3.Connection, path: str, value: bytes) -> None:
    if len(path) + 1 + len(value) > MOST_PAYLOAD:
        raise XenstoreError("E2BIG")
    above = path.rpartition("/")[0]
    while above and not _exists(db, above):
        db.execute("INSERT INTO nodes VALUES (?, ?, ?)", (above, b"", _PRIVATE))
        above = above.rpartition("/")[0]
    db.execute(
        "INSERT INTO nodes VALUES (?, ?, ?) ON CONFLICT (path) DO UPDATE SET value = excluded.value",
        (path, value, _PRIVATE),
    )


def _changed(db: sqlite3.Connection) -> None:
    db.execute("UPDATE changes SET number = number + 1")


def _exists(db: sqlite3.Connection, path: str) -> bool:
    return path == "/" or db.execute("SELECT 1 FROM nodes WHERE path = ?", (path,)).fetchone() is not None


def _children(db: sqlite3.Connection, path: str) -> list[str] | None:
    if not _exists(db, path):
        return None
    start = "/" if path == "/" else f"{path}/"
    found = db.execute("SELECT path FROM nodes WHERE path GLOB ? ORDER BY path", (f"{start}*",)).fetchall()
    names = (name.removeprefix(start) for (name,) in found)
    return [name for name in names if "/" not in name]


def absolute(path: str) -> str:
    """A path as xenstored keeps it; one without a slash in front is dom0's own."""
    whole = path if path.startswith("/") else f"/local/domain/0/{path}"
    if whole == "/":
        return whole
    if len(whole) > LONGEST_PATH or not all(_NAME.fullmatch(name) for name in whole[1:].split("/")):
        raise XenstoreError("EINVAL")
    return whole
