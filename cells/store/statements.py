"""SQL, compiled once per shape: a shape is a row type, the conditions without their values, the order. The unit asks
for a statement by shape and gives it to the driver with the values, each in its place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from cells.ports import After, Where
from cells.rows import TABLES
from cells.store.tables import RowTable

_COMPARISONS = {
    "=": "__eq__",
    "!=": "__ne__",
    "<": "__lt__",
    "<=": "__le__",
    ">": "__gt__",
    ">=": "__ge__",
}
# Lists of keys are filled up to these lengths with their last key, so that few statements are compiled.
_LENGTHS = tuple(2**n for n in range(10))
MOST_KEYS = _LENGTHS[-1]


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL text and the names of its values, in the order of their places; `fixed` are those of the dialect's own."""

    text: str
    places: tuple[str, ...]
    fixed: dict[str, Any]

    def values(self, named: dict[str, Any]) -> list[Any]:
        named = {**self.fixed, **named}
        return [named[place] for place in self.places]


@dataclass(frozen=True, slots=True)
class _Condition:
    """A Where without its value: `size` is how many values an `in` compares with; `null` that it compares with none."""

    column: str
    op: str
    size: int
    null: bool


class Statements:
    """Every statement over one table, in one dialect."""

    def __init__(self, table: RowTable, dialect: sa.Dialect) -> None:
        self._table = table
        self._dialect = dialect
        self._columns: dict[str, sa.Column[Any]] = dict(table.table.c.items())
        self._by_shape: dict[Any, Statement] = {}
        self.insert = self._compiled(sa.insert(table.table)).text
        self.upsert = self._upsert()
        self.every = self._compiled(self._select()).text
        self.every_locked = self._compiled(self._select().with_for_update()).text

    def by_keys(self, keys: Sequence[tuple[Any, ...]], *, lock: bool) -> tuple[str, list[Any]]:
        """SELECT the rows with these keys, at most MOST_KEYS."""
        return self._with_keys("select for update" if lock else "select", keys)

    def delete(self, keys: Sequence[tuple[Any, ...]]) -> tuple[str, list[Any]]:
        """DELETE the rows with these keys, at most MOST_KEYS."""
        return self._with_keys("delete", keys)

    def find(
        self,
        where: tuple[Where, ...],
        order: tuple[str, ...],
        descending: bool,
        after: After | None,
        limit: int | None,
    ) -> tuple[str, list[Any]] | None:
        """SELECT the rows that meet the conditions; None when no row can."""
        taken = self._conditions(where)
        if taken is None:
            return None
        conditions, named = taken
        shape = ("find", conditions, order, descending, after is not None, limit is not None)
        statement = self._by_shape.get(shape)
        if statement is None:
            clauses = self._clauses(conditions)
            columns = [self._comparable(name) for name in order]
            if after is not None:
                clauses.append(self._comes_after(order, descending))
                leader = self._leader(conditions, order)
                if leader is not None:
                    column = self._columns[conditions[leader].column]
                    value: sa.BindParameter[Any] = sa.bindparam(f"where{leader}")
                    clauses[leader] = sa.and_(column >= value, column <= value)
                    columns.insert(0, column)
            query = self._select().where(*clauses)
            query = query.order_by(*(column.desc() if descending else column for column in columns))
            if limit is not None:
                query = query.limit(sa.bindparam("limit", type_=sa.Integer()))
            statement = self._by_shape[shape] = self._compiled(query)
        if after is not None:
            if len(after.values) != len(order) or not order:
                raise ValueError(f"a marker of {len(after.values)} values does not fit the order {order}")
            named |= {
                f"after{n}": self._table.bound(name, value)
                for n, (name, value) in enumerate(zip(order, after.values, strict=True))
            }
        named["limit"] = limit
        return statement.text, statement.values(named)

    def count(self, where: tuple[Where, ...]) -> tuple[str, list[Any]] | None:
        """SELECT how many rows meet the conditions; None when no row can."""
        taken = self._conditions(where)
        if taken is None:
            return None
        conditions, named = taken
        shape = ("count", conditions)
        statement = self._by_shape.get(shape)
        if statement is None:
            query = sa.select(sa.func.count()).select_from(self._table.table).where(*self._clauses(conditions))
            statement = self._by_shape[shape] = self._compiled(query)
        return statement.text, statement.values(named)

    def _select(self) -> sa.Select[Any]:
        return sa.select(*self._columns.values())

    def _compiled(self, statement: sa.ClauseElement) -> Statement:
        compiled = statement.compile(dialect=self._dialect)
        assert isinstance(compiled, sa.Compiled)
        return Statement(str(compiled), tuple(getattr(compiled, "positiontup", None) or ()), dict(compiled.params))

    def _upsert(self) -> str:
        rest = [name for name in self._table.names if name not in self._table.key_names]
        if self._dialect.name == "sqlite":
            insert = sqlite.insert(self._table.table)
            clash = list(self._table.key_names)
            if not rest:
                return self._compiled(insert.on_conflict_do_nothing(index_elements=clash)).text
            changes = {name: insert.excluded[name] for name in rest}
            return self._compiled(insert.on_conflict_do_update(index_elements=clash, set_=changes)).text
        # VALUES(column) and not a row alias: MariaDB knows no alias, and PyMySQL joins many rows into one statement
        # only when nothing but ON DUPLICATE follows the values.
        quote = self._dialect.identifier_preparer.quote
        updates = ", ".join(f"{quote(name)} = VALUES({quote(name)})" for name in rest or self._table.key_names[:1])
        return f"{self.insert} ON DUPLICATE KEY UPDATE {updates}"

    def _with_keys(self, verb: str, keys: Sequence[tuple[Any, ...]]) -> tuple[str, list[Any]]:
        length = next(length for length in _LENGTHS if length >= len(keys))
        statement = self._by_shape.get((verb, length))
        if statement is None:
            clause = self._is_one_of(length)
            query: Any = sa.delete(self._table.table) if verb == "delete" else self._select()
            query = query.where(clause)
            if verb == "select for update":
                query = query.with_for_update()
            statement = self._by_shape[verb, length] = self._compiled(query)
        values = [value for key in keys for value in key]
        values.extend(keys[-1] * (length - len(keys)))
        return statement.text, values

    def _is_one_of(self, length: int) -> sa.ColumnElement[bool]:
        """The key is one of `length` keys, whose values are placed key after key."""
        columns = [self._columns[name] for name in self._table.key_names]
        if len(columns) == 1:
            if length == 1:
                clause: sa.ColumnElement[bool] = columns[0] == sa.bindparam("key0")
                return clause
            return columns[0].in_([sa.bindparam(f"key{n}") for n in range(length)])
        # Not (a, b) IN ((..), (..)): MariaDB reads ranges of an index for this form in every version.
        return sa.or_(
            *(sa.and_(*(column == sa.bindparam(f"key{n}_{column.name}") for column in columns)) for n in range(length))
        )

    def _conditions(self, where: tuple[Where, ...]) -> tuple[tuple[_Condition, ...], dict[str, Any]] | None:
        conditions = []
        named: dict[str, Any] = {}
        for n, asked in enumerate(where):
            size = 0
            if asked.op == "in":
                values = [self._table.bound(asked.column, value) for value in asked.value]
                if not values:
                    return None
                size = 1 << (len(values) - 1).bit_length()
                values.extend(values[-1:] * (size - len(values)))
                named |= {f"where{n}_{m}": value for m, value in enumerate(values)}
            elif asked.value is not None:
                named[f"where{n}"] = self._table.bound(asked.column, asked.value)
            conditions.append(_Condition(asked.column, asked.op, size, asked.value is None))
        return tuple(conditions), named

    def _leader(self, conditions: tuple[_Condition, ...], order: tuple[str, ...]) -> int | None:
        """Which condition, an equality, leads an index over the order. MariaDB would look up that index by the equality
        alone and read every row up to the marker; said as a range, and in the order too, it begins at the marker."""
        if self._dialect.name == "sqlite":
            return None
        for n, asked in enumerate(conditions):
            if asked.op == "=" and not asked.null and (asked.column, *order) in TABLES[self._table.row].indexes:
                return n
        return None

    def _comparable(self, name: str) -> sa.Column[Any]:
        self._table.column(name)
        return self._columns[name]

    def _clauses(self, conditions: tuple[_Condition, ...]) -> list[sa.ColumnElement[bool]]:
        return [self._clause(n, condition) for n, condition in enumerate(conditions)]

    def _clause(self, n: int, condition: _Condition) -> sa.ColumnElement[bool]:
        column = self._comparable(condition.column)
        if condition.null and condition.op in ("=", "!="):
            return column.is_(None) if condition.op == "=" else column.is_not(None)
        if condition.op == "in":
            return column.in_([sa.bindparam(f"where{n}_{m}") for m in range(condition.size)])
        if condition.op == "like":
            # lower() on both sides: the columns compare by bytes, and LIKE in SQLite folds ASCII only.
            pattern = sa.func.lower(sa.bindparam(f"where{n}", type_=sa.String()))
            return sa.func.lower(column).like(pattern, escape="\\")
        if condition.op not in _COMPARISONS:
            raise ValueError(f"no such comparison: {condition.op!r}; use one of {' '.join(_COMPARISONS)} in like")
        clause: sa.ColumnElement[bool] = getattr(column, _COMPARISONS[condition.op])(sa.bindparam(f"where{n}"))
        return clause

    def _comes_after(self, order: tuple[str, ...], descending: bool) -> sa.ColumnElement[bool]:
        """(a, b, c) > (x, y, z), written so that an index on a is read from x on: a >= x AND (a > x OR ...)."""
        columns = [self._comparable(name) for name in order]
        clause: sa.ColumnElement[bool] | None = None
        for n, column in reversed(list(enumerate(columns))):
            mark = sa.bindparam(f"after{n}", type_=column.type)
            past = column < mark if descending else column > mark
            if clause is None:
                clause = past
            else:
                reached = column <= mark if descending else column >= mark
                clause = sa.and_(reached, sa.or_(past, clause))
        assert clause is not None
        return clause
