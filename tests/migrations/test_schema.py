"""From nothing to the head of each branch gives exactly the tables that the row types ask for."""

import pytest
import sqlalchemy as sa

import api_cell.rows
import compute_cell.rows
from cells.errors import Permanent, Temporary
from cells.rows import InboxRow
from cells.store import schema
from tests.support.stores import NewUrl, OpenStore

ROLES = {"api": api_cell.rows.ROWS, "compute": compute_cell.rows.ROWS}


def what_is_there(url: str) -> set[str]:
    """Tables, columns, types, keys and indexes of a database, as it tells of itself, a line each."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    lines = set()
    with engine.connect() as connection:
        there = sa.inspect(connection)
        for name in set(there.get_table_names()) - {"alembic_version"}:
            for column in there.get_columns(name):
                kind = column["type"].compile(engine.dialect)
                lines.add(f"{name}.{column['name']} {kind} null={column['nullable']} default={column['default']}")
            for index in there.get_indexes(name):
                lines.add(f"{name} index {index['name']} {index['column_names']} unique={index['unique']}")
            lines.add(f"{name} key {there.get_pk_constraint(name)['constrained_columns']}")
            lines.add(f"{name} options {sorted(there.get_table_options(name).items())}")
            if engine.dialect.name != "sqlite":
                definition = connection.exec_driver_sql(f"SHOW CREATE TABLE `{name}`").one()[1]
                lines.update(f"{name} partition {line}" for line in definition.splitlines() if "PARTITION" in line)
    return lines


@pytest.mark.parametrize("role", ROLES)
def test_upgrade_from_nothing_gives_what_the_rows_ask_for(any_url: NewUrl, open_store: OpenStore, role: str) -> None:
    upgraded, made = any_url(), any_url()
    assert schema.upgrade(upgraded, role) == schema.head(role)
    open_store(made, ROLES[role]).create_all()
    assert what_is_there(upgraded) == what_is_there(made), "add a revision to migrations/versions"


@pytest.mark.parametrize("role", ROLES)
def test_second_upgrade_changes_nothing(any_url: NewUrl, open_store: OpenStore, role: str) -> None:
    url = any_url()
    schema.upgrade(url, role)
    before = what_is_there(url)
    row = InboxRow(id=bytes(16), expires=1)
    store = open_store(url, ROLES[role])
    with store.unit() as unit:
        unit.save(row)
    assert schema.upgrade(url, role) == schema.current(url) == schema.head(role)
    assert what_is_there(url) == before
    with store.unit() as unit:
        assert unit.all(InboxRow) == (row,)


def test_interrupted_upgrade_is_finished_by_the_next(any_url: NewUrl) -> None:
    """MariaDB keeps each table as it is made: this is what a kill half way leaves."""
    whole, half = any_url(), any_url()
    schema.upgrade(whole, "api")
    schema.upgrade(half, "api")
    engine = sa.create_engine(half, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM alembic_version")
        connection.exec_driver_sql("DROP TABLE servers")
        on = "" if engine.dialect.name == "sqlite" else " ON wakes"
        connection.exec_driver_sql(f"DROP INDEX ix_wakes_shard_due{on}")
    schema.upgrade(half, "api")
    assert what_is_there(half) == what_is_there(whole)


def test_database_without_tables_is_told_to_upgrade(any_url: NewUrl) -> None:
    with pytest.raises(Permanent, match=r"no tables.*celltree db upgrade --cell dfw-1"):
        schema.check(any_url(), "api", "dfw-1")


def test_upgraded_database_passes_the_check(any_url: NewUrl) -> None:
    url = any_url()
    schema.upgrade(url, "compute")
    schema.check(url, "compute", "dfw-1")


def test_database_of_a_newer_version_is_left_alone(any_url: NewUrl) -> None:
    url = any_url()
    schema.upgrade(url, "api")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'api_9999'")
    for act in (schema.check, schema.upgrade):
        with pytest.raises(Permanent, match=r"newer.*celltree db upgrade --cell"):
            act(url, "api")


def test_database_of_the_other_role_is_left_alone(any_url: NewUrl) -> None:
    url = any_url()
    schema.upgrade(url, "api")
    before = what_is_there(url)
    for act in (schema.check, schema.upgrade):
        with pytest.raises(Permanent, match="role 'api', not 'compute'"):
            act(url, "compute")
    assert what_is_there(url) == before


def test_database_out_of_reach_is_temporary() -> None:
    with pytest.raises(Temporary):
        schema.check("mysql+pymysql://nobody:x@127.0.0.1:1/none", "api")
