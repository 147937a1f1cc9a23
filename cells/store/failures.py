"""Errors of the database drivers, as errors that say what the caller should do next.

A unit that lost a race is a Conflict, a database out of reach is Temporary, a value that does not fit is Permanent.
An operator's mistake (a wrong password, a schema not upgraded) is Temporary as well: it is no fault of the record
being decided on, which must wait, not be parked.
"""

import sqlite3
from typing import Any

import pymysql.err

from cells.errors import AmbiguousCommit, CelltreeError, Conflict, Permanent, Temporary

# MySQL's and MariaDB's error numbers.
_LOST_RACE = {
    1020: "the row has changed since it was read",
    1062: "a row with this key is there already",
    1205: "waited too long for a row lock",
    1213: "deadlock",
    3572: "the row is locked",
}
_LOST_CONNECTION = {0, 1053, 1152, 1158, 1159, 1160, 1161, 1184, 1317, 1927, 2006, 2013, 2014, 2055, 3024, 4031}
_DOES_NOT_FIT = {1048, 1153, 1264, 1265, 1292, 1364, 1366, 1406}
_NO_SCHEMA = {1054, 1146}
_NO_ACCESS = {1044, 1045, 1049, 1142, 1698}

UPGRADE = "run: celltree db upgrade --cell NAME"


def is_lost_connection(error: Exception) -> bool:
    """Whether the connection is gone, and with it the transaction, unless it was just being committed."""
    if isinstance(error, sqlite3.Error):
        return False
    return isinstance(error, OSError) or (isinstance(error, pymysql.err.Error) and _number(error) in _LOST_CONNECTION)


def typed(error: Exception, *, committing: bool = False) -> Exception:
    """What to raise for a driver's error; errors of ours, and mistakes in the program, are raised as they are."""
    error = getattr(error, "orig", None) or error  # SQLAlchemy wraps what goes wrong in its own layers
    if isinstance(error, sqlite3.Error):
        return _of_sqlite(error)
    if isinstance(error, OverflowError | UnicodeError):
        return Permanent(f"a value does not fit its column: {error}")
    if committing and is_lost_connection(error):
        return AmbiguousCommit(f"connection to the database lost while committing: {_text(error)}")
    wrong_sql = isinstance(error, pymysql.err.ProgrammingError) and _number(error) not in _NO_SCHEMA
    if isinstance(error, pymysql.err.Error | OSError) and not wrong_sql:
        return _of_mysql(error)
    return error


def _of_mysql(error: Exception) -> CelltreeError:
    number = _number(error)
    if number in _LOST_RACE:
        return Conflict(f"{_LOST_RACE[number]}: {_text(error)}", retry_after=0.0)
    if number in _DOES_NOT_FIT:
        return Permanent(f"a value does not fit its column: {_text(error)}")
    if number in _NO_SCHEMA:
        return Temporary(f"the database schema does not fit this version ({_text(error)}); {UPGRADE}")
    if number in _NO_ACCESS:
        return Temporary(f"the database lets us not in ({_text(error)}); check the cell's database URL")
    return Temporary(f"the database does not answer as it should: {_text(error)}")


def _of_sqlite(error: sqlite3.Error) -> CelltreeError:
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Conflict(f"another unit is writing: {error}", retry_after=0.0)
    if code in (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE):
        return Conflict(f"a row with this key is there already: {error}", retry_after=0.0)
    if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.InterfaceError):
        return Permanent(f"a value does not fit its column: {error}")
    if isinstance(error, sqlite3.ProgrammingError) and "binding" in str(error):
        return Permanent(f"a value does not fit its column: {error}")
    if code == sqlite3.SQLITE_ERROR and "no such" in str(error):
        return Temporary(f"the database schema does not fit this version ({error}); {UPGRADE}")
    return Temporary(f"the database file cannot be used: {error}")


def _number(error: Exception) -> int:
    first: Any = error.args[0] if error.args else None
    return first if isinstance(first, int) else -1


def _text(error: Exception) -> str:
    return " ".join(str(part) for part in error.args) or type(error).__name__
