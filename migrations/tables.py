"""The few words that revisions are written in. Never changed in meaning: revisions of all times use them."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

_MYSQL = ("mysql", "mariadb")


def identity(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    """A UUID, 16 bytes."""
    return sa.Column(name, sa.LargeBinary(16).with_variant(mysql.BINARY(16), *_MYSQL), nullable=nullable)


def string(name: str, length: int = 255, *, nullable: bool = False) -> sa.Column[Any]:
    """A short text."""
    return sa.Column(name, sa.String(length), nullable=nullable)


def state(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    """One of a few words."""
    return string(name, 32, nullable=nullable)


def text(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    """A text of any length."""
    return sa.Column(name, sa.Text().with_variant(mysql.MEDIUMTEXT(), *_MYSQL), nullable=nullable)


def integer(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    """A number of 64 bits; also an instant."""
    return sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=nullable)


def double(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    """A floating point number."""
    return sa.Column(name, sa.Double(), nullable=nullable)


def boolean(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    """Yes or no."""
    return sa.Column(name, sa.Boolean(), nullable=nullable)


def blob(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    """Bytes of any length, or a packed value."""
    return sa.Column(name, sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), *_MYSQL), nullable=nullable)


def create_table(
    name: str,
    *columns: sa.Column[Any],
    key: tuple[str, ...],
    indexes: tuple[tuple[str, ...], ...] = (),
    partition_by: str = "",
) -> None:
    """Create a table and its indexes; `partition_by` is for MariaDB. What is there already is left: MariaDB cannot take
    back half a revision, so an interrupted one is run again from its beginning."""
    there = sa.inspect(op.get_bind())
    if not there.has_table(name):
        options: dict[str, Any] = {
            f"{dialect}_{option}": value
            for dialect in _MYSQL
            for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
        }
        if partition_by:
            options |= {f"{dialect}_partition_by": partition_by for dialect in _MYSQL}
        op.create_table(name, *columns, sa.PrimaryKeyConstraint(*key), **options)
        there = sa.inspect(op.get_bind())
    existing = {index["name"] for index in there.get_indexes(name)}
    for index in indexes:
        index_name = f"ix_{name}_{'_'.join(index)}"
        if index_name not in existing:
            op.create_index(index_name, name, list(index))
