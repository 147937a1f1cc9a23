"""Connections: which database a URL means, how its connections are set up, and one transaction on one of them.

Statements reach the driver as text with positional values (cells.store.statements compiles each once), past the
layers of SQLAlchemy that cost more than the statement itself; SQLAlchemy keeps the pool and knows the dialects.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from time import perf_counter
from typing import Any

import sqlalchemy as sa
from pymysql.constants import CLIENT
from sqlalchemy.pool import PoolProxiedConnection, QueuePool, StaticPool

from cells.errors import BadInput, Conflict, Temporary
from cells.store.failures import is_lost_connection, typed

LOCK_WAIT_SECONDS = 5
CONNECT_SECONDS = 5
ANSWER_SECONDS = 30
CONNECTIONS = 16
_ONE_PACKET = 512 * 1024
_WRITE = "write sqlite:///path or mysql+pymysql://user:password@host/schema"


def open_engine(url: str, lock_wait: int) -> sa.Engine:
    """An engine for a database URL: sqlite:///path, sqlite:// (memory), or mysql+pymysql://user:password@host/schema.
    Connections are made when first needed; none waits for a lock longer than `lock_wait` seconds."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise BadInput(f"the database URL is not one; {_WRITE}") from None
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        return _open_sqlite(parsed, lock_wait)
    if parsed.drivername in ("mysql+pymysql", "mariadb+pymysql"):
        return _open_mysql(parsed, lock_wait)
    raise BadInput(f"no store for {parsed.drivername!r} databases; {_WRITE}")


def _open_sqlite(url: sa.URL, lock_wait: int) -> sa.Engine:
    in_memory = url.database in (None, "", ":memory:")
    engine = sa.create_engine(
        url,
        poolclass=StaticPool if in_memory else QueuePool,
        connect_args={"check_same_thread": False, "timeout": lock_wait},
        **({} if in_memory else {"pool_size": CONNECTIONS, "max_overflow": 0, "pool_timeout": CONNECT_SECONDS}),
        pool_reset_on_return=None,
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves: IMMEDIATE for units that lock
        connection.create_function("lower", 1, _lower, deterministic=True)  # SQLite's own knows ASCII only
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # NORMAL may lose the last commits when power fails
        connection.execute(f"PRAGMA busy_timeout={lock_wait * 1000}")

    return engine


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _open_mysql(url: sa.URL, lock_wait: int) -> sa.Engine:
    engine = sa.create_engine(
        url,
        paramstyle="format",
        connect_args={
            "charset": "utf8mb4",
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": ANSWER_SECONDS,
            "write_timeout": ANSWER_SECONDS,
            "client_flag": CLIENT.FOUND_ROWS | CLIENT.MULTI_STATEMENTS,
        },
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
        pool_reset_on_return=None,
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute(
                f"SET SESSION innodb_lock_wait_timeout={lock_wait}, "
                "SESSION sql_mode='STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'"
            )

    return engine


class Database:
    """The connections of one store. Thread-safe; each transaction belongs to one thread."""

    def __init__(self, url: str, lock_wait: int) -> None:
        self.engine = open_engine(url, lock_wait)
        self.lock_wait = lock_wait
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self.one_connection = isinstance(self.engine.pool, StaticPool)
        # SQLite has one writer. Waiting for it here is first come, first served and wakes at once; SQLite's own way
        # is to sleep and look again, and stays for the other processes.
        self.writer = threading.Lock()
        self._counted = threading.Lock()
        self.commits = 0
        self.commit_seconds = 0.0

    @contextmanager
    def connection(self) -> Iterator[sa.Connection]:
        """A connection for what is no unit: schema changes, housekeeping. Committed when the block ends well."""
        with self.writing() if self.is_sqlite else nullcontext(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be SQLite's one writer."""
        self.begin_writing()
        try:
            yield
        finally:
            self.writer.release()

    def begin_writing(self) -> None:
        """Become SQLite's one writer, until `writer` is released."""
        if not self.writer.acquire(timeout=self.lock_wait):
            raise Conflict("waited too long for the unit that is writing", retry_after=0.0)

    def committed(self, seconds: float) -> None:
        """Count a commit."""
        with self._counted:
            self.commits += 1
            self.commit_seconds += seconds

    def forget_connections(self) -> None:
        """Drop the idle connections: one was found dead, the others were made before it died."""
        self.engine.dispose()


class Transaction:
    """One transaction. It takes a connection with its first statement; on any error it is rolled back whole, and every
    later call raises the same error: MariaDB would else commit the half that came before a lock wait timed out."""

    def __init__(self, database: Database, *, lock: bool) -> None:
        self._database = database
        self._lock = lock
        self._connection: PoolProxiedConnection | None = None
        self._cursor: Any = None
        self._fresh = True
        self._failed: Exception | None = None
        self._is_writer = False
        self._wrote = False
        self._gathering = False
        self._gathered: list[str] = []
        self._gathered_size = 0

    def query(self, statement: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """The rows a SELECT gives."""
        cursor = self._run("execute", statement, values)
        try:
            rows: Sequence[Sequence[Any]] = cursor.fetchall()
        except Exception as error:
            raise self.fail(error) from error
        return rows

    def write(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run an INSERT, with its update on a duplicate key, for each of these rows."""
        if len(rows) == 1:
            self.write_once(statement, rows[0])
            return
        self._wrote = True
        if not self._gather(statement, rows):
            self._run("executemany", statement, rows)

    def write_once(self, statement: str, values: Sequence[Any]) -> None:
        """Run a statement that changes rows."""
        self._wrote = True
        if not self._gather(statement, (values,)):
            self._run("execute", statement, values)

    def gather(self) -> None:
        """Only writes and the commit follow: MariaDB is sent them together, which saves a round trip each. One that
        fails ends the packet, so that its commit is not reached. SQLite has no round trips."""
        self._gathering = not self._database.is_sqlite

    def _gather(self, statement: str, rows: Sequence[Sequence[Any]]) -> bool:
        # The first statement on a connection goes alone: should the connection have died while idle, it is tried again.
        if not self._gathering or self._fresh or self._failed is not None:
            return False
        try:
            text = _with_rows(self._cursor, statement, rows)
        except Exception as error:
            raise self.fail(error) from error
        if self._gathered_size + len(text) > _ONE_PACKET:
            self._send_gathered()
        self._gathered.append(text)
        self._gathered_size += len(text)
        return True

    def _send_gathered(self, *more: str) -> None:
        texts, self._gathered, self._gathered_size = [*self._gathered, *more], [], 0
        if not texts:
            return
        try:
            self._cursor.execute("; ".join(texts))
            while self._cursor.nextset():
                pass
        except Exception as error:
            raise self.fail(error, committing=bool(more)) from error

    def commit(self) -> None:
        """Make what was written durable; without writes, let go of what was read."""
        if self._failed is not None:
            raise self._failed
        if self._connection is None:
            return
        if not self._wrote:
            self.abandon()
            return
        began = perf_counter()
        if self._gathered:
            self._send_gathered("COMMIT")
        else:
            try:
                self._connection.commit()
            except Exception as error:
                raise self.fail(error, committing=True) from error
        self._database.committed(perf_counter() - began)
        self._release()

    def abandon(self) -> None:
        """Roll back. Never raises; may be called again."""
        if self._connection is not None:
            try:
                self._connection.rollback()
            except Exception:
                self._drop()
        self._release()

    def fail(self, error: Exception, *, committing: bool = False) -> Exception:
        """Roll back because of this error; what to raise instead."""
        self._failed = typed(error, committing=committing)
        if is_lost_connection(error):
            self._drop()
        self.abandon()
        return self._failed

    def _run(self, method: str, statement: str, values: Sequence[Any]) -> Any:
        if self._failed is not None:
            raise self._failed
        try:
            if self._cursor is None:
                self._begin()
            getattr(self._cursor, method)(statement, values)
        except Exception as error:
            if not (self._fresh and is_lost_connection(error) and self._connection is not None):
                raise self.fail(error) from error
            # The pool gave a connection that had died while idle. Nothing has been done on it: begin on a new one.
            self._drop()
            self._release()
            self._fresh = False
            return self._run(method, statement, values)
        self._fresh = False
        return self._cursor

    def _begin(self) -> None:
        database = self._database
        if database.one_connection or (self._lock and database.is_sqlite):
            database.begin_writing()
            self._is_writer = True
        try:
            self._connection = database.engine.raw_connection()
        except sa.exc.TimeoutError:
            raise Temporary(f"all {CONNECTIONS} connections to the database are in use") from None
        self._cursor = self._connection.cursor()
        if database.is_sqlite:
            self._cursor.execute("BEGIN IMMEDIATE" if self._lock else "BEGIN")

    def _drop(self) -> None:
        """Close the connection for good: its server ends the transaction, if it has not done so."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            self._database.forget_connections()

    def _release(self) -> None:
        connection, self._connection, self._cursor = self._connection, None, None
        if connection is not None:
            connection.close()
        if self._is_writer:
            self._is_writer = False
            self._database.writer.release()


def _with_rows(cursor: Any, statement: str, rows: Sequence[Sequence[Any]]) -> str:
    """The statement with its values in it; an INSERT with those of many rows."""
    if len(rows) == 1:
        return str(cursor.mogrify(statement, rows[0]))
    one_row = f"({', '.join(['%s'] * len(rows[0]))})"
    head, found, tail = statement.partition(one_row)
    if not found or "%" in head + tail:
        raise ValueError(f"not an INSERT of {len(rows[0])} values a row: {statement}")
    return f"{head}{', '.join(cursor.mogrify(one_row, row) for row in rows)}{tail}"
