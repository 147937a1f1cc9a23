"""A unit of either store behaves as a dict would: whatever is saved, inserted and removed is what is then read."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cells.decision import Remove
from cells.errors import Conflict
from cells.ports import Unit, Where
from cells.store import open_store
from tests.support.things import THINGS, Pair

KEYS = [("a", "x"), ("a", "y"), ("b", "x")]


@dataclass(frozen=True)
class Step:
    """One thing done to a unit: `word`, with a row's key and value where it takes one."""

    word: str
    key: tuple[str, str]
    value: int


steps = st.builds(
    Step,
    st.sampled_from(["save", "insert", "remove", "get", "get_many", "all", "find", "count"]),
    st.sampled_from(KEYS),
    st.integers(0, 2),
)
units = st.lists(st.tuples(st.booleans(), st.booleans(), st.lists(steps, max_size=8)), max_size=5)


class Abandoned(Exception):
    """The unit is given up on purpose."""


def act(unit: Unit, model: dict[tuple[str, str], int], step: Step) -> None:
    """Do one step to both; raises what the unit raises."""
    row = Pair(owner=step.key[0], name=step.key[1], value=step.value)
    rows = tuple(Pair(owner=key[0], name=key[1], value=value) for key, value in sorted(model.items()))
    reads: dict[str, Callable[[], bool]] = {
        "get": lambda: unit.get(Pair, *step.key) == next((r for r in rows if (r.owner, r.name) == step.key), None),
        "get_many": lambda: unit.get_many(Pair, KEYS) == {(r.owner, r.name): r for r in rows},
        "all": lambda: unit.all(Pair) == rows,
        "find": lambda: (
            unit.find(Pair, Where(column="value", op="=", value=step.value), order=("owner", "name"))
            == tuple(r for r in rows if r.value == step.value)
        ),
        "count": lambda: (
            unit.count(Pair, Where(column="owner", op="=", value="a")) == sum(r.owner == "a" for r in rows)
        ),
    }
    if step.word in reads:
        assert reads[step.word]()
    elif step.word == "remove":
        unit.save(Remove(row=Pair, key=step.key))
        model.pop(step.key, None)
    else:
        clash = step.word == "insert" and step.key in model
        (unit.insert if step.word == "insert" else unit.save)(row)
        model[step.key] = step.value
        if clash:
            raise InsertedTwice


class InsertedTwice(Exception):
    """The model knows that this unit must end in Conflict; the unit may say so now or by its end."""


@pytest.mark.parametrize("url", ["dict://", "sqlite://"])
@settings(max_examples=150, deadline=None)
@given(plan=units)
def test_unit_reads_what_a_dict_would(url: str, plan: list[tuple[bool, bool, list[Step]]]) -> None:
    store = open_store(url, THINGS)
    store.create_all()
    model: dict[tuple[str, str], int] = {}
    for lock, keep, todo in plan:
        draft = dict(model)
        clashed = False
        try:
            with store.unit(lock=lock) as unit:
                for step in todo:
                    try:
                        act(unit, draft, step)
                    except InsertedTwice:
                        clashed = True
                        break
                if not keep and not clashed:
                    raise Abandoned
        except Abandoned:
            continue
        except Conflict:
            assert any(step.word == "insert" for step in todo)
            known = {step.key for step in todo if step.word == "insert"}
            assert known & (set(model) | set(draft)), "Conflict without a clash"
            continue
        assert not clashed, "two rows of one key were both inserted"
        model = draft
    with store.unit(lock=False) as unit:
        assert {(row.owner, row.name): row.value for row in unit.all(Pair)} == model
    store.close()


def test_the_dict_would_notice_a_lost_save() -> None:
    store = open_store("dict://", THINGS)
    store.create_all()
    with pytest.raises(AssertionError), store.unit() as unit:
        act(unit, {("a", "x"): 1}, Step("all", ("a", "x"), 0))
    store.close()
