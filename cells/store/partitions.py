"""Rows that come by the million and go by the day: inbox marks, story lines, parked messages.

Their ids are UUIDv7, so that rows of a day lie together. On MariaDB such a table has a partition for each day, and an
old day is dropped as a whole, which costs nothing; SQLite, which has no partitions and fewer rows, deletes. Rows with
an id of no such day (a clock far ahead) are in the partition `rest`, where they are deleted one by one.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from cells.names import SECOND, Instant
from cells.rows import InboxRow, ParkedRow, StoryRow

Connect = Callable[[], AbstractContextManager[sa.Connection]]
DAY = 24 * 3600 * SECOND
DAYS_AHEAD = 3
_MOST_ROWS = 2000
_MOST_DELETES = 100
_REST = "rest"
_BY_DAY = "RANGE COLUMNS (id) (PARTITION rest VALUES LESS THAN (MAXVALUE))"

DAILY: tuple[type, ...] = (InboxRow, StoryRow, ParkedRow)


def options(row: type) -> dict[str, Any]:
    """What makes the table of this row type one of days."""
    return {f"{dialect}_partition_by": _BY_DAY for dialect in ("mysql", "mariadb")} if row in DAILY else {}


def roll(connect: Connect, row: type, table: str, now: Instant, keep: Instant) -> None:
    """Make the days to come and let go of the days gone: rows older than `keep`, inbox marks once expired."""
    with connect() as connection:
        by_day = _days(connection, table) if connection.dialect.name != "sqlite" else {}
        if by_day:
            # Changing partitions waits for the units that use the table, and makes later ones wait: not for long.
            connection.exec_driver_sql("SET SESSION lock_wait_timeout = 2")
            _add_days(connection, table, by_day, now)
            _drop_days(connection, row, table, by_day, now, keep)
    if not by_day or row is InboxRow:
        part = f" PARTITION ({_REST})" if by_day else ""
        for _ in range(_MOST_DELETES):
            with connect() as connection:
                if _delete(connection, row, table + part, now, keep) < _MOST_ROWS:
                    break


def first_id(at: Instant) -> bytes:
    """No UUIDv7 made at this instant or later is smaller."""
    return (max(at, 0) // 1000).to_bytes(6, "big") + bytes(10)


def _days(connection: sa.Connection, table: str) -> dict[str, datetime | None]:
    """The table's partitions and the days they hold, None for the rest; empty when it has none."""
    query = sa.text(
        "SELECT PARTITION_NAME FROM information_schema.PARTITIONS WHERE TABLE_SCHEMA = DATABASE() "
        "AND TABLE_NAME = :name AND PARTITION_NAME IS NOT NULL ORDER BY PARTITION_ORDINAL_POSITION"
    )
    names = connection.scalars(query, {"name": table})
    return {name: None if name == _REST else datetime.strptime(name, "p%Y%m%d").replace(tzinfo=UTC) for name in names}


def _add_days(connection: sa.Connection, table: str, by_day: dict[str, datetime | None], now: Instant) -> None:
    today = _day_of(now)
    newest = max((day for day in by_day.values() if day is not None), default=today - timedelta(days=1))
    day = max(newest + timedelta(days=1), today)
    parts = []
    while day <= today + timedelta(days=DAYS_AHEAD):
        end = first_id(_instant(day + timedelta(days=1)))
        parts.append(f"PARTITION p{day:%Y%m%d} VALUES LESS THAN (x'{end.hex()}')")
        day += timedelta(days=1)
    if parts:
        parts.append(f"PARTITION {_REST} VALUES LESS THAN (MAXVALUE)")
        connection.exec_driver_sql(f"ALTER TABLE `{table}` REORGANIZE PARTITION {_REST} INTO ({', '.join(parts)})")


def _drop_days(
    connection: sa.Connection, row: type, table: str, by_day: dict[str, datetime | None], now: Instant, keep: Instant
) -> None:
    for name, day in by_day.items():
        if day is None or day >= _day_of(now):
            continue
        if row is InboxRow:
            query = sa.text(f"SELECT 1 FROM `{table}` PARTITION ({name}) WHERE expires >= :now LIMIT 1")
            gone = connection.scalar(query, {"now": now}) is None
        else:
            gone = _instant(day) + DAY + keep <= now
        if gone:
            connection.exec_driver_sql(f"ALTER TABLE `{table}` DROP PARTITION {name}")


def _delete(connection: sa.Connection, row: type, source: str, now: Instant, keep: Instant) -> int:
    """Delete some of the rows that may go, so that no unit waits long; how many they were."""
    condition, value = ("expires < :value", now) if row is InboxRow else ("id < :value", first_id(now - keep))
    if connection.dialect.name == "sqlite":
        query = f"DELETE FROM {source} WHERE id IN (SELECT id FROM {source} WHERE {condition} LIMIT {_MOST_ROWS})"
    else:
        query = f"DELETE FROM {source} WHERE {condition} LIMIT {_MOST_ROWS}"
    return connection.execute(sa.text(query), {"value": value}).rowcount


def _day_of(at: Instant) -> datetime:
    return datetime.fromtimestamp(at // SECOND, UTC).replace(hour=0, minute=0, second=0)


def _instant(day: datetime) -> Instant:
    return int(day.timestamp()) * SECOND
