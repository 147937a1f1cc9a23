"""What every store keeps to: one suite, on SQLite and on MariaDB."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from cells.decision import Remove
from cells.errors import BadInput, Conflict, Permanent, Temporary
from cells.ids import Ids
from cells.names import SECOND
from cells.ports import After, Where
from cells.rows import CounterRow, InboxRow, StoryRow
from cells.store import AnyStore as Store
from cells.store.sql import SqlStore
from tests.support.stores import AnyStore, NewUrl, OpenStore
from tests.support.things import THINGS, Colour, Pair, Part, Thing, id_of, thing


@pytest.fixture
def store(emptied_store: AnyStore) -> Store:
    return emptied_store(THINGS)


def saved(store: Store, *rows: object) -> None:
    with store.unit() as unit:
        unit.save(*rows)


def numbers(rows: tuple[Thing, ...]) -> list[int]:
    return [int.from_bytes(row.id, "big") for row in rows]


FULL = thing(
    7,
    project="Ünïcode 😀",
    created=2**62,
    group='it\'s "quoted" \\ % %s :name ?',
    order=-(2**63),
    colour=Colour.BLUE,
    notes="line\nline\0" + "x" * 70_000,
    ratio=0.1,
    on=True,
    data=bytes(range(256)) * 300,
    maybe=0,
    tint=Colour.RED,
    part=Part(name="one", size=1),
    parts=(Part(name="two"), Part(name="three", size=3)),
    spare=Part(name="spare"),
    extra={"a": [1, "b", None], "c": {"d": 2.5}},
)


# --- rows there and back ---


@pytest.mark.parametrize("row", [FULL, thing(1)], ids=["full", "empty"])
def test_row_comes_back_as_it_was_saved(store: Store, row: Thing) -> None:
    saved(store, row)
    with store.unit() as unit:
        assert unit.get(Thing, row.id) == row
    with store.unit() as unit:
        assert unit.find(Thing) == (row,)


def test_save_replaces_every_field(store: Store) -> None:
    saved(store, FULL)
    saved(store, Thing(id=FULL.id))
    with store.unit() as unit:
        assert unit.get(Thing, FULL.id) == Thing(id=FULL.id)


def test_strings_differ_by_case_and_accent(store: Store) -> None:
    saved(store, *(Pair(owner="o", name=name, value=n) for n, name in enumerate(("a", "A", "ä"))))
    with store.unit() as unit:
        assert unit.get(Pair, "o", "A") == Pair(owner="o", name="A", value=1)
        assert unit.find(Pair, Where(column="name", op="=", value="a")) == (Pair(owner="o", name="a", value=0),)
        assert unit.count(Pair) == 3


@pytest.mark.parametrize(
    "fields",
    [{"project": "x" * 256}, {"order": 2**63}, {"notes": "\ud800"}],
    ids=["too long", "too large", "half a character"],
)
def test_value_that_does_not_fit_is_permanent_and_nothing_is_saved(store: Store, fields: dict[str, object]) -> None:
    with pytest.raises(Permanent), store.unit() as unit:
        unit.save(Pair(owner="o", name="n"), thing(1, **fields))
    with store.unit() as unit:
        assert unit.count(Thing) == unit.count(Pair) == 0


def test_id_must_have_16_bytes(store: Store) -> None:
    with pytest.raises(Permanent, match=r"things\.id"), store.unit() as unit:
        unit.save(Thing(id=b"short"))


# --- a unit sees itself ---


def test_get_sees_earlier_saves(store: Store) -> None:
    saved(store, thing(1, order=1))
    with store.unit() as unit:
        unit.save(thing(1, order=2), thing(2))
        assert unit.get(Thing, id_of(1)) == thing(1, order=2)
        assert unit.get(Thing, id_of(2)) == thing(2)
        assert unit.get_many(Thing, [(id_of(n),) for n in (1, 2, 3)]) == {
            (id_of(1),): thing(1, order=2),
            (id_of(2),): thing(2),
        }


def test_get_sees_removal_and_a_later_save(store: Store) -> None:
    saved(store, thing(1, order=1), thing(2))
    with store.unit() as unit:
        unit.save(Remove(row=Thing, key=(id_of(1),)), Remove(row=Thing, key=(id_of(2),)))
        assert unit.get(Thing, id_of(1)) is None
        unit.save(thing(1, order=5))
        assert unit.get(Thing, id_of(1)) == thing(1, order=5)
    with store.unit() as unit:
        assert unit.all(Thing) == (thing(1, order=5),)


def test_find_and_count_see_earlier_saves(store: Store) -> None:
    saved(store, thing(1, order=1), thing(2, order=1), thing(3, order=3))
    with store.unit() as unit:
        unit.save(thing(1, order=9), Remove(row=Thing, key=(id_of(2),)), thing(4, order=1))
        where = Where(column="order", op="=", value=1)
        assert numbers(unit.find(Thing, where)) == [4]
        assert unit.count(Thing, where) == 1
        assert unit.count(Thing) == 3


def test_all_is_read_once_and_sees_saves(store: Store) -> None:
    saved(store, thing(1), thing(2), thing(3))
    with store.unit() as unit:
        unit.save(thing(4), Remove(row=Thing, key=(id_of(2),)))
        assert numbers(unit.all(Thing)) == [1, 3, 4]
        unit.save(thing(0), Remove(row=Thing, key=(id_of(3),)))
        assert numbers(unit.all(Thing)) == [0, 1, 4]
        assert unit.get(Thing, id_of(3)) is None
        assert unit.get(Thing, id_of(99)) is None
    with store.unit() as unit:
        assert numbers(unit.all(Thing)) == [0, 1, 4]


def test_a_row_is_read_once_a_unit(any_url: NewUrl, open_store: OpenStore) -> None:
    url = any_url()
    ours, theirs = open_store(url, THINGS), open_store(url, THINGS)
    ours.create_all()
    saved(ours, thing(1, order=1))
    with ours.unit(lock=False) as unit:
        assert unit.get(Thing, id_of(1)) == thing(1, order=1)
        saved(theirs, thing(1, order=2))
        assert unit.get(Thing, id_of(1)) == thing(1, order=1)


def test_removing_what_is_not_there_is_fine(store: Store) -> None:
    saved(store, Remove(row=Thing, key=(id_of(1),)), Remove(row=Pair, key=("o", "n")))


def test_many_rows_of_a_composite_key(store: Store) -> None:
    rows = [Pair(owner=f"o{n % 7}", name=f"n{n}", value=n) for n in range(1200)]
    saved(store, *rows)
    keys = [(row.owner, row.name) for row in rows]
    with store.unit() as unit:
        assert unit.get_many(Pair, [*keys, ("o", "absent")]) == dict(zip(keys, rows, strict=True))
    saved(store, *(Remove(row=Pair, key=key) for key in keys[:-1]))
    with store.unit() as unit:
        assert unit.all(Pair) == (rows[-1],)


# --- all or nothing ---


def test_nothing_is_saved_when_the_block_raises(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.unit() as unit:
        unit.save(thing(1))
        unit.count_up("c")
        assert unit.count(Thing) == 1
        raise ZeroDivisionError
    with store.unit() as unit:
        assert unit.all(Thing) == ()
        assert unit.get(CounterRow, "c") is None


def test_insert_of_a_row_that_is_there_is_conflict_and_nothing_is_saved(store: Store) -> None:
    saved(store, thing(1, order=1))
    with pytest.raises(Conflict), store.unit() as unit:
        unit.save(Pair(owner="o", name="n"))
        unit.insert(thing(2), thing(1, order=2))
    with store.unit() as unit:
        assert unit.all(Thing) == (thing(1, order=1),)
        assert unit.all(Pair) == ()


def test_insert_of_a_row_the_unit_has_seen_is_conflict_at_once(store: Store) -> None:
    saved(store, thing(1))
    with pytest.raises(Conflict), store.unit() as unit:
        unit.get(Thing, id_of(1))
        unit.insert(thing(1))
        pytest.fail("the insert went through")


def test_inserted_twice_in_one_unit_is_conflict(store: Store) -> None:
    with pytest.raises(Conflict), store.unit() as unit:
        unit.insert(InboxRow(id=id_of(1), expires=1))
        unit.insert(InboxRow(id=id_of(1), expires=1))
    with store.unit() as unit:
        assert unit.count(InboxRow) == 0


def test_removing_an_insert_still_finds_the_conflict(store: Store) -> None:
    saved(store, thing(1, order=1))
    with pytest.raises(Conflict), store.unit() as unit:
        unit.insert(thing(1))
        unit.save(Remove(row=Thing, key=(id_of(1),)))


def test_insert_after_remove_in_the_same_unit_replaces(store: Store) -> None:
    saved(store, thing(1, order=1))
    with store.unit() as unit:
        unit.save(Remove(row=Thing, key=(id_of(1),)))
        unit.insert(thing(1, order=2))
    with store.unit() as unit:
        assert unit.get(Thing, id_of(1)) == thing(1, order=2)


def test_unit_whose_error_was_swallowed_does_not_commit(store: Store) -> None:
    saved(store, thing(1, order=1))
    with pytest.raises(Conflict), store.unit() as unit:
        unit.save(thing(2))
        unit.insert(thing(1))
        try:
            unit.count(Thing)
        except Conflict:
            unit.save(thing(3))
    with store.unit() as unit:
        assert unit.all(Thing) == (thing(1, order=1),)


def test_store_works_on_after_a_failed_unit(store: Store) -> None:
    saved(store, thing(1))
    for _ in range(40):
        with pytest.raises(Conflict), store.unit() as unit:
            unit.insert(thing(1))
    saved(store, thing(2))
    with store.unit() as unit:
        assert numbers(unit.all(Thing)) == [1, 2]


def test_row_of_another_store_is_refused(any_store: AnyStore) -> None:
    with pytest.raises(TypeError, match="Thing"), any_store(()).unit() as unit:
        unit.save(thing(1))


def test_database_without_tables_names_the_remedy(any_url: NewUrl, open_store: OpenStore) -> None:
    store = open_store(any_url(), THINGS)
    with pytest.raises(Temporary, match="celltree db upgrade --cell"), store.unit() as unit:
        unit.get(Thing, id_of(1))


@pytest.mark.parametrize("url", ["", "no url", "postgresql://h/db", "sqlite+aiosqlite:///x"])
def test_url_of_no_known_kind_is_refused(url: str) -> None:
    with pytest.raises(BadInput, match="sqlite:///path"):
        SqlStore(url)


# --- find ---


@pytest.fixture
def fleet(store: Store) -> Store:
    saved(
        store,
        *(
            thing(n, project="ab"[n % 2], created=n // 4, order=n, group=f"Web-{n}", maybe=n if n % 3 else None)
            for n in range(1, 13)
        ),
    )
    return store


@pytest.mark.parametrize(
    ("column", "op", "value", "expected"),
    [
        ("order", "=", 3, [3]),
        ("order", "!=", 3, [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        ("order", "<", 3, [1, 2]),
        ("order", "<=", 3, [1, 2, 3]),
        ("order", ">", 10, [11, 12]),
        ("order", ">=", 10, [10, 11, 12]),
        ("order", "in", [5, 1, 99], [1, 5]),
        ("order", "in", [], []),
        ("group", "like", "wEB-1%", [1, 10, 11, 12]),
        ("group", "like", "eb-%", []),
        ("group", "like", "web-_", [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("group", "like", "web\\_%", []),
        ("maybe", "=", None, [3, 6, 9, 12]),
        ("maybe", "!=", None, [1, 2, 4, 5, 7, 8, 10, 11]),
        ("colour", "=", Colour.BLUE, []),
        ("colour", "in", (Colour.RED, Colour.BLUE), list(range(1, 13))),
        ("on", "=", False, list(range(1, 13))),
        ("id", "=", id_of(4), [4]),
        ("project", "=", "x" * 300, []),
    ],
)
def test_find_meets_its_condition(fleet: Store, column: str, op: str, value: object, expected: list[int]) -> None:
    with fleet.unit(lock=False) as unit:
        where = Where(column=column, op=op, value=value)
        assert numbers(unit.find(Thing, where, order=("id",))) == expected
        assert unit.count(Thing, where) == len(expected)


def test_like_folds_more_than_ascii(store: Store) -> None:
    saved(store, thing(1, group="ÄRGER"))
    with store.unit(lock=False) as unit:
        assert numbers(unit.find(Thing, Where(column="group", op="like", value="är%"))) == [1]


def test_find_meets_all_conditions(fleet: Store) -> None:
    with fleet.unit() as unit:
        found = unit.find(
            Thing,
            Where(column="project", op="=", value="a"),
            Where(column="order", op=">", value=6),
            order=("order",),
            descending=True,
        )
        assert numbers(found) == [12, 10, 8]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("order", [("created", "id"), ("project", "created", "id"), ("id",)])
def test_pages_by_marker_give_every_row_once_in_order(fleet: Store, order: tuple[str, ...], descending: bool) -> None:
    with fleet.unit(lock=False) as unit:
        everything = sorted(
            unit.all(Thing), key=lambda row: tuple(getattr(row, name) for name in order), reverse=descending
        )
        pages: list[Thing] = []
        after = None
        while page := unit.find(Thing, order=order, descending=descending, after=after, limit=5):
            pages.extend(page)
            after = After(values=tuple(getattr(page[-1], name) for name in order))
        assert pages == everything


@pytest.mark.parametrize(
    "where",
    [
        Where(column="part", op="=", value=Part(name="x")),
        Where(column="nothing", op="=", value=1),
        Where(column="order", op="; DROP TABLE things", value=1),
    ],
)
def test_condition_that_cannot_be_asked_is_a_mistake_of_the_program(store: Store, where: Where) -> None:
    with pytest.raises(ValueError), store.unit() as unit:
        unit.find(Thing, where)


# --- others ---


def test_two_stores_see_each_others_commits(any_url: NewUrl, open_store: OpenStore) -> None:
    url = any_url()
    ours, theirs = open_store(url, THINGS), open_store(url, THINGS)
    ours.create_all()
    saved(ours, thing(1))
    with theirs.unit() as unit:
        assert unit.get(Thing, id_of(1)) == thing(1)
        unit.save(thing(2))
    with ours.unit(lock=False) as unit:
        assert numbers(unit.all(Thing)) == [1, 2]


def test_nothing_is_seen_by_others_before_the_commit(any_url: NewUrl, open_store: OpenStore) -> None:
    url = any_url()
    ours, theirs = open_store(url, THINGS), open_store(url, THINGS)
    ours.create_all()
    with ours.unit() as unit:
        unit.save(thing(1))
        assert unit.count(Thing) == 1
        with theirs.unit(lock=False) as other:
            assert other.count(Thing) == 0


def test_writers_wait_for_each_other_and_no_step_is_lost(any_url: NewUrl, open_store: OpenStore) -> None:
    url = any_url()
    stores = [open_store(url, THINGS) for _ in range(2)]
    stores[0].create_all()
    saved(stores[0], thing(1, order=0), CounterRow(name="c", value=0))
    together = threading.Barrier(4)

    def work(store: Store) -> list[int]:
        counted = []
        together.wait()
        for _ in range(15):
            with store.unit() as unit:
                counted.append(unit.count_up("c"))
                row = unit.get(Thing, id_of(1))
                assert row is not None
                unit.save(replace(row, order=row.order + 1))
        return counted

    with ThreadPoolExecutor(4) as pool:
        counted = [number for part in pool.map(work, [*stores, *stores]) for number in part]
    assert sorted(counted) == list(range(1, 61))
    with stores[0].unit() as unit:
        assert unit.get(Thing, id_of(1)) == thing(1, order=60)


def test_two_units_that_found_nothing_do_not_both_write(any_url: NewUrl, open_store: OpenStore) -> None:
    url = any_url()
    ours, theirs = open_store(url, THINGS, lock_wait=0), open_store(url, THINGS, lock_wait=0)
    ours.create_all()
    with pytest.raises(Conflict), ours.unit(lock=False) as unit:
        assert unit.get(Thing, id_of(1)) is None
        saved(theirs, thing(1, order=1))
        unit.save(thing(1, order=2))
    with ours.unit() as unit:
        assert unit.get(Thing, id_of(1)) == thing(1, order=1)


def test_who_waits_too_long_is_told_conflict_and_saves_nothing(any_url: NewUrl, open_store: OpenStore) -> None:
    url = any_url()
    ours, theirs = open_store(url, THINGS, lock_wait=0), open_store(url, THINGS, lock_wait=0)
    ours.create_all()
    saved(ours, thing(1))
    with ours.unit() as unit:
        unit.get(Thing, id_of(1))
        unit.save(thing(1, order=1))
        with pytest.raises(Conflict), theirs.unit() as other:
            other.save(thing(2))
            other.count(Thing)
            other.get(Thing, id_of(1))
    with ours.unit() as unit:
        assert unit.all(Thing) == (thing(1, order=1),)


def test_counter_starts_at_one_and_grows_by_what_is_asked(store: Store) -> None:
    with store.unit() as unit:
        assert [unit.count_up("a"), unit.count_up("a", 5), unit.count_up("b")] == [1, 6, 1]
    with store.unit(lock=False) as unit:
        assert unit.count_up("a") == 7


def test_commits_are_counted_and_empty_units_are_not(store: Store) -> None:
    before = store.stats().commits
    saved(store, thing(1))
    with store.unit() as unit:
        unit.get(Thing, id_of(1))
    assert store.stats().commits == before + 1


def test_store_in_memory_is_shared_by_threads() -> None:
    store = SqlStore("sqlite://", THINGS)
    store.create_all()

    def work(n: int) -> None:
        with store.unit() as unit:
            unit.save(thing(n))
            unit.count_up("c")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(40)))
    with store.unit(lock=False) as unit:
        assert unit.count(Thing) == 40
        assert unit.count_up("c") == 41
    store.close()


# --- rows that go by the day ---

DAY = 24 * 3600 * SECOND
NOW = 1_768_000_000 * SECOND


def made_at(at: int, number: int = 0) -> bytes:
    """A UUIDv7 of that instant."""
    return Ids(lambda: at, lambda size: number.to_bytes(size, "big"))()


def a_line(at: int) -> StoryRow:
    return StoryRow(id=made_at(at), server=bytes(16), request="", at=at, cell="c", event="e")


def test_roll_keeps_what_is_young_and_lets_old_days_go(any_store: AnyStore) -> None:
    store = any_store(THINGS)
    for day in range(0, 60, 12):
        store.roll(NOW + day * DAY)
        saved(store, a_line(NOW + day * DAY))
    store.roll(NOW + 60 * DAY)
    with store.unit() as unit:
        ages = [(NOW + 60 * DAY - line.at) // DAY for line in unit.find(StoryRow, order=("id",), descending=True)]
    assert ages == [12, 24]


def test_roll_never_lets_go_of_an_inbox_mark_that_has_not_expired(any_store: AnyStore) -> None:
    store = any_store(THINGS)
    store.roll(NOW)
    far_ahead = NOW + 1000 * DAY
    marks = [
        InboxRow(id=made_at(NOW, 1), expires=NOW + 3 * DAY),
        InboxRow(id=made_at(NOW - 100 * DAY, 2), expires=NOW + 3 * DAY),
        InboxRow(id=made_at(far_ahead, 3), expires=NOW + 3 * DAY),
        InboxRow(id=made_at(NOW + DAY, 4), expires=NOW + 9 * DAY),
    ]
    saved(store, *marks)
    store.roll(NOW + 3 * DAY)
    with store.unit() as unit:
        assert set(unit.all(InboxRow)) == set(marks)
    store.roll(NOW + 5 * DAY)
    with store.unit() as unit:
        assert unit.all(InboxRow) == (marks[3],)


def test_roll_again_changes_nothing(any_store: AnyStore) -> None:
    store = any_store(THINGS)
    saved(store, a_line(NOW))
    for _ in range(3):
        store.roll(NOW)
    with store.unit() as unit:
        assert unit.all(StoryRow) == (a_line(NOW),)
        assert unit.get(StoryRow, made_at(NOW)) == a_line(NOW)
