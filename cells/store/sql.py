"""The store: a cell's rows in SQLite or MariaDB. Called by the node, the front door and the command line.

A unit is one transaction, see cells.store.unit; where the database differs is in cells.store.database.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import sqlalchemy as sa

from cells.errors import Temporary
from cells.names import Instant
from cells.store import partitions
from cells.store.database import LOCK_WAIT_SECONDS, Database, Transaction
from cells.store.failures import typed
from cells.store.statements import Statements
from cells.store.stats import Stats
from cells.store.tables import BLOB, RowTable, row_tables
from cells.store.unit import SqlUnit

STRETCH = 20_000


@cache
def _prepared(row_types: tuple[type, ...], driver: str) -> tuple[sa.MetaData, dict[type, tuple[RowTable, Statements]]]:
    """Tables and statements once for all stores of a kind: to make them takes longer than to open a database."""
    metadata, tables = row_tables(row_types)
    dialect = sa.make_url(f"{driver}://").get_dialect()()
    return metadata, {row: (table, Statements(table, dialect)) for row, table in tables.items()}


class SqlStore:
    """The Store of cells.ports. Thread-safe. Opening it connects to nothing yet.

    `url`: sqlite:///path, sqlite:// (in memory, gone with the store), mysql+pymysql://user:password@host:port/schema.
    `row_types`: the role's rows; every cell's machinery rows are there anyway. `lock_wait`: after so many seconds a
    unit that waits for another one is told Conflict.
    """

    def __init__(self, url: str, row_types: Iterable[type] = (), *, lock_wait: int = LOCK_WAIT_SECONDS) -> None:
        self._database = Database(url, lock_wait)
        self.metadata, self._tables = _prepared(tuple(row_types), self._database.engine.url.drivername)

    @contextmanager
    def unit(self, *, lock: bool = True) -> Iterator[SqlUnit]:
        """One transaction, committed when the block ends well and anything was written.

        Conflict: it lost a race, decide again. Temporary: the database is out of reach. AmbiguousCommit: the connection
        was lost during the commit. Permanent: a value fits no column. In each case nothing of it was done, or (only
        AmbiguousCommit) all of it.
        """
        database = self._database
        transaction = Transaction(database, lock=lock)
        # Rows found by conditions are as good as rows read by key where reading by key takes no lock of its own.
        unit = SqlUnit(transaction, self._tables, lock=lock, keep_found=database.is_sqlite or not lock)
        try:
            yield unit
            unit.commit()
        finally:
            transaction.abandon()

    def create_all(self) -> None:
        """Make the tables that are not there: for tests and stores in memory. Cells that live on upgrade their schema
        (cells.store.schema)."""
        try:
            with self._database.connection() as connection:
                self.metadata.create_all(connection)
        except Exception as error:
            raise typed(error) from error

    def roll(self, now: Instant, keep: Instant = 30 * partitions.DAY) -> None:
        """Let go of expired inbox marks and of story lines and parked messages older than `keep`, and make room for
        the days to come. For one daemon of the cell, about once an hour; may be called again, and by several."""
        try:
            for row in partitions.DAILY:
                partitions.roll(self._database.connection, row, self._tables[row][0].name, now, keep)
        except Exception as error:
            raise typed(error) from error

    def holding(self, marks: Sequence[bytes], stretch: int = STRETCH) -> dict[str, int]:
        """How many rows hold any of these anywhere in their bytes, also deep inside a value, by table; those without
        are left out. Nothing is opened or read here: the database looks, so many rows of a table at a time."""
        try:
            with self._database.connection() as connection:
                found = {
                    name: _holding(connection, table, marks, stretch) for name, table in self.metadata.tables.items()
                }
        except Exception as error:
            raise typed(error) from error
        return {name: count for name, count in found.items() if count}

    def ping(self) -> None:
        """Raise Temporary when the database is out of reach."""
        try:
            with self._database.connection() as connection:
                connection.exec_driver_sql("SELECT 1")
        except Exception as error:
            raise Temporary(f"the database is out of reach: {getattr(error, 'orig', None) or error}") from error

    def stats(self) -> Stats:
        """What commits have cost so far."""
        return Stats(commits=self._database.commits, commit_seconds=self._database.commit_seconds)

    def close(self) -> None:
        """Let go of every connection."""
        self._database.engine.dispose()


def _holding(connection: sa.Connection, table: sa.Table, marks: Sequence[bytes], stretch: int) -> int:
    blobs = [column for column in table.columns if column.type is BLOB]
    if not blobs or not marks:
        return 0
    has = sa.or_(*(sa.func.instr(blob, sa.literal(mark, BLOB)) > 0 for blob in blobs for mark in marks))
    key = next(iter(table.primary_key.columns))
    begin: list[sa.ColumnElement[bool]] = []
    count = 0
    while True:
        # Within the time an answer may take, whatever the size of the table.
        step = sa.select(key).where(*begin).order_by(key).offset(stretch - 1).limit(1)
        last = connection.execute(step).scalar()
        end = [] if last is None else [key <= last]
        count += connection.execute(sa.select(sa.func.count()).select_from(table).where(has, *begin, *end)).scalar_one()
        if last is None:
            return count
        begin = [key > last]
