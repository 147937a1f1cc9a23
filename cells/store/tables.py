"""Tables from row types: what @row and the annotations say, as SQLAlchemy Core tables and as converters between a row
and the tuple of values a driver takes. Read by statements (the tables) and by the unit (the converters).

Everything about a row type is worked out once, so that reading a row is one tuple in, a few column conversions, one
constructor call.
"""

import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import partial
from operator import attrgetter
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from cells import codec
from cells.errors import CelltreeError, Permanent
from cells.rows import MACHINERY, TABLES
from cells.store import partitions

Convert = Callable[[Any], Any]
Key = tuple[Any, ...]

STRING_LENGTH = 255
_MYSQL = ("mysql", "mariadb")

# utf8mb4_bin: names differ by case and accents, as they do in SQLite and in Python. (Trailing spaces do not make two
# names in MariaDB; who takes names from people refuses those.)
_TABLE_OPTIONS: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in _MYSQL
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}

ID = sa.LargeBinary(16).with_variant(mysql.BINARY(16), *_MYSQL)
STRING = sa.String(STRING_LENGTH)
TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), *_MYSQL)
ENUM = sa.String(32)
BLOB = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), *_MYSQL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """How one field is kept. `write` and `read` are None where the value goes in or comes out as it is. `packed`
    columns cannot be compared in SQL."""

    name: str
    type: sa.types.TypeEngine[Any]
    nullable: bool
    write: Convert | None = None
    read: Convert | None = None
    packed: bool = False


def _checked(length: int, exactly: bool, value: Any) -> Any:
    size = len(value)
    if size > length or (exactly and size != length):
        raise ValueError(f"{'must be' if exactly else 'takes at most'} {length} long, not {size}")
    return value


_SCALARS: dict[Any, tuple[sa.types.TypeEngine[Any], Convert | None, Convert | None]] = {
    Annotated[bytes, "id"]: (ID, partial(_checked, 16, True), None),
    Annotated[str, "text"]: (TEXT, None, None),
    str: (STRING, partial(_checked, STRING_LENGTH, False), None),
    int: (sa.BigInteger(), None, None),
    float: (sa.Double(), None, None),
    bool: (sa.Boolean(), int, bool),
    bytes: (BLOB, None, None),
}


def _column(name: str, hint: Any) -> Column:
    nullable = False
    if get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint):
        nullable = True
        rest = tuple(arg for arg in get_args(hint) if arg is not type(None))
        hint = Union[rest]  # noqa: UP007  the members are only known here
    if hint in _SCALARS:
        kind, write, read = _SCALARS[hint]
        return Column(name=name, type=kind, nullable=nullable, write=write, read=read)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        members = {member.value: member for member in hint}
        return Column(name=name, type=ENUM, nullable=nullable, write=str, read=members.__getitem__)
    return Column(
        name=name, type=BLOB, nullable=nullable, write=codec.pack, read=partial(codec.unpack, hint), packed=True
    )


class RowTable:
    """One row type as a table."""

    def __init__(self, row: type, metadata: sa.MetaData) -> None:
        declared = TABLES[row]
        hints = get_type_hints(row, include_extras=True)
        self.row = row
        self.name = declared.name
        self.key_names = declared.key
        self.columns = {f.name: _column(f.name, hints[f.name]) for f in fields(row)}
        self.names = tuple(self.columns)
        self.table = sa.Table(
            self.name,
            metadata,
            *(
                sa.Column(c.name, c.type, primary_key=c.name in declared.key, nullable=c.nullable, autoincrement=False)
                for c in self.columns.values()
            ),
            *(sa.Index(f"ix_{self.name}_{'_'.join(index)}", *index) for index in declared.indexes),
            **_TABLE_OPTIONS,
            **partitions.options(row),
        )
        self.key_of: Callable[[Any], Key] = _tuple_getter(self.key_names)
        self._values_of = _tuple_getter(self.names)
        self._writers = _by_position(self.columns, "write")
        self._readers = _by_position(self.columns, "read")

    def write(self, row: Any) -> list[Any]:
        """The values of a row, in column order, as the driver takes them; Permanent names a field that does not fit."""
        values = list(self._values_of(row))
        try:
            for at, convert in self._writers:
                value = values[at]
                if value is not None:
                    values[at] = convert(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise Permanent(f"{self.name}.{self.names[at]} of row {self.key_of(row)!r}: {error}") from error
        return values

    def read(self, values: Iterable[Any]) -> Any:
        """The row that has these values, which come in column order."""
        fresh = list(values)
        try:
            for at, convert in self._readers:
                value = fresh[at]
                if value is not None:
                    fresh[at] = convert(value)
        except (CelltreeError, LookupError, ValueError, TypeError) as error:
            raise Permanent(
                f"{self.name}.{self.names[at]} holds a value this version does not know ({error}): "
                "run the version of celltree that wrote it, or a newer one"
            ) from error
        return self.row(**dict(zip(self.names, fresh, strict=True)))

    def bound(self, name: str, value: Any) -> Any:
        """A value to compare a column with, as the driver takes it."""
        column = self.column(name)
        if value is None or column.write is None or column.type is STRING or column.type is ID:
            return value  # a value that is too long for the column meets no row; that is an answer, not an error
        return column.write(value)

    def column(self, name: str) -> Column:
        """The column of this name, which must be one SQL can compare."""
        column = self.columns.get(name)
        if column is None or column.packed:
            raise ValueError(f"{self.name} has no column {name!r} to compare or order by")
        return column


def _tuple_getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    only = attrgetter(names[0])
    return lambda row: (only(row),)


def _by_position(columns: dict[str, Column], which: str) -> tuple[tuple[int, Convert], ...]:
    converters = ((at, getattr(column, which)) for at, column in enumerate(columns.values()))
    return tuple((at, convert) for at, convert in converters if convert is not None)


def row_tables(row_types: Iterable[type]) -> tuple[sa.MetaData, dict[type, RowTable]]:
    """The tables of a cell: every cell's machinery rows and these, each once, in an order that never changes."""
    metadata = sa.MetaData()
    return metadata, {row: RowTable(row, metadata) for row in dict.fromkeys((*MACHINERY, *row_types))}
