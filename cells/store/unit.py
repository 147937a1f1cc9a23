"""A unit of work over one transaction: reads each row once, keeps what is saved until the end, then writes it table by
table, many rows a statement.

Reads by key lock their rows until the end (when the unit locks), and a row that was read as absent is inserted, not
replaced, so that two units that both found nothing cannot both write: the later one is told Conflict and decides
again. `find` and `count` lock nothing. A row that was found and is saved is read again under its lock before it is
written: has another unit changed it meanwhile, this one is told Conflict. Other rows that a decision rests on are read
by key.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar, cast

from cells.decision import Remove
from cells.errors import Conflict
from cells.ports import After, Where
from cells.rows import CounterRow
from cells.store.database import Transaction
from cells.store.statements import MOST_KEYS, Statements
from cells.store.tables import Key, RowTable

R = TypeVar("R")
_UNKNOWN: Final = object()
_WRITE_ROWS = 500


class TableInUnit:
    """What a unit knows of one table: `known` holds every row read or saved (None: absent), `found` those found without
    a lock, `unsure` those of them that will be written; the rest is what is still to be written. A key is in at most
    one of inserts, saves and removes."""

    __slots__ = ("complete", "found", "inserts", "known", "removes", "saves", "statements", "table", "unsure")

    def __init__(self, table: RowTable, statements: Statements) -> None:
        self.table = table
        self.statements = statements
        self.known: dict[Key, Any] = {}
        self.found: dict[Key, Any] = {}
        self.unsure: dict[Key, Any] = {}
        self.inserts: dict[Key, Any] = {}
        self.saves: dict[Key, Any] = {}
        self.removes: dict[Key, None] = {}
        self.complete = False


class SqlUnit:
    """The Unit of cells.ports. Belongs to one thread; of no use after an error or after its end."""

    def __init__(
        self, transaction: Transaction, tables: dict[type, tuple[RowTable, Statements]], *, lock: bool, keep_found: bool
    ) -> None:
        self._transaction = transaction
        self._tables = tables
        self._lock = lock
        self._keep_found = keep_found
        self._used: dict[type, TableInUnit] = {}
        self._counters: set[str] = set()

    # --- reading ---

    def get(self, row: type[R], *key: Any) -> R | None:
        used = self._use(row)
        found = used.known.get(key, _UNKNOWN)
        if found is _UNKNOWN:
            if used.complete:
                return None
            self._read(used, (key,), lock=self._lock)
            found = used.known[key]
        return cast("R | None", found)  # known holds rows of this type only

    def get_many(self, row: type[R], keys: Sequence[tuple[Any, ...]]) -> dict[tuple[Any, ...], R]:
        used = self._use(row)
        if not used.complete:
            # In key order, so that two units that want the same rows wait for each other rather than deadlock.
            missing = sorted({key for key in keys if key not in used.known})
            for at in range(0, len(missing), MOST_KEYS):
                self._read(used, missing[at : at + MOST_KEYS], lock=self._lock)
        known = used.known
        return {key: found for key in keys if (found := known.get(key)) is not None}

    def all(self, row: type[R]) -> tuple[R, ...]:
        used = self._use(row)
        if not used.complete:
            statement = used.statements.every_locked if self._lock else used.statements.every
            self._keep(used, self._transaction.query(statement, ()))
            used.complete = True
        return tuple(found for _, found in sorted(used.known.items(), key=_key) if found is not None)

    def find(
        self,
        row: type[R],
        *where: Where,
        order: tuple[str, ...] = (),
        descending: bool = False,
        after: After | None = None,
        limit: int | None = None,
    ) -> tuple[R, ...]:
        used = self._use(row)
        query = used.statements.find(where, order, descending, after, limit)
        if query is None:
            return ()
        self._flush(used)
        values = self._transaction.query(*query)
        if self._keep_found:
            return tuple(self._keep(used, values))
        rows = tuple(map(used.table.read, values))
        if self._lock:
            used.found.update((used.table.key_of(found), found) for found in rows)
        return rows

    def count(self, row: type[Any], *where: Where) -> int:
        used = self._use(row)
        query = used.statements.count(where)
        if query is None:
            return 0
        self._flush(used)
        return int(self._transaction.query(*query)[0][0])

    # --- writing ---

    def save(self, *rows: Any) -> None:
        for row in rows:
            if isinstance(row, Remove):
                self._remove(row)
                continue
            used = self._use(type(row))
            key = used.table.key_of(row)
            if key in used.inserts:
                used.inserts[key] = row
            elif key in used.removes:
                del used.removes[key]
                used.saves[key] = row
            elif used.known.get(key, None if used.complete else _UNKNOWN) is None:
                used.inserts[key] = row
            else:
                if key in used.found and key not in used.known:
                    used.unsure[key] = used.found[key]
                used.saves[key] = row
            used.known[key] = row

    def insert(self, *rows: Any) -> None:
        """Insert each row. Conflict is raised here when this unit knows the row, else by the end of the unit."""
        for row in rows:
            used = self._use(type(row))
            key = used.table.key_of(row)
            if used.known.get(key) is not None:
                raise self._transaction.fail(
                    Conflict(f"{used.table.name} {key!r} is there already: decide again", retry_after=0.0)
                )
            if key in used.removes:
                del used.removes[key]
                used.saves[key] = row
            else:
                used.inserts[key] = row
            used.known[key] = row

    def count_up(self, name: str, by: int = 1) -> int:
        if name not in self._counters:
            if not self._lock:
                # What is known of it was read without a lock.
                used = self._use(CounterRow)
                self._flush(used)
                used.known.pop((name,), None)
                self._read(used, ((name,),), lock=True)
            self._counters.add(name)
        counter = self.get(CounterRow, name)
        value = (counter.value if counter is not None else 0) + by
        self.save(CounterRow(name=name, value=value))
        return value

    def commit(self) -> None:
        """Write what is left and commit. Called by the store when the `with` block ends well."""
        for each in self._used.values():
            if each.unsure:
                self._check_found(each)
        self._transaction.gather()
        for row in self._tables:  # always in the same order, against deadlocks
            used = self._used.get(row)
            if used is not None:
                self._flush(used)
        self._transaction.commit()

    # --- inside ---

    def _use(self, row: type) -> TableInUnit:
        used = self._used.get(row)
        if used is None:
            if row not in self._tables:
                raise TypeError(f"{row.__name__} is no row of this store: name it among the store's row types")
            used = self._used[row] = TableInUnit(*self._tables[row])
        return used

    def _read(self, used: TableInUnit, keys: Sequence[Key], *, lock: bool) -> None:
        self._keep(used, self._transaction.query(*used.statements.by_keys(keys, lock=lock)))
        for key in keys:
            used.known.setdefault(key, None)

    def _keep(self, used: TableInUnit, rows: Iterable[Sequence[Any]]) -> list[Any]:
        """Note rows as they were read; what the unit knows already wins."""
        table, known = used.table, used.known
        kept = []
        for values in rows:
            row = table.read(values)
            kept.append(known.setdefault(table.key_of(row), row))
        return kept

    def _remove(self, asked: Remove) -> None:
        used = self._use(asked.row)
        if asked.key in used.inserts:
            self._flush(used)  # so that a row that was there already is still found out
        used.saves.pop(asked.key, None)
        used.removes[asked.key] = None
        used.known[asked.key] = None

    def _check_found(self, used: TableInUnit) -> None:
        """Lock the rows that were found and will be written; Conflict when one is not as it was found."""
        keys = sorted(used.unsure)
        for at in range(0, len(keys), MOST_KEYS):
            values = self._transaction.query(*used.statements.by_keys(keys[at : at + MOST_KEYS], lock=True))
            now = {used.table.key_of(row): row for row in map(used.table.read, values)}
            for key in keys[at : at + MOST_KEYS]:
                if now.get(key) != used.unsure[key]:
                    text = f"{used.table.name} {key!r} has changed since it was found: decide again"
                    raise self._transaction.fail(Conflict(text, retry_after=0.0))
        used.unsure.clear()

    def _flush(self, used: TableInUnit) -> None:
        if used.unsure:
            self._check_found(used)
        if used.removes:
            keys = sorted(used.removes)
            used.removes.clear()
            for at in range(0, len(keys), MOST_KEYS):
                self._transaction.write_once(*used.statements.delete(keys[at : at + MOST_KEYS]))
        for rows, statement in ((used.inserts, used.statements.insert), (used.saves, used.statements.upsert)):
            if not rows:
                continue
            try:
                values = [used.table.write(row) for _, row in sorted(rows.items(), key=_key)]
            except Exception as error:
                raise self._transaction.fail(error) from error
            rows.clear()
            for at in range(0, len(values), _WRITE_ROWS):
                self._transaction.write(statement, values[at : at + _WRITE_ROWS])


def _key(item: tuple[Key, Any]) -> Key:
    return item[0]
