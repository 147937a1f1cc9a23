"""Lists of servers are read along an index, from the marker on, whatever the number of servers."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from api_cell.rows import ROWS, ServerRow
from cells.ports import After, Store, Where
from cells.store.database import Database
from cells.store.sql import SqlStore
from cells.store.statements import Statements
from cells.store.tables import row_tables


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    store: Store = SqlStore(f"sqlite:///{tmp_path}/x.db", ROWS)
    assert isinstance(store, SqlStore)
    store.create_all()
    store.close()
    database = Database(f"sqlite:///{tmp_path}/x.db", 1)
    yield database
    database.engine.dispose()


PROJECT = Where(column="project", op="=", value="p")


@pytest.mark.parametrize(
    ("where", "order", "index"),
    [
        ((PROJECT,), ("created", "id"), "ix_servers_project_created_id"),
        ((PROJECT, Where(column="status", op="=", value="ACTIVE")), ("created", "id"), "ix_servers_project_created_id"),
        ((PROJECT, Where(column="updated", op=">=", value=5)), ("updated", "id"), "ix_servers_project_updated_id"),
        ((), ("created", "id"), "ix_servers_created_id"),
    ],
)
@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("after", [None, After(values=(5, bytes(16)))])
def test_page_is_read_along_its_index(
    database: Database, where: tuple[Where, ...], order: tuple[str, ...], index: str, descending: bool, after: After
) -> None:
    statements = Statements(row_tables(ROWS)[1][ServerRow], database.engine.dialect)
    asked = statements.find(where, order, descending, after, 1000)
    assert asked is not None
    with database.connection() as connection:
        plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked[0]}", tuple(asked[1])).all())
    assert f"USING INDEX {index}" in plan
    assert "TEMP B-TREE" not in plan


def test_many_rows_go_to_mariadb_in_one_statement() -> None:
    """PyMySQL joins rows into one INSERT only when it recognises the statement."""
    from pymysql.cursors import RE_INSERT_VALUES

    dialect = sa.create_engine("mysql+pymysql://h/s", paramstyle="format").dialect
    for table in row_tables(ROWS)[1].values():
        statements = Statements(table, dialect)
        assert RE_INSERT_VALUES.match(statements.insert)
        assert RE_INSERT_VALUES.match(statements.upsert)


def test_sqlite_writes_each_commit_to_the_disk(database: Database) -> None:
    with database.connection() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    assert sqlite3.sqlite_version_info >= (3, 24)  # ON CONFLICT DO UPDATE
