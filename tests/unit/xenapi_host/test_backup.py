"""Which base a backup builds upon, or why it is a full one."""

import pytest

from cells.model import Incremental
from xenapi_host.driver.backup import Base, base_of, choose

KEPT = Base(image="monday", identity="5f1c", disks=3, deltas=1)
WANTED = Incremental(bases=("tuesday", "monday"), most=3)


def test_kept_snapshot_of_an_image_that_is_there_is_the_base() -> None:
    assert choose(KEPT, WANTED) == KEPT


@pytest.mark.parametrize(
    ("kept", "wanted", "why"),
    [
        (None, WANTED, "no base on its storage"),
        (KEPT, Incremental(bases=("tuesday",)), "monday, which it would build upon"),
        (KEPT, Incremental(bases=("monday",), most=1), "1 incremental ones since"),
        (Base(image="monday", identity="5f1c", disks=16, deltas=0), WANTED, "as long a chain"),
    ],
    ids=["first", "image gone", "enough of them", "too long"],
)
def test_backup_is_a_full_one_for_a_reason(kept: Base | None, wanted: Incremental, why: str) -> None:
    choice = choose(kept, wanted)
    assert isinstance(choice, str) and why in choice


def test_what_a_kept_snapshot_says_is_read_back_and_nonsense_is_no_base() -> None:
    assert base_of(str(KEPT)) == KEPT
    assert [base_of(text) for text in ("", "a b c", "a b x 1", "a b 1 -1")] == [None] * 4
