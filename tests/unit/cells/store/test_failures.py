"""What the caller is told to do about each error of a database driver."""

import sqlite3

import pymysql.err
import pytest

from cells.errors import AmbiguousCommit, Conflict, Permanent, Temporary
from cells.store.failures import is_lost_connection, typed

LOST = pymysql.err.OperationalError(2013, "Lost connection to MySQL server during query")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (pymysql.err.OperationalError(1213, "Deadlock found"), Conflict),
        (pymysql.err.OperationalError(1205, "Lock wait timeout exceeded"), Conflict),
        (pymysql.err.IntegrityError(1062, "Duplicate entry"), Conflict),
        (pymysql.err.DataError(1406, "Data too long"), Permanent),
        (pymysql.err.DataError(1264, "Out of range value"), Permanent),
        (pymysql.err.OperationalError(2003, "Can't connect"), Temporary),
        (pymysql.err.OperationalError(1040, "Too many connections"), Temporary),
        (pymysql.err.OperationalError(1290, "running with the --read-only option"), Temporary),
        (pymysql.err.OperationalError(1114, "The table is full"), Temporary),
        (pymysql.err.InterfaceError(0, ""), Temporary),
        (LOST, Temporary),
        (ConnectionResetError(104, "reset"), Temporary),
        (OverflowError("too large"), Permanent),
    ],
)
def test_error_of_a_statement_says_what_to_do_next(error: Exception, kind: type[Exception]) -> None:
    assert type(typed(error)) is kind


def test_connection_lost_at_commit_is_ambiguous_and_else_not() -> None:
    assert type(typed(LOST, committing=True)) is AmbiguousCommit
    assert type(typed(pymysql.err.OperationalError(1213, "Deadlock"), committing=True)) is Conflict
    assert type(typed(LOST)) is Temporary


@pytest.mark.parametrize("number", [1146, 1054])
def test_schema_that_does_not_fit_is_no_fault_of_the_record(number: int) -> None:
    told = typed(pymysql.err.ProgrammingError(number, "no such table"))
    assert type(told) is Temporary
    assert "celltree db upgrade --cell" in str(told)


def test_mistake_in_the_program_stays_what_it_is() -> None:
    for mistake in (pymysql.err.ProgrammingError(1064, "syntax"), ValueError("x"), KeyError("x")):
        assert typed(mistake) is mistake
        assert not is_lost_connection(mistake)


def test_full_disk_is_temporary_for_sqlite() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (x)")
    connection.execute("PRAGMA max_page_count = 2")
    with pytest.raises(sqlite3.OperationalError) as raised:
        connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    connection.close()
    assert type(typed(raised.value)) is Temporary
